//! Orders of candidates: who gets them, what they are drawn from, what is kept of them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use podium_tests::{Client, Experiment, Rng, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const RANK: &str = "/api/v1/experiments/rank";

/// An experiment whose variant `b` ranks by these options.
async fn ranking(app: &TestApp, config: &Value) -> Experiment {
    let experiment = app.experiment("order").running().await;
    let id = experiment.variant("b");
    app.change(&format!(
        "UPDATE experiment_variants SET config = '{config}' WHERE id = {id}"
    ))
    .await;
    experiment
}

fn thompson() -> Value {
    json!({"itemOrdering": "bandit", "banditAlgorithm": "thompson"})
}

/// A unit that was told this variant.
async fn unit_of(app: &TestApp, experiment: &Experiment, variant: &str) -> String {
    let unit = experiment.units_of(Some(variant), 1).remove(0);
    assert_eq!(app.variant_of("order", &unit).await, variant);
    unit
}

fn items(ids: &[&str]) -> Vec<Value> {
    ids.iter().map(|id| json!({"id": id})).collect()
}

async fn rank(app: &Client, unit: &str, ids: &[&str]) -> Value {
    let body = json!({"experiment": "order", "user_id": unit, "candidates": items(ids)});
    app.post(RANK, &body).await.ok()
}

fn order(answer: &Value) -> Vec<String> {
    let candidates = answer["candidates"].as_array().unwrap();
    let id = |candidate: &Value| candidate["arm_id"].as_str().unwrap().to_owned();
    candidates.iter().map(id).collect()
}

fn propensities(answer: &Value) -> BTreeMap<String, Option<f64>> {
    let candidates = answer["candidates"].as_array().unwrap();
    let pair = |candidate: &Value| {
        let id = candidate["arm_id"].as_str().unwrap().to_owned();
        (id, candidate["propensity"].as_f64())
    };
    candidates.iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn control_and_unassigned_units_get_the_input_order() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let control = unit_of(&app, &experiment, "control").await;
    let ids = ["5", "3", "9", "1"];
    let answer = rank(&app, &control, &ids).await;
    assert_eq!(order(&answer), ids);
    assert_eq!(
        (&answer["variant"], &answer["policy"]),
        (&json!("control"), &json!("input_order"))
    );
    assert!(answer["decision_id"].is_string());
    assert!(propensities(&answer).values().all(Option::is_none));
    for position in 0..4 {
        assert_eq!(
            answer["candidates"][position]["bandit_position"],
            position + 1
        );
        assert_eq!(answer["candidates"][position]["bandit_score"], Value::Null);
    }
    // Nobody told this one a variant, and ranking does not do so either.
    let stranger = &experiment.units_of(Some("b"), 1)[0];
    let answer = rank(&app, stranger, &ids).await;
    assert_eq!(order(&answer), ids);
    assert_eq!(answer["decision_id"], Value::Null);
    assert_eq!(answer["experiment_id"], Value::Null);
    let stored = "SELECT count(*) FROM user_experiment_assignments";
    assert_eq!(app.database().number(stored).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_experiment_and_an_unknown_one() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    app.change("UPDATE experiments SET status = 'paused'").await;
    let answer = rank(&app, &unit, &["2", "1"]).await;
    assert_eq!(order(&answer), ["2", "1"]);
    let body = json!({"experiment": "nothing", "user_id": unit, "candidates": items(&["1"])});
    app.post(RANK, &body).await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn arms_are_made_on_first_sight() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    let candidates = json!([
        {"id": 1234, "name": "Dress", "metadata": {"brand_id": 5}, "price": 10},
        {"id": "x-1"}
    ]);
    for (kind, times) in [("item", 2), ("brand", 1)] {
        for _ in 0..times {
            let body = json!({"experiment": experiment.id, "user_id": unit, "arm_type": kind, "candidates": candidates});
            let answer = app.post(RANK, &body).await.ok();
            let both: f64 = propensities(&answer).values().map(|p| p.unwrap()).sum();
            assert!((both - 1.0).abs() < 1e-9);
            let dress = answer["candidates"].as_array().unwrap().iter();
            let dress = dress.filter(|c| c["id"] == 1234).collect::<Vec<_>>();
            assert_eq!((dress.len(), &dress[0]["price"]), (1, &json!(10)));
        }
    }
    // They are there as soon as the answer is.
    let arms = "SELECT arm_type, arm_id, coalesce(arm_name, '-'), metadata::text, total_pulls
                FROM bandit_arms ORDER BY arm_type, arm_id";
    assert_eq!(
        app.database().rows(arms).await,
        [
            ["brand", "1234", "Dress", r#"{"brand_id": 5}"#, "0"],
            ["brand", "x-1", "-", "{}", "0"],
            ["item", "1234", "Dress", r#"{"brand_id": 5}"#, "0"],
            ["item", "x-1", "-", "{}", "0"],
        ]
    );
}

/// The share of first places of every candidate is its propensity, also where the candidates are a part of all arms.
#[tokio::test(flavor = "multi_thread")]
async fn first_places_follow_the_propensities() {
    const TIMES: usize = 1_200;
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    rank(&app, &unit, &["a", "b", "c", "d"]).await;
    for (arm, successes) in [("a", 20), ("b", 26), ("c", 30), ("d", 5)] {
        app.teach(arm, 200, successes).await;
    }
    let ids = ["a", "b", "c"];
    let mut wanted = BTreeMap::new();
    eventually("what was taught is in force", async || {
        wanted = propensities(&rank(&app, &unit, &ids).await);
        wanted["c"] > wanted["b"] && wanted["b"] > wanted["a"]
    })
    .await;
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..TIMES / 50 {
        let answers = join_all((0..50).map(|_| rank(&app, &unit, &ids))).await;
        for answer in answers {
            assert_eq!(propensities(&answer), wanted);
            let scores: Vec<f64> = answer["candidates"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["bandit_score"].as_f64().unwrap())
                .collect();
            assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]));
            *first.entry(order(&answer)[0].clone()).or_default() += 1;
        }
    }
    for (id, propensity) in wanted {
        let propensity = propensity.unwrap();
        let share = f64::from(first.get(&id).copied().unwrap_or_default()) / TIMES as f64;
        let sd = (propensity * (1.0 - propensity) / TIMES as f64).sqrt();
        assert!(
            (share - propensity).abs() < 6.0 * sd,
            "{id}: {share} of {propensity}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_kept() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let units = [
        unit_of(&app, &experiment, "b").await,
        unit_of(&app, &experiment, "control").await,
    ];
    let mut answers = BTreeMap::new();
    for unit in &units {
        let body = json!({"experiment": "order", "user_id": unit, "limit": 2, "candidates": items(&["a", "b", "c"])});
        let answer = app.post(RANK, &body).await.ok();
        assert_eq!(answer["candidates"].as_array().unwrap().len(), 2);
        answers.insert(unit.clone(), answer);
    }
    eventually("both are there", async || {
        app.database()
            .number("SELECT count(*) FROM bandit_decisions")
            .await
            == 2
    })
    .await;
    let kept = "SELECT unit, decision_id, variant_id, arm_type, policy, candidates::text,
                       (SELECT string_agg(candidates[p + 1], ' ') FROM unnest(placed) AS p), coalesce(propensities::text, 'null')
                FROM bandit_decisions";
    for row in app.database().rows(kept).await {
        let answer = &answers[&row[0]];
        assert_eq!(json!(row[1]), answer["decision_id"]);
        assert_eq!(row[2], answer["variant_id"].to_string());
        assert_eq!(
            (row[3].as_str(), json!(row[4])),
            ("item", answer["policy"].clone())
        );
        assert_eq!(
            (row[5].as_str(), row[6].clone()),
            ("{a,b,c}", order(answer).join(" "))
        );
        let ranked = row[0] == units[0];
        assert_eq!(row[7] == "null", !ranked, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posterior_draws_have_no_propensity() {
    let app = TestApp::start().await;
    let imed = json!({"itemOrdering": "bandit", "banditAlgorithm": "imed"});
    let experiment = ranking(&app, &imed).await;
    let unit = unit_of(&app, &experiment, "b").await;
    // What was drawn from posteriors was drawn by Thompson sampling, whatever is configured.
    assert_eq!(rank(&app, &unit, &["good", "bad"]).await["policy"], "imed");
    app.teach("good", 400, 100).await;
    app.teach("bad", 400, 4).await;
    let body = json!({"experiment": "order", "user_id": unit, "draw": "posterior", "candidates": items(&["bad", "good"])});
    eventually("the better one comes first", async || {
        let answer = app.post(RANK, &body).await.ok();
        assert_eq!(answer["policy"], "thompson");
        let first = &answer["candidates"][0];
        first["propensity"].is_null()
            && first["arm_id"] == "good"
            && first["bandit_score"].as_f64().unwrap() < 0.5
    })
    .await;
}

/// Whoever is the only variant of a bandit over items ranks, although it is the control.
#[tokio::test(flavor = "multi_thread")]
async fn one_variant_suffices_for_a_bandit_over_items() {
    let app = TestApp::start().await;
    app.experiment("order")
        .variants(&[("all", "1")])
        .running()
        .await;
    app.change("UPDATE experiments SET experiment_type = 'bandit'")
        .await;
    assert_eq!(app.variant_of("order", "u").await, "all");
    let answer = rank(&app, "u", &["1", "2"]).await;
    assert_eq!(answer["policy"], "thompson");
    assert_eq!(propensities(&answer)["1"], Some(0.5));
}

/// Before anybody was ranked for the rules may change, afterwards they stand; also for a variant that ranks as well.
#[tokio::test(flavor = "multi_thread")]
async fn rules_of_learning_stand_once_somebody_was_ranked_for() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    // What a variant leaves open is taken from its experiment.
    let patch = async |options: Value| {
        let body = json!({"config": {"banditOptions": options}});
        app.patch("/api/v1/admin/experiments/order", &body).await
    };
    patch(json!({"rewards": "purchase"})).await.ok();
    patch(json!({"rewards": "click"})).await.ok();
    app.hears_of_changes().await;
    rank(&app, &unit, &["1", "2"]).await;
    patch(json!({"rewards": "click", "floor": 0.1})).await.ok();
    for options in [
        json!({"rewards": "purchase"}),
        json!({"rewards": "click", "attributionMinutes": 5}),
    ] {
        patch(options).await.problem(409, "conflict");
    }
    for (name, rewards, status) in [("c", "purchase", 409), ("d", "click", 201)] {
        let variant = json!({"name": name, "config": {"itemOrdering": "bandit", "banditOptions": {"rewards": rewards}}});
        let path = "/api/v1/admin/experiments/order/variants";
        let added = app.admin(Method::POST, path, Some(&variant)).await;
        assert_eq!(added.status, status, "{}", added.text());
    }
}

/// The arms of an experiment are counted once, whoever ranked them: a second variant that asks for other rewards is refused
/// when it is defined, also before anybody was ranked for.
#[tokio::test(flavor = "multi_thread")]
async fn variants_that_rank_count_rewards_alike() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let path = "/api/v1/admin/experiments/order/variants";
    let options = |options: Value| json!({"itemOrdering": "bandit", "banditOptions": options});
    let add = async |name: &str, config: Value| {
        let variant = json!({"name": name, "config": config});
        app.admin(Method::POST, path, Some(&variant)).await
    };
    for (wrong, names) in [
        (json!({"rewards": "purchase"}), "by other rewards than"),
        (
            json!({"attributionMinutes": 5}),
            "by other attributionMinutes than",
        ),
    ] {
        let refused = add("c", options(wrong)).await;
        let problem = refused.problem(409, "conflict");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("variant c") && detail.contains(names) && detail.contains("variant b"),
            "{detail}"
        );
    }
    let none = "SELECT count(*) FROM experiment_variants WHERE name = 'c'";
    assert_eq!(app.database().number(none).await, 0);
    // Another policy over the same arms is what a second variant is for; and one that does not rank may say anything.
    let added = add("c", options(json!({"floor": 0.2}))).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let other = json!({"itemOrdering": "newest", "banditOptions": {"rewards": "purchase"}});
    assert_eq!(add("d", other).await.status, 201);
    let one = |name: &str| format!("{path}/{name}");
    let id = added.data()["id"].to_string();
    let patch = json!({"config": options(json!({"rewards": "purchase"}))});
    app.patch(&one(&id), &patch).await.problem(409, "conflict");
    let b = experiment.variant("b").to_string();
    app.patch(&one(&b), &patch).await.problem(409, "conflict");
    // What both take from the experiment may change for both.
    let all = json!({"config": {"banditOptions": {"rewards": "purchase"}}});
    app.patch("/api/v1/admin/experiments/order", &all)
        .await
        .ok();
}

/// An impression counts as a play while its window is open: otherwise an arm would look the better the more it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_counts_as_plays() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    rank(&app, &unit, &["shown", "rested"]).await;
    for arm in ["shown", "rested"] {
        app.teach(arm, 50, 10).await;
    }
    let events: Vec<Value> = (0..400)
        .map(|_| json!({"event_type": "impression", "user_id": unit, "experiment_id": experiment.id, "item_id": "shown"}))
        .collect();
    app.track_any(json!({"events": events})).await.ok();
    app.fold().await;
    let known = "SELECT total_pulls FROM bandit_arms WHERE arm_id = 'shown'";
    assert_eq!(
        app.database().number(known).await,
        50,
        "nothing is known of them yet"
    );
    eventually("what waits for its outcome weighs", async || {
        propensities(&rank(&app, &unit, &["shown", "rested"]).await)["shown"] < Some(0.05)
    })
    .await;
}

/// Many first sights of the same arms at once, on two replicas: each arm is made once, and both learn of what was taught.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_on_two_replicas() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let other = app.replica().await;
    let unit = unit_of(&app, &experiment, "b").await;
    let ids: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let calls = (0..40_usize).map(|call| {
        let replica: &Client = if call.is_multiple_of(2) { &app } else { &other };
        rank(replica, &unit, &ids[..=call])
    });
    let answers = join_all(calls).await;
    let decisions: BTreeSet<String> = answers
        .iter()
        .map(|answer| answer["decision_id"].to_string())
        .collect();
    assert_eq!(decisions.len(), 40);
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM bandit_arms")
            .await,
        40
    );
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM bandit_learning WHERE arm_type = 'item'")
            .await,
        1
    );
    eventually("all decisions are there", async || {
        app.database()
            .number("SELECT count(*) FROM bandit_decisions")
            .await
            == 40
    })
    .await;
    app.teach("7", 300, 90).await;
    for replica in [&app, &other] {
        eventually(
            "the replica knows better than to treat all alike",
            async || {
                let propensity = propensities(&rank(replica, &unit, &ids).await)["7"].unwrap();
                (propensity - 1.0 / 40.0).abs() > 0.01
            },
        )
        .await;
    }
}

/// A unit that is pinned for testing gets its variant's order, and what it gets is in no evaluation.
#[tokio::test(flavor = "multi_thread")]
async fn pinned_units_are_ranked_and_left_out() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let control = unit_of(&app, &experiment, "control").await;
    let (id, b) = (experiment.id, experiment.variant("b"));
    let pin = format!(
        "INSERT INTO experiment_overrides (experiment_id, unit, variant_id) VALUES ({id}, '{control}', {b})"
    );
    app.change(&pin).await;
    let answer = rank(&app, &control, &["1", "2"]).await;
    assert_eq!(answer["policy"], "thompson");
    eventually("the decision is marked", async || {
        app.database()
            .number("SELECT count(*) FROM bandit_decisions WHERE excluded")
            .await
            == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    let good = json!({"experiment": "order", "user_id": unit, "candidates": [{"id": 1}]});
    for (member, wrong) in [
        ("candidates", json!([])),
        ("candidates", json!([{"id": 1}, {"id": "1"}])),
        ("candidates", json!([1])),
        ("candidates", json!([{"id": 1.5}])),
        ("candidates", json!([{"id": "a\u{0}"}])),
        ("candidates", json!([{"id": "a", "metadata": [1]}])),
        ("candidates", Value::Null),
        ("limit", json!(0)),
        ("limit", json!(1_001)),
        ("arm_type", json!("variant")),
        ("draw", json!(1)),
        ("user_id", Value::Null),
    ] {
        let mut body = good.clone();
        body[member] = wrong;
        app.post(RANK, &body)
            .await
            .problem(422, "validation_failed");
    }
    let large = format!(
        r#"{{"user_id":"u","candidates":[{{"id":1,"x":"{}"}}]}}"#,
        "x".repeat(70_000)
    );
    app.post_bytes(RANK, large).await.problem(413, "too_large");
    app.post_bytes(RANK, "{")
        .await
        .problem(400, "malformed_json");
    let twice = r#"{"user_id":"u","candidates":[{"id":1,"id":2}]}"#;
    app.post_bytes(RANK, twice)
        .await
        .problem(400, "malformed_json");
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM bandit_arms")
            .await,
        0
    );
}

/// Every body is answered or refused with a problem document.
#[tokio::test(flavor = "multi_thread")]
async fn mangled_bodies_are_answered_or_refused() {
    let app = TestApp::start().await;
    let experiment = ranking(&app, &thompson()).await;
    let unit = unit_of(&app, &experiment, "b").await;
    let body = json!({"experiment": "order", "user_id": unit, "arm_type": "item", "limit": 2, "draw": "weights",
        "candidates": [{"id": 1, "name": "x", "metadata": {"a": [1, null]}}, {"id": "b"}]});
    let body = body.to_string().into_bytes();
    let mut rng = Rng::from_seed(7);
    for _ in 0..150 {
        let mut mangled = body.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(mangled.len());
            match rng.below(3) {
                0 => mangled[at] = u8::try_from(rng.below(256)).unwrap(),
                1 => {
                    mangled.remove(at);
                }
                _ => mangled.insert(at, *rng.pick(b"{}[],:\"0-e.\\")),
            }
        }
        let answer = app.post_bytes(RANK, mangled).await;
        if answer.status != 200 {
            assert!(
                matches!(answer.status, 400 | 404 | 422),
                "{}",
                answer.status
            );
            answer.any_problem();
        }
    }
}
