-- What units did. One row an event and experiment, partitioned by arrival in weeks.

CREATE SEQUENCE IF NOT EXISTS experiment_events_id_seq AS bigint CACHE 64;

CREATE TABLE IF NOT EXISTS experiment_events (
    id bigint NOT NULL DEFAULT nextval('experiment_events_id_seq'),
    event_id text NOT NULL,
    user_id text NOT NULL,
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    event_type text NOT NULL,
    event_name text,
    item_id text,
    brand_id text,
    position integer,
    module_id text,
    event_data jsonb,
    value numeric(17, 4),
    quantity integer,
    latency_ms double precision,
    is_error boolean,
    session_id text,
    decision_id text,
    promotion_id uuid,
    is_bot boolean NOT NULL DEFAULT false,
    counted boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    tx_id bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)
) PARTITION BY RANGE (created_at);
COMMENT ON COLUMN experiment_events.event_id IS 'unique per experiment over all partitions, held by experiment_event_keys';
COMMENT ON COLUMN experiment_events.user_id IS 'the unit as the request named it; an alias is resolved when totals are folded';
COMMENT ON COLUMN experiment_events.event_type IS 'impression, click, add_to_cart, purchase, engagement, request';
COMMENT ON COLUMN experiment_events.value IS 'money or engagement, four decimals, exact';
COMMENT ON COLUMN experiment_events.counted IS 'false: recorded, but left out of the analysis (bot, before the assignment, after the end)';
COMMENT ON COLUMN experiment_events.created_at IS 'arrival, by the clock of the database';
COMMENT ON COLUMN experiment_events.occurred_at IS 'when it happened, by the client if it said so, else the arrival';
COMMENT ON COLUMN experiment_events.tx_id IS 'writing transaction, compared with pg_snapshot_xmin when totals are folded';
-- Exports and recounts of a time range; a thousandth of the size of a b-tree.
CREATE INDEX IF NOT EXISTS experiment_events_created ON experiment_events USING brin (created_at);
-- Folding reads what was written since its watermark; rows arrive in this order, so inserts stay cheap.
CREATE INDEX IF NOT EXISTS experiment_events_tx ON experiment_events (tx_id);

-- A unique index of a partitioned table must hold the partition key, so it could not stop the same event id
-- on two days. This table can: one row for each event that is retained.
CREATE TABLE IF NOT EXISTS experiment_event_keys (
    key uuid PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_insert_scale_factor = 0.5);
COMMENT ON TABLE experiment_event_keys IS '128-bit digest of experiment id and event id; who inserts it first records the event';
-- Retention deletes by time.
CREATE INDEX IF NOT EXISTS experiment_event_keys_created ON experiment_event_keys USING brin (created_at);

-- Makes the partitions of this week and the given number of weeks ahead. A partition is built beside the table and
-- then attached, which does not block writers.
CREATE OR REPLACE FUNCTION podium_create_event_partitions(weeks_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    week date;
    part text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('podium_create_event_partitions', 0));
    FOR week IN
        SELECT generate_series(date_trunc('week', now() AT TIME ZONE 'UTC') - interval '1 week',
                               date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => weeks_ahead),
                               interval '1 week')::date
    LOOP
        part := 'experiment_events_' || to_char(week, 'IYYY"w"IW');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE experiment_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
            EXECUTE format('ALTER TABLE experiment_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           part, week::text || ' 00:00:00+00', (week + 7)::text || ' 00:00:00+00');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;

SELECT podium_create_event_partitions(4);
