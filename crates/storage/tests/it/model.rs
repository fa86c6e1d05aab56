//! The derived tables, computed in memory from the raw rows: neither by folding nor by the recount.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::support::TestDatabase;

/// Key of a row, as text, to its numbers: counts as they are, money in 1/10,000, squares of money in 1/10^8.
pub(crate) type Rows = BTreeMap<String, Vec<i128>>;
/// Name of a table to its rows; rows of zeros are left out where a row is a sum.
pub(crate) type Tables = BTreeMap<&'static str, Rows>;

struct Assignment {
    variant: i64,
    epoch: i32,
    by_client: bool,
    drawn: bool,
    is_bot: bool,
    session: Option<String>,
    /// The name at the assignment, and the transaction that made it.
    first_name: String,
    tx_id: i64,
}

struct Event {
    experiment: i64,
    name: String,
    kind: String,
    item: Option<String>,
    brand: Option<String>,
    position: Option<i32>,
    value: i128,
    is_error: bool,
    session: Option<String>,
    day: String,
    hour: String,
    counted: bool,
    is_bot: bool,
}

/// What a unit is and did.
#[derive(Default)]
pub(crate) struct Unit {
    pub(crate) variant: i64,
    epoch: i32,
    by_client: bool,
    drawn: bool,
    pub(crate) excluded: bool,
    totals: [i128; 8],
    sessions: BTreeSet<String>,
    /// In 1/10,000.
    covariate: Option<i128>,
}

impl Unit {
    /// The nine totals, sessions last.
    fn all(&self) -> [i128; 9] {
        let mut all = [0; 9];
        all[..8].copy_from_slice(&self.totals);
        all[8] = i128::try_from(self.sessions.len()).unwrap();
        all
    }
}

/// The raw rows.
#[derive(Default)]
pub(crate) struct Raw {
    assignments: HashMap<(i64, String), Assignment>,
    aliases: HashMap<(i64, String), String>,
    excluded: HashSet<(i64, String)>,
    events: Vec<Event>,
    /// Transaction and value of what was handed in for a name.
    covariates: HashMap<(i64, String), Vec<(i64, i128)>>,
}

impl Raw {
    pub(crate) async fn read(db: &TestDatabase) -> Self {
        let client = db.client().await;
        let mut raw = Self::default();
        for row in client
            .query("SELECT experiment_id, user_id, variant_id, epoch, source = 1, is_bot, session_id, coalesce(assigned_as, user_id), tx_id, propensity IS NOT NULL FROM user_experiment_assignments", &[])
            .await
            .unwrap()
        {
            let assignment =
                Assignment { variant: row.get(2), epoch: row.get(3), by_client: row.get(4), is_bot: row.get(5), session: row.get(6), first_name: row.get(7), tx_id: row.get(8), drawn: row.get(9) };
            raw.assignments.insert((row.get(0), row.get(1)), assignment);
        }
        for row in client
            .query(
                "SELECT experiment_id, alias_unit, unit FROM unit_aliases",
                &[],
            )
            .await
            .unwrap()
        {
            raw.aliases.insert((row.get(0), row.get(1)), row.get(2));
        }
        for row in client
            .query("SELECT experiment_id, unit FROM excluded_units", &[])
            .await
            .unwrap()
        {
            raw.excluded.insert((row.get(0), row.get(1)));
        }
        let covariates =
            "SELECT experiment_id, unit, tx_id, (value * 10000)::bigint FROM unit_covariates";
        for row in client.query(covariates, &[]).await.unwrap() {
            let versions = raw.covariates.entry((row.get(0), row.get(1))).or_default();
            versions.push((row.get(2), row.get::<_, i64>(3).into()));
        }
        let sql = "SELECT experiment_id, user_id, event_type, item_id, brand_id, position,
                (coalesce(value, 0) * 10000)::bigint, coalesce(is_error, false), session_id,
                to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
                to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), counted, is_bot
            FROM experiment_events";
        for row in client.query(sql, &[]).await.unwrap() {
            raw.events.push(Event {
                experiment: row.get(0),
                name: row.get(1),
                kind: row.get(2),
                item: row.get(3),
                brand: row.get(4),
                position: row.get(5),
                value: row.get::<_, i64>(6).into(),
                is_error: row.get(7),
                session: row.get(8),
                day: row.get(9),
                hour: row.get(10),
                counted: row.get(11),
                is_bot: row.get(12),
            });
        }
        raw
    }

    /// The unit that a name stands for.
    pub(crate) fn unit_of<'a>(&'a self, experiment: i64, name: &'a str) -> &'a str {
        self.aliases
            .get(&(experiment, name.to_owned()))
            .map_or(name, String::as_str)
    }

    fn is_excluded(&self, experiment: i64, unit: &str) -> bool {
        let named = |name: &str| self.excluded.contains(&(experiment, name.to_owned()));
        let former = self
            .aliases
            .iter()
            .filter(|((e, _), owner)| *e == experiment && *owner == unit);
        named(unit) || former.map(|((_, name), _)| name).any(|name| named(name))
    }

    /// What was handed in last before an assignment.
    fn covariate(&self, experiment: i64, assignment: &Assignment) -> Option<i128> {
        let versions = self
            .covariates
            .get(&(experiment, assignment.first_name.clone()))?;
        let before = versions
            .iter()
            .filter(|(tx_id, _)| *tx_id < assignment.tx_id);
        before.max().map(|(_, value)| *value)
    }

    /// Units without their events. A name that is an alias is no unit, whatever was assigned to it.
    pub(crate) fn units(&self) -> BTreeMap<(i64, String), Unit> {
        let own = self
            .assignments
            .iter()
            .filter(|(key, _)| !self.aliases.contains_key(key));
        own.map(|((experiment, name), a)| {
            let unit = Unit {
                variant: a.variant,
                epoch: a.epoch,
                by_client: a.by_client,
                drawn: a.drawn,
                excluded: a.is_bot || self.is_excluded(*experiment, name),
                totals: [0; 8],
                sessions: a.session.iter().cloned().collect(),
                covariate: self.covariate(*experiment, a),
            };
            ((*experiment, name.clone()), unit)
        })
        .collect()
    }
}

/// Impressions, clicks, add-to-carts, purchases, purchase value, engagement, requests, errors of one event.
fn contribution(event: &Event) -> [i128; 8] {
    let mut sums = [0; 8];
    match event.kind.as_str() {
        "impression" => sums[0] = 1,
        "click" => sums[1] = 1,
        "add_to_cart" => sums[2] = 1,
        "purchase" => (sums[3], sums[4]) = (1, event.value),
        "engagement" => sums[5] = event.value,
        _ => (sums[6], sums[7]) = (1, event.is_error.into()),
    }
    sums
}

fn add(rows: &mut Rows, key: String, numbers: &[i128]) {
    let row = rows.entry(key).or_insert_with(|| vec![0; numbers.len()]);
    for (sum, number) in row.iter_mut().zip(numbers) {
        *sum += number;
    }
}

/// The contribution of one unit to the moments of its variant, in the order of the columns.
fn moments(unit: &Unit) -> Vec<i128> {
    let t = unit.all();
    let [
        impressions,
        clicks,
        carts,
        purchases,
        value,
        engagement,
        requests,
        errors,
        sessions,
    ] = t;
    let mut row = vec![1, unit.by_client.into()];
    row.extend(
        [clicks, carts, purchases, value, engagement, errors].map(|total| i128::from(total > 0)),
    );
    row.extend(t);
    row.extend(t.map(|total| total * total));
    row.extend([
        clicks * impressions,
        carts * impressions,
        purchases * impressions,
        purchases * carts,
        value * sessions,
        value * purchases,
        errors * requests,
    ]);
    row
}

/// The contribution of one unit with the covariate `x` to the sums over such units, in the order of the columns.
fn covered(unit: &Unit, x: i128) -> Vec<i128> {
    let t = unit.all();
    let [_, clicks, carts, purchases, value, engagement, _, errors, _] = t;
    let with =
        [clicks, carts, purchases, value, engagement, errors].map(|total| i128::from(total > 0));
    let mut row = vec![1, x, x * x];
    row.extend(with);
    row.extend(with.map(|with| x * with));
    row.extend(t);
    row.extend(t.map(|total| x * total));
    row
}

/// What the derived tables should hold.
pub(crate) async fn expected(db: &TestDatabase) -> Tables {
    let raw = Raw::read(db).await;
    let mut units = raw.units();
    let mut tables = Tables::new();
    let mut table =
        |name, key: String, numbers: &[i128]| add(tables.entry(name).or_default(), key, numbers);
    for event in &raw.events {
        let e = event.experiment;
        if !event.counted {
            table(
                "experiment_counters",
                e.to_string(),
                &[event.is_bot.into(), 0, (!event.is_bot).into()],
            );
            continue;
        }
        let unit_name = raw.unit_of(e, &event.name).to_owned();
        let unit = units
            .get_mut(&(e, unit_name.clone()))
            .expect("every event has a unit");
        let sums = contribution(event);
        for (total, number) in unit.totals.iter_mut().zip(sums) {
            *total += number;
        }
        unit.sessions.extend(event.session.clone());
        if unit.excluded {
            continue;
        }
        table("unit_days", format!("{e} {} {unit_name}", event.day), &sums);
        table(
            "variant_hours",
            format!("{e} {} {}", unit.variant, event.hour),
            &sums,
        );
        let position = event.position.map(|p| p.to_string());
        for (dimension, key) in [
            ("item", &event.item),
            ("brand", &event.brand),
            ("position", &position),
        ] {
            if let Some(key) = key {
                table(
                    "variant_dimensions",
                    format!("{e} {} {dimension} {key}", unit.variant),
                    &sums[..5],
                );
            }
        }
        if let Some(position) = position {
            let numbers = [sums[0], sums[1], sums[3], sums[4]];
            table(
                "position_performance",
                format!("{e} {position} {}", event.day),
                &numbers,
            );
        }
    }
    for ((e, name), unit) in &units {
        let mut numbers = vec![
            unit.variant.into(),
            unit.epoch.into(),
            unit.by_client.into(),
            unit.drawn.into(),
            unit.excluded.into(),
        ];
        numbers.extend(unit.all());
        numbers.extend([
            unit.covariate.is_some().into(),
            unit.covariate.unwrap_or_default(),
        ]);
        table("unit_totals", format!("{e} {name}"), &numbers);
        if !unit.sessions.is_empty() {
            table(
                "unit_sessions",
                format!("{e} {name}"),
                &[i128::try_from(unit.sessions.len()).unwrap()],
            );
        }
        if !unit.excluded {
            table(
                "variant_moments",
                format!("{e} {} {}", unit.variant, unit.epoch),
                &moments(unit),
            );
            if unit.drawn {
                let with = [1, 2, 3].map(|total| i128::from(unit.totals[total] > 0));
                table(
                    "variant_drawn_units",
                    format!("{e} {} {}", unit.variant, unit.epoch),
                    &[1, with[0], with[1], with[2]],
                );
            }
            if let Some(x) = unit.covariate {
                table(
                    "covariate_moments",
                    format!("{e} {} {}", unit.variant, unit.epoch),
                    &covered(unit, x),
                );
            }
        }
        if raw
            .assignments
            .get(&(*e, name.clone()))
            .is_some_and(|a| a.is_bot)
        {
            table("experiment_counters", e.to_string(), &[0, 1, 0]);
        }
    }
    without_zeros(tables)
}

fn without_zeros(mut tables: Tables) -> Tables {
    for rows in tables.values_mut() {
        rows.retain(|_, numbers| numbers.iter().any(|number| *number != 0));
    }
    tables.retain(|_, rows| !rows.is_empty());
    tables
}

const EVENT_SUMS: &str = "impressions, clicks, add_to_carts, purchases, purchase_value * 10000, engagement * 10000, requests, errors";

/// What the derived tables hold.
pub(crate) async fn live(db: &TestDatabase) -> Tables {
    let moments = "units, client_units, clicking_units, add_to_cart_units, purchasing_units, valued_units, engaged_units, erring_units,
        sum_impressions, sum_clicks, sum_add_to_carts, sum_purchases, sum_purchase_value * 10000, sum_engagement * 10000,
        sum_requests, sum_errors, sum_sessions,
        sq_impressions, sq_clicks, sq_add_to_carts, sq_purchases, sq_purchase_value * 100000000, sq_engagement * 100000000,
        sq_requests, sq_errors, sq_sessions,
        x_clicks_impressions, x_add_to_carts_impressions, x_purchases_impressions, x_purchases_add_to_carts,
        x_purchase_value_sessions * 10000, x_purchase_value_purchases * 10000, x_errors_requests";
    let totals = format!(
        "variant_id, epoch, source, drawn::integer, excluded::integer, {EVENT_SUMS}, sessions,
         (covariate IS NOT NULL)::integer, CASE WHEN covariate IS NULL THEN 0 ELSE covariate * 10000 END"
    );
    let covered = "units, sum_x * 10000, sq_x * 100000000,
        clicking_units, add_to_cart_units, purchasing_units, valued_units, engaged_units, erring_units,
        x_clicking_units * 10000, x_add_to_cart_units * 10000, x_purchasing_units * 10000, x_valued_units * 10000,
        x_engaged_units * 10000, x_erring_units * 10000,
        sum_impressions, sum_clicks, sum_add_to_carts, sum_purchases, sum_purchase_value * 10000, sum_engagement * 10000,
        sum_requests, sum_errors, sum_sessions,
        x_impressions * 10000, x_clicks * 10000, x_add_to_carts * 10000, x_purchases * 10000, x_purchase_value * 100000000,
        x_engagement * 100000000, x_requests * 10000, x_errors * 10000, x_sessions * 10000";
    let five = "impressions, clicks, add_to_carts, purchases, purchase_value * 10000";
    let queries: [(&'static str, &str, &str, &str); 10] = [
        (
            "unit_totals",
            "unit_totals",
            "experiment_id || ' ' || unit",
            &totals,
        ),
        (
            "unit_days",
            "unit_days",
            "experiment_id || ' ' || day || ' ' || unit",
            EVENT_SUMS,
        ),
        (
            "unit_sessions",
            "(SELECT experiment_id, unit, count(*) AS n FROM unit_sessions GROUP BY 1, 2) s",
            "experiment_id || ' ' || unit",
            "n",
        ),
        (
            "variant_moments",
            "variant_moments",
            "experiment_id || ' ' || variant_id || ' ' || epoch",
            moments,
        ),
        (
            "variant_drawn_units",
            "variant_drawn_units",
            "experiment_id || ' ' || variant_id || ' ' || epoch",
            "units, clicking_units, add_to_cart_units, purchasing_units",
        ),
        (
            "covariate_moments",
            "covariate_moments",
            "experiment_id || ' ' || variant_id || ' ' || epoch",
            covered,
        ),
        (
            "variant_hours",
            "variant_hours",
            "experiment_id || ' ' || variant_id || ' ' || to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24')",
            EVENT_SUMS,
        ),
        (
            "variant_dimensions",
            "variant_dimensions",
            "experiment_id || ' ' || variant_id || ' ' || dimension || ' ' || key",
            five,
        ),
        (
            "position_performance",
            "position_performance",
            "experiment_id || ' ' || position || ' ' || date",
            "impressions, clicks, conversions, total_value * 10000",
        ),
        (
            "experiment_counters",
            "experiment_counters",
            "experiment_id::text",
            "bot_events, bot_units, uncounted_events",
        ),
    ];
    let client = db.client().await;
    let mut tables = Tables::new();
    for (name, from, key, columns) in queries {
        let numbers = columns
            .split(',')
            .map(|c| format!("trim_scale(({c})::numeric)::text"))
            .collect::<Vec<_>>()
            .join(", ");
        for row in client
            .query(&format!("SELECT {key}, ARRAY[{numbers}] FROM {from}"), &[])
            .await
            .unwrap()
        {
            let numbers: Vec<String> = row.get(1);
            let numbers = numbers.iter().map(|n| n.parse().unwrap()).collect();
            let known = tables.entry(name).or_default().insert(row.get(0), numbers);
            assert_eq!(known, None, "two rows of {name} with one key");
        }
    }
    without_zeros(tables)
}
