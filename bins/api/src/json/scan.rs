//! A scanner for plain JSON: no escapes, no control characters, and no white space but spaces. Nearly everything that programs
//! write is plain, and takes a fraction of what the strict reader costs.
//!
//! Every step is `None` at the first thing that is not plain, be it wrong or only unusual. So whoever uses it may refuse at
//! will and leave the rest to the strict reader, but must never take what that would refuse or read otherwise.

/// Takes JSON apart from left to right.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of a body that may be plain.
    pub(crate) fn over(body: &'a [u8]) -> Option<Self> {
        if has_unusual_bytes(body) {
            return None;
        }
        let text = std::str::from_utf8(body).ok()?;
        Some(Self { text, at: 0 })
    }

    /// The next byte that is no space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while *bytes.get(self.at)? == b' ' {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// This byte, after spaces.
    pub(crate) fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Nothing but spaces any more.
    pub(crate) fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// A place to come back to with [`Self::since`].
    pub(crate) fn here(&self) -> usize {
        self.at
    }

    /// The text from a place to this one.
    pub(crate) fn since(&self, place: usize) -> Option<&'a str> {
        self.text.get(place..self.at)
    }

    /// An object; `member` reads the value of a key.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Option<()>,
    ) -> Option<()> {
        self.take(b'{')?;
        if self.peek()? == b'}' {
            return self.take(b'}');
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            member(self, key)?;
            if self.peek()? == b'}' {
                return self.take(b'}');
            }
            self.take(b',')?;
        }
    }

    /// An array; `item` reads a value.
    pub(crate) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.peek()? == b']' {
            return self.take(b']');
        }
        loop {
            item(self)?;
            if self.peek()? == b']' {
                return self.take(b']');
            }
            self.take(b',')?;
        }
    }

    /// A string, which ends at the next quote because there are no escapes.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let from = self.at;
        let length = memchr::memchr(b'"', self.text.as_bytes().get(from..)?)?;
        self.at = from + length + 1;
        self.text.get(from..from + length)
    }

    /// A number without an exponent. What follows it is not looked at.
    pub(crate) fn number(&mut self) -> Option<&'a str> {
        self.peek()?;
        let from = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        let is_zero = self.byte() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (is_zero && digits > 1) {
            return None;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        self.since(from)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes over digits and tells how many there were.
    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    /// This word, such as `null`. What follows it is not looked at.
    pub(crate) fn word(&mut self, word: &str) -> Option<()> {
        self.peek()?;
        self.text.get(self.at..)?.starts_with(word).then(|| {
            self.at += word.len();
        })
    }
}

/// Whether something must be looked at more closely: an escape, or a control character, be it in a string or a line break
/// between members. Looked for in one pass without an early end, which compilers turn into a few wide instructions.
fn has_unusual_bytes(body: &[u8]) -> bool {
    let unusual = |byte: u8| byte < b' ' || byte == b'\\' || byte == 0x7f;
    body.iter().fold(false, |any, byte| any | unusual(*byte))
}
