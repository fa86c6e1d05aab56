-- Keys of storefronts and servers. What is stored does not open anything: the key itself is shown once, when it is made.

CREATE TABLE IF NOT EXISTS podium_api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix text NOT NULL UNIQUE CHECK (prefix ~ '^[0-9a-f]{12}$'),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 128),
    scope text NOT NULL CHECK (scope IN ('client', 'server', 'admin')),
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);
COMMENT ON COLUMN podium_api_keys.prefix IS 'names the key: its third part, and the actor api-key:<prefix> of the audit log';
COMMENT ON COLUMN podium_api_keys.digest IS 'SHA-256 of the whole key, whose secret is 256 random bits';
COMMENT ON COLUMN podium_api_keys.last_used_at IS 'written at most about once a minute, without raising config_version';

-- Not for last_used_at, which is written all the time and changes nothing for anybody.
CREATE OR REPLACE TRIGGER podium_api_keys_changed AFTER INSERT OR DELETE OR TRUNCATE
    OR UPDATE OF prefix, name, scope, digest, expires_at, revoked_at
    ON podium_api_keys FOR EACH STATEMENT EXECUTE FUNCTION podium_config_changed();
