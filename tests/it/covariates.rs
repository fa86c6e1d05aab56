//! Covariates handed in over HTTP, and what becomes of them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use podium_api::auth::Role;
use podium_tests::raw::{Connection, exchange};
use podium_tests::{Answer, ApiProcess, Client, TestApp, eventually, token};
use reqwest::Method;
use serde_json::{Value, json};

use crate::PROGRAM;

const MIB: usize = 1024 * 1024;

fn path(experiment: &str) -> String {
    format!("/api/v1/admin/experiments/{experiment}/covariates")
}

async fn send(app: &Client, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = app
        .request(Method::POST, &path("e"))
        .bearer_auth(token::valid("1"))
        .header("content-type", kind);
    Answer::of(request.body(body)).await
}

async fn csv(app: &Client, body: &str) -> Answer {
    send(app, "text/csv", body.to_owned()).await
}

async fn json_body(app: &Client, body: &Value) -> Answer {
    app.admin(Method::POST, &path("e"), Some(body)).await
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn outcome(received: u32, accepted: u32, already_assigned: u32, unchanged: u32) -> Value {
    json!({"received": received, "accepted": accepted, "alreadyAssigned": already_assigned, "unchanged": unchanged})
}

/// Units and their covariates, every version of them.
async fn stored(app: &TestApp) -> String {
    let sql = "SELECT coalesce(string_agg(unit || '=' || trim_scale(value), ' ' ORDER BY unit COLLATE \"C\", tx_id), '') FROM unit_covariates";
    app.database().text(sql).await
}

/// Nothing is stored, staged or logged.
async fn untouched(app: &TestApp) {
    let rows = "SELECT (SELECT count(*) FROM unit_covariates) + (SELECT count(*) FROM covariate_uploads) + (SELECT count(*) FROM audit_log)";
    assert_eq!(app.database().number(rows).await, 0);
}

/// Pointers and codes of the faults of an answer.
fn faults(answer: &Answer) -> Vec<(String, String)> {
    let problem = answer.problem(422, "validation_failed");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|e| (text(&e["pointer"]), text(&e["code"])))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// CSV, compressed or not, and JSON arrive; units that are assigned afterwards have them in the sums.
#[tokio::test(flavor = "multi_thread")]
async fn both_forms_reach_the_sums() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let first = csv(&app, "unit,value\r\nu1,12.5\r\n\"u,2\",-3\r\n").await;
    assert_eq!(first.data(), outcome(2, 2, 0, 0));
    let compressed = app
        .request(Method::POST, &path(&experiment.id.to_string()))
        .bearer_auth(token::valid("1"))
        .header("content-type", "text/csv; charset=utf-8")
        .header("content-encoding", "gzip")
        .body(gzip(b"unit,value\nu3,0.0001\n"));
    assert_eq!(Answer::of(compressed).await.data(), outcome(1, 1, 0, 0));
    let body = json!({"covariates": [{"unit": "u1", "value": 12.50}, {"unit": 4, "value": 1e3}, {"value": -7, "unit": "u,2"}]});
    assert_eq!(json_body(&app, &body).await.data(), outcome(3, 2, 0, 1));
    assert_eq!(stored(&app).await, "4=1000 u,2=-3 u,2=-7 u1=12.5 u3=0.0001");

    let variant = app.variant_of("e", "u1").await;
    app.variant_of("e", "nobody knows").await;
    app.track(
        "purchase",
        json!({"user_id": "u1", "experiment_id": "e", "value": 2}),
    )
    .await
    .ok();
    app.fold().await;
    let sums = "SELECT variant_id, units, trim_scale(sum_x), trim_scale(sq_x), purchasing_units, trim_scale(x_purchase_value) FROM covariate_moments";
    let id = experiment.variant(&variant).to_string();
    assert_eq!(
        app.database().rows(sums).await,
        [[id.as_str(), "1", "12.5", "156.25", "1", "25"]]
    );

    let late = json!({"covariates": [{"unit": "u1", "value": 1}, {"unit": "nobody knows", "value": 1}, {"unit": "u3", "value": 1}]});
    assert_eq!(json_body(&app, &late).await.data(), outcome(3, 1, 2, 0));
    app.fold().await;
    assert_eq!(
        app.database().rows(sums).await.len(),
        1,
        "too late is too late"
    );

    let log = app
        .admin(
            Method::GET,
            "/api/v1/admin/audit-log?action=covariates.upload",
            None,
        )
        .await
        .data();
    let entry = &log.as_array().unwrap()[0];
    assert_eq!(
        (&entry["actor"], &entry["experimentId"], &entry["after"]),
        (&json!("1"), &json!(experiment.id), &outcome(3, 1, 2, 0))
    );
    assert_eq!(log.as_array().unwrap().len(), 4);
    assert!(
        !log.to_string().contains("12.5"),
        "values are nobody's business: {log}"
    );
}

/// An empty list is an upload of nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_for_nothing() {
    let app = TestApp::start().await;
    app.experiment("e").in_state("draft").await;
    assert_eq!(csv(&app, "unit,value\n").await.data(), outcome(0, 0, 0, 0));
    assert_eq!(
        json_body(&app, &json!({"covariates": []})).await.data(),
        outcome(0, 0, 0, 0)
    );
}

/// Every wrong line is named, a unit that stands there twice too, and the good ones are not taken either.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_lines_of_csv_are_named_and_nothing_is_taken() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let long = "x".repeat(256);
    let wrong = csv(
        &app,
        &format!("unit,value\na,1\n,1\nb,NaN\na,1\nc,0.00001\nd,1e13\n{long},1\ne\u{0},1\nf,1,1\n\"g\nh\",2\ni,\na,3\n\"k,1\n"),
    )
    .await;
    let want = pairs(&[
        ("/3/unit", "too_short"),
        ("/4/value", "wrong_type"),
        ("/5/unit", "duplicate"),
        ("/6/value", "too_many_decimals"),
        ("/7/value", "out_of_range"),
        ("/8/unit", "too_long"),
        ("/9/unit", "invalid_text"),
        ("/10", "wrong_type"),
        ("/11/unit", "invalid_text"),
        ("/13/value", "wrong_type"),
        ("/14/unit", "duplicate"),
        ("/15", "invalid_text"),
    ]);
    assert_eq!(faults(&wrong), want);
    for header in [
        "",
        "u1,1\nu2,2\n",
        "value,unit\n1,u1\n",
        "unit,value,variant\nu1,1,b\n",
    ] {
        assert_eq!(
            faults(&csv(&app, header).await),
            pairs(&[("/1", "required")]),
            "{header}"
        );
    }
    let twice = csv(&app, "unit,value\na,1\nb,1\na,1\n").await;
    assert_eq!(
        faults(&twice),
        pairs(&[("/4/unit", "duplicate")]),
        "also with the same value"
    );
    untouched(&app).await;
    assert_eq!(
        csv(&app, "unit,value\na,1\n").await.data(),
        outcome(1, 1, 0, 0)
    );
}

/// Of very many wrong lines the first hundred.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_wrong_lines_are_named() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let lines: String = (0..20_000)
        .map(|n| format!("u{n},{}\n", if n % 2 == 0 { "1" } else { "x" }))
        .collect();
    let found = faults(&csv(&app, &format!("unit,value\nu0,1\n{lines}")).await);
    assert_eq!(found.len(), 100);
    assert_eq!(
        found[..3],
        pairs(&[
            ("/3/unit", "duplicate"),
            ("/4/value", "wrong_type"),
            ("/6/value", "wrong_type")
        ])
    );
    let entries: Vec<Value> = (0..20_000)
        .map(|n| json!({"unit": n, "value": if n < 19_000 { json!(1) } else { json!("1") }}))
        .collect();
    let found = faults(&json_body(&app, &json!({"covariates": entries})).await);
    assert_eq!(
        (found.len(), found[0].0.as_str()),
        (100, "/covariates/19000/value")
    );
    untouched(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_entries_of_json_are_named_and_nothing_is_taken() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let wrong = json!({"covariates": [
        {"unit": "a", "value": 1}, {"unit": "", "value": 1}, {"unit": "b"}, {"value": 1}, {"unit": "c", "value": "1"},
        {"unit": "d", "value": null}, {"unit": 1.5, "value": 1}, {"unit": "x".repeat(256), "value": 1}, {"unit": "e\u{0}", "value": 1},
        {"unit": "f", "value": 0.00001}, {"unit": "g", "value": -1e13}, {"unit": "h", "value": 1, "variant": "b"}, 7,
        {"unit": "a", "value": 2}, {"unit": true, "value": 1}, {"unit": 1, "value": 1}, {"unit": "1", "value": 1}
    ]});
    let at = |index: u32, field: &str, code: &str| {
        (format!("/covariates/{index}{field}"), code.to_owned())
    };
    let want = [
        at(1, "/unit", "too_short"),
        at(2, "/value", "required"),
        at(3, "/unit", "required"),
        at(4, "/value", "wrong_type"),
        at(5, "/value", "required"),
        at(6, "/unit", "wrong_type"),
        at(7, "/unit", "too_long"),
        at(8, "/unit", "invalid_text"),
        at(9, "/value", "too_many_decimals"),
        at(10, "/value", "out_of_range"),
        at(11, "/variant", "unknown_field"),
        at(12, "", "wrong_type"),
        at(13, "/unit", "duplicate"),
        at(14, "/unit", "wrong_type"),
        at(16, "/unit", "duplicate"),
    ];
    assert_eq!(faults(&json_body(&app, &wrong).await), want);
    for (body, pointer, code) in [
        (json!({}), "/covariates", "required"),
        (json!({"covariates": {}}), "/covariates", "wrong_type"),
        (
            json!({"covariates": [], "experiment": 1}),
            "/experiment",
            "unknown_field",
        ),
        (json!([]), "", "wrong_type"),
    ] {
        assert_eq!(
            faults(&json_body(&app, &body).await),
            pairs(&[(pointer, code)]),
            "{body}"
        );
    }
    for body in [
        "",
        "{",
        "{\"covariates\": [",
        "{\"covariates\": [{\"unit\": \"a\", \"value\": NaN}]}",
        "{\"covariates\": []} {}",
        "{\"covariates\": [], \"covariates\": []}",
        "{\"covariates\": [{\"unit\": \"a\", \"unit\": \"b\", \"value\": 1}]}",
    ] {
        send(&app, "application/json", body)
            .await
            .problem(400, "malformed_json");
    }
    untouched(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_roles_and_unknown_experiments() {
    let app = TestApp::start().await;
    let body = json!({"covariates": [{"unit": "a", "value": 1}]});
    app.admin(Method::POST, &path("e"), Some(&body))
        .await
        .problem(404, "not_found");
    let experiment = app.experiment("e").in_state("draft").await;
    for (status, takes) in [
        ("draft", true),
        ("running", true),
        ("paused", false),
        ("completed", false),
        ("archived", false),
    ] {
        app.change(&format!("UPDATE experiments SET status = '{status}'"))
            .await;
        let answer = json_body(&app, &body).await;
        if takes {
            assert_eq!(answer.data()["received"], 1, "{status}");
        } else {
            let problem = answer.problem(409, "conflict");
            assert!(
                problem["detail"].as_str().unwrap().contains(status),
                "{problem}"
            );
        }
    }
    app.change("UPDATE experiments SET status = 'running'")
        .await;
    let (viewer, editor) = (
        app.with_role(Role::Viewer).await,
        app.with_role(Role::Editor).await,
    );
    let by_id = path(&experiment.id.to_string());
    viewer
        .admin(Method::POST, &by_id, Some(&body))
        .await
        .problem(403, "forbidden");
    app.post(&by_id, &body).await.problem(401, "unauthorized");
    assert_eq!(
        editor.admin(Method::POST, &by_id, Some(&body)).await.data(),
        outcome(1, 0, 0, 1)
    );
    assert_eq!(stored(&app).await, "a=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_types_and_encodings_are_refused() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "text/csvx",
        "",
    ] {
        send(&app, kind, "unit,value\na,1\n")
            .await
            .problem(415, "unsupported_media_type");
    }
    let compressed = async |encoding: &str, body: Vec<u8>| {
        let request = app
            .request(Method::POST, &path("e"))
            .bearer_auth(token::valid("1"));
        let request = request
            .header("content-type", "text/csv")
            .header("content-encoding", encoding);
        Answer::of(request.body(body)).await
    };
    let good = gzip(b"unit,value\na,1\n");
    compressed("br", good.clone())
        .await
        .problem(415, "unsupported_media_type");
    for broken in [
        b"unit,value\n".to_vec(),
        Vec::new(),
        good[..good.len() - 4].to_vec(),
        [&good[..], b"more"].concat(),
    ] {
        compressed("gzip", broken)
            .await
            .problem(400, "malformed_json");
    }
    let bomb = gzip(&[b"unit,value\n", &vec![b'\n'; 33 * MIB][..]].concat());
    assert!(bomb.len() < MIB);
    compressed("gzip", bomb).await.problem(413, "too_large");
    untouched(&app).await;
    compressed("GZIP", good).await.data();
}

fn head(length: &str) -> Vec<u8> {
    format!(
        "POST {} HTTP/1.1\r\nHost: podium\r\nAuthorization: Bearer {}\r\nContent-Type: text/csv\r\n{length}\r\n\r\n",
        path("e"),
        token::valid("1")
    )
    .into_bytes()
}

/// There is room for two uploads. One whose client goes away, or sends nothing for ten seconds, makes room for another,
/// and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_vanished_ones_make_room() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let mut halves = Vec::new();
    for unit in ["a", "b"] {
        let mut connection = Connection::open(app.address()).await;
        connection.send(&head("Content-Length: 1000")).await;
        let line = format!("unit,value\n{unit},1\n");
        connection.send(line.as_bytes()).await;
        halves.push(connection);
    }
    let under_way = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'podium upload' AND datname = current_database()";
    eventually("both are under way", async || {
        app.database().number(under_way).await == 2
    })
    .await;
    let third = csv(&app, "unit,value\n").await;
    third.problem(503, "unavailable");
    assert_eq!(third.header("retry-after"), "1");
    let mut slow = halves.pop().unwrap();
    drop(halves);
    eventually("there is room again", async || {
        csv(&app, "unit,value\n").await.status == 200
    })
    .await;
    let answer = slow.answer().await.expect("an answer");
    answer.problem(408, "request_timeout");
    let rows =
        "SELECT (SELECT count(*) FROM unit_covariates) + (SELECT count(*) FROM covariate_uploads)";
    assert_eq!(app.database().number(rows).await, 0);
}

/// A length over the limit is refused before anything is read, and what declares none, while it is.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_32_mib_are_refused() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let declared = head(&format!("Content-Length: {}", 32 * MIB + 1));
    exchange(app.address(), &declared)
        .await
        .problem(413, "too_large");
    let mut connection = Connection::open(app.address()).await;
    connection.send(&head("Transfer-Encoding: chunked")).await;
    let line = [b"x".repeat(MIB - 2), b",1".to_vec()].concat();
    let chunk = [format!("{MIB:x}\r\n").into_bytes(), line, b"\r\n".to_vec()].concat();
    for _ in 0..32 {
        connection.send(&chunk).await;
    }
    // One byte more.
    connection.send(b"1\r\n\n\r\n").await;
    connection.answer().await.unwrap().problem(413, "too_large");
    untouched(&app).await;
}

/// A large file goes through a little memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_streamed() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    csv(&process, "unit,value\na,1\n").await.data();
    let before = process.peak_memory_mib();
    let mut file = String::from("unit,value\n");
    while file.len() < 31 * MIB {
        file += &format!("{:0>250},{}\n", file.len(), file.len());
    }
    let rows = u32::try_from(file.lines().count() - 1).unwrap();
    assert_eq!(csv(&process, &file).await.data(), outcome(rows, rows, 0, 0));
    let grown = process.peak_memory_mib() - before;
    assert!(grown < 20, "grew by {grown} MiB for a file of 31 MiB");
}
