//! Escapes texts of people, so that Mattermost shows them as plain text.

use crate::domain::RequestId;
pub use crate::domain::counted;

/// Invisible; it separates what Mattermost would take together.
const BREAK: char = '\u{200b}';

/// Marks that change the direction of text: a text could look like another text.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// On one line, without mentions, links, tags, pictures, table cells and marks of direction.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // The zero-width space prevents a mention, a channel link or an emoji.
            '@' | '~' | ':' => plain.extend([c, BREAK]),
            // Mattermost makes a tag also of an escaped `#`.
            '#' => plain.extend(['\\', c, BREAK]),
            // Mattermost makes a link of a word that begins with `www.` or `www1.` to `www999.`.
            '.' if ends_with_www(&plain) => plain.extend([BREAK, c]),
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '<' | '>' | '|' | '!' | '+' | '-'
            | '=' | '{' | '}' | '$' | '&' => plain.extend(['\\', c]),
            c if turns_text(c) => {}
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

fn ends_with_www(text: &str) -> bool {
    let name = text.trim_end_matches(|c: char| c.is_ascii_digit());
    if text.len() - name.len() > 3 {
        return false;
    }
    let last = name.get(name.len().saturating_sub(3)..);
    last.is_some_and(|last| last.eq_ignore_ascii_case("www"))
}

/// For a command between backticks, cut to at most so many characters.
pub fn code(text: &str, most: usize) -> String {
    let shown = text.chars().filter(|c| !turns_text(*c)).map(|c| match c {
        '`' => '\'',
        c if c.is_control() => ' ',
        c => c,
    });
    let all: Vec<char> = shown.collect();
    match all.len() > most {
        true => all
            .iter()
            .take(most.saturating_sub(1))
            .chain(['…'].iter())
            .collect(),
        false => all.iter().collect(),
    }
}

/// `1 more minute`, `2 more minutes`.
pub fn more_minutes(minutes: u32) -> String {
    counted(minutes, "more minute")
}

/// `1 minute`, `2 minutes`.
pub fn counted_minutes(minutes: u32) -> String {
    counted(minutes, "minute")
}

/// The same, cut to at most so many characters.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return plain(text);
    }
    let cut: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", plain(&cut))
}

/// The length of a short id: it differs for requests from different milliseconds.
const SHORT_ID: usize = 13;

pub fn short_id(id: RequestId) -> String {
    id.to_string().chars().take(SHORT_ID).collect()
}

/// A stored time in the format for people.
pub fn moment(time: &str) -> String {
    match time.get(..16) {
        Some(minute) => format!("{} UTC", minute.replace('T', " ")),
        None => plain(time),
    }
}

/// The begin and the end, with seconds if both are in the same minute.
pub fn span(from: &str, to: &str) -> String {
    let second = |time: &str| time.get(..19).map(|time| time.replace('T', " "));
    match (second(from), second(to)) {
        (Some(from), Some(to)) if from.get(..16) == to.get(..16) => {
            format!("{from} UTC to {to} UTC")
        }
        _ => format!("{} to {}", moment(from), moment(to)),
    }
}

/// A message without its Markdown, for the errors of a dialog: Mattermost shows them as they are.
pub fn unmarked(message: &str) -> String {
    let (mut shown, mut is_code) = (String::with_capacity(message.len()), false);
    let mut chars = message.chars();
    while let Some(c) = chars.next() {
        match c {
            '`' => is_code = !is_code,
            c if is_code => shown.push(c),
            '\\' => shown.extend(chars.next()),
            '*' | BREAK => {}
            c => shown.push(c),
        }
    }
    shown.replace(":warning: ", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W12
    #[test]
    fn an_unmarked_message_has_the_words_without_escapes_and_emphasis() {
        let name = plain("a_b-c@example.com *x* [1]");
        let message = format!(":warning: **PENDING** {name}; type `/jit deny 01a1-2 \\x`");
        assert_eq!(
            unmarked(&message),
            "PENDING a_b-c@example.com *x* [1]; type /jit deny 01a1-2 \\x"
        );
    }

    #[test]
    fn plain_text_contains_no_active_markdown() {
        let text = plain("@all ~town ![x](https://evil/p.png)\n| a | `b` <b> #h1");
        for active in [
            "@all", "~town", "](", "https://", "\n", " | ", " `b", " <b", " #h",
        ] {
            assert!(!text.contains(active), "{active:?} in {text:?}");
        }
    }

    /// W2
    #[test]
    fn plain_text_contains_no_bare_link_no_tag_and_no_mark_of_direction() {
        let text = plain(
            "see WWW.evil.example and www.evil.example www1.evil.example WwW999.evil.example #incident \u{202e}nimda\u{2066}x\u{200f}",
        );
        for active in [
            "www.",
            "WWW.",
            "www1.",
            "WwW999.",
            "#incident",
            "\u{202e}",
            "\u{2066}",
            "\u{200f}",
        ] {
            assert!(!text.contains(active), "{active:?} in {text:?}");
        }
        assert!(text.contains("nimda"), "{text}");
    }

    #[test]
    fn a_text_that_is_too_long_ends_with_an_ellipsis() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
    }
}
