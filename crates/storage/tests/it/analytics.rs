//! Results as they are read.

use chrono::NaiveDate;
use podium_domain::metric::{Metric, UnitTotal};
use podium_domain::moments::MetricMoments;
use podium_storage::analytics::dimensions::{self, Dimension, DimensionTotals};
use podium_storage::analytics::series::{self, Bucket};
use podium_storage::analytics::{Days, context, moments, performance, units};
use podium_storage::database::Link;

use crate::support::{TestDatabase, with_database};

/// Experiment 1 with the variants 10 (control), 11, and 12, to which nothing ever happens.
const EXPERIMENT: &str = "
    INSERT INTO experiments (id, name, salt, status) VALUES (1, 'one', 'one', 'running');
    INSERT INTO experiment_variants (id, experiment_id, name, is_control, traffic_weight) VALUES
        (11, 1, 'treatment', false, 2), (10, 1, 'control', true, 1), (12, 1, 'quiet', false, 0.5);
    INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights) VALUES
        (1, 1, 100, '{\"10\": 1, \"11\": 2, \"12\": 0.5}');
    INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, source, session_id) VALUES
        ('a', 1, 10, 0, 'sa'), ('b', 1, 10, 1, NULL), ('c', 1, 11, 0, NULL), ('bot', 1, 11, 0, NULL), ('pinned', 1, 11, 0, NULL);
    UPDATE user_experiment_assignments SET is_bot = true WHERE user_id = 'bot';
    INSERT INTO excluded_units (experiment_id, unit, reason) VALUES (1, 'pinned', 'override')";

/// An event at a time of day `days` ago.
fn event(id: &str, unit: &str, kind: &str, days: i32, columns: &[(&str, &str)]) -> String {
    let names: String = columns
        .iter()
        .map(|(name, _)| format!(", {name}"))
        .collect();
    let values: String = columns
        .iter()
        .map(|(_, value)| format!(", {value}"))
        .collect();
    format!(
        "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, occurred_at{names})
         VALUES ('{id}', '{unit}', 1, 10, '{kind}', date_trunc('day', now()) - interval '{days} days' + interval '1 minute'{values});"
    )
}

async fn filled(db: &TestDatabase) -> Link {
    db.execute(EXPERIMENT).await;
    let (p1, p2) = (("position", "1"), ("position", "2"));
    let (shoe, hat) = (("item_id", "'shoe'"), ("item_id", "'hat'"));
    let events = [
        event(
            "1",
            "a",
            "impression",
            0,
            &[p1, shoe, ("brand_id", "'acme'")],
        ),
        event("2", "a", "impression", 0, &[p2, hat]),
        event("3", "a", "impression", 2, &[p1, shoe]),
        event("4", "a", "click", 0, &[p1, shoe]),
        event("5", "a", "purchase", 0, &[shoe, ("value", "10.0001")]),
        event("6", "c", "impression", 2, &[p1, hat]),
        event("7", "c", "click", 2, &[p1, hat]),
        event("8", "c", "click", 2, &[p1, hat]),
        event(
            "9",
            "c",
            "purchase",
            2,
            &[hat, ("value", "999999999999.9999")],
        ),
        event("10", "pinned", "purchase", 0, &[hat, ("value", "5")]),
        event(
            "11",
            "bot",
            "click",
            0,
            &[("is_bot", "true"), ("counted", "false")],
        ),
        event("12", "a", "click", 0, &[("counted", "false")]),
    ];
    db.execute(&events.concat()).await;
    db.fold_all().await;
    db.database.report().await.unwrap()
}

async fn today(link: &mut Link) -> NaiveDate {
    context::freshness(link).await.unwrap().today
}

#[test]
fn moments_are_exact_and_leave_out_bots_and_pinned_units() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let parts = moments::now(&mut link, 1).await.unwrap();
        let by_variant = moments::by_variant(&parts);
        assert_eq!(by_variant[&10].units, 2);
        assert_eq!(by_variant[&11].units, 1);
        assert_eq!(parts.iter().map(|part| part.client_units).sum::<i64>(), 1);
        let revenue = by_variant[&10].mean(UnitTotal::PurchaseValue);
        assert_eq!(
            (revenue.sum.to_string(), revenue.sum_sq.to_string()),
            ("100001".into(), "10000200001".into())
        );
        let huge = by_variant[&11].mean(UnitTotal::PurchaseValue);
        assert_eq!(huge.sum_sq.to_string(), "99999999999999980000000000000001");
        let Some(MetricMoments::Proportion(bought)) =
            by_variant[&10].of_metric(Metric::ConversionRate).unwrap()
        else {
            panic!("a proportion");
        };
        assert_eq!((bought.successes(), bought.units()), (1, 2));
        let Some(MetricMoments::Ratio(ctr)) =
            by_variant[&10].of_metric(Metric::ClickThroughRate).unwrap()
        else {
            panic!("a ratio");
        };
        assert_eq!(
            (ctr.sum_x, ctr.sum_y, ctr.sum_xy, ctr.sum_xx),
            (3.into(), 1.into(), 3.into(), 9.into())
        );
    });
}

#[test]
fn performance_is_what_the_sql_function_says() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let rows = performance::totals(&mut link, 1, Days::default())
            .await
            .unwrap();
        let mine: Vec<String> = rows
            .iter()
            .map(|r| {
                format!(
                    "{} {} {} {} {} {} {} {} {}",
                    r.variant_id,
                    r.name,
                    r.impressions,
                    r.clicks,
                    r.purchases,
                    r.click_through_percent,
                    r.conversion_percent,
                    r.total_value,
                    r.value_per_unit
                )
            })
            .collect();
        let sql = "SELECT string_agg(concat_ws(' ', variant_id, variant_name, impressions, clicks, conversions,
                trim_scale(click_through_rate), trim_scale(conversion_rate), trim_scale(total_value),
                trim_scale(avg_value_per_user)), E'\\n') FROM get_experiment_performance(1)";
        assert_eq!(mine.join("\n"), db.text(sql).await);
        assert_eq!(
            mine[0],
            "10 control 3 1 1 33.333333 33.333333 10.0001 5.00005"
        );
        assert_eq!(
            mine[2], "12 quiet 0 0 0 0 0 0 0",
            "nothing happened to it, and it is listed"
        );
        assert_eq!(rows.iter().map(|r| r.units).collect::<Vec<_>>(), [2, 1, 0]);
    });
}

#[test]
fn a_range_of_days_counts_what_occurred_in_it() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let today = today(&mut link).await;
        let before = today - chrono::TimeDelta::days(2);
        let days = |from: NaiveDate, to: NaiveDate| Days {
            from: Some(from),
            to: Some(to),
        };
        let of = async |link: &mut Link, days: Days| {
            let rows = performance::totals(link, 1, days).await.unwrap();
            rows.into_iter()
                .map(|r| {
                    (
                        r.variant_id,
                        r.impressions,
                        r.clicks,
                        r.purchases,
                        r.active_units.unwrap(),
                        r.units,
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&mut link, days(today, today)).await,
            [
                (10, 2, 1, 1, 1, 2),
                (11, 0, 0, 0, 0, 1),
                (12, 0, 0, 0, 0, 0)
            ]
        );
        assert_eq!(
            of(&mut link, days(before, before)).await,
            [
                (10, 1, 0, 0, 1, 0),
                (11, 1, 2, 1, 1, 0),
                (12, 0, 0, 0, 0, 0)
            ]
        );
        assert_eq!(
            of(&mut link, days(before, today)).await,
            [
                (10, 3, 1, 1, 1, 2),
                (11, 1, 2, 1, 1, 1),
                (12, 0, 0, 0, 0, 0)
            ]
        );
        let open = Days {
            from: Some(today),
            to: None,
        };
        assert_eq!(
            of(&mut link, open).await,
            of(&mut link, days(today, today)).await
        );
        // Units of a past range are those of the snapshot that closes it.
        db.execute(
            "INSERT INTO variant_day_snapshots (day, experiment_id, variant_id, epoch, units)
            SELECT (now() AT TIME ZONE 'UTC')::date - 2, 1, 10, 1, 7",
        )
        .await;
        let yesterday = today - chrono::TimeDelta::days(1);
        assert_eq!(of(&mut link, days(before, yesterday)).await[0].5, 7);
    });
}

#[test]
fn a_series_has_every_variant_in_every_bucket() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let all = Days::default();
        let days = series::read(&mut link, 1, Bucket::Day, all).await.unwrap();
        assert_eq!(
            days.len(),
            9,
            "three days, the one without events too, of three variants"
        );
        assert_eq!(
            days.iter().map(|b| b.variant_id).collect::<Vec<_>>()[..3],
            [10, 11, 12]
        );
        assert_eq!(
            (days[1].clicks, days[1].purchase_value.as_str()),
            (2, "999999999999.9999")
        );
        assert_eq!(
            (
                days[6].impressions,
                days[6].clicks,
                days[6].purchase_value.as_str()
            ),
            (2, 1, "10.0001")
        );
        let hours = series::read(&mut link, 1, Bucket::Hour, all).await.unwrap();
        assert_eq!(hours.len(), 49 * 3);
        assert_eq!(hours.iter().map(|b| b.impressions).sum::<i64>(), 4);
        let weeks = series::read(&mut link, 1, Bucket::Week, all).await.unwrap();
        assert!(
            weeks
                .iter()
                .all(|b| chrono::Datelike::weekday(&b.start) == chrono::Weekday::Mon),
            "{weeks:?}"
        );
        assert_eq!(weeks.iter().map(|b| b.clicks).sum::<i64>(), 3);
        let today = today(&mut link).await;
        let only = Days {
            from: Some(today),
            to: Some(today),
        };
        assert_eq!(
            series::read(&mut link, 1, Bucket::Day, only)
                .await
                .unwrap()
                .len(),
            3
        );
        let never = NaiveDate::from_ymd_opt(2001, 1, 1).unwrap();
        let nothing = Days {
            from: Some(never),
            to: Some(never),
        };
        assert_eq!(
            series::read(&mut link, 1, Bucket::Day, nothing)
                .await
                .unwrap(),
            []
        );
    });
}

#[test]
fn snapshots_close_days() {
    with_database(async |db| {
        let mut link = filled(db).await;
        db.execute("INSERT INTO variant_day_snapshots SELECT (now() AT TIME ZONE 'UTC')::date - 1, m.* FROM variant_moments m").await;
        let snapshots = moments::by_day(&mut link, 1, Days::default())
            .await
            .unwrap();
        let now = moments::now(&mut link, 1).await.unwrap();
        assert_eq!(
            snapshots.iter().map(|s| s.of.clone()).collect::<Vec<_>>(),
            now
        );
        let yesterday = today(&mut link).await - chrono::TimeDelta::days(1);
        assert!(snapshots.iter().all(|s| s.day == yesterday));
    });
}

#[test]
fn top_lists_and_positions() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let totals = |impressions, clicks, purchases, value: &str| DimensionTotals {
            impressions,
            clicks,
            add_to_carts: 0,
            purchases,
            total_value: value.to_owned(),
        };
        let items = dimensions::top(&mut link, 1, Dimension::Item, 10)
            .await
            .unwrap();
        assert_eq!(
            items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(),
            ["hat", "shoe"]
        );
        assert_eq!(items[0].all, totals(2, 2, 1, "999999999999.9999"));
        let hat = [
            (10, totals(1, 0, 0, "0")),
            (11, totals(1, 2, 1, "999999999999.9999")),
        ];
        assert_eq!(items[0].by_variant, hat);
        assert_eq!(
            dimensions::top(&mut link, 1, Dimension::Item, 1)
                .await
                .unwrap()
                .len(),
            1
        );
        let brands = dimensions::top(&mut link, 1, Dimension::Brand, 10)
            .await
            .unwrap();
        assert_eq!(
            brands
                .iter()
                .map(|b| (b.key.as_str(), b.all.impressions))
                .collect::<Vec<_>>(),
            [("acme", 1)]
        );
        let positions = dimensions::positions(&mut link, 1).await.unwrap();
        let seen: Vec<_> = positions
            .iter()
            .map(|p| {
                (
                    p.variant_id,
                    p.position,
                    p.totals.impressions,
                    p.totals.clicks,
                )
            })
            .collect();
        assert_eq!(seen, [(10, 1, 2, 1), (10, 2, 1, 0), (11, 1, 1, 2)]);
        assert_eq!(
            dimensions::top(&mut link, 2, Dimension::Item, 10)
                .await
                .unwrap(),
            []
        );
    });
}

#[test]
fn epochs_counters_freshness_and_arms() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let epochs = context::epochs(&mut link, 1).await.unwrap();
        assert_eq!(epochs.len(), 1);
        assert_eq!(
            epochs[0]
                .weights
                .iter()
                .map(|(id, w)| (*id, w.to_string()))
                .collect::<Vec<_>>(),
            [(10, "1".into()), (11, "2".into()), (12, "0.5".into())]
        );
        let counters = context::counters(&mut link, 1).await.unwrap();
        assert_eq!(
            (
                counters.bot_events,
                counters.bot_units,
                counters.uncounted_events
            ),
            (1, 1, 1)
        );
        assert_eq!(
            context::counters(&mut link, 2).await.unwrap(),
            context::Counters::default()
        );
        let fresh = context::freshness(&mut link).await.unwrap();
        assert!(fresh.lag_seconds.unwrap() >= 0.0 && fresh.folded_at <= fresh.now);
        assert_eq!(context::arms(&mut link, 1, None).await.unwrap(), []);
        db.execute("INSERT INTO bandit_arms (experiment_id, arm_type, arm_id) VALUES (1, 'item', 'x'), (1, 'brand', 'y')").await;
        assert_eq!(context::arms(&mut link, 1, None).await.unwrap().len(), 2);
        assert_eq!(
            context::arms(&mut link, 1, Some("item")).await.unwrap()[0].arm_id,
            "x"
        );
    });
}

#[test]
fn a_unit_shows_what_it_has_and_why() {
    with_database(async |db| {
        let mut link = filled(db).await;
        let a = units::state(&mut link, 1, "a").await.unwrap();
        let assignment = a.assignment.unwrap();
        assert_eq!(
            (
                assignment.variant_id,
                assignment.by_client,
                assignment.session_id.as_deref()
            ),
            (10, false, Some("sa"))
        );
        let totals = a.totals.unwrap();
        assert_eq!(
            (
                totals.impressions,
                totals.purchase_value.as_str(),
                totals.sessions
            ),
            (3, "10.0001", 1)
        );
        assert_eq!((a.alias_of, a.pinned, a.exclusion), (None, None, None));

        let pinned = units::state(&mut link, 1, "pinned").await.unwrap();
        assert_eq!(pinned.exclusion.unwrap().reason, "override");
        assert!(pinned.totals.unwrap().excluded);
        assert_eq!(
            units::state(&mut link, 1, "nobody").await.unwrap(),
            units::UnitState::default()
        );
        assert!(
            units::state(&mut link, 2, "a")
                .await
                .unwrap()
                .assignment
                .is_none()
        );

        db.execute(
            "INSERT INTO unit_aliases (experiment_id, alias_unit, unit) VALUES (1, 'session', 'a');
             INSERT INTO experiment_overrides (experiment_id, unit, variant_id, created_by) VALUES (1, 'a', 11, 'me')",
        )
        .await;
        let session = units::state(&mut link, 1, "session").await.unwrap();
        assert_eq!(
            (session.alias_of.as_deref(), session.aliases.as_slice()),
            (Some("a"), ["session".to_owned()].as_slice())
        );
        assert_eq!(session.assignment.unwrap().variant_id, 10);
        assert_eq!(session.pinned, None, "an override is of a name");
        assert_eq!(
            units::state(&mut link, 1, "a")
                .await
                .unwrap()
                .pinned
                .unwrap()
                .variant_id,
            11
        );
    });
}
