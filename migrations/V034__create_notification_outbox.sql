-- The outbox: what is still to be sent, what could not be, and what a target needs to know about itself.

ALTER TABLE notification_configs
    ADD COLUMN IF NOT EXISTS previous_api_key text,
    ADD COLUMN IF NOT EXISTS previous_api_key_until timestamptz,
    ADD COLUMN IF NOT EXISTS quiet_from time,
    ADD COLUMN IF NOT EXISTS quiet_to time,
    ADD COLUMN IF NOT EXISTS quiet_zone text NOT NULL DEFAULT 'UTC',
    ADD COLUMN IF NOT EXISTS disabled_reason text,
    ADD COLUMN IF NOT EXISTS failures_in_row integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS refusals_in_row integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS failing_since timestamptz,
    ADD COLUMN IF NOT EXISTS paused_until timestamptz,
    ADD COLUMN IF NOT EXISTS leased_until timestamptz;
COMMENT ON COLUMN notification_configs.api_key IS 'webhook: the secret that signs, as whsec_ and base64';
COMMENT ON COLUMN notification_configs.previous_api_key IS 'signs as well, until previous_api_key_until, so that receivers can rotate';
COMMENT ON COLUMN notification_configs.quiet_from IS 'wall clock in quiet_zone; between quiet_from and quiet_to messages wait, except to PagerDuty';
COMMENT ON COLUMN notification_configs.disabled_reason IS 'why Podium itself disabled the target; null when a person did';
COMMENT ON COLUMN notification_configs.failures_in_row IS 'tries without a success since the last one';
COMMENT ON COLUMN notification_configs.refusals_in_row IS 'messages that an e-mail address refused for good since the last success';
COMMENT ON COLUMN notification_configs.failing_since IS 'first failure since the last success';
COMMENT ON COLUMN notification_configs.paused_until IS 'nothing is sent before';
COMMENT ON COLUMN notification_configs.leased_until IS 'a sender is at work on the target until then';

-- An unknown time zone is refused here, because evaluating it fails.
ALTER TABLE notification_configs DROP CONSTRAINT IF EXISTS notification_configs_quiet_zone;
ALTER TABLE notification_configs ADD CONSTRAINT notification_configs_quiet_zone
    CHECK ((timestamptz '2026-01-01 00:00:00+00' AT TIME ZONE quiet_zone) IS NOT NULL
           AND (quiet_from IS NULL) = (quiet_to IS NULL));

-- The end of the quiet hours in which `at` lies, or `at` itself. A zone that the server has forgotten is no quiet zone:
-- preferences must never stop a promotion.
CREATE OR REPLACE FUNCTION podium_quiet_until(at timestamptz, quiet_from time, quiet_to time, zone text)
RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    here timestamp;
    clock time;
BEGIN
    IF quiet_from IS NULL OR quiet_to IS NULL OR quiet_from = quiet_to THEN
        RETURN at;
    END IF;
    here := at AT TIME ZONE zone;
    clock := here::time;
    IF quiet_from < quiet_to THEN
        IF clock >= quiet_from AND clock < quiet_to THEN
            RETURN (here::date + quiet_to) AT TIME ZONE zone;
        END IF;
    ELSIF clock >= quiet_from THEN
        RETURN (here::date + 1 + quiet_to) AT TIME ZONE zone;
    ELSIF clock < quiet_to THEN
        RETURN (here::date + quiet_to) AT TIME ZONE zone;
    END IF;
    RETURN at;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN at;
END $$;

ALTER TABLE notification_logs
    ADD COLUMN IF NOT EXISTS message_key text,
    ADD COLUMN IF NOT EXISTS dedup_key text,
    ADD COLUMN IF NOT EXISTS action text NOT NULL DEFAULT 'trigger';
COMMENT ON COLUMN notification_logs.message_key IS 'subject:event:target; the same message is queued once for a target';
COMMENT ON COLUMN notification_logs.dedup_key IS 'what the message is about: promotion:<id>, alert:<id>';
COMMENT ON COLUMN notification_logs.action IS 'resolve: closes an incident of PagerDuty; trigger: everything else';
CREATE UNIQUE INDEX IF NOT EXISTS notification_logs_message_key ON notification_logs (message_key);
-- Which PagerDuty targets have an incident open under a key.
CREATE INDEX IF NOT EXISTS notification_logs_incident ON notification_logs (dedup_key, config_id)
    WHERE channel = 'pagerduty';
-- Newest first, of all and of one user.
CREATE INDEX IF NOT EXISTS notification_logs_newest ON notification_logs (created_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS notification_logs_of_user ON notification_logs (user_id, created_at DESC, id DESC);
-- How much a user got within the last minute.
CREATE INDEX IF NOT EXISTS notification_logs_sent ON notification_logs (user_id, sent_at) WHERE sent_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS notification_outbox (
    id uuid PRIMARY KEY REFERENCES notification_logs (id) ON DELETE CASCADE,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    config_id uuid NOT NULL,
    dedup_key text NOT NULL,
    action text NOT NULL CHECK (action IN ('trigger', 'resolve')),
    urgency smallint NOT NULL,
    payload jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    lease uuid,
    leased_until timestamptz,
    dead_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE notification_outbox IS 'deliveries that are due or dead; a row goes when its message is sent, its log stays';
COMMENT ON COLUMN notification_outbox.id IS 'the delivery, the same in every try and in notification_logs';
COMMENT ON COLUMN notification_outbox.seq IS 'order of messages about one thing to one target';
COMMENT ON COLUMN notification_outbox.urgency IS '0 info, 1 warning, 2 critical';
COMMENT ON COLUMN notification_outbox.attempts IS 'tries begun since the message was queued or re-sent';
COMMENT ON COLUMN notification_outbox.lease IS 'the try that is under way; another one may begin after leased_until';
COMMENT ON COLUMN notification_outbox.dead_at IS 'given up; waits for somebody to send it again';
CREATE INDEX IF NOT EXISTS notification_outbox_due ON notification_outbox (config_id, next_attempt_at)
    WHERE dead_at IS NULL;
CREATE INDEX IF NOT EXISTS notification_outbox_in_order ON notification_outbox (config_id, dedup_key, seq)
    WHERE dead_at IS NULL;
