-- A claimed key belongs to a request that lives: its process says so until the answer is stored.

ALTER TABLE idempotency_keys ADD COLUMN IF NOT EXISTS request_id text;
ALTER TABLE idempotency_keys ADD COLUMN IF NOT EXISTS alive_until timestamptz;
COMMENT ON COLUMN idempotency_keys.request_id IS 'of the first request; its audit rows tell whether it made its change';
COMMENT ON COLUMN idempotency_keys.alive_until IS 'without an answer by then its process has died; null: claimed by a version that did not say';
