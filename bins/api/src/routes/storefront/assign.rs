//! `assign` and `assign/bulk`.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::header::USER_AGENT;
use actix_web::web::Bytes;
use podium_domain::event;
use podium_domain::fault::Pointer;
use podium_domain::text;
use podium_serving::assign::{Agent, AssignError, AssignRequest, Visitor};
use podium_serving::snapshot::ExperimentRef;

use super::bodies::{AssignBody, Assignment, BulkAssignments, BulkBody};
use super::{KEY, experiment, usual_assign, visitor};
use crate::bots::is_bot;
use crate::json::{self, Fields, Node};
use crate::problem::{ApiError, Problem};
use crate::request::{BATCH, Ctx, Media, ONE, json_bytes};

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
    let is_bot = || asks_a_bot(&ctx);
    let agent = Agent::Asked(&is_bot);
    let answer = match usual_assign::read(&body, agent) {
        Some(request) => ctx.state.serving.assign(request).await,
        None => {
            let node = json::parse(&body)?;
            let request = read(&node, agent)?;
            ctx.state.serving.assign(request).await
        }
    };
    Ok(json_bytes(answer.map_err(assign_error)?))
}

/// Reads any body by all rules.
pub(super) fn read<'n>(
    node: &'n Node<'_>,
    agent: Agent<'n>,
) -> Result<AssignRequest<'n>, ApiError> {
    let mut fields = Fields::new(node, Pointer::root()).snake_pointers();
    let request = AssignRequest {
        visitor: visitor(&mut fields, agent, None),
        experiment: experiment(&mut fields, "experiment"),
        placement: placement(&mut fields),
    };
    fields.finish()?;
    Ok(request)
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
    let is_bot = || asks_a_bot(&ctx);
    let agent = Agent::Asked(&is_bot);
    let node;
    let BulkRequest {
        visitor,
        experiment,
        users,
    } = match usual_assign::read(&body, agent) {
        Some(request) => request.into(),
        None => {
            node = json::parse(&body)?;
            read_bulk(&node, agent)?
        }
    };
    let serving = &ctx.state.serving;
    let (answers, units, is_degraded) = match (users, experiment) {
        (Some(users), Some(experiment)) => (
            serving
                .assign_many(experiment, &users, agent)
                .await
                .map_err(assign_error)?,
            users,
            false,
        ),
        (None, Some(experiment)) => {
            let request = AssignRequest {
                visitor,
                experiment: Some(experiment),
                placement: None,
            };
            (
                vec![serving.assign(request).await.map_err(assign_error)?],
                visitor.unit().into_iter().collect(),
                false,
            )
        }
        _ => {
            let (answers, is_degraded) = serving.assign_all(visitor).await.map_err(assign_error)?;
            let unit = visitor.unit().unwrap_or_default();
            let units = vec![unit; answers.len()];
            (answers, units, is_degraded)
        }
    };
    Ok(json_bytes(join_assignments(&answers, &units, is_degraded)))
}

/// What `assign/bulk` was asked.
#[derive(Debug)]
pub(super) struct BulkRequest<'a> {
    visitor: Visitor<'a>,
    experiment: Option<ExperimentRef<'a>>,
    users: Option<Vec<&'a str>>,
}

impl<'a> From<AssignRequest<'a>> for BulkRequest<'a> {
    /// Bodies of `assign` say to `assign/bulk` what they say to `assign`, but for the placement, which it does not have.
    fn from(request: AssignRequest<'a>) -> Self {
        Self {
            visitor: request.visitor,
            experiment: request.experiment,
            users: None,
        }
    }
}

pub(super) fn read_bulk<'n>(
    node: &'n Node<'_>,
    agent: Agent<'n>,
) -> Result<BulkRequest<'n>, ApiError> {
    let mut fields = Fields::new(node, Pointer::root()).snake_pointers();
    let visitor = visitor(&mut fields, agent, None);
    let experiment = experiment(&mut fields, "experiment");
    let users = users(&mut fields);
    if users.is_some() && experiment.is_none() {
        fields.fault("experiment", "required", "is required with user_ids");
    }
    fields.finish()?;
    Ok(BulkRequest {
        visitor,
        experiment,
        users,
    })
}

/// `{"assignments": […]}` from ready answers, each with its unit added; with `"degraded": true` where some are missing.
fn join_assignments(answers: &[Bytes], units: &[&str], is_degraded: bool) -> Bytes {
    let lengths = answers.iter().zip(units).map(|(a, u)| a.len() + u.len());
    let mut body = Vec::with_capacity(32 + lengths.map(|length| length + 20).sum::<usize>());
    body.extend_from_slice(br#"{"assignments":["#);
    for (at, (answer, unit)) in answers.iter().zip(units).enumerate() {
        if at > 0 {
            body.push(b',');
        }
        // Ready answers are objects, so the last byte is the closing brace.
        body.extend_from_slice(answer.strip_suffix(b"}").unwrap_or(answer));
        body.extend_from_slice(br#","user_id":"#);
        // Writing a text to memory does not fail.
        let _ = serde_json::to_writer(&mut body, unit);
        body.push(b'}');
    }
    body.extend_from_slice(if is_degraded {
        br#"],"degraded":true}"#
    } else {
        b"]}"
    });
    body.into()
}

fn asks_a_bot(ctx: &Ctx) -> bool {
    is_bot(ctx.header_bytes(USER_AGENT))
}

fn placement<'n>(fields: &mut Fields<'n, '_>) -> Option<&'n str> {
    let top = fields.string("placement", 1, KEY);
    // Read although nothing depends on them yet, so that they follow the same rules wherever they stand.
    fields.string("pageType", 0, KEY);
    fields.string("locale", 0, KEY);
    let Some(context) = fields.take("context") else {
        return top;
    };
    let mut inner = Fields::inner(context);
    let placement = inner.string("placement", 1, KEY);
    inner.string("pageType", 0, KEY);
    inner.string("locale", 0, KEY);
    fields.absorb("context", inner);
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
                fields.faults.push(
                    pointer.as_str(),
                    "wrong_type",
                    "must be a user id: 1 to 255 characters, or a whole number",
                );
            }
        }
    }
    Some(users)
}

fn assign_error(error: AssignError) -> ApiError {
    match error {
        AssignError::UnknownExperiment => ApiError::not_found("the experiment"),
        // The earlier system answered 400 here, and clients rely on it.
        AssignError::NoUnit => {
            ApiError::field("/user_id", "required", error.to_string()).with_status(400)
        }
    }
}
