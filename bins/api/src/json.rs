//! Strict JSON: what a body says, with every fault found at once.
//!
//! serde_json splits the text; on top of it come the rules that a typed parser does not give: no key twice (in either
//! spelling), at most 32 levels, no control characters in any string, numbers kept as text so that money stays exact, and
//! *all* wrong fields reported together. Plain documents have a short way of their own to the same tree.

use std::borrow::Cow;
use std::collections::HashSet;

use podium_domain::fault::{Faults, Pointer};
use podium_domain::text;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

mod fields;
pub mod long;
mod plain;
pub(crate) mod scan;

pub use fields::{Fields, spells};

/// Levels of nesting that a body may have.
const MAX_DEPTH: usize = 32;

/// Why a body is not a JSON document that we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not UTF-8, cut off, two documents, or otherwise not JSON.
    #[error("the body is not one JSON document: {0}")]
    Syntax(String),
    /// One key twice, or in both spellings.
    #[error("the key `{0}` stands twice in one object")]
    DuplicateKey(String),
    /// Deeper than 32 levels.
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// A JSON value that borrows from the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(&'a str),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Node<'a>>),
    /// An object, in order, with the text of the whole value.
    Object(Members<'a>, &'a str),
}

/// Members of an object, in order.
pub type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

/// Reads one document.
///
/// # Errors
/// [`Malformed`]; the text rules of strings are not checked here but by [`check_texts`].
pub fn parse(body: &[u8]) -> Result<Node<'_>, Malformed> {
    match plain::parse(body) {
        Some(node) => Ok(node),
        None => strict(body),
    }
}

/// The long way, which takes every document and names what is wrong with one.
pub(crate) fn strict(body: &[u8]) -> Result<Node<'_>, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed::Syntax("invalid UTF-8".into()))?;
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    match text.as_bytes().first() {
        // Objects and arrays are checked to their end while they are taken apart.
        Some(b'{' | b'[') => node(text, 1),
        _ => {
            let raw: &RawValue = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            node(raw.get(), 1)
        }
    }
}

fn syntax(error: &serde_json::Error) -> Malformed {
    Malformed::Syntax(error.to_string())
}

fn node(raw: &str, depth: usize) -> Result<Node<'_>, Malformed> {
    match raw.as_bytes().first() {
        Some(b'{') => object(raw, depth),
        Some(b'[') => array(raw, depth),
        Some(b'"') => string(raw).map(Node::String),
        Some(b't') => Ok(Node::Bool(true)),
        Some(b'f') => Ok(Node::Bool(false)),
        Some(b'n') => Ok(Node::Null),
        _ => Ok(Node::Number(raw)),
    }
}

fn string(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    match raw.get(1..raw.len() - 1) {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str(raw)
            .map(Cow::Owned)
            .map_err(|e| syntax(&e)),
    }
}

fn array(raw: &str, depth: usize) -> Result<Node<'_>, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::TooDeep);
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let items = deserializer
        .deserialize_seq(RawItems)
        .map_err(|e| syntax(&e))?;
    deserializer.end().map_err(|e| syntax(&e))?;
    items
        .into_iter()
        .map(|item| node(item.get(), depth + 1))
        .collect::<Result<_, _>>()
        .map(Node::Array)
}

fn object(raw: &str, depth: usize) -> Result<Node<'_>, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::TooDeep);
    }
    let mut stopped = None;
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let members = deserializer.deserialize_map(Object {
        depth,
        stopped: &mut stopped,
    });
    let members = members.and_then(|members| deserializer.end().map(|()| members));
    match (stopped, members) {
        (Some(malformed), _) => Err(malformed),
        (None, members) => members
            .map(|members| Node::Object(members, raw))
            .map_err(|e| syntax(&e)),
    }
}

struct RawItems;

impl<'de> Visitor<'de> for RawItems {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

/// Takes an object apart. A fault that is not one of syntax ends the visit and is left in `stopped`.
struct Object<'s> {
    depth: usize,
    stopped: &'s mut Option<Malformed>,
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Up to this many keys are compared one by one; more with a set, or a large object would cost quadratic time.
const FEW: usize = 16;

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Members<'de> = Vec::new();
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &RawValue>()? {
            let member = (|| {
                if members.len() == FEW {
                    seen.extend(members.iter().map(|(known, _)| known.clone()));
                }
                let twice = if members.len() < FEW {
                    members.iter().any(|(known, _)| *known == key)
                } else {
                    !seen.insert(key.clone())
                };
                if twice {
                    return Err(Malformed::DuplicateKey(key.into_owned()));
                }
                Ok((key, node(value.get(), self.depth + 1)?))
            })();
            match member {
                Ok(member) => members.push(member),
                Err(malformed) => {
                    *self.stopped = Some(malformed);
                    return Err(serde::de::Error::custom("stopped"));
                }
            }
        }
        Ok(members)
    }
}

/// Checks every string and key of the document for control characters.
pub fn check_texts(node: &Node<'_>, pointer: &Pointer, faults: &mut Faults) {
    match node {
        Node::String(text) => faults.check_text(pointer, text::check_characters(text)),
        Node::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if needs_pointer(item) {
                    check_texts(item, &pointer.element(index), faults);
                }
            }
        }
        Node::Object(members, _) => {
            for (key, value) in members {
                if text::check_characters(key).is_err() || needs_pointer(value) {
                    let inner = pointer.member(key);
                    faults.check_text(&inner, text::check_characters(key));
                    check_texts(value, &inner, faults);
                }
            }
        }
        Node::Null | Node::Bool(_) | Node::Number(_) => {}
    }
}

/// A control character can only stand behind a backslash in JSON, or be U+007F: most bodies have neither.
fn may_hold_control_characters(node: &Node<'_>) -> bool {
    match node {
        Node::Object(_, raw) => memchr::memchr2(b'\\', 0x7f, raw.as_bytes()).is_some(),
        _ => true,
    }
}

/// Whether something below may be at fault, so that pointers are built only then.
fn needs_pointer(node: &Node<'_>) -> bool {
    match node {
        Node::String(text) => text::check_characters(text).is_err(),
        Node::Array(items) => items.iter().any(needs_pointer),
        Node::Object(members, _) => members
            .iter()
            .any(|(key, value)| text::check_characters(key).is_err() || needs_pointer(value)),
        Node::Null | Node::Bool(_) | Node::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_one_document() {
        for body in [
            "",
            "{",
            "{} {}",
            "{\"a\":NaN}",
            "{\"a\":1,}",
            "\u{feff}{}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":01}",
        ] {
            assert!(
                matches!(parse(body.as_bytes()), Err(Malformed::Syntax(_))),
                "{body}"
            );
        }
        assert!(matches!(
            parse(b"{\"a\":\"\xff\"}"),
            Err(Malformed::Syntax(_))
        ));
    }

    #[test]
    fn refuses_a_key_twice_at_any_depth() {
        assert_eq!(
            parse(b"{\"a\":[{\"b\":1,\"\\u0062\":2}]}"),
            Err(Malformed::DuplicateKey("b".into()))
        );
    }

    #[test]
    fn refuses_deep_nesting_without_running_out_of_stack() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(32).as_bytes()).is_ok());
        assert_eq!(parse(deep(33).as_bytes()), Err(Malformed::TooDeep));
        assert_eq!(parse(deep(30_000).as_bytes()), Err(Malformed::TooDeep));
    }
}
