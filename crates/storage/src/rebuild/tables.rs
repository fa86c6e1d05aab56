//! The tables that are recounted, and the statements that do it.

/// A live table: how its rows are named and compared.
pub(super) struct Table {
    pub(super) name: &'static str,
    keys: &'static [&'static str],
    values: &'static [&'static str],
    /// Whether every value is a sum, so that a row of zeros (what is left of an excluded unit, say) is the same as
    /// none.
    additive: bool,
    /// Whether rows are only ever corrected: others refer to them, and they hold more than what is recounted.
    in_place: bool,
    /// Fills `recount_{name}`.
    pub(super) recount: &'static str,
}

impl Table {
    fn columns(&self) -> String {
        self.keys
            .iter()
            .chain(self.values)
            .copied()
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Condition for rows that say something.
    fn says_something(&self) -> String {
        let differs = self
            .values
            .iter()
            .map(|value| format!("{value} <> 0"))
            .collect::<Vec<_>>()
            .join(" OR ");
        if self.additive {
            differs
        } else {
            "true".to_owned()
        }
    }

    /// The temporary table that the recount fills.
    pub(super) fn create(&self) -> String {
        format!(
            "-- rebuild::create\nCREATE TEMP TABLE recount_{0} ON COMMIT DROP AS SELECT {1} FROM {0} WITH NO DATA",
            self.name,
            self.columns()
        )
    }

    /// What is in one and not in the other, both ways, as temporary tables.
    pub(super) fn compare(&self) -> [String; 2] {
        let (name, columns, says) = (self.name, self.columns(), self.says_something());
        let live = format!(
            "SELECT {columns} FROM {name} WHERE ({says}) AND experiment_id NOT IN (SELECT experiment_id FROM recount_left_out)"
        );
        let recount = format!("SELECT {columns} FROM recount_{name} WHERE {says}");
        [
            format!(
                "-- rebuild::missing\nCREATE TEMP TABLE missing_{name} ON COMMIT DROP AS {recount} EXCEPT ALL {live}"
            ),
            format!(
                "-- rebuild::surplus\nCREATE TEMP TABLE surplus_{name} ON COMMIT DROP AS {live} EXCEPT ALL {recount}"
            ),
        ]
    }

    pub(super) fn count(&self) -> String {
        format!(
            "-- rebuild::count
SELECT (SELECT count(*) FROM recount_{0} WHERE {1}) AS rows, (SELECT count(*) FROM missing_{0}) AS missing,
       (SELECT count(*) FROM surplus_{0}) AS surplus",
            self.name,
            self.says_something()
        )
    }

    pub(super) fn examples(&self) -> String {
        format!(
            "-- rebuild::examples
(SELECT false AS live, to_jsonb(m)::text AS row FROM missing_{0} m ORDER BY 2 LIMIT $1)
UNION ALL
(SELECT true, to_jsonb(s)::text FROM surplus_{0} s ORDER BY 2 LIMIT $1)",
            self.name
        )
    }

    pub(super) fn delete(&self) -> String {
        let keys = self
            .keys
            .iter()
            .map(|key| format!("t.{key} = s.{key}"))
            .collect::<Vec<_>>()
            .join(" AND ");
        let keys = if self.in_place {
            "false".to_owned()
        } else {
            keys
        };
        format!(
            "-- rebuild::delete\nDELETE FROM {0} t USING surplus_{0} s WHERE {keys}",
            self.name
        )
    }

    pub(super) fn insert(&self) -> String {
        let set = self
            .values
            .iter()
            .map(|value| format!("{value} = EXCLUDED.{value}"))
            .collect::<Vec<_>>()
            .join(", ");
        let action = if set.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {set}")
        };
        format!(
            "-- rebuild::insert
INSERT INTO {0} ({1}) SELECT {1} FROM missing_{0} ON CONFLICT ({2}) DO {action}",
            self.name,
            self.columns(),
            self.keys.join(", ")
        )
    }
}

/// Tables in the order in which they are filled: later ones read earlier ones.
pub(super) const TABLES: [Table; 17] = [
    Table {
        name: "unit_sessions",
        keys: &["experiment_id", "unit", "session_key"],
        values: &[],
        additive: false,
        in_place: false,
        recount: "-- rebuild::unit_sessions
INSERT INTO recount_unit_sessions
SELECT DISTINCT experiment_id, unit, hashtextextended(session_id, 0)
FROM (SELECT experiment_id, unit, session_id FROM recount_units
      UNION ALL SELECT experiment_id, unit, session_id FROM recount_events) seen
WHERE session_id IS NOT NULL",
    },
    Table {
        name: "unit_totals",
        keys: &["experiment_id", "unit"],
        values: &[
            "variant_id", "epoch", "source", "excluded", "impressions", "clicks", "add_to_carts", "purchases",
            "purchase_value", "engagement", "requests", "errors", "sessions", "covariate", "drawn",
        ],
        additive: false,
        in_place: false,
        recount: "-- rebuild::unit_totals
INSERT INTO recount_unit_totals
SELECT u.experiment_id, u.unit, u.variant_id, u.epoch, u.source, u.excluded,
       coalesce(e.impressions, 0), coalesce(e.clicks, 0), coalesce(e.add_to_carts, 0), coalesce(e.purchases, 0),
       coalesce(e.purchase_value, 0), coalesce(e.engagement, 0), coalesce(e.requests, 0), coalesce(e.errors, 0),
       coalesce(s.sessions, 0), c.covariate, u.drawn
FROM recount_units u
LEFT JOIN recount_covariates c USING (experiment_id, unit)
LEFT JOIN (
    SELECT experiment_id, unit,
           count(*) FILTER (WHERE event_type = 'impression') AS impressions,
           count(*) FILTER (WHERE event_type = 'click') AS clicks,
           count(*) FILTER (WHERE event_type = 'add_to_cart') AS add_to_carts,
           count(*) FILTER (WHERE event_type = 'purchase') AS purchases,
           sum(value) FILTER (WHERE event_type = 'purchase') AS purchase_value,
           sum(value) FILTER (WHERE event_type = 'engagement') AS engagement,
           count(*) FILTER (WHERE event_type = 'request') AS requests,
           count(*) FILTER (WHERE event_type = 'request' AND is_error) AS errors
    FROM recount_events GROUP BY 1, 2) e USING (experiment_id, unit)
LEFT JOIN (SELECT experiment_id, unit, count(*) AS sessions FROM recount_unit_sessions GROUP BY 1, 2) s
    USING (experiment_id, unit)",
    },
    Table {
        name: "unit_days",
        keys: &["experiment_id", "day", "unit"],
        values: &["impressions", "clicks", "add_to_carts", "purchases", "purchase_value", "engagement", "requests", "errors"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::unit_days
INSERT INTO recount_unit_days
SELECT experiment_id, (occurred_at AT TIME ZONE 'UTC')::date, unit,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'add_to_cart'), count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0),
       coalesce(sum(value) FILTER (WHERE event_type = 'engagement'), 0),
       count(*) FILTER (WHERE event_type = 'request'),
       count(*) FILTER (WHERE event_type = 'request' AND is_error)
FROM recount_events WHERE NOT excluded GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_moments",
        keys: &["experiment_id", "variant_id", "epoch"],
        values: &[
            "units", "client_units", "clicking_units", "add_to_cart_units", "purchasing_units", "valued_units",
            "engaged_units", "erring_units", "sum_impressions", "sum_clicks", "sum_add_to_carts", "sum_purchases",
            "sum_purchase_value", "sum_engagement", "sum_requests", "sum_errors", "sum_sessions", "sq_impressions",
            "sq_clicks", "sq_add_to_carts", "sq_purchases", "sq_purchase_value", "sq_engagement", "sq_requests",
            "sq_errors", "sq_sessions", "x_clicks_impressions", "x_add_to_carts_impressions",
            "x_purchases_impressions", "x_purchases_add_to_carts", "x_purchase_value_sessions",
            "x_purchase_value_purchases", "x_errors_requests",
        ],
        additive: true,
        in_place: false,
        recount: "-- rebuild::variant_moments
INSERT INTO recount_variant_moments
SELECT experiment_id, variant_id, epoch, count(*), count(*) FILTER (WHERE source = 1),
       count(*) FILTER (WHERE clicks > 0), count(*) FILTER (WHERE add_to_carts > 0),
       count(*) FILTER (WHERE purchases > 0), count(*) FILTER (WHERE purchase_value > 0),
       count(*) FILTER (WHERE engagement > 0), count(*) FILTER (WHERE errors > 0),
       sum(impressions), sum(clicks), sum(add_to_carts), sum(purchases), sum(purchase_value), sum(engagement),
       sum(requests), sum(errors), sum(sessions),
       sum(impressions::numeric * impressions), sum(clicks::numeric * clicks), sum(add_to_carts::numeric * add_to_carts),
       sum(purchases::numeric * purchases), sum(purchase_value * purchase_value), sum(engagement * engagement),
       sum(requests::numeric * requests), sum(errors::numeric * errors), sum(sessions::numeric * sessions),
       sum(clicks::numeric * impressions), sum(add_to_carts::numeric * impressions),
       sum(purchases::numeric * impressions), sum(purchases::numeric * add_to_carts),
       sum(purchase_value * sessions), sum(purchase_value * purchases), sum(errors::numeric * requests)
FROM recount_unit_totals WHERE NOT excluded GROUP BY 1, 2, 3",
    },
    Table {
        name: "covariate_moments",
        keys: &["experiment_id", "variant_id", "epoch"],
        values: &[
            "units", "sum_x", "sq_x", "clicking_units", "add_to_cart_units", "purchasing_units", "valued_units",
            "engaged_units", "erring_units", "x_clicking_units", "x_add_to_cart_units", "x_purchasing_units",
            "x_valued_units", "x_engaged_units", "x_erring_units", "sum_impressions", "sum_clicks", "sum_add_to_carts",
            "sum_purchases", "sum_purchase_value", "sum_engagement", "sum_requests", "sum_errors", "sum_sessions",
            "x_impressions", "x_clicks", "x_add_to_carts", "x_purchases", "x_purchase_value", "x_engagement",
            "x_requests", "x_errors", "x_sessions",
        ],
        additive: true,
        in_place: false,
        recount: "-- rebuild::covariate_moments
INSERT INTO recount_covariate_moments
SELECT experiment_id, variant_id, epoch, count(*), sum(x), sum(x * x),
       count(*) FILTER (WHERE clicks > 0), count(*) FILTER (WHERE add_to_carts > 0),
       count(*) FILTER (WHERE purchases > 0), count(*) FILTER (WHERE purchase_value > 0),
       count(*) FILTER (WHERE engagement > 0), count(*) FILTER (WHERE errors > 0),
       coalesce(sum(x) FILTER (WHERE clicks > 0), 0), coalesce(sum(x) FILTER (WHERE add_to_carts > 0), 0),
       coalesce(sum(x) FILTER (WHERE purchases > 0), 0), coalesce(sum(x) FILTER (WHERE purchase_value > 0), 0),
       coalesce(sum(x) FILTER (WHERE engagement > 0), 0), coalesce(sum(x) FILTER (WHERE errors > 0), 0),
       sum(impressions), sum(clicks), sum(add_to_carts), sum(purchases), sum(purchase_value), sum(engagement),
       sum(requests), sum(errors), sum(sessions),
       sum(x * impressions), sum(x * clicks), sum(x * add_to_carts), sum(x * purchases), sum(x * purchase_value),
       sum(x * engagement), sum(x * requests), sum(x * errors), sum(x * sessions)
FROM (SELECT *, covariate AS x FROM recount_unit_totals WHERE NOT excluded AND covariate IS NOT NULL) covered
GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_drawn_units",
        keys: &["experiment_id", "variant_id", "epoch"],
        values: &["units", "clicking_units", "add_to_cart_units", "purchasing_units"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::variant_drawn_units
INSERT INTO recount_variant_drawn_units
SELECT experiment_id, variant_id, epoch, count(*), count(*) FILTER (WHERE clicks > 0),
       count(*) FILTER (WHERE add_to_carts > 0), count(*) FILTER (WHERE purchases > 0)
FROM recount_unit_totals WHERE NOT excluded AND drawn GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_requests",
        keys: &["experiment_id", "variant_id", "epoch"],
        values: &["requesting_units"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::variant_requests
INSERT INTO recount_variant_requests
SELECT experiment_id, variant_id, epoch, count(*) FROM recount_unit_totals
WHERE NOT excluded AND requests > 0 GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_latencies",
        keys: &["experiment_id", "variant_id", "epoch", "bucket"],
        values: &["requests"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::variant_latencies
INSERT INTO recount_variant_latencies
SELECT experiment_id, variant_id, epoch, podium_latency_bucket(latency_ms), count(*) FROM recount_events
WHERE NOT excluded AND event_type = 'request' AND latency_ms IS NOT NULL GROUP BY 1, 2, 3, 4",
    },
    Table {
        name: "promotion_units",
        keys: &["experiment_id", "unit", "promotion_id"],
        values: &["requests", "requests_arm", "erred", "converted_step", "converted_arm"],
        additive: false,
        in_place: false,
        recount: "-- rebuild::promotion_units
INSERT INTO recount_promotion_units
SELECT experiment_id, unit, promotion_id, count(*) FILTER (WHERE asked),
       (array_agg(arm ORDER BY moment, created_at, id) FILTER (WHERE asked))[1],
       coalesce(bool_or(is_error) FILTER (WHERE asked AND place <= requests_counted), false),
       (array_agg(step ORDER BY moment, created_at, id) FILTER (WHERE converts))[1],
       (array_agg(arm ORDER BY moment, created_at, id) FILTER (WHERE converts))[1]
FROM (SELECT seen.*, count(*) FILTER (WHERE asked) OVER (
                 PARTITION BY experiment_id, unit, promotion_id ORDER BY moment, created_at, id) AS place
      FROM (SELECT e.experiment_id, coalesce(l.unit, e.user_id) AS unit, e.promotion_id, e.promotion_step AS step,
                   e.promotion_arm AS arm, e.is_error, e.created_at, e.id, r.requests_counted,
                   e.tx_id - CASE WHEN e.tx_id >= b.foreign_from OR e.tx_id < 0 THEN b.shift ELSE 0 END AS moment,
                   e.event_type = 'request' AND e.promotion_arm > 0 AS asked,
                   e.event_type = r.conversion_event AND (NOT r.conversion_needs_value OR e.value > 0)
                       AND e.promotion_arm <> 3 AS converts
            FROM recount_scope b
            JOIN experiment_events e ON e.promotion_arm IS NOT NULL
                AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
            JOIN promotion_rollouts r ON r.promotion_id = e.promotion_id
            LEFT JOIN unit_aliases l ON l.experiment_id = e.experiment_id AND l.alias_unit = e.user_id
            WHERE e.experiment_id NOT IN (SELECT experiment_id FROM recount_left_out)) seen) numbered
WHERE asked OR converts GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_hours",
        keys: &["experiment_id", "hour", "variant_id"],
        values: &["impressions", "clicks", "add_to_carts", "purchases", "purchase_value", "engagement", "requests", "errors"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::variant_hours
INSERT INTO recount_variant_hours
SELECT experiment_id, date_trunc('hour', occurred_at), variant_id,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'add_to_cart'), count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0),
       coalesce(sum(value) FILTER (WHERE event_type = 'engagement'), 0),
       count(*) FILTER (WHERE event_type = 'request'),
       count(*) FILTER (WHERE event_type = 'request' AND is_error)
FROM recount_events WHERE NOT excluded GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_dimensions",
        keys: &["experiment_id", "dimension", "key", "variant_id"],
        values: &["impressions", "clicks", "add_to_carts", "purchases", "purchase_value"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::variant_dimensions
INSERT INTO recount_variant_dimensions
SELECT experiment_id, dimension, key, variant_id,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'add_to_cart'), count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0)
FROM (SELECT *, 'item' AS dimension, item_id AS key FROM recount_events
      UNION ALL SELECT *, 'brand', brand_id FROM recount_events
      UNION ALL SELECT *, 'position', position::text FROM recount_events) seen
WHERE NOT excluded AND key IS NOT NULL AND of_funnel GROUP BY 1, 2, 3, 4",
    },
    Table {
        name: "position_performance",
        keys: &["experiment_id", "position", "date"],
        values: &["impressions", "clicks", "conversions", "total_value"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::position_performance
INSERT INTO recount_position_performance
SELECT experiment_id, position, (occurred_at AT TIME ZONE 'UTC')::date,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0)
FROM recount_events WHERE NOT excluded AND position IS NOT NULL GROUP BY 1, 2, 3",
    },
    Table {
        name: "experiment_counters",
        keys: &["experiment_id"],
        values: &["bot_events", "bot_units", "uncounted_events"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::experiment_counters
INSERT INTO recount_experiment_counters
SELECT experiment_id, sum(bot_events), sum(bot_units), sum(uncounted_events)
FROM (SELECT e.experiment_id, count(*) FILTER (WHERE e.is_bot) AS bot_events, 0 AS bot_units,
             count(*) FILTER (WHERE NOT e.is_bot) AS uncounted_events
      FROM recount_scope b
      JOIN experiment_events e ON NOT e.counted AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
      WHERE e.experiment_id NOT IN (SELECT experiment_id FROM recount_left_out) GROUP BY 1
      UNION ALL
      SELECT experiment_id, 0, count(*), 0 FROM recount_units WHERE is_bot GROUP BY 1) parts
GROUP BY 1",
    },
    Table {
        name: "bandit_rewards",
        keys: &["arm_row_id", "event_row_id"],
        values: &["experiment_id", "unit", "occurred_at", "event_type", "amount", "decision_id", "pull_id"],
        additive: false,
        in_place: false,
        recount: "-- rebuild::bandit_rewards
INSERT INTO recount_bandit_rewards
SELECT r.arm_row_id, r.event_row_id, r.experiment_id, r.unit, r.occurred_at, r.event_type,
       CASE WHEN r.by_value THEN least(r.value, r.max_reward) ELSE (r.rewards ->> r.event_type)::numeric END,
       r.decision_id, credited.pull_id
FROM recount_arm_events r
LEFT JOIN (
    SELECT DISTINCT ON (r.arm_row_id, r.event_row_id) r.arm_row_id, r.event_row_id, p.event_row_id AS pull_id
    FROM recount_arm_events r
    JOIN recount_arm_events p ON p.arm_row_id = r.arm_row_id AND p.unit = r.unit
    WHERE r.event_type <> 'impression' AND p.event_type = 'impression'
      AND (p.decision_id = r.decision_id
           OR (p.occurred_at <= r.occurred_at AND r.occurred_at - p.occurred_at <= r.attribution))
    ORDER BY r.arm_row_id, r.event_row_id, (p.decision_id = r.decision_id) IS TRUE DESC,
             p.occurred_at <= r.occurred_at DESC, abs(extract(epoch FROM p.occurred_at - r.occurred_at)), p.event_row_id DESC) credited
    USING (arm_row_id, event_row_id)
WHERE r.event_type <> 'impression'",
    },
    Table {
        name: "bandit_pulls",
        keys: &["arm_row_id", "event_row_id"],
        values: &["experiment_id", "unit", "occurred_at", "due_at", "decision_id", "position", "bucket", "outcome", "reward"],
        additive: false,
        in_place: false,
        recount: "-- rebuild::bandit_pulls
INSERT INTO recount_bandit_pulls
SELECT p.arm_row_id, p.event_row_id, p.experiment_id, p.unit, p.occurred_at, p.occurred_at + p.attribution, p.decision_id,
       p.position,
       CASE WHEN p.reset_at IS NULL OR p.occurred_at < p.reset_at OR date_trunc('hour', p.occurred_at, 'UTC') > p.reset_at
            THEN date_trunc('hour', p.occurred_at, 'UTC') ELSE p.reset_at END,
       CASE WHEN e.earned IS NOT NULL THEN 2 WHEN p.occurred_at + p.attribution <= f.matured_at THEN 1 ELSE 0 END,
       CASE WHEN e.earned > p.max_reward THEN p.max_reward ELSE coalesce(e.earned, 0) END
FROM recount_arm_events p CROSS JOIN fold_state f
LEFT JOIN (
    SELECT arm_row_id, pull_id, sum(amount) AS earned FROM (
        SELECT arm_row_id, pull_id, event_type, (array_agg(amount ORDER BY occurred_at, event_row_id))[1] AS amount
        FROM recount_bandit_rewards WHERE pull_id IS NOT NULL GROUP BY 1, 2, 3) kinds
    GROUP BY 1, 2) e ON e.arm_row_id = p.arm_row_id AND e.pull_id = p.event_row_id
WHERE p.event_type = 'impression'",
    },
    Table {
        name: "bandit_arm_hours",
        keys: &["experiment_id", "arm_row_id", "bucket"],
        values: &["pending", "pulls", "successes", "reward", "reward_sq"],
        additive: true,
        in_place: false,
        recount: "-- rebuild::bandit_arm_hours
INSERT INTO recount_bandit_arm_hours
SELECT experiment_id, arm_row_id, bucket, count(*) FILTER (WHERE outcome = 0), count(*) FILTER (WHERE outcome <> 0),
       count(*) FILTER (WHERE outcome = 2), sum(reward), sum(reward * reward)
FROM recount_bandit_pulls GROUP BY 1, 2, 3",
    },
    Table {
        name: "bandit_arms",
        keys: &["experiment_id", "arm_type", "arm_id"],
        values: &["total_pulls", "total_reward", "alpha", "beta", "folded_pulls", "folded_successes", "folded_reward"],
        additive: false,
        in_place: true,
        recount: "-- rebuild::bandit_arms
INSERT INTO recount_bandit_arms
SELECT a.experiment_id, a.arm_type, a.arm_id, f.pulls + u.pulls, f.reward + u.reward, 1 + f.successes + u.successes,
       1 + f.pulls + u.pulls - f.successes - u.successes, f.pulls, f.successes, f.reward
FROM bandit_arms a
CROSS JOIN LATERAL (
    SELECT coalesce(sum(h.pulls), 0) AS pulls, coalesce(sum(h.successes), 0) AS successes, coalesce(sum(h.reward), 0) AS reward
    FROM recount_bandit_arm_hours h
    WHERE h.experiment_id = a.experiment_id AND h.arm_row_id = a.id AND (a.reset_at IS NULL OR h.bucket >= a.reset_at)) f
CROSS JOIN LATERAL (
    SELECT count(*) AS pulls, count(*) FILTER (WHERE u.success) AS successes, coalesce(sum(u.reward), 0) AS reward
    FROM bandit_arm_updates u WHERE u.arm_row_id = a.id AND (a.reset_at IS NULL OR u.created_at >= a.reset_at)) u
WHERE a.experiment_id NOT IN (SELECT experiment_id FROM recount_left_out)",
    },
];
