//! What one setting is: its Kafka name, type, default and limits, and how a text is checked against them.
//!
//! Owns the parsing of single values, so that the broker's own settings, topic configs of `CreateTopics` and
//! `IncrementalAlterConfigs` all answer a wrong value with the same words. Knows nothing about which settings exist.

use thiserror::Error;

/// Why a setting was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("unknown setting {key}: found \"{found}\"")]
    Unknown {
        /// The name as given.
        key: String,
        /// The value as given.
        found: String,
    },
    /// The value is not of the setting's type or out of its range.
    #[error("setting {key}: expected {expected}, found \"{found}\"")]
    Invalid {
        /// The setting's name.
        key: String,
        /// What would have been accepted.
        expected: String,
        /// The value as given.
        found: String,
    },
}

/// The type of a setting's value, with its limits (both inclusive).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    Int {
        min: i32,
        max: i32,
    },
    Long {
        min: i64,
        max: i64,
    },
    Double {
        min: f64,
        max: f64,
    },
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// A list that may be empty.
    AnyOf(&'static [&'static str]),
}

impl Kind {
    /// A number of at least `min`.
    pub(crate) const fn int(min: i32) -> Kind {
        Kind::Int { min, max: i32::MAX }
    }

    /// A 64-bit number of at least `min`.
    pub(crate) const fn long(min: i64) -> Kind {
        Kind::Long { min, max: i64::MAX }
    }

    /// The type's code in a DescribeConfigs answer (KIP-569).
    pub(crate) fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::OneOf(_) => 2,
            Kind::Int { .. } => 3,
            Kind::Long { .. } => 5,
            Kind::Double { .. } => 6,
            Kind::ListOf(_) | Kind::AnyOf(_) => 7,
        }
    }

    /// A value as Kafka describes it, however it was written: `0.1` for `1e-1`, `compact,delete` for `compact, delete`. A
    /// text that is no such value stays as it is.
    pub(crate) fn described(self, value: &str) -> String {
        let written = match self {
            Kind::Boolean => Some(value.to_ascii_lowercase()),
            Kind::Int { .. } | Kind::Long { .. } => {
                value.parse::<i64>().ok().map(|number| number.to_string())
            }
            Kind::Double { .. } => value.parse().ok().map(as_java_writes),
            Kind::OneOf(_) => None,
            Kind::ListOf(_) | Kind::AnyOf(_) => {
                let mut items: Vec<&str> = Vec::new();
                for item in value.split(',').map(str::trim) {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
                Some(items.join(","))
            }
        };
        written.unwrap_or_else(|| value.to_owned())
    }

    fn accepts(self, value: &str) -> bool {
        match self {
            Kind::Boolean => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            Kind::Int { min, max } => value.parse::<i32>().is_ok_and(|v| (min..=max).contains(&v)),
            Kind::Long { min, max } => value.parse::<i64>().is_ok_and(|v| (min..=max).contains(&v)),
            Kind::Double { min, max } => value.parse::<f64>().is_ok_and(|v| (min..=max).contains(&v)),
            Kind::OneOf(allowed) => allowed.contains(&value),
            Kind::AnyOf(_) if value.is_empty() => true,
            Kind::ListOf(allowed) | Kind::AnyOf(allowed) => {
                value.split(',').all(|item| allowed.contains(&item.trim()))
            }
        }
    }

    fn describe(self) -> String {
        let range = |min: String, max: String, unlimited: bool| {
            if unlimited {
                format!("a whole number of at least {min}")
            } else {
                format!("a whole number from {min} to {max}")
            }
        };
        if self == Kind::long(i64::MIN) {
            return "a whole number".to_owned();
        }
        match self {
            Kind::Boolean => "true or false".to_owned(),
            Kind::Int { min, max } => range(min.to_string(), max.to_string(), max == i32::MAX),
            Kind::Long { min, max } => range(min.to_string(), max.to_string(), max == i64::MAX),
            Kind::Double { min, max } => format!("a number from {min} to {max}"),
            Kind::OneOf(allowed) => format!("one of {}", allowed.join(", ")),
            Kind::ListOf(allowed) | Kind::AnyOf(allowed) => {
                format!("a list, separated by commas, of {}", allowed.join(", "))
            }
        }
    }
}

/// A number as Java's `Double.toString` writes it: clients compare texts.
fn as_java_writes(number: f64) -> String {
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// One setting of the broker or of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The default as text; empty where the setting has none and another one decides (`log.retention.ms`).
    pub(crate) default: &'static str,
    /// For topic configs: the broker settings whose value is the default, the first explicit one wins, each with the
    /// number of milliseconds (or 1) its unit counts. Empty for broker settings.
    pub(crate) synonyms: &'static [(&'static str, i64)],
}

impl Definition {
    /// Checks a text and returns it trimmed.
    pub(crate) fn check(&self, found: &str) -> Result<String, SettingError> {
        let value = found.trim();
        if self.kind.accepts(value) {
            return Ok(value.to_owned());
        }
        Err(SettingError::Invalid {
            key: self.name.to_owned(),
            expected: self.kind.describe(),
            found: found.to_owned(),
        })
    }
}

/// The definition called `name`.
pub(crate) fn find(definitions: &'static [Definition], name: &str) -> Option<&'static Definition> {
    definitions.iter().find(|definition| definition.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, pairs: &[(&str, &str)]) {
        for (value, expected) in pairs {
            assert_eq!(kind.described(value), *expected, "{value:?} of {kind:?}");
        }
    }

    #[test]
    fn values_are_described_in_one_form() {
        check(Kind::Boolean, &[("TRUE", "true"), ("False", "false")]);
        check(Kind::int(0), &[("+5", "5"), ("007", "7"), ("", "")]);
        check(
            Kind::long(i64::MIN),
            &[("-5", "-5"), ("+0", "0"), ("9223372036854775807", "9223372036854775807")],
        );
        let ratio = Kind::Double { min: 0.0, max: 1.0 };
        check(ratio, &[("1e-1", "0.1"), ("1", "1.0"), ("0", "0.0"), (".50", "0.5"), ("0.001", "0.001")]);
        check(ratio, &[("0.0005", "5.0E-4"), ("0.000123", "1.23E-4"), ("1e-20", "1.0E-20")]);
        check(Kind::OneOf(&["gzip", "lz4"]), &[("gzip", "gzip")]);
        let list = Kind::AnyOf(&["delete", "compact"]);
        check(list, &[("compact, delete", "compact,delete"), ("compact,compact", "compact"), ("", "")]);
    }
}
