//! Points in time and spans, in milliseconds.
//!
//! A time is written as RFC 3339 in UTC with exactly three decimals, so that the texts of two
//! times sort like the times.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

/// The last time that RFC 3339 can write with a four-digit year.
const LATEST: i64 = 253_402_300_799_999;

impl Timestamp {
    /// Clamped to the years 1970 to 9999, so that a very long span cannot overflow.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, LATEST))
    }

    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    pub fn millis(self) -> i64 {
        self.0
    }

    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads an RFC 3339 time with any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let millis = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (0..=LATEST).contains(&millis).then_some(Self(millis))
    }

    /// Reads a time, or a day as its first millisecond.
    pub fn parse_first(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Self::parse_date(text))
    }

    /// Reads a time or a day and returns the first millisecond after it: a day includes all its
    /// hours.
    pub fn parse_after(text: &str) -> Option<Self> {
        match Self::parse_date(text) {
            Some(day) => Some(day + Millis::DAY),
            None => Some(Self::parse(text)? + Millis(1)),
        }
    }

    /// Reads `YYYY-MM-DD` as the first millisecond of that day in UTC.
    fn parse_date(text: &str) -> Option<Self> {
        let format = time::macros::format_description!("[year]-[month]-[day]");
        let day = Date::parse(text, format).ok()?;
        let seconds = day.midnight().assume_utc().unix_timestamp();
        (seconds >= 0).then(|| Self::from_seconds(seconds))
    }
}

impl Millis {
    pub const ZERO: Self = Self(0);
    pub const DAY: Self = Self::hours(24);

    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn minutes(minutes: i64) -> Self {
        Self::seconds(minutes.saturating_mul(60))
    }

    pub const fn hours(hours: i64) -> Self {
        Self::minutes(hours.saturating_mul(60))
    }

    pub fn std(self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Millis) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_add(span.0))
    }
}

impl Sub<Timestamp> for Timestamp {
    type Output = Millis;
    fn sub(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Timestamp {
    /// The text of the time. A commit writes a dozen times, and the general formatting of the
    /// standard library would take as long as the hash of an event.
    fn digits(self) -> [u8; 24] {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |end: usize, width: usize, number: u32| {
            let mut rest = number;
            for digit in text[end - width..end].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        };
        put(4, 4, time.year().unsigned_abs());
        put(7, 2, u8::from(time.month()).into());
        put(10, 2, time.day().into());
        put(13, 2, time.hour().into());
        put(16, 2, time.minute().into());
        put(19, 2, time.second().into());
        put(23, 3, time.millisecond().into());
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

/// `1h 05m`, `12m 30s`, `45s`: the two largest units.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.max(0) / 1000;
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{rest}s"),
            (0, _) => write!(f, "{minutes}m {rest:02}s"),
            (hours, _) => write!(f, "{hours}h {minutes:02}m"),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = self.digits();
        serializer.serialize_str(std::str::from_utf8(&digits).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("expected an RFC 3339 time like 2026-01-15T10:00:00Z")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_back_from_its_text_and_texts_sort_like_times() {
        let time = Timestamp::from_millis(1_768_471_200_007);
        assert_eq!(time.to_string(), "2026-01-15T10:00:00.007Z");
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        assert_eq!(
            Timestamp::parse("2026-01-15T12:00:00+02:00"),
            Some(Timestamp::from_seconds(1_768_471_200))
        );
        assert!(time.to_string() > Timestamp::from_millis(1_768_471_200_000).to_string());
        // A prime step, so that every digit changes.
        for millis in (0..=LATEST).step_by(7_919_000_003) {
            let time = Timestamp::from_millis(millis);
            assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn a_time_plus_the_longest_span_is_clamped() {
        let latest = Timestamp::from_millis(i64::MAX);
        assert_eq!(latest + Millis(i64::MAX), latest);
        assert_eq!(latest.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_date_is_read_as_its_first_millisecond() {
        assert_eq!(
            Timestamp::parse_date("2026-01-15").map(|t| t.to_string()),
            Some("2026-01-15T00:00:00.000Z".into())
        );
        assert_eq!(Timestamp::parse_date("2026-13-01"), None);
    }

    #[test]
    fn a_day_includes_its_first_and_its_last_millisecond() {
        let told = |time: Option<Timestamp>| time.map(|time| time.to_string());
        for (text, first, after) in [
            (
                "2026-01-15",
                "2026-01-15T00:00:00.000Z",
                "2026-01-16T00:00:00.000Z",
            ),
            (
                "2026-01-15T10:00:00Z",
                "2026-01-15T10:00:00.000Z",
                "2026-01-15T10:00:00.001Z",
            ),
        ] {
            assert_eq!(told(Timestamp::parse_first(text)), Some(first.into()));
            assert_eq!(told(Timestamp::parse_after(text)), Some(after.into()));
        }
        assert_eq!(Timestamp::parse_first("soon"), None);
        assert_eq!(Timestamp::parse_after("soon"), None);
    }

    #[test]
    fn a_span_is_written_in_its_two_largest_units() {
        assert_eq!(Millis::seconds(45).to_string(), "45s");
        assert_eq!(Millis::seconds(750).to_string(), "12m 30s");
        assert_eq!(Millis::minutes(65).to_string(), "1h 05m");
    }
}
