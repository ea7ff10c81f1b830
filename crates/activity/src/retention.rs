//! How long activities are kept: a time for all tenants, and for some of them another.
//!
//! Owns the rule, as pure functions. What counts is when an activity occurred.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::timestamp::Timestamp;

/// How long activities are kept; `None` is for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// For every tenant that is not named.
    pub default: Option<Duration>,
    /// For those.
    pub tenants: BTreeMap<String, Option<Duration>>,
}

/// What is too old at one moment: everything that occurred before; `None` is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cutoffs {
    /// For every tenant that is not named.
    pub default: Option<Timestamp>,
    /// For those.
    pub tenants: BTreeMap<String, Option<Timestamp>>,
}

/// What one step of deleting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Activities that are gone.
    pub activities: u64,
    /// Whether nothing is left to do.
    pub is_done: bool,
}

impl Retention {
    /// What is too old now.
    pub fn cutoffs(&self, now: Timestamp) -> Cutoffs {
        let before = |kept: &Option<Duration>| {
            let micros = i64::try_from((*kept)?.as_micros()).ok()?;
            Timestamp::from_micros(now.as_micros().checked_sub(micros)?)
        };
        Cutoffs {
            default: before(&self.default),
            tenants: self.tenants.iter().map(|(tenant, kept)| (tenant.clone(), before(kept))).collect(),
        }
    }
}

impl Cutoffs {
    /// Whether nothing is ever too old.
    pub fn keep_all(&self) -> bool {
        self.default.is_none() && self.tenants.values().all(Option::is_none)
    }

    /// The moment for one tenant.
    pub fn of(&self, tenant: &str) -> Option<Timestamp> {
        self.tenants.get(tenant).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_time_or_the_common_one() {
        let day = Duration::from_secs(86_400);
        let tenants = [("short".to_owned(), Some(day)), ("ever".to_owned(), None)].into();
        let retention = Retention { default: Some(day * 30), tenants };
        let cutoffs = retention.cutoffs(Timestamp::parse("2026-11-27T12:00:00Z").unwrap());
        let check = |tenant: &str, expected: Option<&str>| {
            assert_eq!(cutoffs.of(tenant).map(|time| time.to_string()).as_deref(), expected, "{tenant}");
        };
        check("short", Some("2026-11-26T12:00:00Z"));
        check("ever", None);
        check("any other", Some("2026-10-28T12:00:00Z"));
        assert!(!cutoffs.keep_all());
        assert!(Retention::default().cutoffs(Timestamp::now()).keep_all());
        // Longer than there has been time: nothing is too old.
        let retention = Retention { default: Some(Duration::MAX), ..Retention::default() };
        assert!(retention.cutoffs(Timestamp::now()).keep_all());
    }
}
