//! Bodies that are wrong in every way that we could think of: refused with a problem document, and nothing is written.

use podium_tests::{Experiment, TestApp};
use serde_json::{Value, json};

const ASSIGN: &str = "/api/v1/experiments/assign";
const BULK: &str = "/api/v1/experiments/assign/bulk";
const TRACK: &str = "/api/v1/experiments/track";
const CLICK: &str = "/api/v1/experiments/track-click";
const PURCHASE: &str = "/api/v1/experiments/track-purchase";
const ALL: [&str; 5] = [ASSIGN, BULK, TRACK, CLICK, PURCHASE];

/// Rows of every table that a request can write.
const WRITTEN: &str = "SELECT (SELECT count(*) FROM user_experiment_assignments) + (SELECT count(*) FROM experiment_events)
    + (SELECT count(*) FROM experiment_event_keys) + (SELECT count(*) FROM unit_aliases)
    + (SELECT count(*) FROM experiments) + (SELECT count(*) FROM experiment_variants) + (SELECT count(*) FROM audit_log)";

/// An experiment in which `u` has a variant, so that events of `u` would be recorded.
async fn scene() -> (TestApp, Experiment, i64) {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").on("newsfeed").running().await;
    app.variant_of("e", "u").await;
    let written = app.database().number(WRITTEN).await;
    (app, experiment, written)
}

/// Nothing was written, and the application is well.
async fn untouched(app: &TestApp, written: i64) {
    assert_eq!(app.database().number(WRITTEN).await, written);
    assert_eq!(app.get("/readyz").await.status, 200);
}

/// A body that every route would take, with the given members.
fn body(members: &Value) -> Value {
    let mut body = json!({
        "user_id": "u", "experiment": "e", "experiment_id": "e", "event_type": "click", "value": 1, "user_ids": ["u"]
    });
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_one_json_document() {
    let (app, _, written) = scene().await;
    let deep = |levels: usize| {
        format!(
            "{{\"user_id\":\"u\",\"metadata\":{}{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let texts = [
        "",
        " ",
        "{",
        "}",
        "{\"user_id\":\"u\"",
        "{\"user_id\":\"u\"}}",
        "{\"user_id\":\"u\"} {}",
        "{\"user_id\":\"u\"},",
        "nul",
        "{\"user_id\":\"u\",}",
        "{'user_id':'u'}",
        "{user_id:\"u\"}",
        "{\"user_id\":NaN}",
        "{\"value\":Infinity}",
        "{\"value\":-}",
        "{\"value\":01}",
        "{\"value\":+1}",
        "{\"value\":.5}",
        "{\"value\":1.}",
        "{\"value\":0x10}",
        "{\"user_id\":\"u\" /* */}",
        "{\"user_id\":\"\u{1}\"}",
        "{\"user_id\":\"a\nb\"}",
        "{\"user_id\":\"\\x\"}",
        "{\"user_id\":\"\\ud800\"}",
        "{\"user_id\":\"\\u12\"}",
        "\u{feff}{\"user_id\":\"u\"}",
        "{\"user_id\":\"u\",\"user_id\":\"u\"}",
        "{\"user_id\":\"u\",\"us\\u0065r_id\":\"u\"}",
        "{\"user_id\":\"u\",\"metadata\":{\"a\":1,\"a\":2}}",
        "{\"user_id\":\"u\",\"ignored\":[{\"b\":{\"a\":1,\"a\":1}}]}",
        "{\"user_id\":\"u\",\"userId\":\"u\"}",
    ];
    let mut bodies: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    // The object itself is the first level.
    bodies.extend(
        [
            deep(32),
            deep(30_000),
            objects(33),
            objects(8_000),
            "[".repeat(60_000),
            "{\"a\":".repeat(10_000),
        ]
        .map(String::into_bytes),
    );
    bodies.extend([
        b"{\"user_id\":\"\xff\"}".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        b"\0".to_vec(),
        vec![0; 1_000],
        b"{\"a\xc0\xaf\":1}".to_vec(),
    ]);
    for path in ALL {
        for body in &bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let answer = app.post_bytes(path, body.clone()).await;
            assert_eq!(answer.status, 400, "{path} {shown}: {}", answer.text());
            answer.problem(400, "malformed_json");
        }
    }
    untouched(&app, written).await;
}

/// The deepest body that is taken, so that the limit is where it should be.
#[tokio::test(flavor = "multi_thread")]
async fn nesting_up_to_the_limit_is_taken() {
    let (app, _, _) = scene().await;
    let ignored = format!(
        "{{\"user_id\":\"u\",\"ignored\":{}{}}}",
        "[".repeat(31),
        "]".repeat(31)
    );
    app.post_bytes(ASSIGN, ignored).await.ok();
    let metadata = |levels: usize| {
        format!(
            "{{\"user_id\":\"u\",\"experiment_id\":\"e\",\"metadata\":{}1{}}}",
            "{\"a\":".repeat(levels),
            "}".repeat(levels)
        )
    };
    app.post_bytes(CLICK, metadata(16)).await.ok();
    let problem = app
        .post_bytes(CLICK, metadata(17))
        .await
        .problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/metadata");
}

/// Numbers that are valid JSON and that PostgreSQL cannot hold: refused by name, and in a batch alone.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_the_database_cannot_hold() {
    let (app, _, written) = scene().await;
    let numbers = ["1e200000", "-1e-20000", "1e309"];
    let event = |number: &str| {
        format!(
            r#"{{"event_type":"click","user_id":"u","experiment_id":"e","metadata":{{"a":[{number}]}}}}"#
        )
    };
    for number in numbers {
        let answer = app.post_bytes(CLICK, event(number)).await;
        let problem = answer.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "out_of_range", "{problem}");
        let config = format!(r#"{{"name":"n","config":{{"a":{number}}}}}"#);
        let answer = app.admin_bytes("/api/v1/admin/experiments", config).await;
        let problem = answer.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/config", "{problem}");
    }
    untouched(&app, written).await;
    let fine = r#"{"user_id":"u","experiment_id":"e","event_type":"click"}"#;
    let batch = format!(r#"{{"events":[{},{fine}]}}"#, event(numbers[0]));
    let answer = app.post_bytes(TRACK, batch).await.ok();
    assert_eq!(answer["results"][0]["status"], 422, "{answer}");
    assert_eq!(answer["results"][1]["success"], true, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_objects() {
    let (app, _, written) = scene().await;
    for path in ALL {
        for document in [
            json!([]),
            json!([{"user_id": "u"}]),
            json!("u"),
            json!(1),
            json!(true),
            json!(null),
        ] {
            let answer = app.post(path, &document).await;
            let problem = answer.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "", "{path} {document}");
        }
    }
    untouched(&app, written).await;
}

/// Every known field with values that it cannot have: the answer points at it.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_wrong_kind() {
    let (app, _, written) = scene().await;
    let long = |length: usize| json!("x".repeat(length));
    let no_text = [json!(true), json!({}), json!([]), json!(["u"])];
    let no_number = [json!("1"), json!(true), json!([]), json!({})];
    let with = |values: &[Value], more: &[Value]| [values, more].concat();
    let key = with(&no_text, &[json!(""), json!(1.5), json!(-1.0), long(129)]);
    let unit = with(
        &no_text,
        &[json!(""), json!(1.5), long(256), json!("é".repeat(256))],
    );
    let text = with(&no_text, &[json!(1)]);
    let id = with(
        &no_text,
        &[json!(0), json!(-1), json!(1.5), json!(u64::MAX)],
    );
    let integer = with(
        &no_number,
        &[
            json!(0),
            json!(-1),
            json!(1.5),
            json!(10_001),
            json!(i64::MAX),
            json!(u64::MAX),
        ],
    );
    let table: [(&[&str], &str, Vec<Value>); 17] = [
        (&[ASSIGN, BULK, TRACK, CLICK], "user_id", unit.clone()),
        (&[ASSIGN, TRACK, CLICK], "session_id", unit),
        (
            &[ASSIGN, BULK],
            "experiment",
            with(&id, &[json!(""), long(129)]),
        ),
        (
            &[TRACK, CLICK],
            "experiment_id",
            with(&id, &[json!(""), long(129)]),
        ),
        (&[TRACK, CLICK], "variant_id", id),
        (
            &[TRACK, CLICK],
            "event_id",
            with(&text, &[json!(""), long(129)]),
        ),
        (&[TRACK, CLICK], "item_id", key.clone()),
        (&[TRACK, CLICK], "brand_id", key),
        (&[TRACK, CLICK], "position", integer.clone()),
        (&[TRACK, PURCHASE], "quantity", integer),
        (
            &[TRACK, PURCHASE],
            "value",
            with(
                &no_number,
                &[
                    json!(-0.01),
                    json!(-1),
                    json!(1e13),
                    json!(1_000_000_000_001_i64),
                ],
            ),
        ),
        (
            &[ASSIGN, TRACK, CLICK],
            "placement",
            with(&text, &[long(129)]),
        ),
        (
            &[ASSIGN, TRACK, CLICK],
            "page_type",
            with(&text, &[long(129)]),
        ),
        (
            &[TRACK, CLICK],
            "decision_id",
            with(&text, &[json!(""), long(129)]),
        ),
        (
            &[TRACK, CLICK],
            "metadata",
            vec![
                json!("{}"),
                json!(1),
                json!([]),
                json!(true),
                json!({"a": "x".repeat(16 * 1024)}),
            ],
        ),
        (
            &[TRACK, CLICK],
            "occurred_at",
            vec![
                json!(""),
                json!(1),
                json!("now"),
                json!({}),
                json!("2024-13-01T00:00:00Z"),
            ],
        ),
        (
            &[TRACK],
            "event_type",
            vec![
                json!(""),
                json!("CLICK"),
                json!("addToCart"),
                json!(4),
                json!([]),
                long(129),
            ],
        ),
    ];
    for (paths, field, values) in table {
        for (path, value) in paths
            .iter()
            .flat_map(|path| values.iter().map(move |value| (path, value)))
        {
            let mut sent = body(&json!({field: value}));
            if *path == ASSIGN || *path == BULK && field == "user_id" {
                sent.as_object_mut().unwrap().remove("user_ids");
            }
            let answer = app.post(path, &sent).await;
            assert_eq!(
                answer.status,
                422,
                "{path} {field} {value}: {}",
                answer.text()
            );
            let problem = answer.problem(422, "validation_failed");
            assert_eq!(
                problem["errors"][0]["pointer"],
                format!("/{field}"),
                "{path} {value}"
            );
        }
    }
    untouched(&app, written).await;
}

/// NUL and other control characters, in every string of a body, also in those that nobody reads, and in names of members.
#[tokio::test(flavor = "multi_thread")]
async fn control_characters_anywhere() {
    let (app, _, written) = scene().await;
    let fields = [
        "user_id",
        "session_id",
        "experiment",
        "experiment_id",
        "event_id",
        "item_id",
        "brand_id",
        "module_id",
        "placement",
        "page_type",
        "decision_id",
        "occurred_at",
        "variant",
        "ignored",
        "event_type",
    ];
    for path in ALL {
        for character in [
            "\0", "\u{1}", "\t", "\n", "\r", "\u{1b}", "\u{1f}", "\u{7f}",
        ] {
            let text = format!("a{character}b");
            let mut bodies: Vec<Value> = fields
                .iter()
                .map(|field| body(&json!({*field: text})))
                .collect();
            bodies.push(body(&json!({"metadata": {"deep": [{"down": text}]}})));
            bodies.push(body(&json!({"metadata": {text.clone(): 1}})));
            bodies.push(body(&json!({"context": {"locale": text}})));
            bodies.push(body(&json!({"ignored": [[text]]})));
            bodies.push(body(&json!({text.clone(): true})));
            bodies.push(body(&json!({"user_ids": [text]})));
            for sent in bodies {
                let answer = app.post(path, &sent).await;
                assert_eq!(answer.status, 422, "{path} {sent}: {}", answer.text());
                answer.problem(422, "validation_failed");
            }
        }
    }
    untouched(&app, written).await;
}

/// In a batch each event answers for itself.
#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_a_batch() {
    let (app, _, written) = scene().await;
    for (member, value) in [
        ("user_id", json!("a\u{0}")),
        ("ignored", json!(["\u{1}"])),
        ("metadata", json!({"a": "\u{0}"})),
    ] {
        let mut event = json!({"event_type": "click", "user_id": "u", "experiment_id": "e"});
        event[member] = value;
        let answer = app.post(TRACK, &json!({"events": [event]})).await;
        if answer.status == 200 {
            assert_eq!(
                answer.json()["results"][0]["status"],
                422,
                "{}",
                answer.text()
            );
        } else {
            answer.problem(422, "validation_failed");
        }
    }
    untouched(&app, written).await;
}

/// All wrong fields are named at once, each by its spelling in the body.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_reported_at_once() {
    let (app, _, written) = scene().await;
    let sent = json!({"userId": 1.5, "experiment_id": 0, "position": 0, "value": -1, "eventId": "", "itemId": [], "brand_id": true, "occurredAt": "x", "metadata": 1});
    let problem = app
        .post(PURCHASE, &sent)
        .await
        .problem(422, "validation_failed");
    let mut pointers: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/brand_id",
            "/eventId",
            "/experiment_id",
            "/itemId",
            "/metadata",
            "/occurredAt",
            "/position",
            "/userId",
            "/value"
        ]
    );
    untouched(&app, written).await;
}

/// What is missing is named in the spelling of the storefront.
#[tokio::test(flavor = "multi_thread")]
async fn missing_fields_are_named() {
    let (app, _, written) = scene().await;
    for (path, sent, pointer) in [
        (CLICK, json!({"experiment_id": "e"}), "/user_id"),
        (
            CLICK,
            json!({"user_id": null, "session_id": null}),
            "/user_id",
        ),
        (
            PURCHASE,
            json!({"user_id": "u", "experiment_id": "e"}),
            "/value",
        ),
        (
            PURCHASE,
            json!({"user_id": "u", "experiment_id": "e", "value": null}),
            "/value",
        ),
        (
            TRACK,
            json!({"user_id": "u", "experiment_id": "e"}),
            "/event_type",
        ),
        (
            TRACK,
            json!({"user_id": "u", "experiment_id": "e", "event_type": null}),
            "/event_type",
        ),
        (BULK, json!({"user_ids": ["u"]}), "/experiment"),
    ] {
        let problem = app
            .post(path, &sent)
            .await
            .problem(422, "validation_failed");
        assert_eq!(
            (
                &problem["errors"][0]["pointer"],
                &problem["errors"][0]["code"]
            ),
            (&json!(pointer), &json!("required")),
            "{sent}"
        );
    }
    untouched(&app, written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist() {
    let (app, experiment, written) = scene().await;
    for unknown in [
        json!("no such"),
        json!(experiment.id + 1_000),
        json!(i64::MAX),
    ] {
        for path in [TRACK, CLICK, PURCHASE] {
            let answer = app
                .post(path, &body(&json!({"experiment_id": unknown})))
                .await;
            answer.problem(404, "not_found");
        }
        app.post(CLICK, &body(&json!({"variant_id": unknown})))
            .await
            .problem(422, "validation_failed");
    }
    untouched(&app, written).await;
}
