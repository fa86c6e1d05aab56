//! The short way from a body to its tree: plain documents, in one pass, without asking serde_json for each value.
//!
//! It must never take what the strict reader would refuse or read otherwise; a property test holds the two together.

use std::borrow::Cow;

use super::scan::Scanner;
use super::{FEW, MAX_DEPTH, Members, Node};

/// Reads a plain document; `None` sends it the long way.
pub(super) fn parse(body: &[u8]) -> Option<Node<'_>> {
    let mut scanner = Scanner::over(body)?;
    let node = value(&mut scanner, &mut Vec::new(), 1)?;
    scanner.end()?;
    Some(node)
}

/// `depth` is that of the value itself, where it is an object or an array. `open` holds the members of the objects that
/// have not ended, so that each object gets memory once and no more than it needs.
fn value<'a>(scanner: &mut Scanner<'a>, open: &mut Members<'a>, depth: usize) -> Option<Node<'a>> {
    match scanner.peek()? {
        b'"' => Some(Node::String(Cow::Borrowed(scanner.string()?))),
        b'{' if depth <= MAX_DEPTH => object(scanner, open, depth),
        b'[' if depth <= MAX_DEPTH => array(scanner, open, depth),
        b'n' => scanner.word("null").map(|()| Node::Null),
        b't' => scanner.word("true").map(|()| Node::Bool(true)),
        b'f' => scanner.word("false").map(|()| Node::Bool(false)),
        b'-' | b'0'..=b'9' => scanner.number().map(Node::Number),
        _ => None,
    }
}

fn object<'a>(scanner: &mut Scanner<'a>, open: &mut Members<'a>, depth: usize) -> Option<Node<'a>> {
    let (from, outer) = (scanner.here(), open.len());
    scanner.object(|scanner, key| {
        let members = open.get(outer..)?;
        if members.len() == FEW || members.iter().any(|(known, _)| known == key) {
            return None;
        }
        let member = (Cow::Borrowed(key), value(scanner, open, depth + 1)?);
        open.push(member);
        Some(())
    })?;
    Some(Node::Object(open.split_off(outer), scanner.since(from)?))
}

fn array<'a>(scanner: &mut Scanner<'a>, open: &mut Members<'a>, depth: usize) -> Option<Node<'a>> {
    let mut items = Vec::new();
    scanner.array(|scanner| {
        items.push(value(scanner, open, depth + 1)?);
        Some(())
    })?;
    Some(Node::Array(items))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::strict;
    use super::*;

    #[test]
    fn takes_what_programs_write() {
        for body in [
            r#"{"event_id":"01900000-0000-7000-8000-000000000000","user_id":"u1","experiment_id":1,"position":3,"value":-12.50}"#,
            r#" {"events": [ {"event_type": "click", "metadata": {"a": [1, {}, [], null]}}, {"is_error": true} ] } "#,
            r#"[0,-0,0.5,false]"#,
            "7",
        ] {
            let node = parse(body.as_bytes());
            assert!(node.is_some(), "{body}");
            assert_eq!(node, strict(body.as_bytes()).ok());
        }
    }

    #[test]
    fn leaves_what_is_unusual() {
        let many = (0..=FEW).map(|n| format!("\"k{n}\":{n}"));
        let many = format!("{{{}}}", many.collect::<Vec<_>>().join(","));
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        for body in [
            "",
            "{",
            "{}{}",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":1}",
            "01",
            "1.",
            "-",
            ".5",
            "1e5",
            "nul",
            "nulls",
            "[truefalse]",
            "\"a\\u0041\"",
            "{\n}",
            "\"\u{7f}\"",
            "[1 2]",
            &many,
            &deep,
        ] {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn leaves_every_control_character() {
        for control in ('\0'..' ').chain(['\\', '\u{7f}']) {
            let body = format!("{{\"a\":\"x{control}y\"}}");
            assert_eq!(parse(body.as_bytes()), None, "{control:?}");
        }
    }

    /// Texts that are nearly JSON.
    fn text() -> impl Strategy<Value = String> {
        const PIECES: &str = "{ } [ ] , : \" \"a\" \"b\": \"\u{e9}\" \\ 0 1 - . e 12.50 null true false \t \u{b} \u{1f} \u{7f} \u{a0}";
        let mut pieces: Vec<&str> = PIECES.split(' ').collect();
        pieces.extend([" ", "\n"]);
        proptest::collection::vec(proptest::sample::select(pieces), 0..12)
            .prop_map(|pieces| pieces.concat())
    }

    fn document() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            proptest::sample::select(
                &[
                    "null", "true", "false", "0", "-1", "12.50", "1e3", "007", "\"\"", "\"x y\"",
                    "\"\\n\""
                ][..]
            )
            .prop_map(str::to_owned),
            any::<i64>().prop_map(|number| number.to_string()),
            "[a-z\u{e9}]{0,5}".prop_map(|text| format!("\"{text}\"")),
            any::<char>().prop_map(|character| format!("\"{character}\"")),
        ];
        scalar.prop_recursive(4, 40, 5, |inner| {
            let member =
                ("[abc]", inner.clone()).prop_map(|(key, value)| format!("\"{key}\": {value}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..5)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                proptest::collection::vec(member, 0..4)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_as_the_long_way_does(body in prop_oneof![document(), text()]) {
            if let Some(node) = parse(body.as_bytes()) {
                prop_assert_eq!(Ok(node), strict(body.as_bytes()));
            }
        }
    }
}
