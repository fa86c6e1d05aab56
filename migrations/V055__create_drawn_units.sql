-- Only units that a bandit drew have a propensity, and only they may be weighted by it.

ALTER TABLE unit_totals ADD COLUMN IF NOT EXISTS drawn boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN unit_totals.drawn IS 'whether the assignment has a propensity: a bandit drew the variant';

-- A table beside variant_moments, because most experiments have no such units, and because end-of-day snapshots copy that
-- table's columns.
CREATE TABLE IF NOT EXISTS variant_drawn_units (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    units bigint NOT NULL DEFAULT 0,
    clicking_units bigint NOT NULL DEFAULT 0,
    add_to_cart_units bigint NOT NULL DEFAULT 0,
    purchasing_units bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, variant_id, epoch)
);
COMMENT ON TABLE variant_drawn_units IS 'units whose variant a bandit drew, and those of them with an event, per variant and epoch of assignment';
