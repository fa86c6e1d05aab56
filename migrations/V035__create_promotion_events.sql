-- What happened to promotions, numbered, so that whoever listens can say what was heard last and get the rest.

CREATE TABLE IF NOT EXISTS promotion_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payload jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE promotion_events IS 'every notification on the channel experiment_promotion';
COMMENT ON COLUMN promotion_events.payload IS 'what was notified, with promotion_id and occurred_at';

CREATE OR REPLACE FUNCTION notify_promotion_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    event_type text := 'promotion_updated';
    event jsonb;
    event_id bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        event_type := 'promotion_created';
    ELSIF OLD.rollback_at IS NULL AND NEW.rollback_at IS NOT NULL THEN
        event_type := 'promotion_rolled_back';
    END IF;
    event := jsonb_build_object(
        'event_type', event_type,
        'experiment_id', NEW.experiment_id,
        'experiment_name', NEW.experiment_name,
        'promoted_variant_name', NEW.promoted_variant_name,
        'promotion_type', NEW.promotion_type,
        'confidence', NEW.confidence,
        'improvement', NEW.improvement);
    INSERT INTO promotion_events (payload)
    VALUES (event || jsonb_build_object('promotion_id', NEW.id, 'occurred_at',
        to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
    RETURNING id INTO event_id;
    PERFORM pg_notify('experiment_promotion', (event || jsonb_build_object('event_id', event_id))::text);
    RETURN NULL;
END $$;
