-- Promotions, their audit log, and notifications.

CREATE TABLE IF NOT EXISTS experiment_promotions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    experiment_id bigint NOT NULL REFERENCES experiments (id),
    experiment_name text NOT NULL,
    promoted_variant_id bigint NOT NULL,
    promoted_variant_name text NOT NULL,
    control_variant_id bigint,
    control_variant_name text,
    confidence double precision,
    improvement double precision,
    sample_size bigint,
    promotion_type text NOT NULL CHECK (promotion_type IN ('auto', 'manual')),
    promoted_by text,
    promoted_at timestamptz NOT NULL DEFAULT now(),
    rollback_at timestamptz,
    rollback_reason text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN experiment_promotions.confidence IS 'percent';
COMMENT ON COLUMN experiment_promotions.improvement IS 'lift in percent';
CREATE UNIQUE INDEX IF NOT EXISTS experiment_promotions_one_active
    ON experiment_promotions (experiment_id) WHERE rollback_at IS NULL;

CREATE TABLE IF NOT EXISTS ab_promotion_audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment_id bigint,
    experiment_name text,
    winning_variant_id bigint,
    winning_variant_name text,
    previous_winner_id bigint,
    action text NOT NULL CHECK (action IN ('promoted', 'rolled_back', 'promotion_attempted')),
    triggered_by text NOT NULL CHECK (triggered_by IN ('auto', 'manual')),
    user_id text,
    confidence_level double precision,
    improvement double precision,
    sample_size bigint,
    safety_checks_json jsonb,
    reason text,
    promoted_at timestamptz,
    rolled_back_at timestamptz,
    rollback_reason text,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- The history of one experiment.
CREATE INDEX IF NOT EXISTS ab_promotion_audit_log_experiment ON ab_promotion_audit_log (experiment_id, id);

CREATE OR REPLACE FUNCTION podium_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME;
END $$;
CREATE OR REPLACE TRIGGER ab_promotion_audit_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ab_promotion_audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION podium_refuse_change();

CREATE OR REPLACE FUNCTION notify_promotion_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    event_type text := 'promotion_updated';
BEGIN
    IF TG_OP = 'INSERT' THEN
        event_type := 'promotion_created';
    ELSIF OLD.rollback_at IS NULL AND NEW.rollback_at IS NOT NULL THEN
        event_type := 'promotion_rolled_back';
    END IF;
    PERFORM pg_notify('experiment_promotion', json_build_object(
        'event_type', event_type,
        'experiment_id', NEW.experiment_id,
        'experiment_name', NEW.experiment_name,
        'promoted_variant_name', NEW.promoted_variant_name,
        'promotion_type', NEW.promotion_type,
        'confidence', NEW.confidence,
        'improvement', NEW.improvement)::text);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER experiment_promotions_notify AFTER INSERT OR UPDATE ON experiment_promotions
    FOR EACH ROW EXECUTE FUNCTION notify_promotion_event();

CREATE OR REPLACE FUNCTION get_promotion_stats()
RETURNS TABLE (total_promotions bigint, auto_promotions bigint, manual_promotions bigint, active_promotions bigint,
               rolled_back_promotions bigint, avg_confidence double precision, avg_improvement double precision)
LANGUAGE sql STABLE AS $$
    SELECT count(*),
           count(*) FILTER (WHERE promotion_type = 'auto'),
           count(*) FILTER (WHERE promotion_type = 'manual'),
           count(*) FILTER (WHERE rollback_at IS NULL),
           count(*) FILTER (WHERE rollback_at IS NOT NULL),
           avg(confidence), avg(improvement)
    FROM experiment_promotions
$$;

CREATE OR REPLACE VIEW experiment_promotion_eligibility AS
    SELECT e.id AS experiment_id, e.name AS experiment_name, e.status = 'running' AS is_active,
           e.start_date, e.end_date,
           extract(epoch FROM coalesce(e.end_date, now()) - e.start_date) / 3600 AS runtime_hours,
           EXISTS (SELECT 1 FROM experiment_promotions p
                   WHERE p.experiment_id = e.id AND p.rollback_at IS NULL) AS has_active_promotion,
           (SELECT max(p.promoted_at) FROM experiment_promotions p WHERE p.experiment_id = e.id) AS latest_promotion,
           (SELECT count(*) FROM experiment_variants v WHERE v.experiment_id = e.id) AS variant_count
    FROM experiments e;

CREATE TABLE IF NOT EXISTS notification_configs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('slack', 'pagerduty', 'email', 'webhook')),
    webhook_url text,
    api_key text,
    email_address text,
    routing_key text,
    enabled boolean NOT NULL DEFAULT true,
    alert_levels text[] NOT NULL DEFAULT '{info,warning,critical}',
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, channel)
);

CREATE TABLE IF NOT EXISTS notification_logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text,
    config_id uuid,
    channel text NOT NULL,
    alert_level text NOT NULL,
    alert_type text NOT NULL,
    title text NOT NULL,
    message text NOT NULL,
    experiment_name text,
    variant_name text,
    metadata jsonb NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'failed')),
    error_message text,
    attempts integer NOT NULL DEFAULT 0,
    response_data jsonb,
    sent_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
