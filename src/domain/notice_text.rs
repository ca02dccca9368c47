//! Texts of people in the details of a webhook. A plugin posts them as Markdown, so they carry no
//! active mention, link, picture or direction mark. Ordinary text stays as it is.

use super::marks::{is_direction_mark, is_odd};

/// Prevents that Mattermost reads a mention or an address in the text.
const BREAK: char = '\u{200b}';

/// The text without what Mattermost acts on.
pub fn inactive(text: &str) -> String {
    let mut inactive = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let is_word_before = before.is_some_and(char::is_alphanumeric);
        let after = rest.as_str();
        match c {
            c if is_direction_mark(c) => continue,
            c if is_odd(c) => inactive.push(' '),
            // The `@` of an e-mail address follows a letter or a number, and is no mention.
            '@' | '~' if !is_word_before && after.starts_with(char::is_alphanumeric) => {
                inactive.extend([c, BREAK]);
            }
            // Mattermost makes a tag of a word that begins with `#` and a letter.
            '#' if after.starts_with(char::is_alphabetic) => inactive.extend([c, BREAK]),
            ':' if after.starts_with("//") => inactive.extend([c, BREAK]),
            ']' if after.starts_with(['(', '[', ':']) => inactive.extend([c, BREAK]),
            '<' if after.starts_with(|next: char| next.is_alphabetic() || next == '!') => {
                inactive.extend([c, BREAK]);
            }
            'w' | 'W' if !is_word_before && begins_address(after) => inactive.extend([c, BREAK]),
            c => inactive.push(c),
        }
        before = Some(c);
    }
    inactive
}

/// Whether the text is the rest of `www.`, or of `www1.` to `www999.`.
fn begins_address(after: &str) -> bool {
    let Some((ww, rest)) = after.split_at_checked(2) else {
        return false;
    };
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    ww.eq_ignore_ascii_case("ww") && name.starts_with('.') && rest.len() - name.len() <= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    // N4
    #[test]
    fn an_active_text_is_inactive_and_ordinary_text_stays() {
        let raw = "@channel (@here) ~town https://evil.example [x](mailto:a) www.evil.example \
                   WWW12.evil.example #incident \
                   \u{202e}txt\u{2066} <b> a\nb";
        let shown = inactive(raw);
        for active in [
            "@channel",
            "@here",
            "~town",
            "://",
            "](",
            "www.",
            "WWW12.",
            "#incident",
            "\u{202e}",
            "\u{2066}",
            "<b",
            "\n",
        ] {
            assert!(!shown.contains(active), "{active:?} in {shown:?}");
        }
        for ordinary in [
            "INC-42: db down: need psql",
            "alice@example.com",
            "2026-01-02T03:04:05Z",
            "arn:aws:sso:::permissionSet/ssoins-1/ps-1",
            "50 % of (a | b) * c_d < 7, see runbooks/a.md #3",
            "日本語 ü",
        ] {
            assert_eq!(inactive(ordinary), ordinary);
        }
    }
}
