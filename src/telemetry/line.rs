//! One log event is one line. Text from callers can contain a line break, an escape sequence of a
//! terminal or other odd characters, which would forge a line or change the screen: jit escapes
//! them in every format, and clips long lines.

use std::fmt;
use std::io::{self, Write};

use serde_json::Value;
use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;

use crate::domain::is_odd;

/// The longest line, in bytes.
const LONGEST: usize = 8 * 1024;
/// The longest texts in a JSON line that is too long: the first of them that makes it fit.
const CLIPPED_TEXTS: [usize; 3] = [1024, 256, 32];

/// Writes each event, which comes as one buffer, as one line.
pub struct TextLine<W> {
    writer: W,
    /// The formatter writes escape characters only for colours; `write_field` escapes those in
    /// values.
    colours: bool,
}

impl<W: Write> TextLine<W> {
    pub fn new(writer: W, colours: bool) -> Self {
        Self { writer, colours }
    }

    fn one_line(&self, event: &[u8]) -> String {
        let event = String::from_utf8_lossy(event);
        let text = event.strip_suffix('\n').unwrap_or(&event);
        let (kept, more) = clip(text, LONGEST);
        let mut line = String::with_capacity(kept.len() + 1);
        for letter in kept.chars() {
            match letter {
                '\u{1b}' if self.colours => line.push(letter),
                _ if is_odd(letter) => line.extend(letter.escape_default()),
                _ => line.push(letter),
            }
        }
        line.push_str(&more);
        line.push('\n');
        line
    }
}

/// Writes one field of an event for a terminal with colours, without the odd characters of its
/// value.
pub fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let name = field.name();
    // Where the `log` crate made the event.
    if name.starts_with("log.") {
        return Ok(());
    }
    if name != "message" {
        write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?;
    }
    for letter in format!("{value:?}").chars() {
        match is_odd(letter) {
            true => write!(writer, "{}", letter.escape_default())?,
            false => writer.write_char(letter)?,
        }
    }
    Ok(())
}

/// Writes each event, which comes as one buffer with one JSON object, as one line of JSON.
pub struct JsonLine<W> {
    writer: W,
}

impl<W: Write> JsonLine<W> {
    pub fn new(writer: W) -> Self {
        Self { writer }
    }

    fn one_line(event: &[u8]) -> String {
        let event = String::from_utf8_lossy(event);
        let text = event.strip_suffix('\n').unwrap_or(&event);
        let clipped = (text.len() > LONGEST).then(|| clipped_json(text));
        let text = clipped.as_deref().unwrap_or(text);
        let mut line = String::with_capacity(text.len() + 1);
        for letter in text.chars() {
            match is_odd(letter) {
                // Each odd character is one UTF-16 unit, so this is its escape in JSON.
                true => line.push_str(&format!("\\u{:04x}", u32::from(letter))),
                false => line.push(letter),
            }
        }
        line.push('\n');
        line
    }
}

/// Clips the texts of a JSON object, so that the object is shorter and still JSON.
fn clipped_json(text: &str) -> String {
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        return Value::String(clipped(text, LONGEST / 2)).to_string();
    };
    let mut line = String::new();
    for most in CLIPPED_TEXTS {
        let mut object = whole.clone();
        clip_texts(&mut object, most);
        line = object.to_string();
        if line.len() <= LONGEST {
            break;
        }
    }
    line
}

fn clip_texts(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => *text = clipped(text, most),
        Value::Array(values) => values.iter_mut().for_each(|value| clip_texts(value, most)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| clip_texts(value, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn clipped(text: &str, most: usize) -> String {
    let (kept, more) = clip(text, most);
    format!("{kept}{more}")
}

/// The beginning of a text, and a note about the rest.
fn clip(text: &str, most: usize) -> (&str, String) {
    let end = text.floor_char_boundary(most);
    let more = match text.len() - end {
        0 => String::new(),
        rest => format!("… ({rest} bytes more)"),
    };
    (&text[..end], more)
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

impl<W: Write> Write for JsonLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.writer.write_all(Self::one_line(event).as_bytes())?;
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

    fn json_line(event: &str) -> (String, Value) {
        let mut lines = Vec::new();
        JsonLine::new(&mut lines)
            .write_all(event.as_bytes())
            .unwrap();
        let line = String::from_utf8(lines).unwrap();
        let parsed = serde_json::from_str(&line).unwrap();
        (line, parsed)
    }

    #[test]
    fn a5_a_json_line_of_the_log_has_no_odd_characters_and_the_same_meaning() {
        let event =
            serde_json::json!({"path": "/a\nb\u{7f}\u{9b}2J\u{202e}\u{200f}", "message": "é"});
        let (line, parsed) = json_line(&format!("{event}\n"));
        assert!(!line.trim_end().contains(is_odd), "{line:?}");
        assert_eq!(parsed, event);
    }

    #[test]
    fn a5_a_long_json_line_of_the_log_is_clipped_and_still_json() {
        let long = "x".repeat(100_000);
        let event = serde_json::json!({"level": "WARN", "path": long, "fields": {"user": long}});
        let (line, parsed) = json_line(&event.to_string());
        assert!(line.len() <= LONGEST, "{}", line.len());
        assert_eq!(parsed["level"], "WARN");
        let path = parsed["path"].as_str().unwrap();
        assert!(path.ends_with("x… (98976 bytes more)"), "{path}");
        let (line, _) = json_line(&"x".repeat(100_000));
        assert!(line.len() <= LONGEST, "{}", line.len());
    }
}
