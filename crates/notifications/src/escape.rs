//! Text from outside, made harmless for the place where it is shown, and cut to fit.
//!
//! Lengths are characters, not bytes, as the services count.

use percent_encoding::percent_decode_str;

/// One line: control characters become spaces, and so does what turns the direction of the text that follows.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if is_control(c) { ' ' } else { c })
        .collect()
}

fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The beginning of a text, with an ellipsis where something is missing: at most `max` characters.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    joined(text.chars().map(Piece::Plain), max)
}

/// For Slack's `mrkdwn`: `&`, `<` and `>` as entities, so that no name can ping a channel, and look-alikes for the
/// characters that format. At most `max` characters; an entity is whole or not there.
#[must_use]
pub fn slack(text: &str, max: usize) -> String {
    let line = one_line(text);
    let mut before = None;
    let mut pieces = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let inside_word = before.is_some_and(char::is_alphanumeric)
            && rest
                .peek()
                .is_some_and(|next: &char| next.is_alphanumeric());
        pieces.push(match c {
            '&' => Piece::Entity("&amp;"),
            '<' => Piece::Entity("&lt;"),
            '>' => Piece::Entity("&gt;"),
            '*' => Piece::Plain('\u{2217}'),
            '~' => Piece::Plain('\u{223c}'),
            '`' => Piece::Plain('\u{2cb}'),
            // Only at the edge of a word does it format; inside it belongs to the name.
            '_' if !inside_word => Piece::Plain('\u{ff3f}'),
            other => Piece::Plain(other),
        });
        before = Some(c);
    }
    joined(pieces.into_iter(), max)
}

/// For HTML, in text and in quoted attributes.
#[must_use]
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if is_control(c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The beginning of somebody's answer for our logs: 500 bytes at most, no control characters, and nothing of what opens
/// the door there.
#[must_use]
pub fn redacted(answer: &[u8], secrets: &[&str]) -> String {
    const KEPT: usize = 500;
    let mut text = one_line(&String::from_utf8_lossy(answer));
    // Before it is cut, so that no half of a secret is left; the longest first, so that no part of one breaks the whole.
    let mut forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    for form in forms.iter().filter(|form| form.len() >= 4) {
        text = text.replace(form.as_str(), "***");
    }
    let mut end = text.len().min(KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A secret as JSON and URLs write it.
fn forms(secret: &str) -> [String; 4] {
    let decoded = percent_decode_str(secret).decode_utf8_lossy().into_owned();
    [
        secret.replace('/', "\\/"),
        decoded.replace('/', "\\/"),
        decoded,
        secret.to_owned(),
    ]
}

#[derive(Clone, Copy)]
enum Piece {
    Plain(char),
    Entity(&'static str),
}

impl Piece {
    const fn chars(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Entity(text) => text.len(),
        }
    }
}

fn joined(pieces: impl Iterator<Item = Piece> + Clone, max: usize) -> String {
    let whole: usize = pieces.clone().map(Piece::chars).sum();
    let room = if whole > max {
        max.saturating_sub(1)
    } else {
        max
    };
    let mut out = String::new();
    let mut used = 0;
    for piece in pieces {
        used += piece.chars();
        if used > room {
            break;
        }
        match piece {
            Piece::Plain(c) => out.push(c),
            Piece::Entity(text) => out.push_str(text),
        }
    }
    if whole > max && max > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_pings_a_channel_or_formats() {
        assert_eq!(slack("<!channel> & co", 99), "&lt;!channel&gt; &amp; co");
        assert_eq!(
            slack("*b* _i_ ~s~ `c` module_order", 99),
            "∗b∗ ＿i＿ ∼s∼ ˋcˋ module_order"
        );
        assert_eq!(slack("a\r\n> quote", 99), "a  &gt; quote");
        assert_eq!(one_line("a\u{202e}b\u{2066}c\u{2028}d"), "a b c d");
    }

    #[test]
    fn text_is_cut_by_characters_and_never_inside_an_entity() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(slack("ab<", 6), "ab&lt;");
        assert_eq!(slack("ab<c", 6), "ab…");
        assert_eq!(slack("ab<c", 7), "ab&lt;c");
        assert_eq!(cut("a", 0), "");
        for max in 0..40 {
            let text = slack("x<&>y<&>z", max);
            assert!(text.chars().count() <= max);
            assert_eq!(text.matches('&').count(), text.matches(';').count());
        }
    }

    #[test]
    fn html_holds_no_markup_of_others() {
        assert_eq!(
            html("</b><script>alert('\"&')\r</script>"),
            "&lt;/b&gt;&lt;script&gt;alert(&#39;&quot;&amp;&#39;) &lt;/script&gt;"
        );
    }

    #[test]
    fn an_answer_shows_neither_secrets_nor_control_characters() {
        let answer = b"no route /services/T1/B2/secret\r\n\x1b[31mred";
        assert_eq!(
            redacted(answer, &["/services/T1/B2/secret", ""]),
            "no route ***   [31mred"
        );
        assert_eq!(
            redacted(
                br"no \/services\/T1\/B2\/secret, /services/T1/B2/s%65cret, s%65cret",
                &["/services/T1/B2/s%65cret", "s%65cret"]
            ),
            "no ***, ***, ***"
        );
        assert_eq!(redacted("ü".repeat(400).as_bytes(), &[]).len(), 500);
        assert_eq!(redacted(&[0xff; 3], &[]), "\u{fffd}\u{fffd}\u{fffd}");
    }
}
