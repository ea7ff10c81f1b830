//! Ranges of message versions, and the conditions they become in generated code.
//!
//! Owns Kafka's notation: `0+`, `3-12`, `5`, `none`. An open end is [`i16::MAX`].

use anyhow::{Context, Result};

/// Versions from `first` to `last`, both included; empty when `first > last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first version.
    pub first: i16,
    /// The last version.
    pub last: i16,
}

impl Versions {
    /// No version.
    pub const NONE: Self = Self { first: 1, last: 0 };

    /// Reads Kafka's notation.
    pub fn parse(text: &str) -> Result<Self> {
        let number =
            |text: &str| text.trim().parse::<i16>().with_context(|| format!("read version {text:?}"));
        if text == "none" {
            Ok(Self::NONE)
        } else if let Some(first) = text.strip_suffix('+') {
            Ok(Self { first: number(first)?, last: i16::MAX })
        } else if let Some((first, last)) = text.split_once('-') {
            Ok(Self { first: number(first)?, last: number(last)? })
        } else {
            Ok(Self { first: number(text)?, last: number(text)? })
        }
    }

    /// Whether there is no version.
    pub fn is_empty(self) -> bool {
        self.first > self.last
    }

    /// Whether `version` is one of them.
    pub fn contains(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    /// The versions in both.
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// The condition under which `version`, known to be in `context`, is one of these.
    pub fn condition(self, context: Self) -> Condition {
        let inner = self.and(context);
        if inner.is_empty() {
            return Condition::Never;
        }
        let (low, high) = (inner.first > context.first, inner.last < context.last);
        Condition::from_expression(match (low, high) {
            (false, false) => return Condition::Always,
            (true, false) => format!("version >= {}", inner.first),
            (false, true) => format!("version <= {}", inner.last),
            (true, true) if inner.first == inner.last => format!("version == {}", inner.first),
            (true, true) => format!("({}..={}).contains(&version)", inner.first, inner.last),
        })
    }
}

/// When something applies to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// In every version that can occur.
    Always,
    /// In none of them.
    Never,
    /// When this Rust expression over `version` is true.
    When(String),
}

impl Condition {
    fn from_expression(expression: String) -> Self {
        Self::When(expression)
    }

    /// The condition as a Rust expression.
    pub fn expression(&self) -> String {
        match self {
            Self::Always => "true".to_owned(),
            Self::Never => "false".to_owned(),
            Self::When(expression) => expression.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, context: &str, expect: &str) {
        let context = Versions::parse(context).expect("the context is in Kafka's notation");
        let versions = Versions::parse(text).expect("the versions are in Kafka's notation");
        assert_eq!(versions.condition(context).expression(), expect, "{text} in {context:?}");
    }

    #[test]
    fn conditions_say_no_more_than_the_context_leaves_open() {
        check("0+", "0-9", "true");
        check("3+", "0-9", "version >= 3");
        check("3+", "3-9", "true");
        check("0-4", "0-9", "version <= 4");
        check("2-4", "0-9", "(2..=4).contains(&version)");
        check("2", "0-9", "version == 2");
        check("10+", "0-9", "false");
        check("none", "0-9", "false");
    }

    #[test]
    fn other_notations_are_refused() {
        for text in ["", "+", "a-b", "1,2"] {
            assert!(Versions::parse(text).is_err(), "{text}");
        }
    }
}
