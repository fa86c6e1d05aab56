-- Scans as operators watch them, and what holds a winner back.

CREATE TABLE IF NOT EXISTS promotion_scans (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    scans bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,
    up_to bigint[] NOT NULL DEFAULT '{0,0,0,0,0,0,0,0}',
    last_success_at timestamptz
);
COMMENT ON TABLE promotion_scans IS 'scans that went through all running experiments, whoever made them; dry runs are left out';
COMMENT ON COLUMN promotion_scans.up_to IS 'scans of at most 0.1, 0.5, 1, 5, 10, 30, 60 and 300 s';
INSERT INTO promotion_scans DEFAULT VALUES ON CONFLICT DO NOTHING;

-- No default, so that no row is rewritten.
ALTER TABLE promotion_verdicts ADD COLUMN IF NOT EXISTS held_by text[];
COMMENT ON COLUMN promotion_verdicts.held_by IS 'safety checks that alone keep a proved winner from its promotion; null where nothing is held';
