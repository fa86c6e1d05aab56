-- Covariates: a number for each unit from before the experiment, which takes variance off its metrics.

CREATE TABLE IF NOT EXISTS unit_covariates (
    experiment_id bigint NOT NULL,
    unit text NOT NULL,
    tx_id bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    value numeric(17, 4) NOT NULL CHECK (value BETWEEN -1000000000000 AND 1000000000000),
    PRIMARY KEY (experiment_id, unit, tx_id)
);
COMMENT ON TABLE unit_covariates IS 'covariates as they were handed in; another value for a unit is another row';
COMMENT ON COLUMN unit_covariates.unit IS 'the name under which the unit will be assigned';
COMMENT ON COLUMN unit_covariates.tx_id IS 'writing transaction: the last one below that of the assignment is the covariate of the unit';

-- An upload arrives here, in many short transactions, and is moved in one: a slow client holds none open, behind which
-- folding would have to wait, and a transaction pooler may stand in between. Unlogged: a crash ends uploads anyway.
CREATE UNLOGGED TABLE IF NOT EXISTS covariate_uploads (
    upload_id uuid NOT NULL,
    place bigint NOT NULL,
    unit text NOT NULL,
    value numeric(17, 4) NOT NULL,
    arrived_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE covariate_uploads IS 'uploads that are under way; what is older than an hour was abandoned';
COMMENT ON COLUMN covariate_uploads.place IS 'where the row stands in the upload: its line or element';

-- A covariate that depends on what a unit did after its assignment, such as logging in, would let the treatment
-- choose who has one. So the name at the assignment decides, and a login must not make it forgotten. A trigger, so that
-- no statement that renames an assignment, an older release's included, has to think of it.
ALTER TABLE user_experiment_assignments ADD COLUMN IF NOT EXISTS assigned_as text;
COMMENT ON COLUMN user_experiment_assignments.assigned_as IS 'the name at the assignment, where a login has changed it since';

CREATE OR REPLACE FUNCTION podium_keep_first_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.assigned_as := coalesce(OLD.assigned_as, OLD.user_id);
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER user_experiment_assignments_first_name
    BEFORE UPDATE OF user_id ON user_experiment_assignments
    FOR EACH ROW EXECUTE FUNCTION podium_keep_first_name();

ALTER TABLE unit_totals ADD COLUMN IF NOT EXISTS covariate numeric(17, 4);
COMMENT ON COLUMN unit_totals.covariate IS 'null: none was handed in before the assignment';

-- A table beside variant_moments, because most experiments have no covariates, and because end-of-day snapshots copy
-- that table's columns.
CREATE TABLE IF NOT EXISTS covariate_moments (
    experiment_id bigint NOT NULL,
    variant_id bigint NOT NULL,
    epoch integer NOT NULL,
    units bigint NOT NULL DEFAULT 0,
    sum_x numeric NOT NULL DEFAULT 0,
    sq_x numeric NOT NULL DEFAULT 0,
    clicking_units bigint NOT NULL DEFAULT 0,
    add_to_cart_units bigint NOT NULL DEFAULT 0,
    purchasing_units bigint NOT NULL DEFAULT 0,
    valued_units bigint NOT NULL DEFAULT 0,
    engaged_units bigint NOT NULL DEFAULT 0,
    erring_units bigint NOT NULL DEFAULT 0,
    x_clicking_units numeric NOT NULL DEFAULT 0,
    x_add_to_cart_units numeric NOT NULL DEFAULT 0,
    x_purchasing_units numeric NOT NULL DEFAULT 0,
    x_valued_units numeric NOT NULL DEFAULT 0,
    x_engaged_units numeric NOT NULL DEFAULT 0,
    x_erring_units numeric NOT NULL DEFAULT 0,
    sum_impressions numeric NOT NULL DEFAULT 0,
    sum_clicks numeric NOT NULL DEFAULT 0,
    sum_add_to_carts numeric NOT NULL DEFAULT 0,
    sum_purchases numeric NOT NULL DEFAULT 0,
    sum_purchase_value numeric NOT NULL DEFAULT 0,
    sum_engagement numeric NOT NULL DEFAULT 0,
    sum_requests numeric NOT NULL DEFAULT 0,
    sum_errors numeric NOT NULL DEFAULT 0,
    sum_sessions numeric NOT NULL DEFAULT 0,
    x_impressions numeric NOT NULL DEFAULT 0,
    x_clicks numeric NOT NULL DEFAULT 0,
    x_add_to_carts numeric NOT NULL DEFAULT 0,
    x_purchases numeric NOT NULL DEFAULT 0,
    x_purchase_value numeric NOT NULL DEFAULT 0,
    x_engagement numeric NOT NULL DEFAULT 0,
    x_requests numeric NOT NULL DEFAULT 0,
    x_errors numeric NOT NULL DEFAULT 0,
    x_sessions numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment_id, variant_id, epoch)
);
COMMENT ON TABLE covariate_moments IS 'exact sums over the units that have a covariate x, per variant and epoch of assignment: of x, of totals, and of x times totals';
COMMENT ON COLUMN covariate_moments.x_clicks IS 'sum of covariate times clicks; the other x_ columns likewise';
