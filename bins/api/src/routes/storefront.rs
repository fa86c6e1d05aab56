//! What storefronts call: assign and track. Public; unknown fields are ignored, both spellings are taken.

use std::borrow::Cow;
use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::Bytes;
use chrono::{DateTime, Utc};
use podium_domain::event::{self, EventType};
use podium_domain::fault::Pointer;
use podium_domain::text;
use podium_serving::assign::{AssignError, AssignRequest, Visitor};
use podium_serving::snapshot::ExperimentRef;
use podium_serving::track::{Event, TrackError, Tracked, VariantRef};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::bots::is_bot;
use crate::ids;
use crate::json::{self, Fields, Node};
use crate::problem::{ApiError, Code, Problem};
use crate::request::{BATCH, Ctx, Media, ONE, json_bytes};
use crate::routes::Route;

/// Longest unit id, in characters.
const UNIT: usize = 255;
/// Longest event, item, brand, module or decision id, in characters.
const KEY: usize = 128;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    let track_one = |path, kind| Route::public(Method::POST, path, move |ctx| track_typed(ctx, kind));
    vec![
        Route::public(Method::POST, "/api/v1/experiments/assign", assign),
        Route::public(Method::POST, "/api/v1/experiments/assign/bulk", assign_bulk),
        track_one("/api/v1/experiments/track-impression", EventType::Impression),
        track_one("/api/v1/experiments/track-click", EventType::Click),
        track_one("/api/v1/experiments/track-add-to-cart", EventType::AddToCart),
        track_one("/api/v1/experiments/track-purchase", EventType::Purchase),
        Route::public(Method::POST, "/api/v1/experiments/track", track),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(
    paths(assign, assign_bulk, docs::track_impression, docs::track_click, docs::track_add_to_cart, docs::track_purchase, track),
    components(schemas(
        AssignBody, AssignContext, Assignment, BulkBody, BulkAssignments, BulkAssignment, EventBody, TrackBody, TrackAnswer,
        Recorded, BatchAnswer, BatchResult
    ))
)]
pub struct StorefrontApi;

/// A unit in a request: text of 1 to 255 characters, or a whole number of at most 19 digits, taken as its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum UnitId {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// An experiment in a request: a number is its id, a string its name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ExperimentName {
    /// Its name.
    Name(String),
    /// Its id.
    Id(i64),
}

/// Body of `assign`. At least one of `user_id` and `session_id` is required.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssignBody {
    /// The signed-in user.
    pub user_id: Option<UnitId>,
    /// The session.
    pub session_id: Option<UnitId>,
    /// A named experiment; else the newest running one of the placement.
    pub experiment: Option<ExperimentName>,
    /// Where the answer will be shown.
    pub context: Option<AssignContext>,
    /// As in `context`.
    #[schema(min_length = 1, max_length = 128)]
    pub placement: Option<String>,
}

/// Where an answer will be shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssignContext {
    /// Placement; none means `newsfeed`.
    #[schema(min_length = 1, max_length = 128)]
    pub placement: Option<String>,
    /// Type of the page.
    pub page_type: Option<String>,
    /// Locale.
    pub locale: Option<String>,
}

/// Answer of `assign`. What it holds can be sent to the track routes as it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Assignment {
    /// The experiment's name; null in the default answer.
    pub experiment_id: Option<String>,
    /// The variant's name, or `default`.
    pub variant: String,
    /// The variant's configuration.
    #[schema(value_type = Object)]
    pub params: serde_json::Value,
    /// The experiment's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<i64>,
    /// The variant's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant_id: Option<i64>,
    /// `SPLIT`, `STICKY`, `OVERRIDE` or `DEFAULT`.
    pub reason: String,
    /// Whether the variant is the control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_control: Option<bool>,
    /// True while the database is away or was too slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<bool>,
}

/// Body of `assign/bulk`: all running experiments of one unit, or one experiment for many users.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkBody {
    /// The signed-in user.
    pub user_id: Option<UnitId>,
    /// The session.
    pub session_id: Option<UnitId>,
    /// The experiment for `user_ids`.
    pub experiment: Option<ExperimentName>,
    /// Up to 1,000 users.
    #[schema(max_items = 1000)]
    pub user_ids: Option<Vec<UnitId>>,
}

/// Answer of `assign/bulk`.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkAssignments {
    /// One for each experiment that the unit takes part in, or one for each user in order.
    pub assignments: Vec<BulkAssignment>,
}

/// An assignment with its unit.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkAssignment {
    /// The assignment.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// The unit.
    pub user_id: String,
}

/// An event. At least one of `user_id` and `session_id` is required.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventBody {
    /// Makes retries harmless: the same id counts once in an experiment. Without it the server makes one.
    #[schema(min_length = 1, max_length = 128)]
    pub event_id: Option<String>,
    /// The signed-in user.
    pub user_id: Option<UnitId>,
    /// The session.
    pub session_id: Option<UnitId>,
    /// The experiment; without it the event counts for every running one in which the unit has an assignment.
    pub experiment_id: Option<ExperimentName>,
    /// The variant; without it the unit's own.
    #[schema(minimum = 1)]
    pub variant_id: Option<i64>,
    /// Item.
    pub item_id: Option<UnitId>,
    /// Brand.
    pub brand_id: Option<UnitId>,
    /// Position on the page, from 1.
    #[schema(minimum = 1, maximum = 10000)]
    pub position: Option<i32>,
    /// Value, four decimals; required for purchases.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_f64)]
    pub value: Option<f64>,
    /// Pieces; purchases and add-to-carts only.
    #[schema(minimum = 1, maximum = 10000)]
    pub quantity: Option<i32>,
    /// Placement on the page.
    pub placement: Option<String>,
    /// Type of the page.
    pub page_type: Option<String>,
    /// Decision of a ranking.
    pub decision_id: Option<String>,
    /// When it happened: at most 30 days back, 5 minutes ahead.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Anything else: an object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
}

/// Body of `track`: one event with its type, or `{"events": […]}` with up to 1,000 of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrackBody {
    /// The event.
    #[serde(flatten)]
    pub event: EventBody,
    /// `impression`, `click`, `add_to_cart`, `purchase`, `engagement` or `request`.
    pub event_type: Option<String>,
    /// For `request`: milliseconds.
    pub latency_ms: Option<f64>,
    /// For `request`: whether it failed.
    pub is_error: Option<bool>,
    /// A batch instead of one event.
    #[schema(max_items = 1000)]
    pub events: Option<Vec<serde_json::Value>>,
}

/// Answer of the track routes: one event, or a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TrackAnswer {
    /// One event.
    One(Recorded),
    /// A batch.
    Batch(BatchAnswer),
}

/// An event that is in the database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Recorded {
    /// Always true.
    pub success: bool,
    /// The id of the event.
    pub event_id: String,
    /// Whether it was there before.
    pub duplicate: bool,
    /// Ids of the experiments that it was recorded for, when the request named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Vec<i64>>,
}

/// Outcomes of a batch, in order.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// One for each event.
    pub results: Vec<BatchResult>,
}

/// Outcome of one event of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResult {
    /// Position in the request, from 0.
    pub index: usize,
    /// The id of the event, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Whether it is in the database.
    pub success: bool,
    /// Whether it was there before.
    pub duplicate: bool,
    /// Status that the event would have had alone.
    pub status: u16,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Experiments that it was recorded for, when it named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Vec<i64>>,
}

/// Which variant a unit gets, for one placement or one named experiment.
#[utoipa::path(post, path = "/api/v1/experiments/assign", operation_id = "assign", tag = "Storefront",
    request_body = AssignBody,
    responses(
        (status = 200, body = Assignment),
        (status = 400, description = "Malformed JSON, or no unit", content_type = "application/problem+json", body = Problem),
        (status = 404, description = "No such experiment", content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem),
        (status = 415, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem)))]
pub async fn assign(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(ONE, Media::Beacon).await?;
    let node = json::parse(&body)?;
    let mut fields = Fields::new(&node, Pointer::root());
    let visitor = visitor(&mut fields, is_bot(ctx.header("user-agent")), None);
    let experiment = experiment(&mut fields, "experiment");
    let placement = placement(&mut fields);
    fields.finish()?;
    let request = AssignRequest { visitor, experiment, placement };
    let answer = ctx.state.serving.assign(request, ctx.state.clock.now()).await.map_err(assign_error)?;
    Ok(json_bytes(answer))
}

/// All running experiments of one unit, or one experiment for many users.
#[utoipa::path(post, path = "/api/v1/experiments/assign/bulk", operation_id = "assignBulk", tag = "Storefront",
    request_body = BulkBody,
    responses(
        (status = 200, body = BulkAssignments),
        (status = 400, description = "Malformed JSON, or no unit", content_type = "application/problem+json", body = Problem),
        (status = 404, description = "No such experiment", content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem),
        (status = 415, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem)))]
pub async fn assign_bulk(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(BATCH, Media::Beacon).await?;
    let node = json::parse(&body)?;
    let mut fields = Fields::new(&node, Pointer::root());
    let bot = is_bot(ctx.header("user-agent"));
    let visitor = visitor(&mut fields, bot, None);
    let experiment = experiment(&mut fields, "experiment");
    let users = users(&mut fields);
    if users.is_some() && experiment.is_none() {
        fields.fault("experiment", "required", "is required with user_ids");
    }
    fields.finish()?;
    let (serving, now) = (&ctx.state.serving, ctx.state.clock.now());
    let (answers, units) = match (users, experiment) {
        (Some(users), Some(experiment)) => {
            (serving.assign_many(experiment, &users, bot, now).await.map_err(assign_error)?, users)
        }
        (None, Some(experiment)) => {
            let request = AssignRequest { visitor, experiment: Some(experiment), placement: None };
            (vec![serving.assign(request, now).await.map_err(assign_error)?], visitor.unit().into_iter().collect())
        }
        _ => {
            let answers = serving.assign_all(visitor, now).await.map_err(assign_error)?;
            let unit = visitor.unit().unwrap_or_default();
            let units = vec![unit; answers.len()];
            (answers, units)
        }
    };
    Ok(json_bytes(join_assignments(&answers, &units)))
}

/// `{"assignments": […]}` from ready answers, each with its unit added.
fn join_assignments(answers: &[Bytes], units: &[&str]) -> Bytes {
    let mut body = Vec::with_capacity(32 + answers.iter().map(|a| a.len() + 300).sum::<usize>());
    body.extend_from_slice(br#"{"assignments":["#);
    for (at, (answer, unit)) in answers.iter().zip(units).enumerate() {
        if at > 0 {
            body.push(b',');
        }
        // Ready answers are objects, so the last byte is the closing brace.
        body.extend_from_slice(answer.strip_suffix(b"}").unwrap_or(answer));
        body.extend_from_slice(br#","user_id":"#);
        body.extend_from_slice(serde_json::to_string(unit).unwrap_or_default().as_bytes());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    body.into()
}

async fn track_typed(ctx: Rc<Ctx>, kind: EventType) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(ONE, Media::Beacon).await?;
    let node = json::parse(&body)?;
    let beside = Beside::of(&ctx)?;
    track_one(&ctx, &node, Some(kind), &beside).await
}

/// One event of any type, or a batch of up to 1,000.
#[utoipa::path(post, path = "/api/v1/experiments/track", operation_id = "track", tag = "Storefront",
    request_body = TrackBody,
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
        Some(_) => Err(ApiError::field("/events", "wrong_type", "must be a list of events")),
        None if body.len() > ONE => Err(ApiError::new(Code::TooLarge, format!("one event may have at most {ONE} bytes"))),
        None => track_one(&ctx, &node, None, &beside).await,
    }
}

async fn track_one(ctx: &Ctx, node: &Node<'_>, kind: Option<EventType>, beside: &Beside) -> Result<HttpResponse, ApiError> {
    let now = ctx.state.clock.now();
    let event = read_event(node, kind, beside, Pointer::root(), now)?;
    let Tracked { duplicate, recorded } = ctx.state.serving.track(&event, now).await.map_err(track_error)?;
    let answer = Recorded { success: true, event_id: event.event_id.into_owned(), duplicate, recorded };
    Ok(json_bytes(serde_json::to_vec(&answer).map_err(|e| ApiError::internal(&e.to_string()))?.into()))
}

async fn track_batch(ctx: &Ctx, events: &[Node<'_>], beside: &Beside) -> Result<HttpResponse, ApiError> {
    if events.len() > event::MAX_BATCH {
        return Err(ApiError::field("/events", "too_long", format!("must have at most {} events", event::MAX_BATCH)));
    }
    let now = ctx.state.clock.now();
    let root = Pointer::root().member("events");
    let mut read = Vec::with_capacity(events.len());
    let mut positions = Vec::with_capacity(events.len());
    let mut results: Vec<BatchResult> = Vec::with_capacity(events.len());
    for (index, node) in events.iter().enumerate() {
        match read_event(node, None, beside, root.element(index), now) {
            Ok(event) => {
                results.push(pending(index, Some(event.event_id.clone().into_owned())));
                positions.push(index);
                read.push(event);
            }
            // Two spellings of one field make the whole body malformed, as they do for one event.
            Err(error) if error.code() == Code::MalformedJson => return Err(error),
            Err(error) => results.push(failed(pending(index, None), &error)),
        }
    }
    let outcomes = ctx.state.serving.track_batch(&read, now).await;
    if !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == Err(TrackError::Unavailable)) {
        return Err(ApiError::unavailable());
    }
    for (position, outcome) in positions.into_iter().zip(outcomes) {
        let Some(slot) = results.get_mut(position) else { continue };
        let blank = std::mem::replace(slot, pending(position, None));
        *slot = match outcome {
            Ok(tracked) => {
                BatchResult { success: true, duplicate: tracked.duplicate, recorded: tracked.recorded, ..blank }
            }
            Err(error) => failed(blank, &track_error(error)),
        };
    }
    let answer = BatchAnswer { results };
    Ok(json_bytes(serde_json::to_vec(&answer).map_err(|e| ApiError::internal(&e.to_string()))?.into()))
}

fn pending(index: usize, event_id: Option<String>) -> BatchResult {
    BatchResult { index, event_id, success: false, duplicate: false, status: 200, error: None, recorded: None }
}

fn failed(result: BatchResult, error: &ApiError) -> BatchResult {
    BatchResult { status: error.status(), error: Some(error.detail().to_owned()), ..result }
}

/// What a tracking request says beside its body: query parameters and headers.
struct Beside {
    experiment: Option<String>,
    variant: Option<String>,
    session: Option<String>,
    is_bot: bool,
}

impl Beside {
    fn of(ctx: &Ctx) -> Result<Self, ApiError> {
        let part = |query: &str, header: &str, max: usize| -> Result<Option<String>, ApiError> {
            let value = ctx.query(query).or_else(|| ctx.header(header).map(str::to_owned)).filter(|v| !v.is_empty());
            if let Some(value) = &value {
                text::check_text(value, 1, max)
                    .map_err(|fault| ApiError::field(&format!("/{query}"), fault.code(), fault.to_string()))?;
            }
            Ok(value)
        };
        Ok(Self {
            experiment: part("experiment_id", "x-experiment-id", KEY)?,
            variant: part("variant_id", "x-variant-id", KEY)?,
            session: part("session_id", "x-session-id", UNIT)?,
            is_bot: is_bot(ctx.header("user-agent")),
        })
    }
}

/// In paths, queries and headers an all-digit text is an id.
fn reference(text: &str) -> ExperimentRef<'_> {
    match text.parse() {
        Ok(id) if text.bytes().all(|b| b.is_ascii_digit()) => ExperimentRef::Id(id),
        _ => ExperimentRef::Name(text),
    }
}

fn visitor<'n>(fields: &mut Fields<'n, '_>, is_bot: bool, session: Option<&'n str>) -> Visitor<'n> {
    let user = fields.key("userId", UNIT);
    let session = fields.key("sessionId", UNIT).or(session);
    Visitor { user, session, is_bot }
}

/// A JSON number is an id, a string a name.
fn experiment<'n>(fields: &mut Fields<'n, '_>, name: &str) -> Option<ExperimentRef<'n>> {
    match fields.take(name)? {
        Node::Number(number) => match number.parse::<i64>() {
            Ok(id) if id > 0 => Some(ExperimentRef::Id(id)),
            _ => {
                fields.fault(name, "out_of_range", "must be an id from 1 on");
                None
            }
        },
        Node::String(text) => {
            if let Err(fault) = text::check_text(text, 1, KEY) {
                fields.fault(name, fault.code(), fault.to_string());
                return None;
            }
            Some(ExperimentRef::Name(text))
        }
        _ => {
            fields.fault(name, "wrong_type", "must be a name or an id");
            None
        }
    }
}

fn placement<'n>(fields: &mut Fields<'n, '_>) -> Option<&'n str> {
    let top = fields.string("placement", 1, KEY);
    let Some(context) = fields.take("context") else { return top };
    let mut inner = Fields::new(context, fields.at("context"));
    let placement = inner.string("placement", 1, KEY);
    inner.string("pageType", 0, KEY);
    inner.string("locale", 0, KEY);
    fields.absorb(inner);
    top.or(placement)
}

fn users<'n>(fields: &mut Fields<'n, '_>) -> Option<Vec<&'n str>> {
    let node = fields.take("userIds")?;
    let Node::Array(items) = node else {
        fields.fault("userIds", "wrong_type", "must be a list of user ids");
        return None;
    };
    if items.len() > event::MAX_BATCH {
        fields.fault("userIds", "too_long", "must have at most 1000 entries");
        return None;
    }
    let mut users = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let unit = match item {
            Node::String(text) if text::check_unit_id(text).is_ok() => Some(text.as_ref()),
            Node::Number(number) => text::unit_id_from_number(number).ok(),
            _ => None,
        };
        match unit {
            Some(unit) => users.push(unit),
            None => {
                let pointer = fields.at("userIds").element(index);
                fields.faults.push(pointer.as_str(), "wrong_type", "must be a user id: 1 to 255 characters, or a whole number");
            }
        }
    }
    Some(users)
}

/// Reads and checks one event.
fn read_event<'n>(
    node: &'n Node<'_>,
    kind: Option<EventType>,
    beside: &'n Beside,
    pointer: Pointer,
    now: DateTime<Utc>,
) -> Result<Event<'n>, ApiError> {
    let mut fields = Fields::new(node, pointer);
    let kind = kind.or_else(|| event_type(&mut fields));
    let visitor = visitor(&mut fields, beside.is_bot, beside.session.as_deref());
    if visitor.unit().is_none() && fields.faults.is_empty() {
        fields.fault("userId", "required", "user_id or session_id is required");
    }
    let (experiment, variant) = target(&mut fields, beside);
    let event_id = fields.string("eventId", 1, KEY);
    let item_id = fields.key("itemId", KEY).map(Cow::Borrowed);
    let brand_id = fields.key("brandId", KEY).map(Cow::Borrowed);
    let module_id = fields.key("moduleId", KEY).map(Cow::Borrowed);
    let decision_id = fields.string("decisionId", 1, KEY).map(Cow::Borrowed);
    let position = fields.integer("position", *event::POSITION.start(), *event::POSITION.end());
    let value = fields.decimal("value", *event::VALUE.start(), *event::VALUE.end());
    if kind.is_some_and(EventType::needs_value) {
        fields.require("value", value);
    }
    let quantity = fields.integer("quantity", *event::QUANTITY.start(), *event::QUANTITY.end());
    let latency_ms = fields.float("latencyMs", 0.0, 86_400_000.0);
    let is_error = fields.boolean("isError");
    let occurred_at = occurred_at(&mut fields, now);
    let metadata = event_data(&mut fields);
    fields.finish()?;
    let kind = kind.ok_or_else(|| ApiError::field("/event_type", "required", "is required"))?;
    let small = |number: i64| i32::try_from(number).ok();
    Ok(Event {
        event_id: event_id.map_or_else(|| Cow::Owned(ids::event_id(now).to_string()), Cow::Borrowed),
        kind,
        visitor,
        experiment,
        variant,
        item_id,
        brand_id,
        position: position.and_then(small),
        module_id,
        metadata,
        value_e4: value.map(podium_domain::decimal::Decimal4::units),
        quantity: kind.has_quantity().then(|| quantity.unwrap_or(event::DEFAULT_QUANTITY)).and_then(small),
        latency_ms: latency_ms.filter(|_| kind == EventType::Request),
        is_error: (kind == EventType::Request).then(|| is_error.unwrap_or(false)),
        decision_id,
        occurred_at,
    })
}

fn event_type(fields: &mut Fields<'_, '_>) -> Option<EventType> {
    let name = fields.string("eventType", 1, KEY);
    let name = fields.require("eventType", name)?;
    let kind = name.parse().ok();
    if kind.is_none() {
        fields.fault("eventType", "unknown_value", "must be impression, click, add_to_cart, purchase, engagement or request");
    }
    kind
}

/// Experiment and variant as the body names them, else as query or headers do. The default answer of `assign`, handed
/// back, names none.
fn target<'n>(fields: &mut Fields<'n, '_>, beside: &'n Beside) -> (Option<ExperimentRef<'n>>, Option<VariantRef<'n>>) {
    let by_name = experiment(fields, "experimentId");
    let by_number = experiment(fields, "experiment");
    let mut experiment = by_name.or(by_number).or_else(|| beside.experiment.as_deref().map(reference));
    let variant_id = match fields.take("variantId") {
        Some(Node::Number(number)) => match number.parse::<i64>() {
            Ok(id) if id > 0 => Some(VariantRef::Id(id)),
            _ => {
                fields.fault("variantId", "out_of_range", "must be an id from 1 on");
                None
            }
        },
        Some(Node::String(name)) => Some(VariantRef::Name(name)),
        Some(_) => {
            fields.fault("variantId", "wrong_type", "must be a variant's id or name");
            None
        }
        None => None,
    };
    let named = fields.string("variant", 1, KEY).map(VariantRef::Name);
    let outside = beside.variant.as_deref().map(|text| match reference(text) {
        ExperimentRef::Id(id) => VariantRef::Id(id),
        ExperimentRef::Name(name) => VariantRef::Name(name),
    });
    let mut variant = variant_id.or(named).or(outside);
    if experiment.is_none() && variant == Some(VariantRef::Name("default")) {
        variant = None;
    }
    if experiment == Some(ExperimentRef::Name("default")) && variant == Some(VariantRef::Name("default")) {
        (experiment, variant) = (None, None);
    }
    if experiment.is_none() && matches!(variant, Some(VariantRef::Name(_))) {
        fields.fault("variant", "required", "a variant's name needs its experiment_id beside it");
    }
    (experiment, variant)
}

fn occurred_at(fields: &mut Fields<'_, '_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let text = fields.string("occurredAt", 1, 64)?;
    let Ok(at) = DateTime::parse_from_rfc3339(text) else {
        fields.fault("occurredAt", "wrong_type", "must be an RFC 3339 time with a zone");
        return None;
    };
    let at = at.with_timezone(&Utc);
    if let Err(fault) = event::check_occurred_at(at, now) {
        fields.fault("occurredAt", "out_of_range", fault.to_string());
        return None;
    }
    Some(at)
}

/// Metadata with placement and page type beside it, so that nothing that a client sends under a known name is lost.
/// Where the metadata have members of these names, theirs win: jsonb keeps the last of two.
fn event_data(fields: &mut Fields<'_, '_>) -> Option<Bytes> {
    let placement = fields.string("placement", 0, KEY);
    let page_type = fields.string("pageType", 0, KEY);
    let metadata = fields.object("metadata");
    let mut members = Vec::new();
    for (name, value) in [("placement", placement), ("page_type", page_type)] {
        if let Some(value) = value {
            members.push(format!("\"{name}\":{}", serde_json::to_string(value).unwrap_or_default()));
        }
    }
    match (members.is_empty(), metadata) {
        (true, None) => None,
        (true, Some(raw)) => Some(Bytes::copy_from_slice(raw.as_bytes())),
        (false, metadata) => {
            let inner = metadata.and_then(|raw| raw.strip_prefix('{')).and_then(|raw| raw.strip_suffix('}')).map(str::trim);
            members.extend(inner.filter(|inner| !inner.is_empty()).map(str::to_owned));
            Some(format!("{{{}}}", members.join(",")).into())
        }
    }
}

fn assign_error(error: AssignError) -> ApiError {
    match error {
        AssignError::UnknownExperiment => ApiError::not_found("the experiment"),
        // The earlier system answered 400 here, and clients rely on it.
        AssignError::NoUnit => ApiError::field("/user_id", "required", error.to_string()).with_status(400),
    }
}

fn track_error(error: TrackError) -> ApiError {
    match error {
        TrackError::NoUnit => ApiError::field("/user_id", "required", error.to_string()),
        TrackError::UnknownExperiment => ApiError::not_found("the experiment"),
        TrackError::ForeignVariant => ApiError::field("/variant_id", "unknown_variant", error.to_string()),
        TrackError::Contradiction => ApiError::conflict(error.to_string()),
        TrackError::NoAssignment => ApiError::new(Code::NoAssignment, error.to_string()),
        TrackError::Refused(refused) => ApiError::conflict(refused.to_string()),
        TrackError::Unavailable => ApiError::unavailable(),
        TrackError::Rejected => ApiError::internal("the database refused an event that had passed validation"),
    }
}

/// The four routes of one type each differ only in their path, so their documentation is made from one pattern.
mod docs {
    use super::{EventBody, Problem, Recorded};

    macro_rules! track_route {
        ($name:ident, $path:literal, $id:literal, $doc:literal) => {
            #[doc = $doc]
            #[utoipa::path(post, path = $path, operation_id = $id, tag = "Storefront", request_body = EventBody,
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
            pub(super) fn $name() {}
        };
    }

    track_route!(track_impression, "/api/v1/experiments/track-impression", "trackImpression", "Something was shown.");
    track_route!(track_click, "/api/v1/experiments/track-click", "trackClick", "Something was clicked.");
    track_route!(track_add_to_cart, "/api/v1/experiments/track-add-to-cart", "trackAddToCart", "Something was put into the cart.");
    track_route!(track_purchase, "/api/v1/experiments/track-purchase", "trackPurchase", "Something was bought; `value` is required.");
}
