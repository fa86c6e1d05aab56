//! A session that logs in, and the units that come of it.

use futures_util::future::join_all;
use podium_tests::{Answer, Experiment, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

/// An experiment, a session whose split is `b`, and users whose split is `control`: a user that answers `b` has it from
/// the session.
async fn scene(app: &TestApp) -> (Experiment, String, Vec<String>) {
    let experiment = app.experiment("e").running().await;
    let session = experiment.units_of(Some("b"), 1).remove(0);
    let users = experiment.units_of(Some("control"), 30);
    (experiment, session, users)
}

async fn assign(app: &TestApp, user: Option<&str>, session: Option<&str>) -> Value {
    app.assign(json!({"experiment": "e", "user_id": user, "session_id": session}))
        .await
}

/// Units with their variants, and aliases.
async fn stored(app: &TestApp) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let units = "SELECT a.user_id, v.name FROM user_experiment_assignments a
                 JOIN experiment_variants v ON v.id = a.variant_id ORDER BY a.user_id";
    let aliases = "SELECT alias_unit, unit FROM unit_aliases ORDER BY alias_unit";
    (
        app.database().rows(units).await,
        app.database().rows(aliases).await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_takes_over_the_variant_of_the_session() {
    let mut app = TestApp::start().await;
    let (_, session, users) = scene(&app).await;
    let user = users[0].as_str();
    assert_eq!(assign(&app, None, Some(&session)).await["variant"], "b");
    let at_login = assign(&app, Some(user), Some(&session)).await;
    assert_eq!(
        (&at_login["variant"], &at_login["reason"]),
        (&json!("b"), &json!("STICKY"))
    );
    assert_eq!(
        stored(&app).await,
        (
            vec![vec![user.into(), "b".into()]],
            vec![vec![session.clone(), user.into()]]
        )
    );
    for round in 0..2 {
        let replica = app.replica().await;
        for app in [&app, &replica] {
            assert_eq!(
                assign(app, Some(user), None).await["variant"],
                "b",
                "the user alone, round {round}"
            );
            assert_eq!(
                assign(app, None, Some(&session)).await["variant"],
                "b",
                "the session alone, round {round}"
            );
            assert_eq!(
                assign(app, Some(user), Some("another device")).await["variant"],
                "b",
                "round {round}"
            );
        }
        app.restart().await;
    }
    assert_eq!(stored(&app).await.0.len(), 1, "one unit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_an_assignment_keeps_it() {
    let app = TestApp::start().await;
    let (_, session, users) = scene(&app).await;
    let user = users[0].as_str();
    assert_eq!(assign(&app, Some(user), None).await["variant"], "control");
    assert_eq!(assign(&app, None, Some(&session)).await["variant"], "b");
    assert_eq!(
        assign(&app, Some(user), Some(&session)).await["variant"],
        "control",
        "the user's own wins"
    );
    assert_eq!(
        assign(&app, None, Some(&session)).await["variant"],
        "b",
        "the session stays a unit"
    );
    let (units, aliases) = stored(&app).await;
    assert_eq!((units.len(), aliases.len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_assignment_the_user_is_split() {
    let app = TestApp::start().await;
    let (_, session, users) = scene(&app).await;
    let answer = assign(&app, Some(&users[0]), Some(&session)).await;
    assert_eq!(
        (&answer["variant"], &answer["reason"]),
        (&json!("control"), &json!("SPLIT"))
    );
    let session_of = "SELECT session_id FROM user_experiment_assignments";
    assert_eq!(app.database().rows(session_of).await, [[session]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_user_of_the_session_is_a_unit_of_his_own() {
    let app = TestApp::start().await;
    let (_, session, users) = scene(&app).await;
    let (first, second) = (users[0].as_str(), users[1].as_str());
    assign(&app, None, Some(&session)).await;
    assign(&app, Some(first), Some(&session)).await;
    assert_eq!(
        assign(&app, Some(second), Some(&session)).await["variant"],
        "b",
        "starts with the session's variant"
    );
    assert_eq!(
        assign(&app, Some(second), None).await["variant"],
        "b",
        "and keeps it"
    );
    let (units, aliases) = stored(&app).await;
    assert_eq!(units.len(), 2);
    assert_eq!(
        aliases,
        [[session.as_str(), first]],
        "the session stays the first user's"
    );
}

/// The second user's variant was drawn with the session, by the weights of that time: among today's units it would look as if
/// somebody had been sent to a variant without weight.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_user_counts_where_the_session_was_assigned() {
    let app = TestApp::start().await;
    let (experiment, session, users) = scene(&app).await;
    assign(&app, None, Some(&session)).await;
    assign(&app, Some(&users[0]), Some(&session)).await;
    let retire = format!(
        "/api/v1/admin/experiments/{}/variants/{}",
        experiment.id,
        experiment.variant("b")
    );
    let retire = app
        .request(Method::PATCH, &retire)
        .bearer_auth(podium_tests::token::valid("1"))
        .header("if-match", "*")
        .json(&json!({"trafficWeight": 0}));
    Answer::of(retire).await.data();
    assert_eq!(
        assign(&app, Some(&users[1]), Some(&session)).await["variant"],
        "b"
    );
    let epochs = "SELECT user_id, epoch::text FROM user_experiment_assignments ORDER BY user_id";
    let mut wanted = vec![
        [users[0].clone(), "1".to_owned()],
        [users[1].clone(), "1".to_owned()],
    ];
    wanted.sort();
    assert_eq!(app.database().rows(epochs).await, wanted);
    app.fold().await;
    let check = json!({"action": "check", "experimentName": "e"});
    let check = app
        .admin(
            Method::POST,
            "/api/v1/experiments/auto-promote",
            Some(&check),
        )
        .await
        .data();
    let checks = check["safetyChecks"].as_array().unwrap();
    let balance = checks
        .iter()
        .find(|check| check["name"] == "Traffic Balance Check")
        .unwrap();
    assert_eq!(balance["passed"], true, "{balance}");
}

/// Tracking does the same as assigning, for the first user and for the second, whether or not it names the experiment.
#[tokio::test(flavor = "multi_thread")]
async fn tracking_logs_in_as_well() {
    for named in [true, false] {
        let app = TestApp::start().await;
        let (experiment, session, users) = scene(&app).await;
        assign(&app, None, Some(&session)).await;
        for user in &users[..2] {
            let experiment_id = named.then_some(experiment.id);
            let event =
                json!({"user_id": user, "session_id": session, "experiment_id": experiment_id});
            let answer = app.track("click", event).await.ok();
            if !named {
                assert_eq!(answer["recorded"], json!([experiment.id]), "{user}");
            }
        }
        let b = experiment.variant("b").to_string();
        let events = app
            .database()
            .rows("SELECT user_id, variant_id FROM experiment_events ORDER BY id")
            .await;
        assert_eq!(
            events,
            [[users[0].clone(), b.clone()], [users[1].clone(), b]]
        );
        let (units, aliases) = stored(&app).await;
        assert_eq!((units.len(), aliases.len()), (2, 1));
        assert!(units.iter().all(|unit| unit[1] == "b"), "{units:?}");
    }
}

/// A paused experiment takes no new units, so a second user is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_makes_no_second_user() {
    let app = TestApp::start().await;
    let (experiment, session, users) = scene(&app).await;
    assign(&app, None, Some(&session)).await;
    assign(&app, Some(&users[0]), Some(&session)).await;
    app.change("UPDATE experiments SET status = 'paused'").await;
    let event = json!({"user_id": users[1], "session_id": session, "experiment_id": experiment.id});
    app.track("click", event)
        .await
        .problem(422, "no_assignment");
    assert_eq!(stored(&app).await.0.len(), 1);
}

/// Many users on one session at once, on two replicas: one of them takes it over, the others start with its variant.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_logins_agree() {
    let app = TestApp::start().await;
    let (_, session, users) = scene(&app).await;
    assign(&app, None, Some(&session)).await;
    let replica = app.replica().await;
    let answers = join_all(users.iter().enumerate().map(|(n, user)| {
        let client = if n.is_multiple_of(2) {
            app.clone()
        } else {
            replica.clone()
        };
        let ask = json!({"experiment": "e", "user_id": user, "session_id": session});
        async move { client.assign(ask).await }
    }))
    .await;
    for (user, answer) in users.iter().zip(&answers) {
        assert_eq!(answer["variant"], "b", "{user}: {answer}");
    }
    let (units, aliases) = stored(&app).await;
    assert_eq!((units.len(), aliases.len()), (users.len(), 1));
}

/// Two events of one login in one batch: both lookups stand in one group, and the second finds the session moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_login_is_recorded_whole() {
    let app = TestApp::start().await;
    let (_, session, users) = scene(&app).await;
    assign(&app, None, Some(&session)).await;
    let user = users[0].as_str();
    let event = |kind: &str| json!({"event_type": kind, "user_id": user, "session_id": session, "value": 9});
    let answer = app
        .track_any(json!({"events": [event("click"), event("purchase"), event("impression")]}))
        .await
        .ok();
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["recorded"].as_array().unwrap().len(), 1, "{answer}");
    }
    let (units, aliases) = stored(&app).await;
    assert_eq!((units.len(), aliases.len()), (1, 1));
}

/// Many sessions that log in together, each as a user of its own, and some users with several of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_mass_login_keeps_every_variant() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let sessions = experiment.units_of(Some("b"), 60);
    for session in &sessions {
        assign(&app, None, Some(session)).await;
    }
    let users: Vec<String> = (0..sessions.len())
        .map(|n| format!("user-{}", n / 2 * 2))
        .collect();
    let logins = users.iter().zip(&sessions);
    let answers =
        join_all(logins.map(|(user, session)| assign(&app, Some(user), Some(session)))).await;
    assert!(
        answers.iter().all(|answer| answer["variant"] == "b"),
        "{answers:?}"
    );
    let (units, aliases) = stored(&app).await;
    let users: Vec<_> = units
        .iter()
        .filter(|unit| unit[0].starts_with("user-"))
        .collect();
    assert_eq!((users.len(), units.len(), aliases.len()), (30, 60, 30));
}

/// Totals move with the login and are counted once, whenever folding happens and under whichever name events come.
#[tokio::test(flavor = "multi_thread")]
async fn totals_move_and_are_counted_once() {
    for folds in 0..8_u8 {
        let app = TestApp::start().await;
        let (experiment, session, users) = scene(&app).await;
        let (user, session) = (users[0].as_str(), session.as_str());
        let click = async |user: Option<&str>, session: Option<&str>| {
            let event =
                json!({"user_id": user, "session_id": session, "experiment_id": experiment.id});
            app.track("click", event).await.ok();
        };
        let fold_if = async |bit: u8| {
            if folds & bit != 0 {
                app.fold().await;
            }
        };
        assign(&app, None, Some(session)).await;
        click(None, Some(session)).await;
        fold_if(1).await;
        click(None, Some(session)).await;
        assign(&app, Some(user), Some(session)).await;
        fold_if(2).await;
        click(Some(user), None).await;
        click(None, Some(session)).await;
        fold_if(4).await;
        click(Some(user), Some(session)).await;
        app.fold().await;
        let totals = app
            .database()
            .rows("SELECT unit, clicks FROM unit_totals")
            .await;
        assert_eq!(totals, [[user, "5"]], "folded at {folds:03b}");
        let days = app
            .database()
            .rows("SELECT unit, sum(clicks) FROM unit_days GROUP BY unit")
            .await;
        assert_eq!(days, [[user, "5"]], "folded at {folds:03b}");
        let moments =
            "SELECT variant_id, sum(units), sum(sum_clicks), sum(sq_clicks), sum(clicking_units)
                       FROM variant_moments GROUP BY variant_id";
        let b = experiment.variant("b").to_string();
        assert_eq!(
            app.database().rows(moments).await,
            [[b.as_str(), "1", "5", "25", "1"]],
            "folded at {folds:03b}"
        );
    }
}
