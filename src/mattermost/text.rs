//! Words of people, put where Mattermost would make something of them: it must not.

use crate::domain::RequestId;

/// On one line, mentioning nobody, linking nowhere, showing no picture, breaking no table.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '@' | '~' | ':' => {
                plain.push(c);
                // Whatever begins here does not.
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

/// The same, and no longer than what fits beside other things.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return plain(text);
    }
    let cut: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", plain(&cut))
}

/// So much of an id tells two requests apart that were not made in one millisecond.
const SHORT_ID: usize = 13;

pub fn short_id(id: RequestId) -> String {
    id.to_string().chars().take(SHORT_ID).collect()
}

/// A time as it is stored, as a person reads it.
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
    fn nothing_is_made_of_it() {
        let text = plain("@all ~town ![x](https://evil/p.png)\n| a | `b` <b> #h1");
        for active in [
            "@all", "~town", "](", "https://", "\n", " | ", " `b", " <b", " #h",
        ] {
            assert!(!text.contains(active), "{active:?} in {text:?}");
        }
    }

    #[test]
    fn what_is_too_long_says_so() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
    }
}
