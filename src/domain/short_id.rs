//! The beginning of a request's id, which people type instead of the whole id.

use std::str::FromStr;

use super::{Invalid, Millis, RequestId, Timestamp};

/// At least four hexadecimal digits; hyphens do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortId(String);

const LEAST: usize = 4;
/// The digits of an id that tell when it was drawn, in milliseconds.
const DIGITS_OF_TIME: usize = 12;
/// The end of the year 9999, the last time that jit can write.
const LAST: i64 = 253_402_300_799_999;
/// A request is created soon after its id was drawn.
const SOON: Millis = Millis::seconds(5);

impl FromStr for ShortId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rule = Invalid("must be a request id, or its first 4 or more digits, as in 01a1fd36");
        let is_like_one = |c: char| c.is_ascii_hexdigit() || c == '-';
        if !text.chars().all(is_like_one) {
            return Err(rule);
        }
        let digits = text.replace('-', "").to_lowercase();
        match (LEAST..=32).contains(&digits.len()) {
            true => Ok(Self(digits)),
            false => Err(rule),
        }
    }
}

impl ShortId {
    pub fn begins(&self, id: RequestId) -> bool {
        id.to_string().replace('-', "").starts_with(&self.0)
    }

    /// The times between which a request with such an id was created.
    pub fn created_between(&self) -> (Timestamp, Timestamp) {
        let known = self.0.len().min(DIGITS_OF_TIME);
        let open = 4 * (DIGITS_OF_TIME - known);
        let first = i64::from_str_radix(&self.0[..known], 16).unwrap_or(0) << open;
        let last = first + (1 << open);
        let time = |millis: i64| Timestamp::from_millis(millis.min(LAST - SOON.0));
        (time(first), time(last) + SOON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str) -> Result<ShortId, Invalid> {
        text.parse()
    }

    // H4
    #[test]
    fn a_short_id_is_the_beginning_of_an_id_and_tells_its_time() {
        let id: RequestId = "01a1fd36-48a0-790d-8297-f43722aa0cb8".parse().unwrap();
        let drawn = Timestamp::from_millis(0x01a1_fd36_48a0);
        for text in [
            "01a1",
            "01A1FD36",
            "01a1fd36-48a0",
            "01a1fd3648a0790d",
            "01a1fd36-48a0-790d-8297-f43722aa0cb8",
        ] {
            let short = short(text).unwrap();
            assert!(short.begins(id), "{text}");
            let (first, last) = short.created_between();
            assert!(first <= drawn && drawn < last, "{text}");
        }
        assert!(!short("01a1fd37").unwrap().begins(id));
        let (first, last) = short("01a1fd37").unwrap().created_between();
        assert!(first > drawn && last - first == Millis(0x1_0000 + SOON.0));
        for wrong in ["", "01a", "0-1-a", "zzzz", "ID", "01a1 fd36"] {
            assert!(short(wrong).is_err(), "{wrong}");
        }
        let (first, last) = short("ffff").unwrap().created_between();
        assert!(first <= last && last.to_string().starts_with("9999"));
    }
}
