-- People and their roles, and who changed what.

CREATE TABLE IF NOT EXISTS podium_users (
    id text PRIMARY KEY CHECK (char_length(id) BETWEEN 1 AND 255),
    name text NOT NULL DEFAULT '',
    role text NOT NULL CHECK (role IN ('viewer', 'editor', 'promoter', 'admin')),
    disabled boolean NOT NULL DEFAULT false,
    tokens_valid_after timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN podium_users.id IS 'the userId (or sub) of a token, as text';
COMMENT ON COLUMN podium_users.tokens_valid_after IS 'tokens issued earlier are refused';

CREATE TABLE IF NOT EXISTS audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    entity text NOT NULL,
    entity_id text NOT NULL,
    experiment_id bigint,
    before jsonb,
    after jsonb,
    request_id text,
    address text
);
COMMENT ON TABLE audit_log IS 'every change, written in the transaction that made it';
-- The history of one experiment.
CREATE INDEX IF NOT EXISTS audit_log_experiment ON audit_log (experiment_id, id);
CREATE OR REPLACE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION podium_refuse_change();

CREATE OR REPLACE TRIGGER podium_users_changed AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE
    ON podium_users FOR EACH STATEMENT EXECUTE FUNCTION podium_config_changed();
