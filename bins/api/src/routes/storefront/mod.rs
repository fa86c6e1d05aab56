//! What storefronts call: assign, rank and track. Public; unknown fields are ignored, both spellings are taken.

use actix_web::http::Method;
use podium_domain::event::EventType;
use podium_domain::text;
use podium_serving::assign::{Agent, Visitor};
use podium_serving::snapshot::ExperimentRef;
use utoipa::OpenApi;

use crate::json::{Fields, Node};
use crate::routes::Route;

pub mod assign;
pub mod bodies;
mod event;
pub mod rank;
pub mod track;
mod usual_assign;

/// Longest unit id, in characters.
const UNIT: usize = 255;
/// Longest event, item, brand, module or decision id, in characters.
const KEY: usize = 128;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    let track_one =
        |path, kind| Route::public(Method::POST, path, move |ctx| track::track_typed(ctx, kind));
    vec![
        Route::public(Method::POST, "/api/v1/experiments/assign", assign::assign),
        Route::public(
            Method::POST,
            "/api/v1/experiments/assign/bulk",
            assign::assign_bulk,
        ),
        track_one(
            "/api/v1/experiments/track-impression",
            EventType::Impression,
        ),
        track_one("/api/v1/experiments/track-click", EventType::Click),
        track_one(
            "/api/v1/experiments/track-add-to-cart",
            EventType::AddToCart,
        ),
        track_one("/api/v1/experiments/track-purchase", EventType::Purchase),
        Route::public(Method::POST, "/api/v1/experiments/track", track::track),
        Route::public(Method::POST, "/api/v1/experiments/rank", rank::rank),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(
    paths(
        assign::assign,
        assign::assign_bulk,
        track::docs::track_impression,
        track::docs::track_click,
        track::docs::track_add_to_cart,
        track::docs::track_purchase,
        track::track,
        rank::rank
    ),
    components(schemas(
        bodies::AssignBody,
        bodies::AssignContext,
        bodies::Assignment,
        bodies::BulkBody,
        bodies::BulkAssignments,
        bodies::BulkAssignment,
        bodies::EventBody,
        bodies::TrackBody,
        bodies::TrackAnswer,
        bodies::Recorded,
        bodies::BatchAnswer,
        bodies::BatchResult,
        bodies::RankBody,
        bodies::RankCandidate,
        bodies::Ranking,
        bodies::RankedCandidate
    ))
)]
pub struct StorefrontApi;

fn visitor<'n>(
    fields: &mut Fields<'n, '_>,
    agent: Agent<'n>,
    session: Option<&'n str>,
) -> Visitor<'n> {
    let user = fields.key("userId", UNIT);
    let session = fields.key("sessionId", UNIT).or(session);
    Visitor {
        user,
        session,
        agent,
    }
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
