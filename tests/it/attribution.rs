//! What an event is recorded for: experiment, variant, counted or not.

use chrono::{DateTime, TimeDelta, Utc};
use podium_tests::clock::now;
use podium_tests::{Experiment, TestApp};
use serde_json::{Value, json};

const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// Variants, counted, of every event.
async fn events(app: &TestApp) -> Vec<Vec<String>> {
    let sql = "SELECT e.user_id, v.name, e.counted FROM experiment_events e JOIN experiment_variants v ON v.id = e.variant_id
               ORDER BY e.id";
    app.database().rows(sql).await
}

fn rfc3339(time: DateTime<Utc>) -> Value {
    json!(time.to_rfc3339())
}

/// An experiment in which `b` was assigned to `u` two days ago.
async fn assigned(app: &TestApp) -> Experiment {
    let experiment = app.experiment("e").running().await;
    let sql = format!(
        "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, assigned_at)
         VALUES ('u', {}, {}, now() - interval '2 days')",
        experiment.id,
        experiment.variant("b")
    );
    app.database().execute(&sql).await;
    experiment
}

/// An event that names no experiment is recorded for every running one in which the unit has an assignment.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_experiment_counts_wherever_the_unit_takes_part() {
    let app = TestApp::start().await;
    let one = app.experiment("one").running().await;
    let two = app.experiment("two").running().await;
    let paused = app.experiment("paused").running().await;
    app.experiment("not mine").running().await;
    for name in ["one", "two", "paused"] {
        app.variant_of(name, "u").await;
    }
    let answer = app
        .track(
            "purchase",
            json!({"event_id": "x", "user_id": "u", "value": 3}),
        )
        .await
        .ok();
    assert_eq!(answer["recorded"], json!([one.id, two.id, paused.id]));
    app.change("UPDATE experiments SET status = 'paused' WHERE name = 'paused'")
        .await;
    let answer = app
        .track(
            "purchase",
            json!({"event_id": "y", "user_id": "u", "value": 3}),
        )
        .await
        .ok();
    assert_eq!(
        answer,
        json!({"success": true, "event_id": "y", "duplicate": false, "recorded": [one.id, two.id]})
    );
    app.fold().await;
    let sums = "SELECT experiment_id, trim_scale(sum(sum_purchase_value)) FROM variant_moments GROUP BY 1 ORDER BY 1";
    let sums = app.database().rows(sums).await;
    let row = |experiment: &Experiment, sum: &str| vec![experiment.id.to_string(), sum.to_owned()];
    assert_eq!(sums, [row(&one, "6"), row(&two, "6"), row(&paused, "3")]);
}

/// The default answer of `assign`, handed back as it is, is taken and harms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_default_answer_may_be_handed_back() {
    let app = TestApp::start().await;
    let mut handed_back = app.assign(json!({"user_id": "u"})).await;
    assert_eq!(handed_back["variant"], "default");
    handed_back["user_id"] = json!("u");
    handed_back["event_id"] = json!("x");
    handed_back["value"] = json!(1);
    for kind in ["impression", "click", "add-to-cart", "purchase"] {
        let answer = app.track(kind, handed_back.clone()).await.ok();
        assert_eq!(
            answer,
            json!({"success": true, "event_id": "x", "duplicate": false, "recorded": []}),
            "{kind}"
        );
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_event_keys")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_variant_is_the_units_own() {
    let mut app = TestApp::start().await;
    let experiment = assigned(&app).await;
    for named in [json!("e"), json!(experiment.id)] {
        app.track("click", json!({"user_id": "u", "experiment_id": named}))
            .await
            .ok();
        app.restart().await;
    }
    assert_eq!(events(&app).await, [["u", "b", "t"], ["u", "b", "t"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_variant_nor_assignment_is_refused() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for _ in 0..2 {
        app.track("click", json!({"user_id": "u", "experiment_id": "e"}))
            .await
            .problem(422, "no_assignment");
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_event_keys")
            .await,
        0
    );
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM user_experiment_assignments")
            .await,
        0
    );
    // Refused is not forgotten: as soon as the unit has a variant its events count.
    app.variant_of("e", "u").await;
    app.track("click", json!({"user_id": "u", "experiment_id": "e"}))
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_must_be_of_the_experiment() {
    let app = TestApp::start().await;
    assigned(&app).await;
    let other = app
        .experiment("other")
        .variants(&[("control", "1"), ("elsewhere", "1")])
        .running()
        .await;
    for variant in [
        json!(other.variant("elsewhere")),
        json!(other.variant("control")),
        json!(999_999),
        json!("elsewhere"),
    ] {
        let event = json!({"user_id": "u", "experiment_id": "e", "variant_id": variant});
        let problem = app
            .track("click", event)
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/variant_id", "{variant}");
    }
    app.track("click", json!({"user_id": "u", "variant_id": 999_999}))
        .await
        .problem(422, "validation_failed");
    assert_eq!(events(&app).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_refused_and_nothing_recorded() {
    let app = TestApp::start().await;
    let experiment = assigned(&app).await;
    let control = experiment.variant("control");
    for event in [
        json!({"user_id": "u", "experiment_id": "e", "variant_id": control}),
        json!({"user_id": "u", "experiment_id": "e", "variant": "control"}),
        json!({"user_id": "u", "experiment_id": "e", "variant_id": "control"}),
        json!({"user_id": "u", "variant_id": control}),
    ] {
        app.track("click", event).await.problem(409, "conflict");
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_event_keys")
            .await,
        0
    );
    let agreeing =
        json!({"user_id": "u", "experiment_id": "e", "variant_id": experiment.variant("b")});
    app.track("click", agreeing).await.ok();
    app.track(
        "click",
        json!({"user_id": "u", "variant_id": experiment.variant("b")}),
    )
    .await
    .ok();
    assert_eq!(events(&app).await, [["u", "b", "t"], ["u", "b", "t"]]);
}

/// An SDK that evaluates locally names the variant: the unit is recorded with it, as assigned by the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_assign_a_unit_that_has_no_variant() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let unit = &experiment.units_of(Some("control"), 1)[0];
    let event =
        json!({"user_id": unit, "experiment_id": "e", "variant_id": experiment.variant("b")});
    app.track("click", event).await.ok();
    let stored = app
        .database()
        .rows("SELECT variant_id, source, epoch FROM user_experiment_assignments")
        .await;
    assert_eq!(
        stored,
        [[experiment.variant("b").to_string(), "1".into(), "1".into()]]
    );
    assert_eq!(app.variant_of("e", unit).await, "b", "and keeps it");
    // The client knows since when it showed the variant, so no event of such a unit is too early.
    let earlier = json!({"user_id": unit, "experiment_id": "e", "occurred_at": rfc3339(now() - TimeDelta::days(3))});
    app.track("click", earlier).await.ok();
    assert_eq!(events(&app).await, [[unit, "b", "t"], [unit, "b", "t"]]);
    app.fold().await;
    let shares = "SELECT sum(units), sum(client_units) FROM variant_moments";
    assert_eq!(app.database().rows(shares).await, [["1", "1"]]);
    app.change("UPDATE experiments SET status = 'paused'").await;
    let late =
        json!({"user_id": "new", "experiment_id": "e", "variant_id": experiment.variant("b")});
    app.track("click", late).await.problem(422, "no_assignment");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_experiment_decides() {
    let app = TestApp::start().await;
    let experiment = assigned(&app).await;
    let event = |id: &str| json!({"event_id": id, "user_id": "u", "experiment_id": "e"});
    for status in ["draft", "archived"] {
        app.change(&format!("UPDATE experiments SET status = '{status}'"))
            .await;
        // By its experiment, by its variant alone, and by both.
        let mut events = [event(status), event(status), event(status)];
        for event in &mut events[1..] {
            event["variant_id"] = json!(experiment.variant("b"));
        }
        events[1]["experiment_id"] = json!(null);
        for event in events {
            app.track("click", event).await.problem(409, "conflict");
        }
    }
    assert_eq!(events(&app).await.len(), 0);
    app.change("UPDATE experiments SET status = 'paused'").await;
    app.track("click", event("paused")).await.ok();
    assert_eq!(events(&app).await, [["u", "b", "t"]]);
}

/// A completed experiment counts what happened until its end, and records what happened later.
#[tokio::test(flavor = "multi_thread")]
async fn a_completed_experiment_counts_up_to_its_end() {
    let app = TestApp::start().await;
    assigned(&app).await;
    app.change("UPDATE experiments SET status = 'completed', end_date = now() - interval '1 day'")
        .await;
    let event = |id: &str, hours_ago: i64| json!({"event_id": id, "user_id": "u", "experiment_id": "e", "occurred_at": rfc3339(now() - TimeDelta::hours(hours_ago))});
    app.track("click", event("before", 25)).await.ok();
    app.track("click", event("after", 23)).await.ok();
    app.track("click", json!({"user_id": "u", "experiment_id": "e"}))
        .await
        .ok();
    assert_eq!(
        events(&app).await,
        [["u", "b", "t"], ["u", "b", "f"], ["u", "b", "f"]]
    );
    app.fold().await;
    assert_eq!(
        app.database()
            .number("SELECT sum(sum_clicks) FROM variant_moments")
            .await,
        1
    );
    assert_eq!(
        app.database()
            .number("SELECT uncounted_events FROM experiment_counters")
            .await,
        2
    );
}

/// At most 30 days back and 5 minutes ahead, with a zone; the arrival is kept beside it.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_event_is_bounded() {
    let app = TestApp::start().await;
    assigned(&app).await;
    let at = |time: Value| json!({"user_id": "u", "experiment_id": "e", "occurred_at": time});
    let from_now = |delta: TimeDelta| rfc3339(now() + delta);
    let (day, minute) = (TimeDelta::days(1), TimeDelta::minutes(1));
    for good in [
        from_now(-day * 30 + minute),
        from_now(minute * 4),
        from_now(-day),
        json!(null),
    ] {
        app.track("click", at(good)).await.ok();
    }
    for bad in [
        from_now(-day * 30 - minute),
        from_now(minute * 6),
        json!("2024-05-01T10:00:00"),
        json!("2024-05-01"),
        json!("yesterday"),
        json!(1_700_000_000),
        json!("9999-12-31T23:59:59Z"),
        json!("0000-01-01T00:00:00Z"),
    ] {
        let problem = app
            .track("click", at(bad.clone()))
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/occurred_at", "{bad}");
    }
    let zone = json!(
        (now() - day)
            .with_timezone(&chrono::FixedOffset::west_opt(5 * 3600).unwrap())
            .to_rfc3339()
    );
    app.track("click", at(zone)).await.ok();
    let arrivals =
        "SELECT count(*) FROM experiment_events WHERE created_at > now() - interval '1 minute'";
    assert_eq!(app.database().number(arrivals).await, 5);
    let hours = "SELECT round(extract(epoch FROM created_at - occurred_at) / 3600) FROM experiment_events ORDER BY id DESC LIMIT 1";
    assert_eq!(app.database().number(hours).await, 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_the_assignment_is_recorded_and_not_counted() {
    let app = TestApp::start().await;
    assigned(&app).await;
    for hours_ago in [47, 49] {
        let occurred_at = rfc3339(now() - TimeDelta::hours(hours_ago));
        app.track(
            "click",
            json!({"user_id": "u", "experiment_id": "e", "occurred_at": occurred_at}),
        )
        .await
        .ok();
    }
    assert_eq!(events(&app).await, [["u", "b", "t"], ["u", "b", "f"]]);
}

/// Known bots are answered like everybody, recorded, flagged, and left out of the analysis.
#[tokio::test(flavor = "multi_thread")]
async fn bots_are_answered_recorded_and_left_out() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let send = async |path: &str, agent: &str, body: Value| {
        let request = app
            .request(reqwest::Method::POST, path)
            .header("user-agent", agent)
            .json(&body);
        podium_tests::Answer::of(request).await.ok()
    };
    let browser = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36";
    for (agent, user) in [(GOOGLEBOT, "bot"), (browser, "shopper")] {
        let answer = send(
            "/api/v1/experiments/assign",
            agent,
            json!({"experiment": "e", "user_id": user}),
        )
        .await;
        assert_eq!(answer["variant"], experiment.split(user).unwrap());
        let event = json!({"user_id": user, "experiment_id": "e"});
        assert_eq!(
            send("/api/v1/experiments/track-click", agent, event).await["success"],
            true
        );
    }
    let flags = app
        .database()
        .rows("SELECT user_id, is_bot, counted FROM experiment_events ORDER BY 1")
        .await;
    assert_eq!(flags, [["bot", "t", "f"], ["shopper", "f", "t"]]);
    app.fold().await;
    let moments = "SELECT sum(units), sum(sum_clicks) FROM variant_moments";
    assert_eq!(app.database().rows(moments).await, [["1", "1"]]);
    let counters = app
        .database()
        .rows("SELECT bot_units, bot_events FROM experiment_counters")
        .await;
    assert_eq!(counters, [["1", "1"]]);
}
