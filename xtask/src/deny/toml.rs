//! The part of TOML that `deny.toml` uses: tables, strings, lists, and inline tables of strings. Bare values (`true`)
//! are passed over. Anything else is refused with its line, so that no policy is silently ignored.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;
use std::vec::IntoIter;

/// An inline table, such as `{ crate = "rsa", reason = "…" }`.
pub(super) type Record = BTreeMap<String, String>;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A string or a bare word.
    Text(String),
    /// An inline table of strings.
    Record(Record),
    /// A list.
    List(Vec<Value>),
}

/// A document: `table.key` to value.
pub(super) type Document = BTreeMap<String, Value>;

/// The line (from 1) that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    line: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} cannot be read", self.line)
    }
}

/// Reads a document.
///
/// # Errors
/// [`SyntaxError`] for what is not TOML, and for TOML beyond the part described above.
pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    let mut reader = Reader {
        tokens: tokens(text)?.into_iter().peekable(),
        line: 1,
    };
    let mut document = Document::new();
    let mut table = String::new();
    while let Some(token) = reader.next() {
        match token {
            Token::Mark('[') => table = reader.table_name()?,
            Token::Word(key) | Token::Text(key) => {
                reader.expect('=')?;
                let value = reader.value()?;
                let name = if table.is_empty() {
                    key
                } else {
                    format!("{table}.{key}")
                };
                if document.insert(name, value).is_some() {
                    return Err(reader.error());
                }
            }
            _ => return Err(reader.error()),
        }
    }
    Ok(document)
}

#[derive(Debug, PartialEq)]
enum Token {
    /// One of `[ ] { } , =`.
    Mark(char),
    /// A key, a number, a boolean.
    Word(String),
    /// A basic or literal string without its quotes.
    Text(String),
}

/// The tokens with their lines. Line ends do not matter within what is supported, so there is no token for them.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut all = Vec::new();
    for (number, content) in text.lines().enumerate() {
        let line = number + 1;
        let mut rest = content.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (token, behind) = token(rest).ok_or(SyntaxError { line })?;
            all.push((line, token));
            rest = behind.trim_start();
        }
    }
    Ok(all)
}

/// The first token of a line that starts with one, and what stands behind it.
fn token(rest: &str) -> Option<(Token, &str)> {
    let first = rest.chars().next()?;
    match first {
        '[' | ']' | '{' | '}' | ',' | '=' => Some((Token::Mark(first), &rest[1..])),
        '"' | '\'' => {
            let (text, behind) = rest[1..].split_once(first)?;
            // Escapes and multi-line strings are beyond what the file needs.
            let plain = !text.contains('\\') && !behind.starts_with(first);
            plain.then(|| (Token::Text(text.to_owned()), behind))
        }
        _ => {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (end > 0).then(|| (Token::Word(rest[..end].to_owned()), &rest[end..]))
        }
    }
}

struct Reader {
    tokens: Peekable<IntoIter<(usize, Token)>>,
    line: usize,
}

impl Reader {
    fn next(&mut self) -> Option<Token> {
        let (line, token) = self.tokens.next()?;
        self.line = line;
        Some(token)
    }

    fn error(&self) -> SyntaxError {
        SyntaxError { line: self.line }
    }

    fn expect(&mut self, mark: char) -> Result<(), SyntaxError> {
        if self.next() == Some(Token::Mark(mark)) {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    /// Takes the mark if it is next.
    fn take(&mut self, mark: char) -> bool {
        let taken = self
            .tokens
            .next_if(|(_, token)| *token == Token::Mark(mark));
        taken.is_some()
    }

    fn word(&mut self) -> Result<String, SyntaxError> {
        match self.next() {
            Some(Token::Word(word) | Token::Text(word)) => Ok(word),
            _ => Err(self.error()),
        }
    }

    fn table_name(&mut self) -> Result<String, SyntaxError> {
        let name = self.word()?;
        self.expect(']')?;
        Ok(name)
    }

    fn value(&mut self) -> Result<Value, SyntaxError> {
        match self.next() {
            Some(Token::Text(text) | Token::Word(text)) => Ok(Value::Text(text)),
            Some(Token::Mark('[')) => self.list(),
            Some(Token::Mark('{')) => self.record(),
            _ => Err(self.error()),
        }
    }

    fn list(&mut self) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        while !self.take(']') {
            items.push(self.value()?);
            if !self.take(',') {
                self.expect(']')?;
                break;
            }
        }
        Ok(Value::List(items))
    }

    fn record(&mut self) -> Result<Value, SyntaxError> {
        let mut record = Record::new();
        while !self.take('}') {
            let key = self.word()?;
            self.expect('=')?;
            record.insert(key, self.word()?);
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        Ok(Value::Record(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn tables_strings_lists_and_inline_tables_are_read() {
        let document = parse(
            "top = 1\n[a] # why\nx = \"# no comment\"\ny = [\n  'one', # first\n  \"two\",\n]\n\
             [b.c]\nz = [{ crate = \"rsa\", reason = \"slow, odd\" }, {}]\nempty = []\n",
        )
        .unwrap();
        let rsa = Record::from([
            ("crate".into(), "rsa".into()),
            ("reason".into(), "slow, odd".into()),
        ]);
        let expected = [
            ("top", text("1")),
            ("a.x", text("# no comment")),
            ("a.y", Value::List(vec![text("one"), text("two")])),
            (
                "b.c.z",
                Value::List(vec![Value::Record(rsa), Value::Record(Record::new())]),
            ),
            ("b.c.empty", Value::List(vec![])),
        ];
        assert_eq!(
            document,
            expected.map(|(key, value)| (key.to_owned(), value)).into()
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_line() {
        let refused = [
            "a = \"\\n\"",
            "a = \"\"\"x\"\"\"",
            "[[a]]",
            "a = [1",
            "a = {b = [1]}",
            "a = \"x",
            "a",
            "a = 1\na = 2",
            "= 1",
            "a = ]",
        ];
        for text in refused {
            let last = text.lines().count();
            assert_eq!(parse(text), Err(SyntaxError { line: last }), "{text}");
        }
        assert_eq!(parse("a = 1\n\nb ~ 2\nc = 3"), Err(SyntaxError { line: 3 }));
    }
}
