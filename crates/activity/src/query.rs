//! A question to the store: which activities of one tenant, newest first.
//!
//! Owns the filters, their text form and what it means for an activity to match. The order is `occurred_at`, then
//! `id` (by its bytes; a store may have all UUIDs after all other ids), both descending; a [`Position`] is a place in that order, so that a page that starts after it
//! neither repeats nor skips what was there, whatever arrives meanwhile.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::activity::Activity;
use crate::timestamp::Timestamp;

/// What to look for. All filters must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Whose activities.
    pub tenant: String,
    /// Only of the actor with this id.
    pub actor: Option<String>,
    /// Only with this action.
    pub action: Option<ActionFilter>,
    /// Only with a target of this id.
    pub target: Option<String>,
    /// Only at this time or later.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub to: Option<Timestamp>,
    /// Only with this text in one of the fields, whatever the case of its letters.
    pub text: Option<String>,
}

/// Which actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionFilter {
    /// This one.
    Exactly(String),
    /// Those that begin so: `invoice.*` is `Prefix("invoice.")`.
    Prefix(String),
}

/// A place in the order of a query's results.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the activity there occurred.
    pub occurred_at: Timestamp,
    /// Its id.
    pub id: String,
}

/// One page's worth of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What to look for.
    pub filter: Filter,
    /// Only what comes after this place, which is not included.
    pub after: Option<Position>,
    /// The most items to answer.
    pub limit: usize,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What was found, newest first.
    pub items: Vec<Activity<'static>>,
    /// Where to go on, or `None` if nothing is left. A page may be short, even empty, and not be the last: a store
    /// looks at no more than `MAX_SCANNED_ROWS` rows at once.
    pub next: Option<Position>,
}

impl ActionFilter {
    /// From `invoice.created` or `invoice.*`.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exactly(text.to_owned()),
        }
    }

    /// Whether `action` is one of them.
    pub fn matches(&self, action: &str) -> bool {
        match self {
            Self::Exactly(exact) => action == exact,
            Self::Prefix(prefix) => action.starts_with(prefix.as_str()),
        }
    }
}

impl Filter {
    /// Every activity of `tenant`.
    pub fn of_tenant(tenant: impl Into<String>) -> Self {
        let tenant = tenant.into();
        Self { tenant, actor: None, action: None, target: None, from: None, to: None, text: None }
    }

    /// Adds the filter to a hash: a cursor is good for the filter it was made for only.
    pub(crate) fn hash_into(&self, hasher: &mut SipHasher24) {
        let (exact, prefix) = match &self.action {
            None => (None, None),
            Some(ActionFilter::Exactly(action)) => (Some(action.as_str()), None),
            Some(ActionFilter::Prefix(prefix)) => (None, Some(prefix.as_str())),
        };
        let texts = [
            Some(self.tenant.as_str()),
            self.actor.as_deref(),
            exact,
            prefix,
            self.target.as_deref(),
            self.text.as_deref(),
        ];
        for text in texts {
            // Lengths keep ("ab", "c") and ("a", "bc") apart; an absent text differs from an empty one.
            hasher.write_u64(text.map_or(u64::MAX, |text| text.len() as u64));
            hasher.write(text.unwrap_or_default().as_bytes());
        }
        for time in [self.from, self.to] {
            hasher.write_i64(time.map_or(i64::MIN, Timestamp::as_micros));
        }
    }
}

/// Text to search for, ready to be compared with much text.
pub struct Needle {
    lower: String,
    ascii: bool,
}

impl Needle {
    /// Prepares `text`.
    pub fn new(text: &str) -> Self {
        let lower = text.to_lowercase();
        Self { ascii: lower.is_ascii(), lower }
    }

    /// Whether `text` holds the needle, whatever the case of the letters.
    pub fn is_in(&self, text: &str) -> bool {
        if !self.ascii {
            return text.to_lowercase().contains(&self.lower);
        }
        let needle = self.lower.as_bytes();
        let Some((&first, rest)) = needle.split_first() else { return true };
        let upper = first.to_ascii_uppercase();
        let mut hay = text.as_bytes();
        // Look for the first letter in either case by machine words, and compare the rest only there.
        while let Some(at) = memchr::memchr2(first, upper, hay) {
            hay = &hay[at + 1..];
            let Some(candidate) = hay.get(..rest.len()) else { return false };
            if candidate.eq_ignore_ascii_case(rest) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needles_are_found_in_any_case() {
        let check = |needle: &str, text: &str, expected: bool| {
            assert_eq!(Needle::new(needle).is_in(text), expected, "{needle} in {text}");
        };
        check("", "", true);
        check("", "x", true);
        check("abc", "xxABcx", true);
        check("aab", "aAaB", true);
        check("abc", "ab", false);
        check("É", "café", true);
        check("straße", "HAUPTSTRASSE", false);
        check("ß", "Straße", true);
        check("é", "e", false);
    }

    #[test]
    fn actions_match_exactly_or_by_prefix() {
        assert!(ActionFilter::parse("invoice.*").matches("invoice.created"));
        assert!(!ActionFilter::parse("invoice.*").matches("invoices.created"));
        assert!(ActionFilter::parse("*").matches("anything"));
        assert!(ActionFilter::parse("a").matches("a"));
        assert!(!ActionFilter::parse("a").matches("ab"));
    }
}
