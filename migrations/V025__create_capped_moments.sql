-- Winsorised values: unit totals above a cap count as the cap, because a handful of units can hold most of the variance.

CREATE TABLE IF NOT EXISTS value_caps (
    experiment_id bigint NOT NULL,
    total text NOT NULL CHECK (total IN ('purchase_value', 'engagement')),
    upper double precision NOT NULL CHECK (upper > 0.5 AND upper < 1),
    cap numeric NOT NULL CHECK (cap > 0 AND scale(cap) <= 4),
    computed_at timestamptz NOT NULL,
    PRIMARY KEY (experiment_id, total)
);
COMMENT ON TABLE value_caps IS 'where unit totals are capped; derived from unit_totals, found anew every few minutes';
COMMENT ON COLUMN value_caps.upper IS 'the quantile that was asked for';
COMMENT ON COLUMN value_caps.cap IS 'that quantile of all units, not below the median of the totals above zero';

CREATE TABLE IF NOT EXISTS capped_moments (
    experiment_id bigint NOT NULL,
    total text NOT NULL CHECK (total IN ('purchase_value', 'engagement')),
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    units bigint NOT NULL,
    units_above_zero bigint NOT NULL,
    sum_total numeric NOT NULL,
    sq_total numeric NOT NULL,
    sum_sessions numeric NOT NULL,
    sq_sessions numeric NOT NULL,
    x_sessions numeric NOT NULL,
    sum_purchases numeric NOT NULL,
    sq_purchases numeric NOT NULL,
    x_purchases numeric NOT NULL,
    PRIMARY KEY (experiment_id, total, variant_id, epoch)
);
COMMENT ON TABLE capped_moments IS 'exact sums over units of capped totals, per variant and epoch of assignment, as of value_caps.computed_at';
COMMENT ON COLUMN capped_moments.x_sessions IS 'sum of capped total times sessions; x_purchases likewise';
