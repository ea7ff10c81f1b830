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
