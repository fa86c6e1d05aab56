//! W3C Trace Context: the trace that a request belongs to.
//!
//! A valid `traceparent` is taken over, and its answer names our part of the trace in a `traceparent` of its own. Without
//! one the request begins a trace, whose id stands in the log; where the request has no id either, both are the same.

use std::fmt;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::ids;

/// The header's name.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A trace, and our place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 32],
    span: u64,
    parent: Option<u64>,
    sampled: bool,
}

impl Trace {
    /// The trace that the caller names; several headers or one that breaks the rules count as none.
    #[must_use]
    pub fn given(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT);
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// A trace of our own, under a request's id where that can serve as one.
    #[must_use]
    pub fn begun(request_id: &str) -> Self {
        let id = match request_id.as_bytes().try_into() {
            Ok(id) if is_id(&id) => id,
            _ => hex(ids::random() | 1),
        };
        Self {
            id,
            span: span(),
            parent: None,
            sampled: false,
        }
    }

    /// Version 00, and the same fields of later versions. W3C, Trace Context, 2021, section 3.2.
    fn parse(header: &[u8]) -> Option<Self> {
        let (fields, rest) = header.split_at_checked(55)?;
        let later = match fields.get(..3)? {
            b"00-" => false,
            b"ff-" => return None,
            [a, b, b'-'] if is_hex(&[*a, *b]) => true,
            _ => return None,
        };
        if !(rest.is_empty() || later && rest.starts_with(b"-")) {
            return None;
        }
        let id: [u8; 32] = fields.get(3..35)?.try_into().ok()?;
        let parent = fields.get(36..52)?;
        let flags = fields.get(53..55)?;
        let dashes = fields.get(35) == Some(&b'-') && fields.get(52) == Some(&b'-');
        if !(dashes && is_id(&id) && is_hex(parent) && is_hex(flags)) {
            return None;
        }
        let parent = u64::from_str_radix(std::str::from_utf8(parent).ok()?, 16).ok()?;
        if parent == 0 {
            return None;
        }
        let flags = u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()?;
        Some(Self {
            id,
            span: span(),
            parent: Some(parent),
            sampled: flags & 1 == 1,
        })
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Our place.
    #[must_use]
    pub const fn span(&self) -> u64 {
        self.span
    }

    /// The caller's place, where there is a caller.
    #[must_use]
    pub const fn parent(&self) -> Option<u64> {
        self.parent
    }

    /// Whether the caller wants the trace to be seen.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// `traceparent` that names our place.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{:016x}-{:02x}",
            self.id(),
            self.span,
            u8::from(self.sampled)
        )
    }
}

fn is_hex(text: &[u8]) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.iter().all(digit)
}

fn is_id(id: &[u8; 32]) -> bool {
    is_hex(id) && id.iter().any(|byte| *byte != b'0')
}

fn hex(id: u128) -> [u8; 32] {
    format!("{id:032x}")
        .as_bytes()
        .try_into()
        .unwrap_or([b'1'; 32])
}

/// Half of 128 random bits; never zero.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn span() -> u64 {
    ids::random() as u64 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn takes_over_what_is_valid() {
        for header in [
            format!("00-{ID}-00f067aa0ba902b7-01"),
            format!("cc-{ID}-00f067aa0ba902b7-01"),
            format!("cc-{ID}-00f067aa0ba902b7-01-what the future brings"),
        ] {
            let trace = Trace::parse(header.as_bytes()).unwrap();
            assert_eq!(trace.id(), ID);
            assert_eq!(trace.parent(), Some(0x00f0_67aa_0ba9_02b7));
            assert!(trace.is_sampled());
            let ours = trace.to_string();
            assert!(
                ours.starts_with(&format!("00-{ID}-")) && ours.ends_with("-01"),
                "{ours}"
            );
            assert_ne!(&ours[36..52], "00f067aa0ba902b7", "a place of our own");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for header in [
            String::new(),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("00-{ID}-00f067aa0ba902b7-0"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00_{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}_00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-zz"),
            format!("é0-{ID}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(Trace::parse(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn begins_under_the_id_of_the_request() {
        assert_eq!(Trace::begun(ID).id(), ID);
        let own = Trace::begun("order-7");
        assert_eq!(own.parent(), None);
        assert_eq!(
            Trace::parse(own.to_string().as_bytes()).unwrap().id(),
            own.id()
        );
    }
}
