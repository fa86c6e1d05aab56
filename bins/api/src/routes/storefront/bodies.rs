//! Bodies of the storefront routes, as the OpenAPI document shows them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// A unit in a request: text of 1 to 255 characters, or a whole number of at most 19 digits, taken as its text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum UnitId {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl ToSchema for UnitId {}

/// By hand: a derived schema would have the limits of the Rust type, and the id is taken as text.
impl PartialSchema for UnitId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
            .description(Some(
                "Text of 1 to 255 characters, or a whole number of at most 19 digits, taken as its text.",
            ))
            .min_length(Some(1))
            .max_length(Some(255))
            .into()
    }
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

/// A variant in an event: a number is its id, from 1, a string its name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum VariantName {
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
    /// `SPLIT`, `STICKY`, `OVERRIDE`, `BANDIT`, `PROMOTED`, `HOLDBACK` or `DEFAULT`.
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
    /// Present and true when the database is away and the unit may take part in more experiments than are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<bool>,
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
    /// As `experiment_id`, which comes first where both are there.
    pub experiment: Option<ExperimentName>,
    /// The variant; without it the unit's own. A name needs an experiment.
    pub variant_id: Option<VariantName>,
    /// The variant's name, as `assign` gives it.
    #[schema(min_length = 1, max_length = 128)]
    pub variant: Option<String>,
    /// Module of the page.
    pub module_id: Option<UnitId>,
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
    #[schema(min_length = 1, max_length = 128)]
    pub decision_id: Option<String>,
    /// When it happened: at most 30 days back, 5 minutes ahead.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Anything else: an object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
}

/// What a tracking request may say beside its body, for every event of it that does not say it itself.
#[derive(Debug, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BesideQuery {
    /// The experiment: all digits are its id, anything else its name.
    #[param(max_length = 128)]
    pub experiment_id: Option<String>,
    /// The variant: all digits are its id, anything else its name.
    #[param(max_length = 128)]
    pub variant_id: Option<String>,
    /// The session.
    #[param(max_length = 255)]
    pub session_id: Option<String>,
}

/// The same in headers; the query comes first.
#[derive(Debug, Serialize, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct BesideHeaders {
    /// The experiment.
    #[serde(rename = "X-Experiment-Id")]
    #[param(max_length = 128)]
    pub experiment_id: Option<String>,
    /// The variant.
    #[serde(rename = "X-Variant-Id")]
    #[param(max_length = 128)]
    pub variant_id: Option<String>,
    /// The session.
    #[serde(rename = "X-Session-Id")]
    #[param(max_length = 255)]
    pub session_id: Option<String>,
}

/// Body of `track`: one event with its type, or `{"events": […]}` with up to 1,000 of them. Beside a list of events other members
/// mean nothing, so what is a batch may look like a broken event: any of the two, not one of them.
#[derive(Debug)]
pub struct TrackBody;

impl ToSchema for TrackBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TrackedEvent::schemas(schemas);
        TrackedBatch::schemas(schemas);
    }
}

impl PartialSchema for TrackBody {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(TrackedEvent::schema())
            .item(TrackedBatch::schema())
            .into()
    }
}

/// One event with its type.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrackedEvent {
    /// The event.
    #[serde(flatten)]
    pub event: EventBody,
    /// `impression`, `click`, `add_to_cart`, `purchase`, `engagement` or `request`.
    pub event_type: Option<String>,
    /// For `request`: milliseconds.
    pub latency_ms: Option<f64>,
    /// For `request`: whether it failed.
    pub is_error: Option<bool>,
}

/// A batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrackedBatch {
    /// Events as they would be sent alone; each has an outcome of its own.
    #[schema(max_items = 1000)]
    pub events: Vec<serde_json::Value>,
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

/// Body of `rank`. At least one of `user_id` and `session_id` is required.
#[derive(Debug, Serialize, ToSchema)]
pub struct RankBody {
    /// The signed-in user.
    pub user_id: Option<UnitId>,
    /// The session.
    pub session_id: Option<UnitId>,
    /// A named experiment; else the newest running one of the placement.
    pub experiment: Option<ExperimentName>,
    /// Placement; none means `newsfeed`.
    #[schema(min_length = 1, max_length = 128)]
    pub placement: Option<String>,
    /// `item` (default), `brand`, `category` or `algorithm`.
    #[schema(pattern = "^(item|brand|category|algorithm)$")]
    pub arm_type: Option<String>,
    /// What is to be placed, in the order that the shop would show. No id twice.
    #[schema(min_items = 1, max_items = 1000)]
    pub candidates: Vec<RankCandidate>,
    /// Positions that are wanted; all unless given.
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `weights`: drawn from the weights in force, with exact propensities. `posterior`: fresh draws from the posteriors,
    /// with null propensities. Unless given, what the variant's options say.
    #[schema(pattern = "^(weights|posterior)$")]
    pub draw: Option<String>,
}

/// Something to be placed. Other members are answered as they are.
#[derive(Debug, Serialize, ToSchema)]
pub struct RankCandidate {
    /// The item, brand, category or algorithm.
    pub id: UnitId,
    /// Its name, stored on first sight.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub name: Option<String>,
    /// An object of at most 16 KiB, stored on first sight.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
}

/// Answer of `rank`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ranking {
    /// The experiment's name; null where the unit has no variant.
    pub experiment_id: Option<String>,
    /// The unit's variant, or `default`.
    pub variant: String,
    /// The experiment's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<i64>,
    /// The variant's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant_id: Option<i64>,
    /// What events refer to; null where nothing was decided, or where it cannot be stored now.
    pub decision_id: Option<String>,
    /// What the candidates are.
    pub arm_type: String,
    /// The algorithm, or `input_order`.
    pub policy: String,
    /// The candidates in order.
    pub candidates: Vec<RankedCandidate>,
    /// True while the database is away or was too slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<bool>,
}

/// A candidate in its place.
#[derive(Debug, Serialize, ToSchema)]
pub struct RankedCandidate {
    /// The candidate as it was sent.
    #[serde(flatten)]
    pub candidate: RankCandidate,
    /// From 1.
    pub bandit_position: u32,
    /// What the order was sorted by, largest first; null in the order of the request.
    pub bandit_score: Option<f64>,
    /// The id as text.
    pub arm_id: String,
    /// Probability with which this candidate came first; null where it is unknown or nothing was drawn.
    pub propensity: Option<f64>,
}
