//! Promotion events as they happen: server-sent events.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::Bytes;
use chrono::TimeDelta;
use futures_util::stream::{self, Stream};
use podium_domain::fault::code;
use podium_storage::promotion_events::{self, PromotionEvent};
use podium_storage::{Database, StorageError};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use utoipa::OpenApi;

use super::admin::common::Refused;
use super::{Route, grant};
use crate::auth::{Granted, Viewer};
use crate::problem::ApiError;
use crate::promotion_feed::{LATE, Subscription};
use crate::request::Ctx;

/// A comment this often keeps proxies from closing the connection; the token is checked as often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What the client is told to wait before it connects again.
const RETRY_MS: u32 = 2_000;
/// Events read from the table at a time.
const PAGE: i64 = 200;
/// Ids remembered, more than are looked at again.
const REMEMBERED: usize = 1_000;
/// Longer than a transaction that makes events takes. An event whose transaction began this much before that of another one
/// was there when the other one was told.
const SETTLED: TimeDelta = TimeDelta::minutes(1);

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![Route::guarded(
        Method::GET,
        "/api/v1/promotions/stream",
        follow,
    )]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(follow))]
pub struct PromotionStreamApi;

/// Follows promotions: an event for each that is created, rolled back or updated, with the number of the event as its id.
/// A client that names the last one it has heard gets what came after, and once more what was made within the minute before
/// it: numbers are given before the commit, so a lower one may have appeared later. Only an event that 64 later ones overtook
/// is not told.
#[utoipa::path(get, path = "/api/v1/promotions/stream", operation_id = "followPromotions", tag = "Promotions",
    security(("bearer" = [])),
    params(("Last-Event-ID" = Option<i64>, Header, description = "Id of the last event heard", minimum = 0)),
    responses((status = 200, description = "A stream without an end; `data` is JSON", content_type = "text/event-stream", body = String),
        Refused))]
pub async fn follow(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let heard = last_event_id(&ctx)?;
    let subscription = ctx.state.promotions.subscribe();
    let subscription = subscription.ok_or_else(ApiError::unavailable)?;
    let last = match heard {
        Some(id) => id,
        None => promotion_events::newest(&ctx.state.database).await?,
    };
    let told = told_before(&ctx.state.database, last, heard.is_some()).await?;
    let hello = format!("retry: {RETRY_MS}\n: listening\n\n");
    let following = Following {
        ctx,
        subscription,
        last,
        behind_of: Some(last - LATE),
        ready: VecDeque::from([hello]),
        told,
    };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(frames(following)))
}

fn last_event_id(ctx: &Ctx) -> Result<Option<i64>, ApiError> {
    let Some(text) = ctx.header_text("last-event-id") else {
        return Ok(None);
    };
    let id = text.ok().and_then(|text| text.parse().ok());
    let id = id.filter(|id: &i64| *id >= 0);
    id.map(Some).ok_or_else(|| {
        let detail = "is no id of an event";
        ApiError::field("/Last-Event-ID", code::INVALID_TEXT, detail)
    })
}

/// Which of the events that may still come late, up to the event `last`, need not be told. A client that comes back has heard
/// what was there when `last` was told to it; what was made shortly before may have appeared later. A new client wants
/// nothing of what there is.
async fn told_before(
    database: &Database,
    last: i64,
    comes_back: bool,
) -> Result<BTreeSet<i64>, StorageError> {
    let mut events = promotion_events::after(database, last - LATE, LATE).await?;
    events.retain(|event| event.id <= last);
    let newest = events.iter().find(|event| event.id == last);
    let settled = newest.map(|newest| newest.created_at - SETTLED);
    let heard = |event: &&PromotionEvent| {
        let settled = settled.is_some_and(|settled| event.created_at < settled);
        !comes_back || settled || event.id == last
    };
    Ok(events.iter().filter(heard).map(|event| event.id).collect())
}

/// One client's place in the stream. The next frame is made when the last one was taken, so a reader that does not read
/// costs nothing but its place, and that only until its connection is dropped (`server.rs`).
struct Following {
    ctx: Rc<Ctx>,
    subscription: Subscription,
    /// Number of the newest event told.
    last: i64,
    /// The table has to be read behind this event before listening.
    behind_of: Option<i64>,
    ready: VecDeque<String>,
    /// Ids of the newest events that were told, or need not be.
    told: BTreeSet<i64>,
}

fn frames(following: Following) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(following, async |mut following| {
        let frame = following.next().await?;
        Some((Ok(Bytes::from(frame)), following))
    })
}

impl Following {
    /// The next frame; `None` ends the stream, and the client comes again.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if let Some(id) = self.behind_of {
                self.read_table(id).await.ok()?;
                continue;
            }
            let heard = tokio::select! {
                () = closed(&mut self.subscription.closing) => return None,
                () = tokio::time::sleep(HEARTBEAT) => None,
                event = self.subscription.events.recv() => Some(event),
            };
            match heard {
                None => {
                    grant::<Viewer>(&self.ctx).ok()?;
                    self.ready.push_back(": still here\n\n".into());
                }
                Some(Ok(event)) => self.tell(&event),
                Some(Err(RecvError::Lagged(_))) => self.behind_of = Some(self.last - LATE),
                Some(Err(RecvError::Closed)) => return None,
            }
        }
    }

    async fn read_table(&mut self, id: i64) -> Result<(), StorageError> {
        let page = promotion_events::after(&self.ctx.state.database, id, PAGE).await?;
        self.behind_of = page.last().map(|event| event.id);
        for event in page {
            self.tell(&event);
        }
        Ok(())
    }

    fn tell(&mut self, event: &PromotionEvent) {
        // What the table said is heard once more, and what was heard is read again.
        if !self.told.insert(event.id) {
            return;
        }
        if self.told.len() > REMEMBERED {
            self.told.pop_first();
        }
        self.last = self.last.max(event.id);
        // JSON text of the database has no line breaks.
        self.ready.push_back(format!(
            "id: {}\nevent: {}\ndata: {}\n\n",
            event.id, event.event_type, event.payload
        ));
    }
}

/// Returns when the process stops.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
