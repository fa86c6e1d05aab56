//! Which variant a unit gets, and how the question may be asked.

use podium_tests::TestApp;
use serde_json::{Value, json};

const ASSIGN: &str = "/api/v1/experiments/assign";

fn default_answer() -> Value {
    json!({"experiment_id": null, "variant": "default", "params": {}, "reason": "DEFAULT"})
}

async fn assignments(app: &TestApp) -> i64 {
    app.database()
        .number("SELECT count(*) FROM user_experiment_assignments")
        .await
}

/// The answer member by member, for a unit whose place is published.
#[tokio::test(flavor = "multi_thread")]
async fn the_published_unit_gets_the_published_variant() {
    let app = TestApp::start().await;
    let name = "Module Order Optimization";
    let variants = [("control", "1"), ("stories_first", "1")];
    let experiment = app
        .experiment(name)
        .on("newsfeed")
        .variants(&variants)
        .running()
        .await;
    let expected = json!({
        "experiment_id": name, "variant": "stories_first", "params": {"is": "stories_first"}, "experiment": experiment.id,
        "variant_id": experiment.variant("stories_first"), "reason": "SPLIT", "is_control": false
    });
    assert_eq!(app.assign(json!({"user_id": "u0"})).await, expected);
    let stored = app
        .database()
        .rows("SELECT user_id, variant_id, epoch, source, is_bot FROM user_experiment_assignments")
        .await;
    assert_eq!(
        stored,
        [[
            "u0",
            &experiment.variant("stories_first").to_string(),
            "1",
            "0",
            "f"
        ]]
    );
}

/// Equal calls get equal bytes, whether the table or memory answers.
#[tokio::test(flavor = "multi_thread")]
async fn equal_calls_get_equal_bytes() {
    let mut app = TestApp::start().await;
    app.experiment("e").running().await;
    let ask = json!({"experiment": "e", "user_id": "u", "context": {"page_type": "pdp", "locale": "en-US"}});
    let first = app.post(ASSIGN, &ask).await;
    let again = app.post(ASSIGN, &ask).await;
    app.restart().await;
    let from_table = app.post(ASSIGN, &ask).await;
    assert_eq!(
        (first.status, first.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(first.text(), again.text());
    assert_eq!(first.text(), from_table.text());
}

/// Units spread as the rules of bucketing say, under both hashes and with unequal weights.
#[tokio::test(flavor = "multi_thread")]
async fn units_are_split_as_the_weights_say() {
    let app = TestApp::start().await;
    let variants = [("control", "70.5"), ("b", "0"), ("c", "29.5")];
    let ours = app
        .experiment("ours")
        .variants(&variants)
        .allocation("40")
        .running()
        .await;
    let earlier = app
        .experiment("earlier")
        .variants(&variants)
        .hash_version(1)
        .running()
        .await;
    let users: Vec<String> = (0..300).map(|n| format!("user {n}")).collect();
    for experiment in [&ours, &earlier] {
        let answer = app
            .post(
                "/api/v1/experiments/assign/bulk",
                &json!({"experiment": experiment.id, "user_ids": users}),
            )
            .await;
        let answers = answer.ok()["assignments"].as_array().unwrap().clone();
        let mut told = 0;
        for (user, answer) in users.iter().zip(&answers) {
            assert_eq!(
                answer["variant"],
                experiment.split(user).unwrap_or("default"),
                "{user} in {}",
                experiment.name
            );
            told += usize::from(answer["reason"] == "SPLIT");
        }
        assert_eq!(
            told,
            users
                .iter()
                .filter(|user| experiment.split(user).is_some())
                .count()
        );
        assert!(
            answers.iter().all(|answer| answer["variant"] != "b"),
            "a weight of 0 gets nobody"
        );
    }
}

/// `1` and `"1"` are one unit, of user and of session.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_the_unit_of_its_decimal_text() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let by_number = app.assign(json!({"experiment": "e", "user_id": 1})).await;
    for same in [
        json!({"user_id": "1"}),
        json!({"session_id": 1}),
        json!({"session_id": "1"}),
    ] {
        let mut ask = same.clone();
        ask["experiment"] = json!("e");
        assert_eq!(app.assign(ask).await, by_number, "{same}");
    }
    app.assign(json!({"experiment": "e", "user_id": 9_223_372_036_854_775_807_i64}))
        .await;
    let units = app
        .database()
        .rows("SELECT user_id FROM user_experiment_assignments ORDER BY user_id")
        .await;
    assert_eq!(units, [["1"], ["9223372036854775807"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fractions_exponents_and_long_numbers_are_no_units() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for number in [
        "1.5",
        "1.0",
        "1e3",
        "12345678901234567890",
        "true",
        "[1]",
        "{}",
        "\"\"",
    ] {
        for field in ["user_id", "session_id"] {
            let body = format!("{{\"experiment\": \"e\", \"{field}\": {number}}}");
            let problem = app
                .post_bytes(ASSIGN, body)
                .await
                .problem(422, "validation_failed");
            assert_eq!(
                problem["errors"][0]["pointer"],
                format!("/{field}"),
                "{number}"
            );
        }
    }
    assert_eq!(assignments(&app).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_the_allocation_nothing_is_told_and_nothing_stored() {
    let app = TestApp::start().await;
    let tenth = app.experiment("tenth").allocation("10").running().await;
    app.experiment("nobody").allocation("0").running().await;
    let outside = tenth.units_of(None, 20);
    for unit in outside.iter().chain(&outside) {
        assert_eq!(
            app.assign(json!({"experiment": "tenth", "user_id": unit}))
                .await,
            default_answer()
        );
    }
    assert_eq!(
        app.assign(json!({"experiment": "nobody", "user_id": "u"}))
            .await,
        default_answer()
    );
    assert_eq!(assignments(&app).await, 0);
    let inside = &tenth.units_of(Some("b"), 1)[0];
    assert_eq!(app.variant_of("tenth", inside).await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_experiment_is_not_found() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for unknown in [
        json!("E"),
        json!("no such"),
        json!(999_999),
        json!(i64::MAX),
        json!("1"),
    ] {
        let answer = app
            .post(ASSIGN, &json!({"experiment": unknown, "user_id": "u"}))
            .await;
        answer.problem(404, "not_found");
    }
    assert_eq!(assignments(&app).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_that_does_not_run_gives_the_default_answer() {
    let app = TestApp::start().await;
    for status in ["draft", "paused", "completed", "archived"] {
        let experiment = app.experiment(status).on(status).in_state(status).await;
        for ask in [
            json!({"experiment": status}),
            json!({"experiment": experiment.id}),
            json!({"placement": status}),
        ] {
            let mut ask = ask;
            ask["user_id"] = json!("u");
            assert_eq!(app.assign(ask).await, default_answer(), "{status}");
        }
    }
    assert_eq!(assignments(&app).await, 0);
}

/// While paused, units that have a variant get the default answer, and their variant back afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_hides_variants_and_keeps_them() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let ask = json!({"experiment": "e", "user_id": "u"});
    let before = app.assign(ask.clone()).await;
    app.change("UPDATE experiments SET status = 'paused'").await;
    assert_eq!(app.assign(ask.clone()).await, default_answer());
    app.change("UPDATE experiments SET status = 'running'")
        .await;
    assert_eq!(app.assign(ask).await, before);
}

/// The latest start wins, then the higher id; who does not take part in that one gets the default answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_running_experiment_of_a_placement_answers() {
    let app = TestApp::start().await;
    let first = app.experiment("first").on("pdp").running().await;
    app.experiment("second").on("pdp").running().await;
    app.experiment("elsewhere").on("cart").running().await;
    let ask = json!({"user_id": "u", "placement": "pdp"});
    app.change("UPDATE experiments SET start_date = '2024-05-01T00:00:00Z'")
        .await;
    assert_eq!(
        app.assign(ask.clone()).await["experiment_id"],
        "second",
        "same start: the higher id"
    );
    let later = format!(
        "UPDATE experiments SET start_date = '2024-05-02T00:00:00Z' WHERE id = {}",
        first.id
    );
    app.change(&later).await;
    assert_eq!(
        app.assign(ask.clone()).await["experiment_id"],
        "first",
        "the later start"
    );
    let nobody = format!(
        "UPDATE experiments SET traffic_allocation = 0 WHERE id = {}",
        first.id
    );
    app.change(&nobody).await;
    let other = json!({"user_id": "somebody else", "placement": "pdp"});
    assert_eq!(
        app.assign(other.clone()).await,
        default_answer(),
        "not the next experiment"
    );
    app.change("UPDATE experiments SET status = 'paused' WHERE name = 'first'")
        .await;
    assert_eq!(app.assign(other).await["experiment_id"], "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_placement_may_stand_in_the_context_or_beside_it() {
    let app = TestApp::start().await;
    app.experiment("home").on("newsfeed").running().await;
    app.experiment("product")
        .on("you_may_also_like")
        .running()
        .await;
    let ymal = "you_may_also_like";
    for (ask, expected) in [
        (json!({}), "home"),
        (json!({"context": {}}), "home"),
        (json!({"context": null, "placement": null}), "home"),
        (
            json!({"context": {"page_type": "pdp", "locale": "en-US"}}),
            "home",
        ),
        (
            json!({"context": {"placement": ymal, "page_type": "pdp", "locale": "en-US"}}),
            "product",
        ),
        (
            json!({"context": {"pageType": "pdp", "placement": ymal}}),
            "product",
        ),
        (
            json!({"placement": ymal, "page_type": "pdp", "locale": "en-US"}),
            "product",
        ),
        (
            json!({"placement": ymal, "pageType": "pdp", "something": {"else": [1]}}),
            "product",
        ),
    ] {
        for (user, session) in [("user_id", "session_id"), ("userId", "sessionId")] {
            let mut ask = ask.clone();
            ask[user] = json!("u");
            ask[session] = json!("s");
            assert_eq!(
                app.assign(ask.clone()).await["experiment_id"],
                expected,
                "{ask}"
            );
        }
    }
    let nowhere = app
        .assign(json!({"user_id": "u", "placement": "checkout"}))
        .await;
    assert_eq!(nowhere, default_answer());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_in_both_spellings_is_malformed() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for body in [
        json!({"user_id": "a", "userId": "a"}),
        json!({"session_id": "a", "sessionId": "b"}),
        json!({"user_id": "a", "page_type": "x", "pageType": "x"}),
        json!({"user_id": "a", "context": {"page_type": "x", "pageType": "x"}}),
    ] {
        let answer = app.post(ASSIGN, &body).await;
        answer.problem(400, "malformed_json");
    }
    assert_eq!(assignments(&app).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_required() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for body in [
        json!({}),
        json!({"experiment": "e"}),
        json!({"user_id": null, "session_id": null}),
        json!({"users": ["u"]}),
    ] {
        for path in [ASSIGN, "/api/v1/experiments/assign/bulk"] {
            let answer = app.post(path, &body).await;
            let problem = answer.problem(400, "validation_failed");
            assert_eq!(problem["errors"][0]["code"], "required", "{body}");
        }
    }
}

/// The reason describes the variant: what today's weights give, or what only the table gives.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_says_where_the_variant_comes_from() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let unit = &experiment.units_of(Some("b"), 1)[0];
    let ask = json!({"experiment": "e", "user_id": unit});
    assert_eq!(app.assign(ask.clone()).await["reason"], "SPLIT");
    app.change("UPDATE experiment_variants SET traffic_weight = 0 WHERE name = 'b'")
        .await;
    let sticky = app.assign(ask.clone()).await;
    assert_eq!(
        (&sticky["reason"], &sticky["variant"]),
        (&json!("STICKY"), &json!("b"))
    );
    app.change("UPDATE experiment_variants SET traffic_weight = 1 WHERE name = 'b'")
        .await;
    assert_eq!(app.assign(ask).await["reason"], "SPLIT");
}

/// What a shop gets it can hand to every tracking route, with nothing taken out.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_can_be_sent_back_as_it_is() {
    let app = TestApp::start().await;
    app.experiment("e").on("newsfeed").running().await;
    let mut event = app.assign(json!({"user_id": "u"})).await;
    event["user_id"] = json!("u");
    for kind in ["impression", "click", "add-to-cart"] {
        assert_eq!(
            app.track(kind, event.clone()).await.ok()["success"],
            true,
            "{kind}"
        );
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events WHERE counted")
            .await,
        3
    );
}
