//! Reading one event: its body, and what stands beside it in query and headers.

use std::borrow::Cow;

use actix_web::http::header::{HeaderName, USER_AGENT};
use actix_web::web::Bytes;
use chrono::{DateTime, Utc};
use podium_domain::event::{self, EventType};
use podium_domain::fault::Pointer;
use podium_domain::text;
use podium_serving::assign::Agent;
use podium_serving::snapshot::ExperimentRef;
use podium_serving::track::{Event, VariantRef};

use super::{KEY, UNIT, experiment, visitor};
use crate::bots::is_bot;
use crate::ids;
use crate::json::{Fields, Node};
use crate::problem::ApiError;
use crate::request::{Ctx, NotText};

const EXPERIMENT_ID: HeaderName = HeaderName::from_static("x-experiment-id");
const VARIANT_ID: HeaderName = HeaderName::from_static("x-variant-id");
const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");

/// What a tracking request says beside its body: query parameters and headers.
pub(super) struct Beside {
    experiment: Option<String>,
    variant: Option<String>,
    session: Option<String>,
    is_bot: bool,
}

impl Beside {
    pub(super) fn of(ctx: &Ctx) -> Result<Self, ApiError> {
        let part = |query: &str, header: HeaderName, max: usize| -> Result<_, ApiError> {
            let value = match ctx.query_text(query) {
                None => ctx.header_text(header),
                value => value,
            };
            let fault = |code, detail: String| ApiError::field(&format!("/{query}"), code, detail);
            let value = value
                .transpose()
                .map_err(|NotText| fault("invalid_text", "must be UTF-8".into()))?
                .filter(|value| !value.is_empty());
            if let Some(value) = &value {
                text::check_text(value, 1, max)
                    .map_err(|wrong| fault(wrong.code(), wrong.to_string()))?;
            }
            Ok(value)
        };
        Ok(Self {
            experiment: part("experiment_id", EXPERIMENT_ID, KEY)?,
            variant: part("variant_id", VARIANT_ID, KEY)?,
            session: part("session_id", SESSION_ID, UNIT)?,
            is_bot: is_bot(ctx.header_bytes(USER_AGENT)),
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

/// Reads and checks one event.
pub(super) fn read_event<'n>(
    node: &'n Node<'_>,
    kind: Option<EventType>,
    beside: &'n Beside,
    pointer: Pointer,
    now: DateTime<Utc>,
) -> Result<Event<'n>, ApiError> {
    let mut fields = Fields::new(node, pointer).snake_pointers();
    let kind = kind.or_else(|| event_type(&mut fields));
    let visitor = visitor(
        &mut fields,
        Agent::Known {
            is_bot: beside.is_bot,
        },
        beside.session.as_deref(),
    );
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
        event_id: event_id.map_or_else(|| Cow::Owned(ids::uuid_at(now).to_string()), Cow::Borrowed),
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
        quantity: kind
            .has_quantity()
            .then(|| quantity.unwrap_or(event::DEFAULT_QUANTITY))
            .and_then(small),
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
        fields.fault(
            "eventType",
            "unknown_value",
            "must be impression, click, add_to_cart, purchase, engagement or request",
        );
    }
    kind
}

/// Experiment and variant as the body names them, else as query or headers do. The default answer of `assign`, handed
/// back, names none.
fn target<'n>(
    fields: &mut Fields<'n, '_>,
    beside: &'n Beside,
) -> (Option<ExperimentRef<'n>>, Option<VariantRef<'n>>) {
    let by_name = experiment(fields, "experimentId");
    let by_number = experiment(fields, "experiment");
    let mut experiment = by_name
        .or(by_number)
        .or_else(|| beside.experiment.as_deref().map(reference));
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
    if experiment == Some(ExperimentRef::Name("default"))
        && variant == Some(VariantRef::Name("default"))
    {
        (experiment, variant) = (None, None);
    }
    if experiment.is_none() && matches!(variant, Some(VariantRef::Name(_))) {
        fields.fault(
            "variant",
            "required",
            "a variant's name needs its experiment_id beside it",
        );
    }
    (experiment, variant)
}

fn occurred_at(fields: &mut Fields<'_, '_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let text = fields.string("occurredAt", 1, 64)?;
    let Ok(at) = DateTime::parse_from_rfc3339(text) else {
        fields.fault(
            "occurredAt",
            "wrong_type",
            "must be an RFC 3339 time with a zone",
        );
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
    if placement.is_none() && page_type.is_none() {
        return metadata.map(|raw| Bytes::copy_from_slice(raw.as_bytes()));
    }
    let mut text = Vec::with_capacity(64 + metadata.map_or(0, str::len));
    for (name, value) in [("placement", placement), ("page_type", page_type)] {
        if let Some(value) = value {
            text.extend_from_slice(if text.is_empty() { b"{\"" } else { b",\"" });
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"\":");
            // Writing a string into memory cannot fail.
            serde_json::to_writer(&mut text, value).ok()?;
        }
    }
    let inner = metadata
        .and_then(|raw| raw.strip_prefix('{'))
        .and_then(|raw| raw.strip_suffix('}'))
        .map(str::trim);
    if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
        text.push(b',');
        text.extend_from_slice(inner.as_bytes());
    }
    text.push(b'}');
    Some(text.into())
}
