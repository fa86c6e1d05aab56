-- The bound of one variant follows from the pulls of all of them, also from those that update_bandit_arm_performance reports.

ALTER TABLE bandit_learning ADD COLUMN IF NOT EXISTS bounded_pulls numeric;
ALTER TABLE bandit_learning ADD COLUMN IF NOT EXISTS bounded_alpha numeric;
COMMENT ON COLUMN bandit_learning.bounded_pulls IS 'sum of total_pulls of the arms for which confidence_bound of the variants stands; null: it has to be computed';
COMMENT ON COLUMN bandit_learning.bounded_alpha IS 'the sum of alpha likewise';
COMMENT ON COLUMN bandit_decisions.snapshot_version IS 'how far folding was when the arms that the choice was made from were read: events of earlier transactions were known; larger is newer, on all replicas; null where nothing was chosen';
