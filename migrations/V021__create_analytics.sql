-- What is derived from assignments and events, folded in exactly once by one leader, and re-buildable.
-- Counts are integers and money is numeric: sums do not depend on the order of events.

CREATE TABLE IF NOT EXISTS fold_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    watermark bigint NOT NULL DEFAULT 0,
    folded_at timestamptz NOT NULL DEFAULT now(),
    snapshot_day date,
    dropped_before timestamptz
);
COMMENT ON COLUMN fold_state.watermark IS 'everything written by transactions below this id is in the totals';
COMMENT ON COLUMN fold_state.folded_at IS 'when folding last caught up, by the clock of the database';
COMMENT ON COLUMN fold_state.snapshot_day IS 'last UTC day whose end-of-day snapshot was taken';
COMMENT ON COLUMN fold_state.dropped_before IS 'events that arrived earlier were dropped by retention';
INSERT INTO fold_state DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS unit_totals (
    experiment_id bigint NOT NULL,
    unit text NOT NULL,
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    source smallint NOT NULL,
    excluded boolean NOT NULL,
    impressions bigint NOT NULL DEFAULT 0,
    clicks bigint NOT NULL DEFAULT 0,
    add_to_carts bigint NOT NULL DEFAULT 0,
    purchases bigint NOT NULL DEFAULT 0,
    purchase_value numeric NOT NULL DEFAULT 0,
    engagement numeric NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    sessions bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, unit)
) WITH (fillfactor = 75);
COMMENT ON TABLE unit_totals IS 'what each unit did since its assignment; units are the unit of analysis';
COMMENT ON COLUMN unit_totals.excluded IS 'bots and overridden units: kept here, in no moment';

CREATE TABLE IF NOT EXISTS unit_days (
    experiment_id bigint NOT NULL,
    day date NOT NULL,
    unit text NOT NULL,
    impressions bigint NOT NULL DEFAULT 0,
    clicks bigint NOT NULL DEFAULT 0,
    add_to_carts bigint NOT NULL DEFAULT 0,
    purchases bigint NOT NULL DEFAULT 0,
    purchase_value numeric NOT NULL DEFAULT 0,
    engagement numeric NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, day, unit)
) WITH (fillfactor = 75);
COMMENT ON TABLE unit_days IS 'the same by UTC day of occurred_at, for figures of a date range; excluded units have no rows';

CREATE TABLE IF NOT EXISTS unit_sessions (
    experiment_id bigint NOT NULL,
    unit text NOT NULL,
    session_key bigint NOT NULL,
    PRIMARY KEY (experiment_id, unit, session_key)
);
COMMENT ON TABLE unit_sessions IS 'distinct sessions of a unit, by 64-bit hash of the session id';

CREATE TABLE IF NOT EXISTS variant_moments (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    units bigint NOT NULL DEFAULT 0,
    client_units bigint NOT NULL DEFAULT 0,
    clicking_units bigint NOT NULL DEFAULT 0,
    add_to_cart_units bigint NOT NULL DEFAULT 0,
    purchasing_units bigint NOT NULL DEFAULT 0,
    valued_units bigint NOT NULL DEFAULT 0,
    engaged_units bigint NOT NULL DEFAULT 0,
    erring_units bigint NOT NULL DEFAULT 0,
    sum_impressions numeric NOT NULL DEFAULT 0,
    sum_clicks numeric NOT NULL DEFAULT 0,
    sum_add_to_carts numeric NOT NULL DEFAULT 0,
    sum_purchases numeric NOT NULL DEFAULT 0,
    sum_purchase_value numeric NOT NULL DEFAULT 0,
    sum_engagement numeric NOT NULL DEFAULT 0,
    sum_requests numeric NOT NULL DEFAULT 0,
    sum_errors numeric NOT NULL DEFAULT 0,
    sum_sessions numeric NOT NULL DEFAULT 0,
    sq_impressions numeric NOT NULL DEFAULT 0,
    sq_clicks numeric NOT NULL DEFAULT 0,
    sq_add_to_carts numeric NOT NULL DEFAULT 0,
    sq_purchases numeric NOT NULL DEFAULT 0,
    sq_purchase_value numeric NOT NULL DEFAULT 0,
    sq_engagement numeric NOT NULL DEFAULT 0,
    sq_requests numeric NOT NULL DEFAULT 0,
    sq_errors numeric NOT NULL DEFAULT 0,
    sq_sessions numeric NOT NULL DEFAULT 0,
    x_clicks_impressions numeric NOT NULL DEFAULT 0,
    x_add_to_carts_impressions numeric NOT NULL DEFAULT 0,
    x_purchases_impressions numeric NOT NULL DEFAULT 0,
    x_purchases_add_to_carts numeric NOT NULL DEFAULT 0,
    x_purchase_value_sessions numeric NOT NULL DEFAULT 0,
    x_purchase_value_purchases numeric NOT NULL DEFAULT 0,
    x_errors_requests numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, variant_id, epoch)
);
COMMENT ON TABLE variant_moments IS 'exact sums over units of totals, their squares and cross products, per variant and epoch of assignment';

CREATE TABLE IF NOT EXISTS variant_day_snapshots (
    day date NOT NULL,
    LIKE variant_moments INCLUDING DEFAULTS,
    PRIMARY KEY (experiment_id, day, variant_id, epoch)
);
COMMENT ON TABLE variant_day_snapshots IS 'variant_moments as they stood at the end of a UTC day; never revised';

CREATE TABLE IF NOT EXISTS variant_hours (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    impressions bigint NOT NULL DEFAULT 0,
    clicks bigint NOT NULL DEFAULT 0,
    add_to_carts bigint NOT NULL DEFAULT 0,
    purchases bigint NOT NULL DEFAULT 0,
    purchase_value numeric NOT NULL DEFAULT 0,
    engagement numeric NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, hour, variant_id)
);
COMMENT ON TABLE variant_hours IS 'events by hour of occurred_at, for time series';

CREATE TABLE IF NOT EXISTS variant_dimensions (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    dimension text NOT NULL CHECK (dimension IN ('item', 'brand', 'position')),
    key text NOT NULL,
    impressions bigint NOT NULL DEFAULT 0,
    clicks bigint NOT NULL DEFAULT 0,
    add_to_carts bigint NOT NULL DEFAULT 0,
    purchases bigint NOT NULL DEFAULT 0,
    purchase_value numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, dimension, key, variant_id)
);
COMMENT ON TABLE variant_dimensions IS 'events by item, brand or position, for top lists and position analysis';

CREATE TABLE IF NOT EXISTS position_performance (
    experiment_id bigint NOT NULL,
    position integer NOT NULL,
    impressions bigint NOT NULL DEFAULT 0,
    clicks bigint NOT NULL DEFAULT 0,
    conversions bigint NOT NULL DEFAULT 0,
    total_value numeric NOT NULL DEFAULT 0,
    click_through_rate numeric GENERATED ALWAYS AS
        (CASE WHEN impressions > 0 THEN round(100.0 * clicks / impressions, 6) ELSE 0 END) STORED,
    conversion_rate numeric GENERATED ALWAYS AS
        (CASE WHEN impressions > 0 THEN round(100.0 * conversions / impressions, 6) ELSE 0 END) STORED,
    average_value numeric GENERATED ALWAYS AS
        (CASE WHEN conversions > 0 THEN round(total_value / conversions, 6) ELSE 0 END) STORED,
    date date NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (experiment_id, position, date)
);
COMMENT ON COLUMN position_performance.click_through_rate IS 'percent of impressions';
COMMENT ON COLUMN position_performance.conversion_rate IS 'purchase events in percent of impressions';
COMMENT ON COLUMN position_performance.average_value IS 'value of a purchase';

CREATE TABLE IF NOT EXISTS experiment_counters (
    experiment_id bigint PRIMARY KEY,
    bot_events bigint NOT NULL DEFAULT 0,
    bot_units bigint NOT NULL DEFAULT 0,
    uncounted_events bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE experiment_counters IS 'what was recorded and left out of the analysis';

-- The figures per variant, all time; percents are percents, conversions are purchase events. Variants without
-- events are listed too.
CREATE OR REPLACE FUNCTION get_experiment_performance(p_experiment_id bigint)
RETURNS TABLE (variant_id bigint, variant_name text, impressions bigint, clicks bigint, conversions bigint,
               click_through_rate numeric, conversion_rate numeric, total_value numeric, avg_value_per_user numeric)
LANGUAGE sql STABLE AS $$
    SELECT v.id, v.name, m.impressions, m.clicks, m.conversions,
           CASE WHEN m.impressions > 0 THEN round(100.0 * m.clicks / m.impressions, 6) ELSE 0 END,
           CASE WHEN m.impressions > 0 THEN round(100.0 * m.conversions / m.impressions, 6) ELSE 0 END,
           m.total_value,
           CASE WHEN m.units > 0 THEN round(m.total_value / m.units, 6) ELSE 0 END
    FROM experiment_variants v
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(units), 0)::bigint AS units,
               coalesce(sum(sum_impressions), 0)::bigint AS impressions,
               coalesce(sum(sum_clicks), 0)::bigint AS clicks,
               coalesce(sum(sum_purchases), 0)::bigint AS conversions,
               coalesce(sum(sum_purchase_value), 0) AS total_value
        FROM variant_moments m
        WHERE m.experiment_id = v.experiment_id AND m.variant_id = v.id) m
    WHERE v.experiment_id = p_experiment_id
    ORDER BY v.is_control DESC, v.id
$$;
