//! Documents that hold one long list: read entry by entry, because a tree of them would take many times their size.

use podium_domain::fault::{Faults, Pointer, code};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Key, Malformed, Node, node, syntax};

/// Unknown members that are kept to be named.
const UNKNOWN: usize = 100;
/// Depth of an entry: document, list, entry.
const ENTRY_DEPTH: usize = 3;

/// The text of the list `name` in an object that has nothing else; its entries are not looked into yet. What else is wrong
/// is in the faults, and then there is no list.
///
/// # Errors
/// [`Malformed`].
pub fn list<'a>(body: &'a [u8], name: &'static str) -> Result<Result<&'a str, Faults>, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed::Syntax("invalid UTF-8".into()))?;
    // Also finds what is cut off, or followed by something.
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| syntax(&e))?;
    let mut faults = Faults::new();
    if !raw.get().starts_with('{') {
        faults.push("", code::WRONG_TYPE, "must be an object");
        return Ok(Err(faults));
    }
    let mut found = Found {
        name,
        list: None,
        unknown: Vec::new(),
        twice: None,
    };
    let read = serde_json::Deserializer::from_str(raw.get()).deserialize_map(&mut found);
    if let Some(name) = found.twice {
        return Err(Malformed::DuplicateKey(name));
    }
    read.map_err(|e| syntax(&e))?;
    for unknown in found.unknown {
        let pointer = Pointer::root().member(&unknown);
        faults.push(
            pointer,
            code::UNKNOWN_FIELD,
            "is not a field of this request",
        );
    }
    let pointer = Pointer::root().member(name);
    match found.list {
        Some(list) if list.starts_with('[') && faults.is_empty() => return Ok(Ok(list)),
        Some(list) if list.starts_with('[') => {}
        Some("null") | None => faults.push(pointer, code::REQUIRED, "is required"),
        Some(_) => faults.push(pointer, code::WRONG_TYPE, "must be a list"),
    }
    Ok(Err(faults))
}

/// Hands every entry of the list to `take` until that says `false`.
///
/// # Errors
/// [`Malformed`].
pub fn entries<'a>(
    list: &'a str,
    take: impl FnMut(usize, &Node<'a>) -> bool,
) -> Result<(), Malformed> {
    let mut stopped = None;
    let visit = Entries {
        take,
        stopped: &mut stopped,
    };
    let read = serde_json::Deserializer::from_str(list).deserialize_seq(visit);
    match stopped {
        Some(Stopped::Malformed(malformed)) => Err(malformed),
        Some(Stopped::Enough) => Ok(()),
        None => read.map_err(|e| syntax(&e)),
    }
}

struct Found<'a> {
    name: &'static str,
    list: Option<&'a str>,
    unknown: Vec<String>,
    twice: Option<String>,
}

impl<'a> Visitor<'a> for &mut Found<'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Key(key), value)) = map.next_entry::<Key<'a>, &RawValue>()? {
            let twice = if key == self.name {
                self.list.replace(value.get()).is_some()
            } else {
                let known = self.unknown.iter().any(|name| *name == key);
                if !known && self.unknown.len() < UNKNOWN {
                    self.unknown.push(key.clone().into_owned());
                }
                known
            };
            if twice {
                self.twice = Some(key.into_owned());
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

enum Stopped {
    Malformed(Malformed),
    Enough,
}

struct Entries<'s, F> {
    take: F,
    stopped: &'s mut Option<Stopped>,
}

impl<'a, F: FnMut(usize, &Node<'a>) -> bool> Visitor<'a> for Entries<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(entry) = seq.next_element::<&RawValue>()? {
            let stop = match node(entry.get(), ENTRY_DEPTH) {
                Ok(node) if (self.take)(index, &node) => None,
                Ok(_) => Some(Stopped::Enough),
                Err(malformed) => Some(Stopped::Malformed(malformed)),
            };
            if stop.is_some() {
                *self.stopped = stop;
                return Err(serde::de::Error::custom("stopped"));
            }
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries_of(body: &str) -> Result<Vec<(usize, String)>, Malformed> {
        let list = list(body.as_bytes(), "list")?.unwrap();
        let mut seen = Vec::new();
        entries(list, |at, node| {
            seen.push((at, format!("{node:?}")));
            true
        })?;
        Ok(seen)
    }

    fn faults_of(body: &str) -> Vec<(String, &'static str)> {
        let faults = list(body.as_bytes(), "list").unwrap().unwrap_err();
        faults.iter().map(|f| (f.pointer.clone(), f.code)).collect()
    }

    #[test]
    fn entries_come_one_by_one_until_enough() {
        let body = r#" {"list": [1, {"a": "b"}, null]} "#;
        let seen = entries_of(body).unwrap();
        assert_eq!(seen[0], (0, "Number(\"1\")".to_owned()));
        assert_eq!((seen.len(), seen[2].1.as_str()), (3, "Null"));
        assert_eq!(entries_of(r#"{"list": []}"#).unwrap(), []);
        let list = list(body.as_bytes(), "list").unwrap().unwrap();
        let mut count = 0;
        entries(list, |_, _| {
            count += 1;
            count < 2
        })
        .unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn the_document_is_as_strict_as_others() {
        for body in [
            "",
            "{",
            "[1",
            r#"{"list": [1,]}"#,
            r#"{"list": []} {}"#,
            r#"{"list": [01]}"#,
        ] {
            let read = list(body.as_bytes(), "list");
            assert!(matches!(read, Err(Malformed::Syntax(_))), "{body}");
        }
        assert!(list(b"{\"list\": [\"\xff\"]}", "list").is_err());
        for body in [
            r#"{"list": [], "list": []}"#,
            r#"{"x": 1, "\u0078": 1, "list": []}"#,
        ] {
            let read = list(body.as_bytes(), "list");
            assert!(matches!(read, Err(Malformed::DuplicateKey(_))), "{body}");
        }
        let twice = entries_of(r#"{"list": [{"a": 1, "a": 2}]}"#);
        assert_eq!(twice, Err(Malformed::DuplicateKey("a".into())));
        let deep = format!(r#"{{"list": [{}{}]}}"#, "[".repeat(31), "]".repeat(31));
        assert_eq!(entries_of(&deep), Err(Malformed::TooDeep));
    }

    #[test]
    fn what_is_missing_wrong_or_unknown_is_named() {
        assert_eq!(faults_of("[]"), [(String::new(), "wrong_type")]);
        assert_eq!(faults_of("{}"), [("/list".into(), "required")]);
        assert_eq!(
            faults_of(r#"{"list": null}"#),
            [("/list".into(), "required")]
        );
        assert_eq!(
            faults_of(r#"{"a/b": 1, "list": {}}"#),
            [
                ("/a~1b".into(), "unknown_field"),
                ("/list".into(), "wrong_type")
            ]
        );
    }
}
