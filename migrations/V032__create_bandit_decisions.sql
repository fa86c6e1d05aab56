-- What rankings answered. One row a decision, partitioned by time in weeks, dropped with the events of its week.

CREATE TABLE IF NOT EXISTS bandit_decisions (
    decision_id uuid NOT NULL,
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    unit text NOT NULL,
    arm_type text NOT NULL,
    policy text NOT NULL,
    snapshot_version bigint,
    candidates text[] NOT NULL,
    placed smallint[] NOT NULL,
    propensities double precision[],
    excluded boolean NOT NULL DEFAULT false,
    decided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (decision_id, decided_at)
) PARTITION BY RANGE (decided_at);
COMMENT ON COLUMN bandit_decisions.decision_id IS 'UUID of version 7; events refer to it as decision_id';
COMMENT ON COLUMN bandit_decisions.unit IS 'the unit as the request named it';
COMMENT ON COLUMN bandit_decisions.policy IS 'algorithm that chose; input_order where none did';
COMMENT ON COLUMN bandit_decisions.snapshot_version IS 'version of the arms that the choice was made from; null where nothing was chosen';
COMMENT ON COLUMN bandit_decisions.candidates IS 'arm ids in the order of the request';
COMMENT ON COLUMN bandit_decisions.placed IS 'what was answered, first position first: indices into candidates from 0';
COMMENT ON COLUMN bandit_decisions.propensities IS 'probability of each candidate to come first; null where it is unknown or nothing was chosen';
COMMENT ON COLUMN bandit_decisions.excluded IS 'bots and overridden units: kept here, in no evaluation';
COMMENT ON COLUMN bandit_decisions.decided_at IS 'when it was stored, by the clock of the database';
-- Evaluations read a stretch of time of one experiment.
CREATE INDEX IF NOT EXISTS bandit_decisions_experiment ON bandit_decisions (experiment_id, decided_at);

-- Makes the partitions of last week, this week and the given number of weeks ahead, each built beside the table and then
-- attached, which does not block writers.
CREATE OR REPLACE FUNCTION podium_create_decision_partitions(weeks_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    week date;
    part text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('podium_create_decision_partitions', 0));
    FOR week IN
        SELECT generate_series(date_trunc('week', now() AT TIME ZONE 'UTC') - interval '1 week',
                               date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => weeks_ahead),
                               interval '1 week')::date
    LOOP
        part := 'bandit_decisions_' || to_char(week, 'IYYY"w"IW');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE bandit_decisions INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
            EXECUTE format('ALTER TABLE bandit_decisions ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           part, week::text || ' 00:00:00+00', (week + 7)::text || ' 00:00:00+00');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;

SELECT podium_create_decision_partitions(4);
