//! Reading the members of one object: typed, in either spelling, every fault collected.

use std::borrow::Cow;
use std::ops::Range;

use podium_domain::decimal::Decimal4;
use podium_domain::fault::{Faults, Pointer};
use podium_domain::text;

use super::{Malformed, Node, check_texts, may_hold_control_characters};
use crate::problem::ApiError;

/// Whether `key` spells the camelCase `name`, in camelCase or in snake_case.
#[must_use]
pub fn spells(key: &str, name: &str) -> bool {
    // Each member is compared with each name, and nearly all differ in their first letter or are too short.
    if key.len() < name.len() || key.as_bytes().first() != name.as_bytes().first() {
        return false;
    }
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

/// Where members begin with which letter. A request may have many names, few of which are there: a name is compared with
/// those members alone that it may be.
struct Letters {
    /// For each letter the places from the first member to behind the last one that begin with it.
    places: [Range<usize>; 32],
}

impl Letters {
    fn of(members: &[(Cow<'_, str>, Node<'_>)]) -> Self {
        let mut places = [const { 0..0 }; 32];
        for (at, (key, _)) in members.iter().enumerate() {
            if let Some(places) = places.get_mut(letter(key)) {
                let is_first = places.end == 0;
                *places = if is_first { at } else { places.start }..at + 1;
            }
        }
        Self { places }
    }

    /// Places of the members that `name` may be.
    fn places(&self, name: &str) -> Range<usize> {
        self.places.get(letter(name)).cloned().unwrap_or_default()
    }
}

/// A number below 32 for the first letter, which both spellings of a name share.
fn letter(name: &str) -> usize {
    name.bytes()
        .next()
        .map_or(0, |first| usize::from(first & 31))
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
    letters: Letters,
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
            letters: Letters::of(members),
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
        self.take_nullable(name)
            .filter(|node| !matches!(node, Node::Null))
    }

    /// The member, also when it is `null`.
    pub fn take_nullable(&mut self, name: &str) -> Option<&'n Node<'a>> {
        let mut found = None;
        for at in self.letters.places(name) {
            let Some((key, node)) = self.members.get(at) else {
                break;
            };
            let is_named = if self.camel_only {
                key == name
            } else {
                spells(key, name)
            };
            if is_named {
                if found.is_some() {
                    self.both_spellings = Some(name.to_owned());
                }
                self.taken.insert(at);
                found = Some(node);
            }
        }
        found
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
    use super::super::parse;
    use super::*;

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
