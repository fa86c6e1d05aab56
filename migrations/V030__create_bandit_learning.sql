-- What bandits learn. A pull is an impression of an arm; everything here follows from events and is folded exactly once.

CREATE TABLE IF NOT EXISTS bandit_learning (
    experiment_id bigint NOT NULL,
    arm_type text NOT NULL CHECK (arm_type IN ('variant', 'item', 'brand', 'category', 'algorithm')),
    attribution_seconds bigint NOT NULL CHECK (attribution_seconds > 0),
    rewards jsonb NOT NULL CHECK (jsonb_typeof(rewards) = 'object'),
    by_value boolean NOT NULL DEFAULT false,
    max_reward numeric NOT NULL CHECK (max_reward > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    tx_id bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    PRIMARY KEY (experiment_id, arm_type)
);
COMMENT ON TABLE bandit_learning IS 'which arms an experiment learns about, and how rewards are counted; fixed when it begins to learn, so that a recount finds the same';
COMMENT ON COLUMN bandit_learning.arm_type IS 'variant: written when a bandit has started; the others: when they are ranked for the first time';
COMMENT ON COLUMN bandit_learning.attribution_seconds IS 'an impression without a reward is a failure after so many seconds';
COMMENT ON COLUMN bandit_learning.rewards IS 'event type to what it is worth; each kind counts once for an impression';
COMMENT ON COLUMN bandit_learning.by_value IS 'the value of the event counts instead';
COMMENT ON COLUMN bandit_learning.max_reward IS 'the most that one impression earns';
COMMENT ON COLUMN bandit_learning.tx_id IS 'events of earlier transactions are not learned from; 0: all are';

CREATE TABLE IF NOT EXISTS bandit_pulls (
    arm_row_id bigint NOT NULL,
    event_row_id bigint NOT NULL,
    experiment_id bigint NOT NULL,
    unit text NOT NULL,
    occurred_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    decision_id text,
    position integer,
    bucket timestamptz NOT NULL,
    outcome smallint NOT NULL DEFAULT 0 CHECK (outcome BETWEEN 0 AND 2),
    reward numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (arm_row_id, event_row_id)
) WITH (fillfactor = 85);
COMMENT ON TABLE bandit_pulls IS 'impressions of arms and what became of them; units that are left out of the analysis have none';
COMMENT ON COLUMN bandit_pulls.arm_row_id IS 'bandit_arms.id';
COMMENT ON COLUMN bandit_pulls.event_row_id IS 'experiment_events.id of the impression';
COMMENT ON COLUMN bandit_pulls.due_at IS 'the end of the attribution window';
COMMENT ON COLUMN bandit_pulls.bucket IS 'row of bandit_arm_hours in which it is counted';
COMMENT ON COLUMN bandit_pulls.outcome IS '0: not known yet; 1: no reward within the window; 2: rewarded';
-- Rewards look for the latest impression of their unit and arm, and a login renames a unit's.
CREATE INDEX IF NOT EXISTS bandit_pulls_unit ON bandit_pulls (experiment_id, unit, arm_row_id, occurred_at);
-- Windows that have passed.
CREATE INDEX IF NOT EXISTS bandit_pulls_due ON bandit_pulls (due_at) WHERE outcome = 0;

CREATE TABLE IF NOT EXISTS bandit_rewards (
    arm_row_id bigint NOT NULL,
    event_row_id bigint NOT NULL,
    experiment_id bigint NOT NULL,
    unit text NOT NULL,
    occurred_at timestamptz NOT NULL,
    event_type text NOT NULL,
    amount numeric NOT NULL,
    decision_id text,
    pull_id bigint,
    PRIMARY KEY (arm_row_id, event_row_id)
);
COMMENT ON TABLE bandit_rewards IS 'rewards and the impressions that they are credited to';
COMMENT ON COLUMN bandit_rewards.pull_id IS 'event_row_id of the pull that it is credited to; null: none is known yet';
CREATE INDEX IF NOT EXISTS bandit_rewards_unit ON bandit_rewards (experiment_id, unit, arm_row_id, occurred_at);
CREATE INDEX IF NOT EXISTS bandit_rewards_pull ON bandit_rewards (arm_row_id, pull_id) WHERE pull_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS bandit_arm_hours (
    arm_row_id bigint NOT NULL,
    bucket timestamptz NOT NULL,
    experiment_id bigint NOT NULL,
    pending bigint NOT NULL DEFAULT 0,
    pulls bigint NOT NULL DEFAULT 0,
    successes bigint NOT NULL DEFAULT 0,
    reward numeric NOT NULL DEFAULT 0,
    reward_sq numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, arm_row_id, bucket)
) WITH (fillfactor = 75);
COMMENT ON TABLE bandit_arm_hours IS 'exact counts of an arm by UTC hour of the impression; discounts and windows are applied when they are read';
COMMENT ON COLUMN bandit_arm_hours.bucket IS 'begin of the hour; the hour of a reset has a second row, which begins with the reset';
COMMENT ON COLUMN bandit_arm_hours.pending IS 'impressions whose outcome is not known yet';
COMMENT ON COLUMN bandit_arm_hours.pulls IS 'impressions whose outcome is known';
COMMENT ON COLUMN bandit_arm_hours.reward_sq IS 'sum of the squares of rewards';

-- A reset is a cut-off: what is counted in rows of bandit_arm_hours that begin earlier, and updates that were reported
-- earlier, no longer speak for the arm. Nothing is deleted.
ALTER TABLE bandit_arms ADD COLUMN IF NOT EXISTS reset_tx bigint;
ALTER TABLE bandit_arms ADD COLUMN IF NOT EXISTS folded_pulls bigint NOT NULL DEFAULT 0;
ALTER TABLE bandit_arms ADD COLUMN IF NOT EXISTS folded_successes bigint NOT NULL DEFAULT 0;
ALTER TABLE bandit_arms ADD COLUMN IF NOT EXISTS folded_reward numeric NOT NULL DEFAULT 0;
COMMENT ON COLUMN bandit_arms.alpha IS '1 + successes';
COMMENT ON COLUMN bandit_arms.beta IS '1 + failures';
COMMENT ON COLUMN bandit_arms.total_pulls IS 'pulls whose outcome is known, from events and from update_bandit_arm_performance';
COMMENT ON COLUMN bandit_arms.reset_at IS 'what happened earlier does not count';
COMMENT ON COLUMN bandit_arms.reset_tx IS 'transaction of the reset';
COMMENT ON COLUMN bandit_arms.folded_pulls IS 'the part of total_pulls that comes from events; folded_successes and folded_reward likewise';

-- Arms whose row has to catch up with bandit_arm_hours. Not done where counts are folded: update_bandit_arm_performance
-- writes the same rows at any moment, and would make passes of folding fail.
CREATE TABLE IF NOT EXISTS bandit_stale_arms (
    arm_row_id bigint PRIMARY KEY
);

-- A pull that somebody else counts. The moment is read when the arm's row is locked, as that of a reset is, so that
-- a replay of the updates since the reset finds what the row says.
CREATE OR REPLACE FUNCTION update_bandit_arm_performance(p_arm_id bigint, p_reward numeric, p_success boolean)
RETURNS void LANGUAGE sql AS $$
    WITH arm AS (
        UPDATE bandit_arms SET
            total_pulls = total_pulls + 1,
            total_reward = total_reward + p_reward,
            average_reward = ((total_reward + p_reward) / (total_pulls + 1))::double precision,
            alpha = alpha + CASE WHEN p_success THEN 1 ELSE 0 END,
            beta = beta + CASE WHEN p_success THEN 0 ELSE 1 END,
            updated_at = now()
        WHERE id = p_arm_id
        RETURNING id, experiment_id, arm_type, arm_id, total_pulls, total_reward, average_reward),
    variant AS (
        UPDATE experiment_variants v SET
            pulls = arm.total_pulls, rewards = arm.total_reward, average_reward = arm.average_reward
        FROM arm
        WHERE arm.arm_type = 'variant' AND v.experiment_id = arm.experiment_id AND v.id::text = arm.arm_id)
    INSERT INTO bandit_arm_updates (arm_row_id, reward, success, created_at)
    SELECT id, p_reward, p_success, clock_timestamp() FROM arm
$$;

ALTER TABLE fold_state ADD COLUMN IF NOT EXISTS matured_at timestamptz NOT NULL DEFAULT 'epoch';
COMMENT ON COLUMN fold_state.matured_at IS 'attribution windows that ended by then have passed, by the clock of the database';
