//! One log event is one line. Text from callers can contain a line break or other control
//! characters, which would forge a line: in the text format they are escaped, and a long line is
//! clipped. In the JSON format the values are escaped already.

use std::io::{self, Write};

/// The longest line in the text format, in bytes.
const LONGEST: usize = 8 * 1024;

/// Writes each event, which comes as one buffer, as one line.
pub struct TextLine<W> {
    writer: W,
    /// The formatter writes escape characters only for colours, and escapes those in values.
    colours: bool,
}

impl<W: Write> TextLine<W> {
    pub fn new(writer: W, colours: bool) -> Self {
        Self { writer, colours }
    }

    fn one_line(&self, event: &[u8]) -> String {
        let event = String::from_utf8_lossy(event);
        let text = event.strip_suffix('\n').unwrap_or(&event);
        let end = text.floor_char_boundary(LONGEST);
        let mut line = String::with_capacity(end + 1);
        for letter in text[..end].chars() {
            match letter {
                '\u{1b}' if self.colours => line.push(letter),
                _ if is_odd(letter) => line.extend(letter.escape_default()),
                _ => line.push(letter),
            }
        }
        if end < text.len() {
            line.push_str(&format!("… ({} bytes more)", text.len() - end));
        }
        line.push('\n');
        line
    }
}

/// Control characters, and characters that change the direction of the text.
fn is_odd(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl<W: Write> Write for TextLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.writer.write_all(self.one_line(event).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &str, colours: bool) -> String {
        let mut lines = Vec::new();
        let mut line = TextLine::new(&mut lines, colours);
        line.write_all(event.as_bytes()).unwrap();
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a5_text_from_a_caller_cannot_forge_a_line_of_the_log() {
        let forged = "refused path=/a\nINFO all is well\r\u{202e}\u{1b}[2J\n";
        let line = written(forged, false);
        assert_eq!(
            line,
            "refused path=/a\\nINFO all is well\\r\\u{202e}\\u{1b}[2J\n"
        );
        assert_eq!(
            written("\u{1b}[32mINFO\u{1b}[0m é\n", true),
            "\u{1b}[32mINFO\u{1b}[0m é\n"
        );
    }

    #[test]
    fn a5_a_long_line_of_the_log_is_clipped() {
        let line = written(&"é".repeat(LONGEST), false);
        assert!(line.len() < LONGEST + 50, "{}", line.len());
        assert!(
            line.ends_with(&format!("({LONGEST} bytes more)\n")),
            "{line}"
        );
    }
}
