-- Looks of the decision rule, what was decided and from what, and the last verdict of each experiment.

CREATE TABLE IF NOT EXISTS promotion_analyses (
    experiment_id bigint NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    number integer NOT NULL CHECK (number > 0),
    from_epoch integer NOT NULL CHECK (from_epoch > 0),
    started_at timestamptz NOT NULL,
    unspent double precision NOT NULL CHECK (unspent BETWEEN 0 AND 1),
    design jsonb,
    looks bigint NOT NULL DEFAULT 0,
    opened_at timestamptz NOT NULL DEFAULT now(),
    opened_by text,
    reason text NOT NULL,
    closed_at timestamptz,
    PRIMARY KEY (experiment_id, number)
);
COMMENT ON TABLE promotion_analyses IS 'analyses of experiments: data from a moment on, under one design; an experiment without a row has its first one, from its start on';
COMMENT ON COLUMN promotion_analyses.from_epoch IS 'units that were assigned from this epoch on are in it';
COMMENT ON COLUMN promotion_analyses.unspent IS 'part of alpha that the analyses before have left';
COMMENT ON COLUMN promotion_analyses.design IS 'what was frozen at the first look; null before it';
COMMENT ON COLUMN promotion_analyses.looks IS 'recorded looks of all treatments together';
CREATE UNIQUE INDEX IF NOT EXISTS promotion_analyses_one_open
    ON promotion_analyses (experiment_id) WHERE closed_at IS NULL;

CREATE TABLE IF NOT EXISTS promotion_looks (
    experiment_id bigint NOT NULL,
    analysis integer NOT NULL,
    variant_id bigint NOT NULL,
    slot bigint NOT NULL CHECK (slot >= 0),
    time timestamptz NOT NULL,
    information double precision NOT NULL,
    spending_time double precision NOT NULL,
    z double precision,
    lift double precision,
    bound double precision,
    p double precision NOT NULL CHECK (p BETWEEN 0 AND 1),
    level double precision NOT NULL,
    settings jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (experiment_id, analysis, variant_id, slot),
    FOREIGN KEY (experiment_id, analysis) REFERENCES promotion_analyses (experiment_id, number)
);
COMMENT ON TABLE promotion_looks IS 'looks at treatments, recorded before their verdict is used; one a slot';
COMMENT ON COLUMN promotion_looks.time IS 'when the data were read; for a slot that nobody asked for its beginning';
COMMENT ON COLUMN promotion_looks.z IS 'the statistic; null for a slot that nobody asked for, and so lift';
COMMENT ON COLUMN promotion_looks.bound IS 'what z had to reach at this level; null where the look spent nothing';
COMMENT ON COLUMN promotion_looks.settings IS 'what was in force: thresholds, preset, who asked';
CREATE OR REPLACE TRIGGER promotion_looks_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotion_looks
    FOR EACH STATEMENT EXECUTE FUNCTION podium_refuse_change();

CREATE TABLE IF NOT EXISTS promotion_decisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    experiment_id bigint NOT NULL,
    promotion_id uuid,
    kind text NOT NULL CHECK (kind IN ('promoted', 'forced', 'attempted', 'held', 'rolled_back')),
    triggered_by text NOT NULL CHECK (triggered_by IN ('auto', 'manual')),
    actor text NOT NULL,
    version text NOT NULL,
    question jsonb,
    config jsonb,
    evidence jsonb,
    decision jsonb NOT NULL
);
COMMENT ON TABLE promotion_decisions IS 'what was decided, and everything that is needed to compute it again';
COMMENT ON COLUMN promotion_decisions.version IS 'version of the decision function';
COMMENT ON COLUMN promotion_decisions.evidence IS 'what the decision function was given; null for what no such function decided';
-- The decisions of one promotion, and the history of one experiment.
CREATE INDEX IF NOT EXISTS promotion_decisions_promotion ON promotion_decisions (promotion_id) WHERE promotion_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS promotion_decisions_experiment ON promotion_decisions (experiment_id, id);
CREATE OR REPLACE TRIGGER promotion_decisions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotion_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION podium_refuse_change();

CREATE TABLE IF NOT EXISTS promotion_verdicts (
    experiment_id bigint PRIMARY KEY REFERENCES experiments (id) ON DELETE CASCADE,
    verdict text NOT NULL,
    reasons jsonb NOT NULL,
    variant_id bigint,
    confidence double precision,
    improvement double precision,
    scanned_at timestamptz NOT NULL DEFAULT now(),
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE promotion_verdicts IS 'what the last scan said of each experiment';
COMMENT ON COLUMN promotion_verdicts.since IS 'since when scans say the same verdict';

CREATE TABLE IF NOT EXISTS promotion_limit ();
COMMENT ON TABLE promotion_limit IS 'holds nothing; locked by the engine before it counts its promotions, so that two workers count one after the other';
