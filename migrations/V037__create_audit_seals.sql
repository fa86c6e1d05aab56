-- Seals over the audit logs, so that nobody, not even the owner of the database, changes or cuts out what happened without
-- it being seen. Whoever writes an entry does not wait for the chain: entries queue here, and one replica seals them.

CREATE TABLE IF NOT EXISTS audit_unsealed (
    log smallint NOT NULL,
    row_id bigint NOT NULL,
    PRIMARY KEY (log, row_id)
);
COMMENT ON TABLE audit_unsealed IS 'entries that no seal covers yet; 1: audit_log, 2: ab_promotion_audit_log';

CREATE TABLE IF NOT EXISTS audit_seals (
    id bigint PRIMARY KEY CHECK (id > 0),
    sealed_at timestamptz NOT NULL,
    audit_ids bigint[] NOT NULL,
    promotion_ids bigint[] NOT NULL,
    previous bytea NOT NULL CHECK (octet_length(previous) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE audit_seals IS 'each covers the entries that had committed since the one before; numbered without gaps';
COMMENT ON COLUMN audit_seals.audit_ids IS 'entries of audit_log that it covers, ascending; promotion_ids: of ab_promotion_audit_log';
COMMENT ON COLUMN audit_seals.hash IS 'SHA-256 over the hash of the seal before, number, time, and the entries';

CREATE OR REPLACE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION podium_refuse_change();

CREATE OR REPLACE FUNCTION podium_queue_for_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unsealed (log, row_id) VALUES (TG_ARGV[0]::smallint, NEW.id);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER audit_log_queue AFTER INSERT ON audit_log
    FOR EACH ROW EXECUTE FUNCTION podium_queue_for_seal('1');
CREATE OR REPLACE TRIGGER ab_promotion_audit_log_queue AFTER INSERT ON ab_promotion_audit_log
    FOR EACH ROW EXECUTE FUNCTION podium_queue_for_seal('2');

-- What was written before there were seals; the triggers above have locked out writers until this commits.
INSERT INTO audit_unsealed (log, row_id)
SELECT * FROM (SELECT 1::smallint, id FROM audit_log UNION ALL SELECT 2::smallint, id FROM ab_promotion_audit_log) AS entries
WHERE NOT EXISTS (SELECT 1 FROM audit_seals)
ON CONFLICT DO NOTHING;
