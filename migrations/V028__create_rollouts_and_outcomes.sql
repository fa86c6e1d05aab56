-- How requests ended, who gets what while a promotion is active, and what it is watched by.

-- One function for folding and recounting, so that both put a latency into the same bucket. Bucket i holds the latencies in
-- (1.02^(i-1), 1.02^i] milliseconds; what is not above 0.01 is in the lowest one.
CREATE OR REPLACE FUNCTION podium_latency_bucket(latency_ms double precision) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT greatest(-232, ceil(ln(greatest(latency_ms, 1e-9::double precision)) / ln(1.02::double precision)))::integer
$$;

CREATE TABLE IF NOT EXISTS variant_requests (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    requesting_units bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, variant_id, epoch)
);
COMMENT ON TABLE variant_requests IS 'units with at least one request, per variant and epoch of assignment';

CREATE TABLE IF NOT EXISTS variant_latencies (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    bucket integer NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, variant_id, epoch, bucket)
);
COMMENT ON TABLE variant_latencies IS 'requests by bucket of their latency: a quantile sketch that adds, subtracts and recounts exactly';
COMMENT ON COLUMN variant_latencies.bucket IS 'podium_latency_bucket of latency_ms';

-- A table beside experiment_promotions, because its columns are a contract and every change of a row there is announced.
CREATE TABLE IF NOT EXISTS promotion_rollouts (
    promotion_id uuid PRIMARY KEY REFERENCES experiment_promotions (id) ON DELETE CASCADE,
    steps numeric(7, 4)[] NOT NULL DEFAULT '{100}' CHECK (cardinality(steps) > 0),
    step_hours double precision NOT NULL DEFAULT 0 CHECK (step_hours >= 0),
    holdback numeric(7, 4) NOT NULL DEFAULT 0 CHECK (holdback BETWEEN 0 AND 100),
    step integer NOT NULL DEFAULT 0,
    step_since timestamptz NOT NULL DEFAULT now(),
    watch_hours double precision NOT NULL DEFAULT 0 CHECK (watch_hours >= 0),
    watch_ended_at timestamptz,
    auto_rollback boolean NOT NULL DEFAULT true,
    conversion_event text NOT NULL DEFAULT 'purchase',
    conversion_needs_value boolean NOT NULL DEFAULT false,
    requesting_units_before bigint NOT NULL DEFAULT 0,
    erring_units_before bigint NOT NULL DEFAULT 0,
    requests_counted integer NOT NULL DEFAULT 1 CHECK (requests_counted > 0),
    detectable_drop double precision,
    reading jsonb,
    read_at timestamptz
);
COMMENT ON TABLE promotion_rollouts IS 'how a promotion is rolled out and watched; a promotion without a row has one step, no holdback and no watch';
COMMENT ON COLUMN promotion_rollouts.steps IS 'the winner''s share of traffic in percent, rising';
COMMENT ON COLUMN promotion_rollouts.step IS 'place of the step in force, from 0';
COMMENT ON COLUMN promotion_rollouts.watch_ended_at IS 'when watching and the holdback ended; null while they last';
COMMENT ON COLUMN promotion_rollouts.conversion_event IS 'type of the events that are conversions for the guard';
COMMENT ON COLUMN promotion_rollouts.erring_units_before IS 'units of the winner with an error in the experiment, of requesting_units_before';
COMMENT ON COLUMN promotion_rollouts.requests_counted IS 'of each unit so many requests can make it one with an error: as many as a unit made in the experiment on average';
COMMENT ON COLUMN promotion_rollouts.detectable_drop IS 'relative drop in conversion that the guard was expected to find with 80 % within the watch';
COMMENT ON COLUMN promotion_rollouts.reading IS 'what the guard found last';

-- Replicas serve by these columns. What the guard notes down is none of them.
CREATE OR REPLACE TRIGGER promotion_rollouts_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF steps, step, holdback, watch_ended_at
    ON promotion_rollouts FOR EACH STATEMENT EXECUTE FUNCTION podium_config_changed();
CREATE OR REPLACE TRIGGER experiment_promotions_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF rollback_at, promoted_variant_id
    ON experiment_promotions FOR EACH STATEMENT EXECUTE FUNCTION podium_config_changed();

-- No default, so that neither column rewrites a partition.
ALTER TABLE experiment_events ADD COLUMN IF NOT EXISTS promotion_step integer;
ALTER TABLE experiment_events ADD COLUMN IF NOT EXISTS promotion_arm smallint;
COMMENT ON COLUMN experiment_events.promotion_id IS 'the promotion that was active; such events feed its guard and no analysis';
COMMENT ON COLUMN experiment_events.promotion_arm IS 'what the unit was shown: 0 its own variant, 1 the winner instead of it, 2 the control because it is held back, 3 the winner, which is its own; null outside of watches';

CREATE TABLE IF NOT EXISTS promotion_units (
    experiment_id bigint NOT NULL,
    unit text NOT NULL,
    promotion_id uuid NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    requests_arm smallint,
    erred boolean NOT NULL DEFAULT false,
    converted_step integer,
    converted_arm smallint,
    PRIMARY KEY (experiment_id, unit, promotion_id)
) WITH (fillfactor = 75);
COMMENT ON TABLE promotion_units IS 'what each unit did since a promotion, for its guard';
COMMENT ON COLUMN promotion_units.requests_arm IS 'what the unit was shown at its first request';
COMMENT ON COLUMN promotion_units.erred IS 'whether one of its first requests (promotion_rollouts.requests_counted) failed';
COMMENT ON COLUMN promotion_units.converted_arm IS 'what the unit was shown when it converted for the first time';
-- A guard reads all units of its promotion.
CREATE INDEX IF NOT EXISTS promotion_units_promotion ON promotion_units (promotion_id);

COMMENT ON COLUMN user_experiment_assignments.source IS '0: assigned by the server; 1: reported by the client; 2: first seen while a promotion was active, in no analysis';
