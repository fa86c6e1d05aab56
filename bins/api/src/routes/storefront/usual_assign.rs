//! The short way through the bodies of `assign` that storefronts send at every page view.
//!
//! A scanner takes bodies that hold documented fields with plain strings and nothing else: no escapes, no numbers, no other
//! field, and no white space but spaces. Whatever it does not take, be it wrong or only unusual, goes the long way through [`crate::json`], which knows
//! all rules and names every fault. So the short way may refuse at will, and must never take what the long way would
//! refuse or read otherwise; a property test holds the two together. The body is the largest part of what a decision costs
//! beside a server that does nothing, which is why it has a scanner of its own.

use podium_serving::assign::{Agent, AssignRequest, Visitor};
use podium_serving::snapshot::ExperimentRef;

use super::{KEY, UNIT};
use crate::json::scan::Scanner;

/// A member that was seen: `Some(None)` is `null`.
type Seen<'a> = Option<Option<&'a str>>;

#[derive(Default)]
struct Body<'a> {
    user: Seen<'a>,
    session: Seen<'a>,
    experiment: Seen<'a>,
    placement: Seen<'a>,
    context: Option<Context<'a>>,
}

#[derive(Default)]
struct Context<'a> {
    placement: Seen<'a>,
    page_type: Seen<'a>,
    locale: Seen<'a>,
}

/// Reads a usual body; `None` sends it the long way.
pub(super) fn read<'a>(body: &'a [u8], agent: Agent<'a>) -> Option<AssignRequest<'a>> {
    let mut scanner = Scanner::over(body)?;
    let mut body = Body::default();
    scanner.object(|scanner, key| body.member(scanner, key))?;
    scanner.end()?;
    let context = body.context.unwrap_or_default();
    let unit = |seen: Seen<'a>| fitting(seen, 1, UNIT);
    let name = |seen: Seen<'a>| fitting(seen, 1, KEY);
    fitting(context.page_type, 0, KEY)?;
    fitting(context.locale, 0, KEY)?;
    let (top, inner) = (name(body.placement)?, name(context.placement)?);
    Some(AssignRequest {
        visitor: Visitor {
            user: unit(body.user)?,
            session: unit(body.session)?,
            agent,
        },
        experiment: name(body.experiment)?.map(ExperimentRef::Name),
        placement: top.or(inner),
    })
}

/// The value, `None` in the outer sense where its length may not fit. Told by the bytes: a longer text in another script
/// goes the long way.
fn fitting(seen: Seen<'_>, min: usize, max: usize) -> Option<Option<&str>> {
    match seen.flatten() {
        Some(text) if (min..=max).contains(&text.len()) => Some(Some(text)),
        Some(_) => None,
        None => Some(None),
    }
}

impl<'a> Body<'a> {
    fn member(&mut self, scanner: &mut Scanner<'a>, key: &str) -> Option<()> {
        match key {
            "user_id" | "userId" => once(scanner, &mut self.user),
            "session_id" | "sessionId" => once(scanner, &mut self.session),
            "experiment" => once(scanner, &mut self.experiment),
            "placement" => once(scanner, &mut self.placement),
            "context" if self.context.is_none() => {
                let mut context = Context::default();
                scanner.object(|scanner, key| context.member(scanner, key))?;
                self.context = Some(context);
                Some(())
            }
            _ => None,
        }
    }
}

impl<'a> Context<'a> {
    fn member(&mut self, scanner: &mut Scanner<'a>, key: &str) -> Option<()> {
        match key {
            "placement" => once(scanner, &mut self.placement),
            "page_type" | "pageType" => once(scanner, &mut self.page_type),
            "locale" => once(scanner, &mut self.locale),
            _ => None,
        }
    }
}

/// A string or `null` into a member that was not seen before.
fn once<'a>(scanner: &mut Scanner<'a>, member: &mut Seen<'a>) -> Option<()> {
    if member.is_some() {
        return None;
    }
    *member = Some(if scanner.peek()? == b'n' {
        scanner.word("null")?;
        None
    } else {
        Some(scanner.string()?)
    });
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::assign::BulkRequest;
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
        let node = json::strict(body).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let long = super::super::assign::read(&node, AGENT);
        let long = long.map_err(|e| TestCaseError::fail(e.detail().to_owned()))?;
        prop_assert_eq!(parts(&short), parts(&long));
        let bulk = super::super::assign::read_bulk(&node, AGENT);
        let bulk = bulk.map_err(|e| TestCaseError::fail(e.detail().to_owned()))?;
        prop_assert_eq!(
            format!("{:?}", BulkRequest::from(short)),
            format!("{bulk:?}")
        );
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

    /// White space where JSON allows it.
    fn blank() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(&["", "", "", " ", "\n\t", "\u{a0}", "\u{b}"][..])
    }

    fn json_value() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("null".to_owned()),
            Just("nullx".to_owned()),
            Just("\"a\tb\"".to_owned()),
            Just("{}".to_owned()),
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
            before in blank(),
            between in blank(),
            after in blank(),
        ) {
            let comma = if outer.is_empty() { "" } else { "," };
            let body = if with_context {
                format!("{before}{{{outer}{comma}\"context\"{between}:{between}{{{inner}{between}}}}}{after}")
            } else {
                format!("{before}{{{between}{outer}{between}}}{after}")
            };
            agree(body.as_bytes())?;
        }
    }
}
