//! The tracking routes: one event of a fixed type, one of any type, or a batch.

use std::rc::Rc;

use actix_web::HttpResponse;
use chrono::{DateTime, Utc};
use podium_domain::event::{self, EventType};
use podium_domain::fault::Pointer;
use podium_serving::track::{Event, TrackError, Tracked};

use super::bodies::{
    BatchAnswer, BatchResult, BesideHeaders, BesideQuery, Recorded, TrackAnswer, TrackBody,
};
use super::event::{Beside, read_event};
use crate::json::{self, Node};
use crate::problem::{ApiError, Code, Problem};
use crate::request::{BATCH, Ctx, Media, ONE, json_bytes};
use crate::routes::check_purchase;

/// About what a recorded event takes in the answer to a batch.
const RESULT_BYTES: usize = 128;

pub(super) async fn track_typed(ctx: Rc<Ctx>, kind: EventType) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(ONE, Media::Beacon).await?;
    let node = json::parse(&body)?;
    let beside = Beside::of(&ctx)?;
    track_one(&ctx, &node, Some(kind), &beside).await
}

/// One event of any type, or a batch of up to 1,000.
#[utoipa::path(post, path = "/api/v1/experiments/track", operation_id = "track", tag = "Storefront",
    params(BesideQuery, BesideHeaders), request_body = TrackBody,
    responses(
        (status = 200, body = TrackAnswer),
        (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 404, description = "No such experiment", content_type = "application/problem+json", body = Problem),
        (status = 409, description = "The state of the experiment or the unit's assignment forbids it", content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem),
        (status = 415, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem),
        (status = 503, description = "The database is away or the queue is full", content_type = "application/problem+json", body = Problem)))]
pub async fn track(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(BATCH, Media::Beacon).await?;
    let node = json::parse(&body)?;
    let beside = Beside::of(&ctx)?;
    let Node::Object(members, _) = &node else {
        return Err(ApiError::field("", "wrong_type", "must be an object"));
    };
    match members.iter().find(|(key, _)| key == "events") {
        Some((_, Node::Array(events))) => track_batch(&ctx, events, &beside).await,
        Some(_) => Err(ApiError::field(
            "/events",
            "wrong_type",
            "must be a list of events",
        )),
        None if body.len() > ONE => Err(ApiError::new(
            Code::TooLarge,
            format!("one event may have at most {ONE} bytes"),
        )),
        None => track_one(&ctx, &node, None, &beside).await,
    }
}

async fn track_one(
    ctx: &Ctx,
    node: &Node<'_>,
    kind: Option<EventType>,
    beside: &Beside,
) -> Result<HttpResponse, ApiError> {
    let now = ctx.state.clock.now();
    let event = read_event(node, kind, beside, Pointer::root(), now)?;
    if event.kind == EventType::Purchase {
        check_purchase(ctx)?;
    }
    let Tracked {
        duplicate,
        recorded,
    } = ctx
        .state
        .serving
        .track(&event, now)
        .await
        .map_err(track_error)?;
    let answer = Recorded {
        success: true,
        event_id: event.event_id.into_owned(),
        duplicate,
        recorded,
    };
    Ok(json_bytes(
        serde_json::to_vec(&answer)
            .map_err(|e| ApiError::internal(&e.to_string()))?
            .into(),
    ))
}

async fn track_batch(
    ctx: &Ctx,
    events: &[Node<'_>],
    beside: &Beside,
) -> Result<HttpResponse, ApiError> {
    if events.len() > event::MAX_BATCH {
        return Err(ApiError::field(
            "/events",
            "too_long",
            format!("must have at most {} events", event::MAX_BATCH),
        ));
    }
    let now = ctx.state.clock.now();
    let Batch { mut results, read } = read_batch(ctx, events, beside, now)?;
    let (positions, read): (Vec<usize>, Vec<Event>) = read.into_iter().unzip();
    let outcomes = ctx.state.serving.track_batch(&read, now).await;
    let away = |outcome: &Result<Tracked, TrackError>| *outcome == Err(TrackError::Unavailable);
    if !outcomes.is_empty() && outcomes.iter().all(away) {
        return Err(ApiError::unavailable());
    }
    for (position, outcome) in positions.into_iter().zip(outcomes) {
        if let Some(slot) = results.get_mut(position) {
            let blank = std::mem::replace(slot, pending(position, None));
            *slot = told(blank, outcome);
        }
    }
    let answer = BatchAnswer { results };
    let mut text = Vec::with_capacity(events.len() * RESULT_BYTES);
    serde_json::to_writer(&mut text, &answer).map_err(|e| ApiError::internal(&e.to_string()))?;
    Ok(json_bytes(text.into()))
}

/// A batch that was read: a result for each event, and the events that can be recorded with their positions.
struct Batch<'e> {
    results: Vec<BatchResult>,
    read: Vec<(usize, Event<'e>)>,
}

fn read_batch<'e>(
    ctx: &Ctx,
    events: &'e [Node<'_>],
    beside: &'e Beside,
    now: DateTime<Utc>,
) -> Result<Batch<'e>, ApiError> {
    let refused = std::cell::LazyCell::new(|| check_purchase(ctx).err());
    let root = Pointer::root().member("events");
    let mut results = Vec::with_capacity(events.len());
    let mut read = Vec::with_capacity(events.len());
    for (index, node) in events.iter().enumerate() {
        let event = match read_event(node, None, beside, root.element(index), now) {
            Ok(event) => event,
            // Two spellings of one field make the whole body malformed, as they do for one event.
            Err(error) if error.code() == Code::MalformedJson => return Err(error),
            Err(error) => {
                results.push(failed(pending(index, None), &error));
                continue;
            }
        };
        let blank = pending(index, Some(event.event_id.clone().into_owned()));
        let is_purchase = event.kind == EventType::Purchase;
        match is_purchase.then(|| refused.as_ref()).flatten() {
            Some(error) => results.push(failed(blank, error)),
            None => {
                results.push(blank);
                read.push((index, event));
            }
        }
    }
    Ok(Batch { results, read })
}

fn told(blank: BatchResult, outcome: Result<Tracked, TrackError>) -> BatchResult {
    match outcome {
        Ok(tracked) => BatchResult {
            success: true,
            duplicate: tracked.duplicate,
            recorded: tracked.recorded,
            ..blank
        },
        Err(error) => failed(blank, &track_error(error)),
    }
}

fn pending(index: usize, event_id: Option<String>) -> BatchResult {
    BatchResult {
        index,
        event_id,
        success: false,
        duplicate: false,
        status: 200,
        error: None,
        recorded: None,
    }
}

fn failed(result: BatchResult, error: &ApiError) -> BatchResult {
    if let Some(cause) = error.cause() {
        tracing::error!(cause, "an event of a batch met an internal error");
    }
    BatchResult {
        status: error.status(),
        error: Some(error.detail().to_owned()),
        ..result
    }
}

fn track_error(error: TrackError) -> ApiError {
    match error {
        TrackError::NoUnit => ApiError::field("/user_id", "required", error.to_string()),
        TrackError::UnknownExperiment => ApiError::not_found("the experiment"),
        TrackError::ForeignVariant => {
            ApiError::field("/variant_id", "unknown_variant", error.to_string())
        }
        TrackError::Contradiction => ApiError::conflict(error.to_string()),
        TrackError::NoAssignment => ApiError::new(Code::NoAssignment, error.to_string()),
        TrackError::Refused(refused) => ApiError::conflict(refused.to_string()),
        TrackError::Unavailable => ApiError::unavailable(),
        TrackError::Rejected => {
            ApiError::internal("the database refused an event that had passed validation")
        }
    }
}

/// The four routes of one type each differ only in their path, so their documentation is made from one pattern.
pub(super) mod docs {
    use super::super::bodies::{BesideHeaders, BesideQuery, EventBody, Recorded};
    use super::Problem;

    macro_rules! track_route {
        ($name:ident, $path:literal, $id:literal, $doc:literal) => {
            #[doc = $doc]
            #[utoipa::path(post, path = $path, operation_id = $id, tag = "Storefront", params(BesideQuery, BesideHeaders), request_body = EventBody,
                responses(
                    (status = 200, body = Recorded),
                    (status = 400, content_type = "application/problem+json", body = Problem),
                    (status = 404, content_type = "application/problem+json", body = Problem),
                    (status = 409, content_type = "application/problem+json", body = Problem),
                    (status = 413, content_type = "application/problem+json", body = Problem),
                    (status = 415, content_type = "application/problem+json", body = Problem),
                    (status = 422, content_type = "application/problem+json", body = Problem),
                    (status = 503, content_type = "application/problem+json", body = Problem)))]
            #[expect(dead_code, reason = "carries the documentation of the route")]
            pub(crate) fn $name() {}
        };
    }

    track_route!(
        track_impression,
        "/api/v1/experiments/track-impression",
        "trackImpression",
        "Something was shown."
    );
    track_route!(
        track_click,
        "/api/v1/experiments/track-click",
        "trackClick",
        "Something was clicked."
    );
    track_route!(
        track_add_to_cart,
        "/api/v1/experiments/track-add-to-cart",
        "trackAddToCart",
        "Something was put into the cart."
    );
    track_route!(
        track_purchase,
        "/api/v1/experiments/track-purchase",
        "trackPurchase",
        "Something was bought; `value` is required."
    );
}
