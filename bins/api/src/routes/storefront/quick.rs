//! The short way through the bodies of `assign` that storefronts send at every page view.
//!
//! A typed parser takes bodies that hold documented fields of the usual types and nothing else. Whatever it does not
//! take, be it wrong or only unusual, goes the long way through [`crate::json`], which knows all rules and names every
//! fault. So the short way may refuse at will, and must never take what the long way would refuse or read otherwise.

use podium_serving::assign::{Agent, AssignRequest, Visitor};
use podium_serving::snapshot::ExperimentRef;
use serde::Deserialize;

use super::{KEY, UNIT};

/// Strings are borrowed, so one with an escape is refused; a key that stands twice, in either spelling, is too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow, default, alias = "userId")]
    user_id: Option<&'a str>,
    #[serde(borrow, default, alias = "sessionId")]
    session_id: Option<&'a str>,
    #[serde(borrow, default)]
    experiment: Option<&'a str>,
    #[serde(borrow, default)]
    placement: Option<&'a str>,
    #[serde(borrow, default)]
    context: Option<Context<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Context<'a> {
    #[serde(borrow, default)]
    placement: Option<&'a str>,
    #[serde(borrow, default, alias = "pageType")]
    page_type: Option<&'a str>,
    #[serde(borrow, default)]
    locale: Option<&'a str>,
}

/// Reads a usual body; `None` sends it the long way.
pub(super) fn read<'a>(body: &'a [u8], agent: Agent<'a>) -> Option<AssignRequest<'a>> {
    // The one control character that JSON text may hold as it is, and arrays, which serde takes for structs.
    if body.iter().any(|byte| matches!(byte, 0x7f | b'[')) {
        return None;
    }
    // Checked in one go: slices would be checked string by string.
    let body: Body<'a> = serde_json::from_str(std::str::from_utf8(body).ok()?).ok()?;
    let context = body.context.as_ref();
    let unit = [body.user_id, body.session_id];
    let names = [
        body.experiment,
        body.placement,
        context.and_then(|context| context.placement),
    ];
    let others = [
        context.and_then(|context| context.page_type),
        context.and_then(|context| context.locale),
    ];
    let fits = unit.into_iter().flatten().all(|text| is_short(text, UNIT))
        && names.into_iter().flatten().all(|text| is_short(text, KEY))
        && others.into_iter().flatten().all(|text| text.len() <= KEY);
    fits.then(|| AssignRequest {
        visitor: Visitor {
            user: body.user_id,
            session: body.session_id,
            agent,
        },
        experiment: body.experiment.map(ExperimentRef::Name),
        placement: body
            .placement
            .or(context.and_then(|context| context.placement)),
    })
}

/// At most `max` characters, told by the bytes: a longer text in another script goes the long way.
fn is_short(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json;

    const AGENT: Agent<'static> = Agent::Known { is_bot: false };

    fn parts(request: &AssignRequest<'_>) -> String {
        let AssignRequest {
            visitor,
            experiment,
            placement,
        } = request;
        format!(
            "{:?} {:?} {experiment:?} {placement:?}",
            visitor.user, visitor.session
        )
    }

    /// What the short way takes, the long way takes and reads the same.
    fn agree(body: &[u8]) -> Result<bool, TestCaseError> {
        let Some(short) = read(body, AGENT) else {
            return Ok(false);
        };
        let node = json::parse(body).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let long = super::super::assign::read(&node, AGENT);
        let long = long.map_err(|e| TestCaseError::fail(e.detail().to_owned()))?;
        prop_assert_eq!(parts(&short), parts(&long));
        Ok(true)
    }

    #[test]
    fn takes_the_documented_body() {
        let body = br#"{"user_id":"u1","session_id":"s1","context":{"page_type":"pdp","placement":"bench","locale":"en-US"}}"#;
        assert!(agree(body).unwrap());
        assert!(agree(br#"{"userId":"u1","experiment":"a","placement":null}"#).unwrap());
    }

    #[test]
    fn leaves_what_is_unusual() {
        for body in [
            r#"{"user_id":1}"#,
            r#"{"user_id":""}"#,
            r#"{"user_id":"a\u0000"}"#,
            "{\"user_id\":\"a\u{7f}\"}",
            r#"{"user_id":"a","userId":"b"}"#,
            r#"{"user_id":"a","user_id":"a"}"#,
            r#"{"user_id":"a","experiment":7}"#,
            r#"{"user_id":"a","extra":{"x":{"x":1,"x":2}}}"#,
            r#"{"user_id":"a"} {}"#,
            r#"["a"]"#,
            r#"{"user_id":"a","context":["x"]}"#,
        ] {
            assert!(read(body.as_bytes(), AGENT).is_none(), "{body}");
        }
    }

    fn json_value() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("null".to_owned()),
            Just("7".to_owned()),
            Just("true".to_owned()),
            Just("[\"x\"]".to_owned()),
            Just(r#""\u00e9""#.to_owned()),
            (0_usize..300).prop_map(|n| format!("\"{}\"", "x".repeat(n))),
            (0_usize..140).prop_map(|n| format!("\"{}\"", "\u{e9}".repeat(n))),
            any::<char>().prop_map(|c| format!("\"{c}\"")),
        ]
    }

    fn members(names: &'static [&'static str]) -> impl Strategy<Value = String> {
        let name = proptest::sample::select(names);
        proptest::collection::vec((name, json_value()), 0..5).prop_map(|members| {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            members.join(",")
        })
    }

    proptest! {
        #[test]
        fn never_takes_what_the_long_way_refuses(
            outer in members(&["user_id", "userId", "session_id", "experiment", "placement", "other", "pageType"]),
            inner in members(&["placement", "page_type", "pageType", "locale", "other"]),
            with_context in any::<bool>(),
        ) {
            let comma = if outer.is_empty() { "" } else { "," };
            let body = if with_context {
                format!("{{{outer}{comma}\"context\":{{{inner}}}}}")
            } else {
                format!("{{{outer}}}")
            };
            agree(body.as_bytes())?;
        }
    }
}
