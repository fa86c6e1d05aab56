-- Alerts, failed assignments, and who does the work of a worker.

CREATE TABLE IF NOT EXISTS alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment_id bigint NOT NULL,
    experiment_name text NOT NULL,
    variant_id bigint,
    variant_name text,
    kind text NOT NULL,
    level text NOT NULL CHECK (level IN ('info', 'warning', 'critical')),
    message text NOT NULL,
    value double precision,
    threshold double precision,
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz
);
COMMENT ON TABLE alerts IS 'what went wrong and whether it still does; opened once, closed by itself';
COMMENT ON COLUMN alerts.variant_id IS 'null: the experiment as a whole';
COMMENT ON COLUMN alerts.message IS 'what was found when it opened';
-- Open once, whoever evaluates.
CREATE UNIQUE INDEX IF NOT EXISTS alerts_open ON alerts (experiment_id, kind, level, coalesce(variant_id, 0))
    WHERE closed_at IS NULL;
-- The alerts of one experiment, newest first.
CREATE INDEX IF NOT EXISTS alerts_experiment ON alerts (experiment_id, id);

CREATE TABLE IF NOT EXISTS assign_outcomes (
    experiment_id bigint NOT NULL,
    minute timestamptz NOT NULL,
    asked bigint NOT NULL,
    failed bigint NOT NULL,
    PRIMARY KEY (minute, experiment_id)
);
COMMENT ON TABLE assign_outcomes IS 'units whose assignment was looked up or stored, and those that got no answer in time, by minute; kept for two hours';

CREATE TABLE IF NOT EXISTS worker_leases (
    name text PRIMARY KEY,
    holder uuid NOT NULL,
    until timestamptz NOT NULL
);
COMMENT ON TABLE worker_leases IS 'who does a work that needs no second one; over when until has passed';
