//! Strict JSON: what a body says, with every fault found at once.
//!
//! serde_json splits the text; on top of it come the rules that a typed parser does not give: no key twice (in
//! either spelling), at most 32 levels, no control characters in any string, numbers kept as text so that money
//! stays exact, and *all* wrong fields reported together.

use std::borrow::Cow;
use std::collections::HashSet;

use podium_domain::decimal::Decimal4;
use podium_domain::fault::{Faults, Pointer};
use podium_domain::text;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::ApiError;

pub mod long;

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
        let mut members: Members<'de> = Vec::with_capacity(8);
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
        Node::Object(_, raw) => raw.bytes().any(|byte| byte == b'\\' || byte == 0x7f),
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

/// Whether `key` spells the camelCase `name`, in camelCase or in snake_case.
#[must_use]
pub fn spells(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut bytes = key.bytes();
    for wanted in name.bytes() {
        if wanted.is_ascii_uppercase() {
            if bytes.next() != Some(b'_') || bytes.next() != Some(wanted.to_ascii_lowercase()) {
                return false;
            }
        } else if bytes.next() != Some(wanted) {
            return false;
        }
    }
    bytes.next().is_none()
}

/// The snake_case spelling of a camelCase name.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Which members were taken. Nearly all objects have at most 64 members, which a word holds without memory of its own.
#[derive(Default)]
struct Taken {
    first: u64,
    beyond: Vec<usize>,
}

impl Taken {
    fn insert(&mut self, at: usize) {
        match at {
            0..64 => self.first |= 1 << at,
            _ => self.beyond.push(at),
        }
    }

    fn contains(&self, at: usize) -> bool {
        match at {
            0..64 => self.first & (1 << at) != 0,
            _ => self.beyond.contains(&at),
        }
    }
}

/// Reads the members of one object, collecting faults. Names are given in camelCase; both spellings are taken.
pub struct Fields<'n, 'a> {
    members: &'n [(Cow<'a, str>, Node<'a>)],
    taken: Taken,
    pointer: Pointer,
    both_spellings: Option<String>,
    camel_only: bool,
    snake_pointers: bool,
    /// What was wrong so far.
    pub faults: Faults,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// A reader of `node`, which must be an object; text rules of the whole object are checked at once.
    pub fn new(node: &'n Node<'a>, pointer: Pointer) -> Self {
        let mut faults = Faults::new();
        if may_hold_control_characters(node) {
            check_texts(node, &pointer, &mut faults);
        }
        let mut fields = Self::over(node, pointer);
        faults.append(std::mem::take(&mut fields.faults));
        fields.faults = faults;
        fields
    }

    fn over(node: &'n Node<'a>, pointer: Pointer) -> Self {
        let mut faults = Faults::new();
        let members = if let Node::Object(members, _) = node {
            members.as_slice()
        } else {
            faults.push(pointer.as_str(), "wrong_type", "must be an object");
            &[]
        };
        Self {
            members,
            taken: Taken::default(),
            pointer,
            both_spellings: None,
            camel_only: false,
            snake_pointers: false,
            faults,
        }
    }

    /// Points at missing members in snake_case, as the storefront routes document them.
    #[must_use]
    pub fn snake_pointers(mut self) -> Self {
        self.snake_pointers = true;
        self
    }

    /// Takes names only as they are given, in camelCase.
    #[must_use]
    pub fn camel_only(mut self) -> Self {
        self.camel_only = true;
        self
    }

    /// The member, if it is there and not `null`.
    pub fn take(&mut self, name: &str) -> Option<&'n Node<'a>> {
        self.take_with_pointer(name).map(|(node, _)| node)
    }

    /// The member, also when it is `null`.
    pub fn take_nullable(&mut self, name: &str) -> Option<&'n Node<'a>> {
        let mut found = None;
        for (at, (key, node)) in self.members.iter().enumerate() {
            if key == name || (!self.camel_only && spells(key, name)) {
                if found.is_some() {
                    self.both_spellings = Some(name.to_owned());
                }
                self.taken.insert(at);
                found = Some(node);
            }
        }
        found
    }

    fn take_with_pointer(&mut self, name: &str) -> Option<(&'n Node<'a>, String)> {
        let node = self.take_nullable(name)?;
        (*node != Node::Null).then(|| (node, name.to_owned()))
    }

    /// Pointer to a member, spelled as in the body where it is there.
    #[must_use]
    pub fn at(&self, name: &str) -> Pointer {
        let spelled = self
            .members
            .iter()
            .map(|(key, _)| key.as_ref())
            .find(|key| spells(key, name));
        match spelled {
            Some(spelled) => self.pointer.member(spelled),
            None if self.snake_pointers => self.pointer.member(&snake_case(name)),
            None => self.pointer.member(name),
        }
    }

    /// Reports a fault of a member.
    pub fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        let pointer = self.at(name);
        self.faults.push(pointer.as_str(), code, detail);
    }

    fn wrong_type(&mut self, name: &str, wanted: &str) {
        self.fault(name, "wrong_type", format!("must be {wanted}"));
    }

    /// A string of `min` to `max` characters.
    pub fn string(&mut self, name: &str, min: usize, max: usize) -> Option<&'n str> {
        match self.take(name)? {
            Node::String(value) => {
                // Control characters were reported for the whole body already.
                let chars = value.chars().count();
                if chars < min || chars > max {
                    let code = if chars < min { "too_short" } else { "too_long" };
                    self.fault(name, code, format!("must have {min} to {max} characters"));
                    return None;
                }
                Some(value)
            }
            _ => {
                self.wrong_type(name, "a string");
                None
            }
        }
    }

    /// A string, or a whole number taken as its text, of `min` to `max` characters.
    pub fn key(&mut self, name: &str, max: usize) -> Option<&'n str> {
        match self.take(name)? {
            Node::String(value) => {
                let chars = value.chars().count();
                if chars == 0 || chars > max {
                    let code = if chars == 0 { "too_short" } else { "too_long" };
                    self.fault(name, code, format!("must have 1 to {max} characters"));
                    return None;
                }
                Some(value.as_ref())
            }
            Node::Number(number) => match text::unit_id_from_number(number) {
                Ok(digits) => Some(digits),
                Err(_) => {
                    self.wrong_type(name, "a string or a whole number of at most 19 digits");
                    None
                }
            },
            _ => {
                self.wrong_type(name, "a string or a whole number");
                None
            }
        }
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Node::Bool(value) => Some(*value),
            _ => {
                self.wrong_type(name, "true or false");
                None
            }
        }
    }

    /// A whole number in a range.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        match self.take(name)? {
            Node::Number(number) => match number.parse::<i64>() {
                Ok(value) if (min..=max).contains(&value) => Some(value),
                Err(_) if !number.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                    self.wrong_type(name, "a whole number");
                    None
                }
                _ => {
                    self.fault(name, "out_of_range", format!("must be {min} to {max}"));
                    None
                }
            },
            _ => {
                self.wrong_type(name, "a whole number");
                None
            }
        }
    }

    /// An exact decimal of at most four places in a range.
    pub fn decimal(&mut self, name: &str, min: Decimal4, max: Decimal4) -> Option<Decimal4> {
        match self.take(name)? {
            Node::Number(number) => match Decimal4::parse_in(number, &(min..=max)) {
                Ok(value) => Some(value),
                Err(_) => {
                    self.fault(name, "out_of_range", format!("must be {min} to {max}"));
                    None
                }
            },
            _ => {
                self.wrong_type(name, "a number");
                None
            }
        }
    }

    /// A finite number in a range.
    pub fn float(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        match self.take(name)? {
            Node::Number(number) => match number.parse::<f64>() {
                Ok(value) if value.is_finite() && (min..=max).contains(&value) => Some(value),
                _ => {
                    self.fault(name, "out_of_range", format!("must be {min} to {max}"));
                    None
                }
            },
            _ => {
                self.wrong_type(name, "a number");
                None
            }
        }
    }

    /// A list of strings.
    pub fn strings(&mut self, name: &str, max_items: usize) -> Option<Vec<&'n str>> {
        let node = self.take(name)?;
        let Node::Array(items) = node else {
            self.wrong_type(name, "a list of strings");
            return None;
        };
        if items.len() > max_items {
            self.fault(
                name,
                "too_long",
                format!("must have at most {max_items} entries"),
            );
            return None;
        }
        let texts: Option<Vec<&str>> = items
            .iter()
            .map(|item| {
                if let Node::String(text) = item {
                    Some(text.as_ref())
                } else {
                    None
                }
            })
            .collect();
        if texts.is_none() {
            self.wrong_type(name, "a list of strings");
        }
        texts
    }

    /// An object of at most 16 KiB and 16 levels, as its JSON text.
    pub fn object(&mut self, name: &str) -> Option<&'a str> {
        match self.take(name)? {
            Node::Object(_, raw) => match podium_domain::experiment::check_object(raw) {
                Ok(()) => Some(raw),
                Err(fault) => {
                    self.fault(name, fault.code(), fault.to_string());
                    None
                }
            },
            _ => {
                self.wrong_type(name, "an object");
                None
            }
        }
    }

    /// Reports a required member that is missing; a member with another fault is not reported twice.
    pub fn require<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        if value.is_none()
            && !self
                .faults
                .iter()
                .any(|f| f.pointer == self.at(name).as_str())
        {
            self.fault(name, "required", "is required");
        }
        value
    }

    /// A reader of an inner object, whose text rules were checked with those of the whole body. Its pointers begin at the
    /// inner object; [`Fields::absorb`] puts them in their place.
    #[must_use]
    pub fn inner(node: &'n Node<'a>) -> Self {
        Self::over(node, Pointer::root())
    }

    /// Takes over the faults of a reader of the member `name`.
    pub fn absorb(&mut self, name: &str, inner: Self) {
        if inner.both_spellings.is_some() {
            self.both_spellings = inner.both_spellings;
        }
        for fault in inner.faults.into_vec() {
            let pointer = format!("{}{}", self.at(name).as_str(), fault.pointer);
            if !self.faults.iter().any(|known| known.pointer == pointer) {
                self.faults.push(pointer, fault.code, fault.detail);
            }
        }
    }

    /// Reports every member that was not taken.
    pub fn refuse_unknown(&mut self) {
        for (at, (key, _)) in self.members.iter().enumerate() {
            if !self.taken.contains(at) {
                let pointer = self.pointer.member(key);
                self.faults.push(
                    pointer.as_str(),
                    "unknown_field",
                    "is not a field of this request",
                );
            }
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 400 when a member stood there in both spellings, 422 with every fault.
    pub fn finish(self) -> Result<(), ApiError> {
        if let Some(name) = self.both_spellings {
            return Err(Malformed::DuplicateKey(name).into());
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(self.faults))
        }
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

    #[test]
    fn takes_both_spellings_but_not_together() {
        assert!(
            spells("trafficWeight", "trafficWeight") && spells("traffic_weight", "trafficWeight")
        );
        assert!(
            !spells("traffic_Weight", "trafficWeight") && !spells("trafficweight", "trafficWeight")
        );
        let node = parse(b"{\"user_id\":\"a\",\"userId\":\"b\"}").unwrap();
        let mut fields = Fields::new(&node, Pointer::root());
        fields.string("userId", 1, 10);
        assert_eq!(fields.finish().unwrap_err().status(), 400);
    }

    #[test]
    fn reports_every_fault_at_once() {
        let node = parse(br#"{"a":"x\u0000","b":-1,"c":true,"extra":1}"#).unwrap();
        let mut fields = Fields::new(&node, Pointer::root());
        fields.string("a", 1, 10);
        fields.integer("b", 0, 5);
        fields.string("c", 1, 10);
        let d = fields.string("d", 1, 10);
        fields.require("d", d);
        fields.refuse_unknown();
        let faults = fields.finish().unwrap_err().field_errors();
        let found: Vec<(&str, &str)> = faults
            .iter()
            .map(|f| (f.pointer.as_str(), f.code))
            .collect();
        assert_eq!(
            found,
            [
                ("/a", "invalid_text"),
                ("/b", "out_of_range"),
                ("/c", "wrong_type"),
                ("/d", "required"),
                ("/extra", "unknown_field")
            ]
        );
    }
}
