//! `rank`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;
use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::http::header::USER_AGENT;
use podium_domain::bandit::{ArmType, Draw, MAX_CANDIDATES};
use podium_domain::fault::{Faults, Pointer, code};
use podium_domain::words::UnknownWord;
use podium_serving::assign::{Agent, AssignError};
use podium_serving::rank::{Candidate, Chance, Place, RankRequest, Ranked};

use super::bodies::{RankBody, Ranking};
use super::{KEY, experiment, visitor};
use crate::bots::is_bot;
use crate::ids;
use crate::json::{self, Fields, Node};
use crate::problem::{ApiError, Problem};
use crate::request::{Ctx, Media, ONE, json_bytes};

/// What is added to every candidate.
const ADDED: [&str; 4] = ["bandit_position", "bandit_score", "arm_id", "propensity"];

/// Bandit order of candidates, for the variant that the unit was assigned.
///
/// Ranking assigns nobody: a unit that was not told a variant by `assign`, and one whose variant does not rank, get the
/// order of the request. The decision is stored after the answer; where that is not possible, `decision_id` is null.
#[utoipa::path(post, path = "/api/v1/experiments/rank", operation_id = "rank", tag = "Storefront",
    request_body = RankBody,
    responses(
        (status = 200, body = Ranking),
        (status = 400, description = "Malformed JSON", content_type = "application/problem+json", body = Problem),
        (status = 404, description = "No such experiment", content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem),
        (status = 415, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem)))]
pub async fn rank(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(ONE, Media::Beacon).await?;
    let node = json::parse(&body)?;
    let is_bot = || is_bot(ctx.header_bytes(USER_AGENT));
    let (request, nodes) = read(&node, Agent::Asked(&is_bot))?;
    let now = ctx.state.clock.now();
    let chance = Chance {
        decision_id: ids::uuid_at(now),
        seed: ids::seed(),
    };
    let ranked = ctx.state.serving.rank(&request, chance).await;
    Ok(json_bytes(
        answer(&request, nodes, &ranked.map_err(rank_error)?).into(),
    ))
}

fn rank_error(error: AssignError) -> ApiError {
    match error {
        AssignError::UnknownExperiment => ApiError::not_found("the experiment"),
        AssignError::NoUnit => ApiError::field("/user_id", code::REQUIRED, error.to_string()),
    }
}

/// Reads a body by all rules; the candidates' nodes come along to be answered as they were written.
fn read<'n, 'a>(
    node: &'n Node<'a>,
    agent: Agent<'n>,
) -> Result<(RankRequest<'n>, &'n [Node<'a>]), ApiError> {
    let mut fields = Fields::new(node, Pointer::root()).snake_pointers();
    let visitor = visitor(&mut fields, agent, None);
    let experiment = experiment(&mut fields, "experiment");
    let placement = fields.string("placement", 1, KEY);
    let arm_type = word::<ArmType>(&mut fields, "armType").unwrap_or_default();
    let draw = word::<Draw>(&mut fields, "draw");
    let most = i64::try_from(MAX_CANDIDATES).unwrap_or(i64::MAX);
    let limit = fields.integer("limit", 1, most);
    let nodes = list(&mut fields);
    let mut faults = Faults::new();
    let candidates = candidates(nodes, &mut faults);
    fields.faults.append(faults);
    fields.finish()?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let request = RankRequest {
        visitor,
        experiment,
        placement,
        arm_type,
        candidates,
        limit: limit.unwrap_or(usize::MAX),
        draw,
    };
    Ok((request, nodes))
}

fn word<T: FromStr<Err = UnknownWord>>(fields: &mut Fields<'_, '_>, name: &str) -> Option<T> {
    match fields.string(name, 1, KEY)?.parse() {
        Ok(word) => Some(word),
        Err(error) => {
            fields.fault(name, code::UNKNOWN_VALUE, error.to_string());
            None
        }
    }
}

/// The list of candidates, of 1 to 1,000 entries.
fn list<'n, 'a>(fields: &mut Fields<'n, 'a>) -> &'n [Node<'a>] {
    let found = fields.take("candidates");
    let fault = match fields.require("candidates", found) {
        None => return &[],
        Some(Node::Array(items)) if items.is_empty() => (code::TOO_SHORT, "must not be empty"),
        Some(Node::Array(items)) if items.len() > MAX_CANDIDATES => {
            (code::TOO_LONG, "must have at most 1000 entries")
        }
        Some(Node::Array(items)) => return items,
        Some(_) => (code::WRONG_TYPE, "must be a list of candidates"),
    };
    fields.fault("candidates", fault.0, fault.1);
    &[]
}

fn candidates<'n>(nodes: &'n [Node<'_>], faults: &mut Faults) -> Vec<Candidate<'n>> {
    let mut candidates: Vec<Candidate<'n>> = Vec::with_capacity(nodes.len());
    let mut seen = HashSet::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let mut fields = Fields::inner(node);
        let id = fields.key("id", KEY);
        let name = fields.string("name", 1, KEY);
        let metadata = fields.object("metadata");
        if let Some(id) = fields.require("id", id) {
            if !seen.insert(id) {
                fields.fault("id", code::DUPLICATE, "is the id of an earlier candidate");
            }
            candidates.push(Candidate {
                id: Cow::Borrowed(id),
                name,
                metadata,
            });
        }
        for fault in fields.faults.into_vec() {
            let pointer = format!("/candidates/{at}{}", fault.pointer);
            faults.push(pointer, fault.code, fault.detail);
        }
    }
    candidates
}

/// The answer: candidates as they were written, each with its place.
fn answer(request: &RankRequest<'_>, nodes: &[Node<'_>], ranked: &Ranked) -> Vec<u8> {
    let mut body = Vec::with_capacity(256 + 256 * ranked.order.len());
    let variant = ranked.variant.as_ref();
    let variant = variant.and_then(|(e, at)| Some((e, e.variants.get(*at)?)));
    body.extend_from_slice(b"{\"experiment_id\":");
    put(&mut body, &variant.map(|(experiment, _)| &experiment.name));
    body.extend_from_slice(b",\"variant\":");
    put(
        &mut body,
        &variant.map_or("default", |(_, v)| v.name.as_str()),
    );
    if let Some((experiment, variant)) = variant {
        body.extend_from_slice(b",\"experiment\":");
        put(&mut body, &experiment.id);
        body.extend_from_slice(b",\"variant_id\":");
        put(&mut body, &variant.id);
    }
    body.extend_from_slice(b",\"decision_id\":");
    put(&mut body, &ranked.decision_id);
    body.extend_from_slice(b",\"arm_type\":");
    put(&mut body, &request.arm_type.name());
    body.extend_from_slice(b",\"policy\":");
    put(&mut body, &ranked.policy);
    body.extend_from_slice(b",\"candidates\":[");
    for (place, position) in ranked.order.iter().zip(1_usize..) {
        let (node, candidate) = (
            nodes.get(place.candidate),
            request.candidates.get(place.candidate),
        );
        if let (Some(Node::Object(members, raw)), Some(candidate)) = (node, candidate) {
            if position > 1 {
                body.push(b',');
            }
            if members.iter().any(|(key, _)| ADDED.contains(&key.as_ref())) {
                rewrite(&mut body, members);
            } else {
                // An object that has an id is not empty, and its last byte is the closing brace.
                body.extend_from_slice(raw.strip_suffix('}').unwrap_or(raw).as_bytes());
            }
            put_place(&mut body, place, position, &candidate.id);
        }
    }
    body.push(b']');
    if ranked.degraded {
        body.extend_from_slice(b",\"degraded\":true");
    }
    body.push(b'}');
    body
}

fn put_place(body: &mut Vec<u8>, place: &Place, position: usize, id: &str) {
    body.extend_from_slice(b",\"bandit_position\":");
    put(body, &position);
    body.extend_from_slice(b",\"bandit_score\":");
    put(body, &place.score);
    body.extend_from_slice(b",\"arm_id\":");
    put(body, &id);
    body.extend_from_slice(b",\"propensity\":");
    put(body, &place.propensity);
    body.push(b'}');
}

/// Opens the object again without what will be added: a candidate of an earlier answer.
fn rewrite(body: &mut Vec<u8>, members: &[(Cow<'_, str>, Node<'_>)]) {
    body.push(b'{');
    let kept = members
        .iter()
        .filter(|(key, _)| !ADDED.contains(&key.as_ref()));
    for (at, (key, value)) in kept.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        put(body, key);
        body.push(b':');
        put_node(body, value);
    }
}

fn put_node(body: &mut Vec<u8>, node: &Node<'_>) {
    match node {
        Node::Null => body.extend_from_slice(b"null"),
        Node::Bool(value) => put(body, value),
        Node::Number(raw) | Node::Object(_, raw) => body.extend_from_slice(raw.as_bytes()),
        Node::String(text) => put(body, text),
        Node::Array(items) => {
            body.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    body.push(b',');
                }
                put_node(body, item);
            }
            body.push(b']');
        }
    }
}

fn put(body: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing numbers and texts to memory does not fail.
    if serde_json::to_writer(&mut *body, value).is_err() {
        body.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use podium_domain::bandit::INPUT_ORDER;

    use super::*;

    const AGENT: Agent<'_> = Agent::Known { is_bot: false };

    fn faults(body: &str) -> Vec<(String, &'static str)> {
        let node = json::parse(body.as_bytes()).unwrap();
        let error = read(&node, AGENT).unwrap_err();
        let faults = error.field_errors().into_iter();
        faults.map(|fault| (fault.pointer, fault.code)).collect()
    }

    #[test]
    fn candidates_are_answered_as_they_were_written() {
        let body = br#"{"user_id":1,"limit":2,"candidates":[
            {"id":1234, "price":1.50},{"id":"b","name":"B","arm_id":"old","tags":["x",null,1e2,{"y":true}]},{"id":"c"}]}"#;
        let node = json::parse(body).unwrap();
        let (request, nodes) = read(&node, AGENT).unwrap();
        assert_eq!((request.limit, request.arm_type), (2, ArmType::Item));
        let place = |candidate, score| Place {
            candidate,
            score,
            propensity: score,
        };
        let ranked = Ranked {
            variant: None,
            decision_id: None,
            policy: INPUT_ORDER,
            order: vec![place(1, Some(0.25)), place(0, None)],
            degraded: true,
        };
        let answer = String::from_utf8(answer(&request, nodes, &ranked)).unwrap();
        let wanted = concat!(
            r#"{"experiment_id":null,"variant":"default","decision_id":null,"arm_type":"item","policy":"input_order","#,
            r#""candidates":[{"id":"b","name":"B","tags":["x",null,1e2,{"y":true}],"bandit_position":1,"#,
            r#""bandit_score":0.25,"arm_id":"b","propensity":0.25},"#,
            r#"{"id":1234, "price":1.50,"bandit_position":2,"bandit_score":null,"arm_id":"1234","propensity":null}],"#,
            r#""degraded":true}"#,
        );
        assert_eq!(answer, wanted);
    }

    #[test]
    fn every_fault_is_reported() {
        let body = r#"{"user_id":1.5,"arm_type":"variant","draw":"dice","limit":0,"candidates":[
            {"id":1},{"id":"1"},{"name":"x"},7,{"id":"","metadata":[],"name":"\u0000"}]}"#;
        let found = faults(body);
        let mut found: Vec<(&str, &str)> = found.iter().map(|(p, c)| (p.as_str(), *c)).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("/arm_type", "unknown_value"),
                ("/candidates/1/id", "duplicate"),
                ("/candidates/2/id", "required"),
                ("/candidates/3", "wrong_type"),
                ("/candidates/3/id", "required"),
                ("/candidates/4/id", "too_short"),
                ("/candidates/4/metadata", "wrong_type"),
                ("/candidates/4/name", "invalid_text"),
                ("/draw", "unknown_value"),
                ("/limit", "out_of_range"),
                ("/user_id", "wrong_type"),
            ]
        );
    }

    #[test]
    fn a_list_has_one_to_a_thousand_candidates() {
        let code = |list: &str| faults(&format!(r#"{{"user_id":"u","candidates":{list}}}"#));
        let only = |code| vec![("/candidates".to_owned(), code)];
        assert_eq!(code("[]"), only("too_short"));
        assert_eq!(code("null"), only("required"));
        assert_eq!(code("{}"), only("wrong_type"));
        let many: Vec<String> = (0..1_001).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
        assert_eq!(code(&format!("[{}]", many.join(","))), only("too_long"));
    }
}
