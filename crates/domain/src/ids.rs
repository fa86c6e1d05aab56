//! Numeric ids, as checked newtypes.
//!
//! To add one, give it a `numeric_id!` block below.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// The text or number is not an id: ids are whole numbers from 1 to 2^63 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id between 1 and 9223372036854775807")]
pub struct NotAnId;

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name(i64);

        impl $name {
            /// The id `id`, when it is positive.
            #[must_use]
            pub const fn new(id: i64) -> Option<Self> {
                if id > 0 { Some(Self(id)) } else { None }
            }

            /// The number, at least 1.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = NotAnId;

            fn try_from(id: i64) -> Result<Self, NotAnId> {
                Self::new(id).ok_or(NotAnId)
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> i64 {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// Decimal digits only: no sign, no blanks.
        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse_digits(text).map(Self)
            }
        }
    };
}

fn parse_digits(text: &str) -> Result<i64, NotAnId> {
    // The standard parser would take a leading plus sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAnId);
    }
    let id: NonZeroU64 = text.parse().map_err(|_| NotAnId)?;
    i64::try_from(id.get()).map_err(|_| NotAnId)
}

numeric_id! {
    /// An experiment.
    ExperimentId
}
numeric_id! {
    /// A variant; unique over all experiments.
    VariantId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_numbers_are_ids() {
        assert_eq!(ExperimentId::new(0), None);
        assert_eq!(VariantId::new(-1), None);
        assert_eq!(ExperimentId::try_from(0), Err(NotAnId));
        assert_eq!(
            ExperimentId::new(i64::MAX).map(ExperimentId::get),
            Some(i64::MAX)
        );
    }

    #[test]
    fn ids_are_read_from_digits_alone() {
        assert_eq!("12".parse(), Ok(ExperimentId(12)));
        assert_eq!("007".parse(), Ok(VariantId(7)));
        assert_eq!("9223372036854775807".parse(), Ok(VariantId(i64::MAX)));
        for text in [
            "",
            "0",
            "+1",
            "-1",
            " 1",
            "1.0",
            "1e3",
            "9223372036854775808",
            "99999999999999999999999",
            "一",
        ] {
            assert_eq!(text.parse::<ExperimentId>(), Err(NotAnId), "{text:?}");
        }
    }

    #[test]
    fn json_holds_the_plain_number() {
        assert_eq!(serde_json::to_string(&ExperimentId(12)).unwrap(), "12");
        assert_eq!(
            serde_json::from_str::<VariantId>("31").unwrap(),
            VariantId(31)
        );
        assert!(serde_json::from_str::<VariantId>("0").is_err());
        assert!(serde_json::from_str::<VariantId>("\"1\"").is_err());
        assert_eq!(ExperimentId(12).to_string(), "12");
    }
}
