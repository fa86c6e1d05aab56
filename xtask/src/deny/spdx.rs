//! Licence expressions (SPDX specification, annex D): is there a choice of permitted licences?
//!
//! `/` counts as `OR`: that is how crates wrote it before they had to use SPDX.

use std::fmt;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A licence, an exception or `(` was expected here.
    MissingOperand,
    /// An opening parenthesis is not closed.
    Unclosed,
    /// This stands behind a complete expression.
    Trailing(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingOperand => write!(f, "a licence is missing"),
            Self::Unclosed => write!(f, "`(` is not closed"),
            Self::Trailing(word) => write!(f, "`{word}` is not expected"),
        }
    }
}

/// Whether the expression can be met with licences for which `permitted` holds.
///
/// `permitted` gets a licence's identifier, with its exception if it has one (`Apache-2.0 WITH LLVM-exception`).
/// `AND` binds tighter than `OR`.
///
/// # Errors
/// [`Malformed`] when it is no expression.
pub(super) fn evaluate(
    expression: &str,
    permitted: &dyn Fn(&str) -> bool,
) -> Result<bool, Malformed> {
    let mut parser = Parser {
        words: words(expression),
        permitted,
    };
    let result = parser.any_of()?;
    match parser.words.pop() {
        None => Ok(result),
        Some(word) => Err(Malformed::Trailing(word)),
    }
}

/// Recursive descent, one method for each level of precedence.
struct Parser<'a> {
    /// What is left, the next word last.
    words: Vec<String>,
    permitted: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn any_of(&mut self) -> Result<bool, Malformed> {
        let mut result = self.all_of()?;
        while self.take("OR") || self.take("/") {
            // Evaluated first: the words must be consumed even when the result is known.
            result = self.all_of()? || result;
        }
        Ok(result)
    }

    fn all_of(&mut self) -> Result<bool, Malformed> {
        let mut result = self.one()?;
        while self.take("AND") {
            result = self.one()? && result;
        }
        Ok(result)
    }

    fn one(&mut self) -> Result<bool, Malformed> {
        if self.take("(") {
            let result = self.any_of()?;
            return if self.take(")") {
                Ok(result)
            } else {
                Err(Malformed::Unclosed)
            };
        }
        let mut licence = self.identifier()?;
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.identifier()?);
        }
        Ok((self.permitted)(&licence))
    }

    fn identifier(&mut self) -> Result<String, Malformed> {
        let is_identifier = |word: &String| {
            !["(", ")", "/", "AND", "OR", "WITH"].contains(&operator(word).as_str())
        };
        self.words
            .pop_if(|word| is_identifier(word))
            .ok_or(Malformed::MissingOperand)
    }

    fn take(&mut self, expected: &str) -> bool {
        self.words
            .pop_if(|word| operator(word) == expected)
            .is_some()
    }
}

/// Operators may be written in upper or in lower case.
fn operator(word: &str) -> String {
    word.to_ascii_uppercase()
}

/// The words of an expression, the first one last.
fn words(expression: &str) -> Vec<String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " / ");
    spaced.split_whitespace().rev().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        evaluate(expression, &|licence| {
            ["MIT", "Apache-2.0", "ISC"].contains(&licence)
        })
        .unwrap()
    }

    #[test]
    fn one_permitted_choice_is_enough() {
        assert!(met("MIT"));
        assert!(met("GPL-3.0-only OR MIT"));
        assert!(met("MIT OR Apache-2.0 OR LGPL-2.1-or-later"));
        assert!(!met("GPL-3.0-only"));
        assert!(!met("GPL-2.0-only OR GPL-3.0-only"));
    }

    #[test]
    fn every_part_of_a_conjunction_is_needed() {
        assert!(met("Apache-2.0 AND ISC"));
        assert!(!met("Apache-2.0 AND OpenSSL"));
        assert!(met("ISC AND (Apache-2.0 OR ISC) AND (Apache-2.0 OR MIT-0)"));
        assert!(!met("ISC AND (MIT-0 OR OpenSSL)"));
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(met("MIT OR GPL-3.0-only AND GPL-2.0-only"));
        assert!(met("GPL-3.0-only AND GPL-2.0-only OR MIT"));
        assert!(!met("(MIT OR GPL-3.0-only) AND GPL-2.0-only"));
    }

    #[test]
    fn an_exception_makes_another_licence() {
        assert!(!met("Apache-2.0 WITH LLVM-exception"));
        assert!(met("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
        let permitted = |licence: &str| licence == "Apache-2.0 WITH LLVM-exception";
        assert_eq!(
            evaluate("Apache-2.0 WITH LLVM-exception", &permitted),
            Ok(true)
        );
        assert_eq!(evaluate("Apache-2.0", &permitted), Ok(false));
    }

    #[test]
    fn a_later_version_is_another_licence() {
        assert!(!met("Apache-2.0+"));
    }

    #[test]
    fn old_spellings_are_read() {
        assert!(met("MIT/Apache-2.0"));
        assert!(met("Unlicense / MIT"));
        assert!(met("mit-0 or MIT"));
        assert!(!met("GPL-2.0/GPL-3.0"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let malformed = |text| evaluate(text, &|_| true).unwrap_err();
        assert_eq!(malformed(""), Malformed::MissingOperand);
        assert_eq!(malformed("MIT OR"), Malformed::MissingOperand);
        assert_eq!(malformed("AND MIT"), Malformed::MissingOperand);
        assert_eq!(malformed("()"), Malformed::MissingOperand);
        assert_eq!(malformed("(MIT"), Malformed::Unclosed);
        assert_eq!(malformed("MIT)"), Malformed::Trailing(")".into()));
        assert_eq!(
            malformed("MIT Apache-2.0"),
            Malformed::Trailing("Apache-2.0".into())
        );
    }
}
