//! Characters of a text that change how a terminal or a chat shows the text.

/// Whether the character changes the direction in which text is shown.
pub fn is_direction_mark(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Whether a text from outside may not show the character: it is a control character, a separator
/// of lines or paragraphs, or a mark of direction.
pub fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_direction_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a5_marks_of_direction_are_odd() {
        for c in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202e}', '\u{2066}'] {
            assert!(is_odd(c), "{c:?}");
        }
        assert!(is_odd('\u{1b}') && is_odd('\u{2028}'));
        assert!(!is_odd('é') && !is_odd('…'));
    }
}
