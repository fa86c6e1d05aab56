//! Pulls and rewards, folded in the transaction that moves the watermark.
//!
//! A pass notes what could have another outcome than before: new pulls, pulls from or to which a reward moves, pulls
//! whose window has passed, pulls of arms that were reset. Their outcomes are computed anew from what is stored, and the
//! differences are added to the counts by hour.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use podium_domain::bandit::MAX_ARMS;
use tokio_postgres::Transaction;

use super::learning;
use crate::StorageError;
use crate::fold::{GOOD, NAMED};
use crate::rows::column;

/// Pulls whose window may pass in one pass.
const MATURING: i64 = 50_000;

/// The statements of a pass hand rows on to each other here; the tables are empty again at its end.
const SCRATCH: &str = "-- bandit::scratch
CREATE TEMP TABLE bandit_new_pulls (arm_row_id bigint, event_row_id bigint) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE bandit_loose_rewards (arm_row_id bigint, event_row_id bigint) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE bandit_open_pulls (arm_row_id bigint, event_row_id bigint) ON COMMIT DELETE ROWS";

/// A connection of the pool makes them once.
const HAS_SCRATCH: &str = "-- bandit::has_scratch
SELECT to_regclass('pg_temp.bandit_open_pulls') IS NOT NULL AS made";

/// Where an impression `p` of the arm `a` is counted.
const BUCKET: &str = "CASE WHEN p.occurred_at >= a.reset_at
         THEN greatest(date_trunc('hour', p.occurred_at, 'UTC'), a.reset_at)
         ELSE date_trunc('hour', p.occurred_at, 'UTC') END";

/// The arm that an event `g` of a learning experiment `l` is about.
const ARM_ID: &str = "CASE l.arm_type WHEN 'variant' THEN g.variant_id::text WHEN 'item' THEN g.item_id WHEN 'brand' THEN g.brand_id
         WHEN 'category' THEN g.event_data ->> 'category' ELSE g.event_data ->> 'algorithm' END";

/// What was written in `[$1, $2)` by experiments that learn.
const SRC: &str = "src AS MATERIALIZED (
    SELECT id, tx_id, experiment_id, user_id, event_type, item_id, brand_id, event_data, position, value, occurred_at,
           decision_id, counted
    FROM experiment_events
    WHERE tx_id >= $1 AND tx_id < $2 AND counted AND event_type IN ('impression', 'click', 'add_to_cart', 'purchase')
      AND experiment_id IN (SELECT experiment_id FROM bandit_learning))";

/// Arms of variants are there from the start, also before anybody has seen them.
const VARIANT_ARMS: &str = "-- bandit::variant_arms
INSERT INTO bandit_arms (experiment_id, arm_type, arm_id, arm_name)
SELECT v.experiment_id, 'variant', v.id::text, v.name
FROM bandit_learning l JOIN experiment_variants v ON v.experiment_id = l.experiment_id
WHERE l.arm_type = 'variant' AND NOT EXISTS (
    SELECT 1 FROM bandit_arms a WHERE a.experiment_id = v.experiment_id AND a.arm_type = 'variant' AND a.arm_id = v.id::text)
ORDER BY v.id
ON CONFLICT DO NOTHING";

/// Of the rows of `seen` (experiment_id, arm_type, arm_id, each arm once), `fresh` are those that are no arms yet, in the order
/// of their ids, and `room` how many more the experiment may have: whoever makes arms takes `place <= places`. Arms are made
/// for people who did not log in, so one statement must not pass the limit. Two that run at the same moment may, by what one
/// of them adds.
pub(crate) static FRESH: LazyLock<String> = LazyLock::new(|| {
    format!(
        "fresh AS (
    SELECT s.*, row_number() OVER (PARTITION BY s.experiment_id, s.arm_type ORDER BY s.arm_id) AS place
    FROM seen s
    WHERE NOT EXISTS (SELECT 1 FROM bandit_arms a
                      WHERE a.experiment_id = s.experiment_id AND a.arm_type = s.arm_type AND a.arm_id = s.arm_id)),
room AS (
    SELECT f.experiment_id, f.arm_type, {MAX_ARMS} - (
        SELECT count(*) FROM bandit_arms a WHERE a.experiment_id = f.experiment_id AND a.arm_type = f.arm_type) AS places
    FROM (SELECT DISTINCT experiment_id, arm_type FROM fresh) f)"
    )
});

/// Other arms are made on first sight. A reward may be seen before its impression.
static NEW_ARMS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- bandit::new_arms
WITH {SRC},
seen AS (
    SELECT DISTINCT g.experiment_id, l.arm_type, {ARM_ID} AS arm_id
    FROM (SELECT *, 0::bigint AS variant_id FROM src) g
    JOIN bandit_learning l ON l.experiment_id = g.experiment_id AND (l.tx_id = 0 OR g.tx_id >= l.tx_id) AND l.arm_type <> 'variant'
    WHERE (g.event_type = 'impression' OR l.rewards ? g.event_type) AND char_length({ARM_ID}) BETWEEN 1 AND 128),
{fresh}
INSERT INTO bandit_arms (experiment_id, arm_type, arm_id)
SELECT experiment_id, arm_type, arm_id FROM fresh JOIN room USING (experiment_id, arm_type)
WHERE place <= places
ORDER BY experiment_id, arm_type, arm_id
ON CONFLICT DO NOTHING",
        fresh = *FRESH
    )
});

static RECORD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- bandit::record
WITH {SRC},
{GOOD},
seen AS MATERIALIZED (
    SELECT g.*, a.id AS arm_row_id, a.reset_at, l.attribution_seconds * interval '1 second' AS attribution,
           CASE WHEN l.by_value THEN least(coalesce(g.value, 0), l.max_reward)
                ELSE (l.rewards ->> g.event_type)::numeric END AS amount
    FROM good g
    JOIN bandit_learning l ON l.experiment_id = g.experiment_id AND (l.tx_id = 0 OR g.tx_id >= l.tx_id)
    JOIN bandit_arms a ON a.experiment_id = l.experiment_id AND a.arm_type = l.arm_type AND a.arm_id = {ARM_ID}
    WHERE NOT g.excluded AND (g.event_type = 'impression' OR l.rewards ? g.event_type)),
pulls AS (
    INSERT INTO bandit_pulls (arm_row_id, event_row_id, experiment_id, unit, occurred_at, due_at, decision_id, position, bucket)
    SELECT p.arm_row_id, p.id, p.experiment_id, p.unit, p.occurred_at, p.occurred_at + p.attribution, p.decision_id, p.position,
           {bucket}
    FROM seen p WHERE p.event_type = 'impression'
    ON CONFLICT DO NOTHING
    RETURNING experiment_id, arm_row_id, event_row_id, bucket),
rewards AS (
    INSERT INTO bandit_rewards (arm_row_id, event_row_id, experiment_id, unit, occurred_at, event_type, amount, decision_id)
    SELECT r.arm_row_id, r.id, r.experiment_id, r.unit, r.occurred_at, r.event_type, r.amount, r.decision_id
    FROM seen r WHERE r.event_type <> 'impression'
    ON CONFLICT DO NOTHING
    RETURNING arm_row_id, event_row_id),
new_pulls AS (INSERT INTO bandit_new_pulls SELECT arm_row_id, event_row_id FROM pulls),
hours AS (
    INSERT INTO bandit_arm_hours (experiment_id, arm_row_id, bucket, pending)
    SELECT experiment_id, arm_row_id, bucket, count(*) FROM pulls GROUP BY 1, 2, 3
    ON CONFLICT (experiment_id, arm_row_id, bucket) DO UPDATE SET pending = bandit_arm_hours.pending + EXCLUDED.pending)
INSERT INTO bandit_loose_rewards SELECT arm_row_id, event_row_id FROM rewards",
        bucket = BUCKET.replace("a.reset_at", "p.reset_at")
    )
});

/// Rewards that may belong to a pull that is new, or new under its unit's name.
const LOOSEN: &str = "-- bandit::loosen
INSERT INTO bandit_loose_rewards
SELECT r.arm_row_id, r.event_row_id
FROM bandit_new_pulls n JOIN bandit_pulls p USING (arm_row_id, event_row_id)
JOIN bandit_rewards r ON r.experiment_id = p.experiment_id AND r.unit = p.unit AND r.arm_row_id = p.arm_row_id
WHERE r.occurred_at BETWEEN p.occurred_at AND p.due_at OR r.decision_id = p.decision_id";

/// Finds the pull of every loose reward. Pulls that gain or lose one are open.
const CREDIT: &str = "-- bandit::credit
WITH found AS (
    SELECT r.arm_row_id, r.event_row_id, r.pull_id AS old, coalesce(
        (SELECT p.event_row_id FROM bandit_pulls p
         WHERE p.experiment_id = r.experiment_id AND p.unit = r.unit AND p.arm_row_id = r.arm_row_id
           AND p.decision_id = r.decision_id
         ORDER BY p.occurred_at > r.occurred_at,
                  CASE WHEN p.occurred_at > r.occurred_at THEN p.occurred_at - r.occurred_at ELSE r.occurred_at - p.occurred_at END,
                  p.event_row_id DESC
         LIMIT 1),
        (SELECT p.event_row_id FROM bandit_pulls p
         WHERE p.experiment_id = r.experiment_id AND p.unit = r.unit AND p.arm_row_id = r.arm_row_id
           AND p.occurred_at <= r.occurred_at AND p.due_at >= r.occurred_at
         ORDER BY p.occurred_at DESC, p.event_row_id DESC
         LIMIT 1)) AS new
    FROM (SELECT DISTINCT arm_row_id, event_row_id FROM bandit_loose_rewards) l
    JOIN bandit_rewards r USING (arm_row_id, event_row_id)),
moved AS (
    UPDATE bandit_rewards r SET pull_id = f.new FROM found f
    WHERE r.arm_row_id = f.arm_row_id AND r.event_row_id = f.event_row_id AND f.old IS DISTINCT FROM f.new
    RETURNING f.arm_row_id, f.old, f.new)
INSERT INTO bandit_open_pulls
SELECT arm_row_id, old FROM moved WHERE old IS NOT NULL
UNION ALL SELECT arm_row_id, new FROM moved WHERE new IS NOT NULL";

const MATURE_TO: &str = "-- bandit::mature_to
SELECT greatest(matured_at, least(now(), (SELECT due_at FROM bandit_pulls WHERE outcome = 0 AND due_at <= now()
                                          ORDER BY due_at OFFSET $1 LIMIT 1))) AS matured_at, now() AS now
FROM fold_state";

const MATURE: &str = "-- bandit::mature
INSERT INTO bandit_open_pulls SELECT arm_row_id, event_row_id FROM bandit_pulls WHERE outcome = 0 AND due_at <= $1";

const SET_MATURED: &str = "-- bandit::set_matured
UPDATE fold_state SET matured_at = $1";

/// Pulls that are counted in another row since their arm was reset.
static RESETS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- bandit::resets
INSERT INTO bandit_open_pulls
SELECT p.arm_row_id, p.event_row_id FROM bandit_arms a JOIN bandit_pulls p ON p.arm_row_id = a.id
WHERE a.reset_tx >= $1 AND p.bucket <> {BUCKET}"
    )
});

/// Adds to the counts by hour what the rows of `parts` say, and notes the arms. `parts` has experiment_id, arm_row_id,
/// bucket, outcome, reward and a sign.
fn count(parts: &str) -> String {
    format!(
        "hours AS (
    INSERT INTO bandit_arm_hours (experiment_id, arm_row_id, bucket, pending, pulls, successes, reward, reward_sq)
    SELECT experiment_id, arm_row_id, bucket, coalesce(sum(sign) FILTER (WHERE outcome = 0), 0),
           coalesce(sum(sign) FILTER (WHERE outcome > 0), 0), coalesce(sum(sign) FILTER (WHERE outcome = 2), 0),
           sum(sign * reward), sum(sign * reward * reward)
    FROM {parts} GROUP BY 1, 2, 3
    ON CONFLICT (experiment_id, arm_row_id, bucket) DO UPDATE SET
        pending = bandit_arm_hours.pending + EXCLUDED.pending,
        pulls = bandit_arm_hours.pulls + EXCLUDED.pulls,
        successes = bandit_arm_hours.successes + EXCLUDED.successes,
        reward = bandit_arm_hours.reward + EXCLUDED.reward,
        reward_sq = bandit_arm_hours.reward_sq + EXCLUDED.reward_sq)
INSERT INTO bandit_stale_arms SELECT DISTINCT arm_row_id FROM {parts} ON CONFLICT DO NOTHING"
    )
}

static SETTLE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- bandit::settle
WITH is_now AS (
    SELECT p.arm_row_id, p.event_row_id, p.experiment_id, p.bucket AS old_bucket, p.outcome AS old_outcome,
           p.reward AS old_reward, {BUCKET} AS bucket,
           CASE WHEN w.amount IS NOT NULL THEN 2 WHEN p.due_at <= $1 THEN 1 ELSE 0 END AS outcome,
           least(coalesce(w.amount, 0), l.max_reward) AS reward
    FROM (SELECT DISTINCT arm_row_id, event_row_id FROM bandit_open_pulls) o
    JOIN bandit_pulls p USING (arm_row_id, event_row_id)
    JOIN bandit_arms a ON a.id = p.arm_row_id
    JOIN bandit_learning l ON l.experiment_id = a.experiment_id AND l.arm_type = a.arm_type
    LEFT JOIN LATERAL (
        SELECT sum(amount) AS amount FROM (
            SELECT DISTINCT ON (r.event_type) r.amount FROM bandit_rewards r
            WHERE r.arm_row_id = p.arm_row_id AND r.pull_id = p.event_row_id
            ORDER BY r.event_type, r.occurred_at, r.event_row_id) firsts) w ON true),
changed AS (
    UPDATE bandit_pulls p SET bucket = n.bucket, outcome = n.outcome, reward = n.reward FROM is_now n
    WHERE p.arm_row_id = n.arm_row_id AND p.event_row_id = n.event_row_id
      AND (n.old_bucket, n.old_outcome, n.old_reward) IS DISTINCT FROM (n.bucket, n.outcome, n.reward)
    RETURNING n.*),
parts AS (
    SELECT experiment_id, arm_row_id, old_bucket AS bucket, old_outcome AS outcome, old_reward AS reward, -1 AS sign FROM changed
    UNION ALL SELECT experiment_id, arm_row_id, bucket, outcome, reward, 1 FROM changed),
{}",
        count("parts")
    )
});

/// A session that logged in: its pulls and rewards get the user's name, and may belong together with the user's.
const ALIASES: [&str; 2] = [
    "-- bandit::alias_pulls
WITH renamed AS (
    UPDATE bandit_pulls p SET unit = a.unit FROM unit_aliases a
    WHERE a.tx_id >= $1 AND p.experiment_id = a.experiment_id AND p.unit = a.alias_unit
      AND NOT EXISTS (SELECT 1 FROM unit_totals o WHERE o.experiment_id = a.experiment_id AND o.unit = a.alias_unit)
    RETURNING p.arm_row_id, p.event_row_id)
INSERT INTO bandit_new_pulls SELECT arm_row_id, event_row_id FROM renamed",
    "-- bandit::alias_rewards
WITH renamed AS (
    UPDATE bandit_rewards r SET unit = a.unit FROM unit_aliases a
    WHERE a.tx_id >= $1 AND r.experiment_id = a.experiment_id AND r.unit = a.alias_unit
      AND NOT EXISTS (SELECT 1 FROM unit_totals o WHERE o.experiment_id = a.experiment_id AND o.unit = a.alias_unit)
    RETURNING r.arm_row_id, r.event_row_id)
INSERT INTO bandit_loose_rewards SELECT arm_row_id, event_row_id FROM renamed",
];

/// Units that are left out: once out, always out, so that their pulls and rewards need not be kept.
static EXCLUSIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- bandit::exclusions
WITH {NAMED},
rewards AS (
    DELETE FROM bandit_rewards r USING named n WHERE r.experiment_id = n.experiment_id AND r.unit = n.unit),
gone AS (
    DELETE FROM bandit_pulls p USING named n WHERE p.experiment_id = n.experiment_id AND p.unit = n.unit
    RETURNING p.experiment_id, p.arm_row_id, p.bucket, p.outcome, p.reward, -1 AS sign),
{}",
        count("gone")
    )
});

/// Whether anything learns; before the first bandit a pass ends here. Experiments that were started since the last
/// pass begin to learn.
pub(crate) async fn begin(transaction: &Transaction<'_>) -> Result<bool, StorageError> {
    if !learning::begin(transaction).await? {
        return Ok(false);
    }
    let scratch = transaction.query_one(HAS_SCRATCH, &[]).await?;
    if !column::<bool>(&scratch, "pg_class", "made")? {
        transaction.batch_execute(SCRATCH).await?;
    }
    transaction.execute(VARIANT_ARMS, &[]).await?;
    Ok(true)
}

/// Follows names that units got in `[from, …)`.
pub(crate) async fn follow_aliases(
    transaction: &Transaction<'_>,
    from: i64,
) -> Result<(), StorageError> {
    for statement in ALIASES {
        transaction.execute(statement, &[&from]).await?;
    }
    Ok(())
}

/// Takes out units that were excluded in `[from, to)`.
pub(crate) async fn exclude(
    transaction: &Transaction<'_>,
    from: i64,
    to: i64,
) -> Result<(), StorageError> {
    transaction
        .execute(EXCLUSIONS.as_str(), &[&from, &to])
        .await?;
    Ok(())
}

/// Records pulls and rewards that were written in `[from, to)`.
pub(crate) async fn record(
    transaction: &Transaction<'_>,
    from: i64,
    to: i64,
) -> Result<(), StorageError> {
    transaction
        .execute(NEW_ARMS.as_str(), &[&from, &to])
        .await?;
    transaction.execute(RECORD.as_str(), &[&from, &to]).await?;
    Ok(())
}

/// Lets windows pass. Answers whether all that have ended are taken.
pub(crate) async fn mature(transaction: &Transaction<'_>) -> Result<bool, StorageError> {
    let row = transaction.query_one(MATURE_TO, &[&MATURING]).await?;
    let to: DateTime<Utc> = column(&row, "fold_state", "matured_at")?;
    let now: DateTime<Utc> = column(&row, "fold_state", "now")?;
    transaction.execute(SET_MATURED, &[&to]).await?;
    Ok(to >= now)
}

const MATURED: &str = "-- bandit::matured
SELECT matured_at FROM fold_state";

/// Credits rewards, decides outcomes and counts them. Resets since `from` are followed.
pub(crate) async fn settle(transaction: &Transaction<'_>, from: i64) -> Result<(), StorageError> {
    let row = transaction.query_one(MATURED, &[]).await?;
    let matured: DateTime<Utc> = column(&row, "fold_state", "matured_at")?;
    transaction.execute(LOOSEN, &[]).await?;
    transaction.execute(CREDIT, &[]).await?;
    transaction.execute(RESETS.as_str(), &[&from]).await?;
    transaction.execute(MATURE, &[&matured]).await?;
    transaction.execute(SETTLE.as_str(), &[&matured]).await?;
    Ok(())
}
