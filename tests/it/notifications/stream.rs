//! Promotion events as they happen.

use podium_tests::raw::Connection;
use podium_tests::{TestApp, eventually, token};
use reqwest::{Method, Response};

const STREAM: &str = "/api/v1/promotions/stream";

/// An open stream and what it has said so far.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(app: &TestApp, last: Option<&str>) -> Self {
        let mut request = app
            .request(Method::GET, STREAM)
            .bearer_auth(token::valid("1"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-type"],
            "text/event-stream; charset=utf-8"
        );
        let mut stream = Self {
            response,
            text: String::new(),
        };
        stream.says("retry: 2000\n: listening\n\n").await;
        stream
    }

    /// Reads until the stream has said this.
    async fn says(&mut self, wanted: &str) {
        let mut searched = 0;
        while !self.text[searched..].contains(wanted) {
            let rest = self.text.len().saturating_sub(wanted.len());
            searched = self.text.floor_char_boundary(rest);
            let chunk = tokio::time::timeout(podium_tests::PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("the stream says it in time").unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

async fn promote(app: &TestApp, experiment: i64) {
    app.database()
        .execute(&format!(
            "INSERT INTO experiment_promotions (experiment_id, experiment_name, promoted_variant_id, promoted_variant_name,
                 confidence, improvement, promotion_type)
             VALUES ({experiment}, 'cta \"é\"', 31, 'b', 97.5, 12.3, 'auto')"
        ))
        .await;
}

async fn experiment(app: &TestApp) -> i64 {
    app.experiment("cta").running().await;
    app.database().number("SELECT id FROM experiments").await
}

/// What happens is told at once on every replica, also after the database has cut the listening connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_and_its_rollback_are_told() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let id = experiment(&app).await;
    let mut streams = [
        Stream::open(&app, None).await,
        Stream::open(&replica, None).await,
    ];
    promote(&app, id).await;
    for stream in &mut streams {
        stream.says("event: promotion_created\n").await;
        stream.says("\"confidence\": 97.5").await;
    }
    app.database()
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN experiment_promotion%' AND datname = current_database()")
        .await;
    app.database()
        .execute("UPDATE experiment_promotions SET rollback_at = now(), rollback_reason = 'x'")
        .await;
    for stream in &mut streams {
        stream.says("event: promotion_rolled_back\n").await;
        assert_eq!(stream.text.matches("event: ").count(), 2, "{}", stream.text);
    }
}

/// Who comes back and names the last event gets what was missed, once; who names none gets only what is new.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_between_two_connections() {
    let app = TestApp::start().await;
    let id = experiment(&app).await;
    promote(&app, id).await;
    for _ in 0..300 {
        app.database()
            .execute("UPDATE experiment_promotions SET sample_size = coalesce(sample_size, 0) + 1")
            .await;
    }
    let mut again = Stream::open(&app, Some("1")).await;
    again.says("id: 301\n").await;
    assert!(!again.text.contains("id: 1\n"));
    let mut fresh = Stream::open(&app, None).await;
    app.database()
        .execute("UPDATE experiment_promotions SET rollback_at = now()")
        .await;
    fresh.says("id: 302\n").await;
    assert_eq!(fresh.text.matches("id: ").count(), 1, "{}", fresh.text);
    again.says("id: 302\n").await;
    assert_eq!(again.text.matches("id: ").count(), 301);
    let odd = app
        .request(Method::GET, STREAM)
        .bearer_auth(token::valid("1"))
        .header("last-event-id", "first");
    podium_tests::Answer::of(odd)
        .await
        .problem(422, "validation_failed");
}

/// Inserts this many events with this many bytes each.
fn events(number: u32, bytes: u32) -> String {
    format!(
        "INSERT INTO promotion_events (payload)
         SELECT jsonb_build_object('event_type', 'promotion_updated', 'filler', repeat('x', {bytes})) FROM generate_series(1, {number})"
    )
}

/// Numbers are given before the commit: who comes back gets what has appeared behind the last event that was told, too, and
/// what was there long before not again.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_hears_what_came_late() {
    let app = TestApp::start().await;
    let database = app.database();
    database.execute(&events(1, 1)).await;
    database
        .execute("UPDATE promotion_events SET created_at = created_at - interval '1 hour'")
        .await;
    let late = database.connect().await;
    late.batch_execute(&format!("BEGIN; {}", events(1, 1)))
        .await
        .unwrap();
    database.execute(&events(1, 1)).await;
    let mut stays = Stream::open(&app, Some("1")).await;
    stays.says("id: 3\n").await;
    late.batch_execute("COMMIT").await.unwrap();
    // By now it was handed on to whoever listened.
    stays.says("id: 2\n").await;
    let mut again = Stream::open(&app, Some("3")).await;
    again.says("id: 2\n").await;
    let mut fresh = Stream::open(&app, None).await;
    database.execute(&events(1, 1)).await;
    for (stream, told) in [(&mut stays, 3), (&mut again, 2), (&mut fresh, 1)] {
        stream.says("id: 4\n").await;
        assert_eq!(stream.text.matches("id: ").count(), told, "{}", stream.text);
    }
}

/// Who reads so slowly that events are not held any more gets them from the table, also those that came late.
#[tokio::test(flavor = "multi_thread")]
async fn who_lags_behind_misses_nothing() {
    let app = TestApp::start().await;
    let database = app.database();
    let late = database.connect().await;
    late.batch_execute(&format!("BEGIN; {}", events(1, 1)))
        .await
        .unwrap();
    let mut reads = Stream::open(&app, None).await;
    let mut lags = Stream::open(&app, None).await;
    // More than all buffers between the two hold.
    database.execute(&events(40, 400_000)).await;
    reads.says("id: 41\n").await;
    late.batch_execute("COMMIT").await.unwrap();
    reads.says("id: 1\n").await;
    // More than the process holds.
    database.execute(&events(300, 1)).await;
    for stream in [&mut reads, &mut lags] {
        stream.says("id: 341\n").await;
        assert!(stream.text.contains("id: 1\n"));
        assert_eq!(stream.text.matches("id: ").count(), 341);
    }
}

/// A stop ends every stream instead of waiting for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_streams() {
    let app = TestApp::start().await;
    let mut stream = Stream::open(&app, None).await;
    drop(app);
    let end = tokio::time::timeout(podium_tests::PATIENCE, async {
        while let Ok(Some(_)) = stream.response.chunk().await {}
    });
    end.await.expect("the stream ends");
}

/// A client that stops reading is dropped, and gives its place back.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_dropped() {
    let app = TestApp::start().await;
    let streams = || app.state().promotions.streams();
    let mut reads = Stream::open(&app, None).await;
    let mut silent = Connection::open(app.address()).await;
    let bearer = token::valid("1");
    let request =
        format!("GET {STREAM} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\r\n");
    silent.send(request.as_bytes()).await;
    eventually("both follow", async || streams() == 2).await;
    // More than all buffers between the two hold.
    app.database().execute(&events(100, 100_000)).await;
    reads.says("id: 100\n").await;
    eventually("the place is free again", async || streams() == 1).await;
    drop(silent);
}
