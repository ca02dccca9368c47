//! Escapes texts of people, so that Mattermost shows them as plain text.

use crate::domain::RequestId;

/// On one line, without mentions, links, pictures and table cells.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '@' | '~' | ':' => {
                plain.push(c);
                // The zero-width space prevents a mention, a channel link or an emoji.
                plain.push('\u{200b}');
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '<' | '>' | '#' | '|' | '!' | '+'
            | '-' | '=' | '{' | '}' | '$' | '&' => {
                plain.push('\\');
                plain.push(c);
            }
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_contains_no_active_markdown() {
        let text = plain("@all ~town ![x](https://evil/p.png)\n| a | `b` <b> #h1");
        for active in [
            "@all", "~town", "](", "https://", "\n", " | ", " `b", " <b", " #h",
        ] {
            assert!(!text.contains(active), "{active:?} in {text:?}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_ends_with_an_ellipsis() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
    }
}
