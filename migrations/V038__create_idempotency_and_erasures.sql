-- Answers that are repeated, and units that were forgotten.

CREATE TABLE IF NOT EXISTS idempotency_keys (
    actor text NOT NULL,
    key text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    route text NOT NULL,
    request bytea NOT NULL CHECK (octet_length(request) = 32),
    started_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    status smallint,
    headers jsonb,
    body bytea,
    PRIMARY KEY (actor, key)
);
COMMENT ON TABLE idempotency_keys IS 'first requests with an Idempotency-Key and their answers';
COMMENT ON COLUMN idempotency_keys.request IS 'SHA-256 over method, path, query and body';
COMMENT ON COLUMN idempotency_keys.status IS 'null: the first request has not been answered (yet)';
-- Swept by time.
CREATE INDEX IF NOT EXISTS idempotency_keys_expires ON idempotency_keys (expires_at);

CREATE TABLE IF NOT EXISTS unit_erasures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pseudonym text NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE unit_erasures IS 'units whose names were replaced; replicas that see a new row forget what they remember of units';
CREATE OR REPLACE TRIGGER unit_erasures_changed AFTER INSERT ON unit_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION podium_config_changed();
