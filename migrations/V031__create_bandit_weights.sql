-- Weights of bandits over variants: every batch of constant weights is an epoch.

ALTER TABLE experiment_epochs ADD COLUMN IF NOT EXISTS adaptive_of integer;
COMMENT ON COLUMN experiment_epochs.adaptive_of IS 'epoch in force for the control share of a bandit, which is split evenly and stands still; null: the epoch was opened by a person';

ALTER TABLE user_experiment_assignments ADD COLUMN IF NOT EXISTS propensity double precision;
COMMENT ON COLUMN user_experiment_assignments.propensity IS 'probability with which a bandit drew this variant, in the epoch of the assignment; null: not drawn by a bandit';
