//! Points in time as activities carry them: RFC 3339 outside, microseconds inside.
//!
//! Invariant: a [`Timestamp`] lies in the years 1 to 9999, so that it always has an RFC 3339 form. Offsets are
//! normalised to UTC and digits beyond the microsecond are cut, which is what the stores keep.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// It is not laid out as RFC 3339 asks.
    #[error("expected an RFC 3339 timestamp such as 2013-01-01T10:17:00Z, found {found:?}")]
    Layout {
        /// The text, shortened.
        found: String,
    },
    /// It has the layout, but there is no such time.
    #[error("there is no such time as {found:?}")]
    NoSuchTime {
        /// The text, shortened.
        found: String,
    },
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// From microseconds since the epoch, or `None` outside of the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    /// From milliseconds since the epoch, as records carry them.
    pub fn from_millis(millis: i64) -> Option<Self> {
        Self::from_micros(millis.checked_mul(1000)?)
    }

    /// Now, by the system's clock.
    pub fn now() -> Self {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Microseconds since the epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads `2013-01-01T10:17:00Z`, with a fraction and an offset where given.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let found = || text.chars().take(40).collect::<String>();
        let fields =
            Fields::read(text.as_bytes()).ok_or_else(|| TimestampError::Layout { found: found() })?;
        fields
            .micros()
            .and_then(Self::from_micros)
            .ok_or_else(|| TimestampError::NoSuchTime { found: found() })
    }
}

/// The numbers of `YYYY-MM-DDThh:mm:ss[.f…](Z|±hh:mm)`, not yet known to be a time.
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    offset_minutes: i64,
    offset_is_time: bool,
}

impl Fields {
    /// `None` unless the text has RFC 3339's layout.
    fn read(text: &[u8]) -> Option<Self> {
        let (date_time, rest) = text.split_at_checked(19)?;
        let fits = date_time.iter().zip(b"dddd-dd-ddTdd:dd:dd").all(|(found, expected)| match expected {
            b'd' => found.is_ascii_digit(),
            b'T' => matches!(found, b'T' | b't'),
            other => found == other,
        });
        if !fits {
            return None;
        }
        let (micros, rest) = match rest {
            [b'.', fraction @ ..] => {
                let (digits, rest) =
                    fraction.split_at(fraction.iter().take_while(|byte| byte.is_ascii_digit()).count());
                if digits.is_empty() {
                    return None;
                }
                (number(&digits[..digits.len().min(6)]) * 10_i64.pow(6 - digits.len().min(6) as u32), rest)
            }
            rest => (0, rest),
        };
        let (offset_minutes, offset_is_time) = match rest {
            [b'Z' | b'z'] => (0, true),
            [sign @ (b'+' | b'-'), zone @ ..] => {
                let [h1, h2, b':', m1, m2] = zone else { return None };
                if ![h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                let (hours, minutes) = (number(&zone[..2]), number(&zone[3..]));
                let offset = hours * 60 + minutes;
                (if *sign == b'-' { -offset } else { offset }, hours < 24 && minutes < 60)
            }
            _ => return None,
        };
        let at = |from: usize, to: usize| number(&date_time[from..to]);
        Some(Self {
            year: at(0, 4),
            month: at(5, 7),
            day: at(8, 10),
            hour: at(11, 13),
            minute: at(14, 16),
            second: at(17, 19),
            micros,
            offset_minutes,
            offset_is_time,
        })
    }

    /// Microseconds since the epoch, or `None` if there is no such day or time of day. A leap second counts as the one before it.
    fn micros(&self) -> Option<i64> {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let days = match self.month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        let day_ok = (1..=days).contains(&self.day);
        let time_ok = self.hour < 24 && self.minute < 60 && self.second <= 60;
        if !day_ok || !time_ok || !self.offset_is_time {
            return None;
        }
        let minutes = (days_from_civil(self.year, self.month, self.day) * 24 + self.hour) * 60 + self.minute;
        Some(((minutes - self.offset_minutes) * 60 + self.second.min(59)) * 1_000_000 + self.micros)
    }
}

fn number(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar. Years start in March here, so that the leap day is the
/// last of its year.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Year, month and day, the other way round.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 86_400_000_000;
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY));
        let micros = self.0.rem_euclid(DAY);
        let seconds = micros / 1_000_000;
        let mut text = *b"0000-00-00T00:00:00";
        let fields = [(0, 4, year), (5, 7, month), (8, 10, day)];
        let time = [(11, 13, seconds / 3600), (14, 16, seconds / 60 % 60), (17, 19, seconds % 60)];
        for (from, to, mut value) in fields.into_iter().chain(time) {
            for digit in text[from..to].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)?;
        match micros % 1_000_000 {
            0 => {}
            fraction => f.write_str(format!(".{fraction:06}").trim_end_matches('0'))?,
        }
        f.write_str("Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 timestamp")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = Timestamp::parse(text).map_or_else(|error| error.to_string(), |time| time.to_string());
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn reads_rfc_3339() {
        check("2013-01-01T10:17:00Z", "2013-01-01T10:17:00Z");
        check("2013-01-01t05:17:00.5-05:00", "2013-01-01T10:17:00.5Z");
        check("2013-01-01T10:17:00.123456789Z", "2013-01-01T10:17:00.123456Z");
        check("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z");
        check("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z");
        check("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z");
        check("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "now",
            "2013-01-01",
            "2013-01-01T10:17Z",
            "2013-01-01 10:17:00Z",
            "2013-01-01T10:17:00",
            "2013-01-01T10:17:00.Z",
            "2013-01-01T10:17:00Z[UTC]",
            "2013-01-01T10:17:00+0500",
            "+02013-01-01T10:17:00Z",
            "1357035420",
            "２013-01-01T10:17:00Z",
        ] {
            assert!(matches!(Timestamp::parse(bad), Err(TimestampError::Layout { .. })), "{bad}");
        }
        for bad in [
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "2013-01-01T00:00:00+99:00",
        ] {
            assert!(matches!(Timestamp::parse(bad), Err(TimestampError::NoSuchTime { .. })), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn shown_and_read_is_the_same(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let time = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn agrees_with_another_calendar(seconds in -62_135_596_800_i64..=253_402_207_200) {
            let time = Timestamp::from_micros(seconds * 1_000_000).unwrap();
            let other = jiff::Timestamp::from_second(seconds).unwrap();
            prop_assert_eq!(time.to_string(), other.to_string());
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
