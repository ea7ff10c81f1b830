//! A question to the store: which activities of one tenant, newest first.
//!
//! Owns the filters, their text form and what it means for an activity to match. The order is `occurred_at`, then
//! `id` (by its bytes; a store may have all UUIDs after all other ids), both descending; a [`Position`] is a place in that order, so that a page that starts after it
//! neither repeats nor skips what was there, whatever arrives meanwhile.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use siphasher::sip::SipHasher24;

use crate::activity::{Activity, Context, Entity};
use crate::text::Text;
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
    /// looks at no more than `MAX_SCANNED_ROWS` rows at once, and no longer than for the [`Patience`] of whoever asks.
    pub next: Option<Position>,
}

/// For how long an answer is worth looking for. The default is for as long as it takes.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    deadline: Option<Instant>,
    caller: Option<Weak<()>>,
}

/// Held by whoever waits for an answer.
#[derive(Debug)]
pub struct Waiting {
    _alive: Arc<()>,
}

impl Patience {
    /// For as long as what it answers besides is there.
    pub fn while_waiting() -> (Self, Waiting) {
        let alive = Arc::new(());
        (Self { deadline: None, caller: Some(Arc::downgrade(&alive)) }, Waiting { _alive: alive })
    }

    /// The same, and for so long from now on at the most.
    #[must_use]
    pub fn at_most(self, time: Duration) -> Self {
        Self { deadline: Some(Instant::now() + time), ..self }
    }

    /// Whether what was found so far has to do.
    pub fn is_over(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.strong_count() == 0)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
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

/// A filter, ready to be compared with many activities, as the live tail does. The store's answers agree with it.
pub struct Matcher {
    filter: Filter,
    needle: Option<Needle>,
}

impl Matcher {
    /// Prepares `filter`.
    pub fn new(filter: Filter) -> Self {
        Self { needle: filter.text.as_deref().map(Needle::new), filter }
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether `activity` is one of those that the filter asks for.
    pub fn matches(&self, activity: &Activity<'_>) -> bool {
        let Filter { tenant, actor, action, target, from, to, text: _ } = &self.filter;
        let is_actor = |id: &String| activity.actor.as_ref().is_some_and(|actor| actor.id == id.as_str());
        let is_target = |id: &String| activity.targets.iter().any(|target| target.id == id.as_str());
        activity.tenant == tenant.as_str()
            && actor.as_ref().is_none_or(is_actor)
            && action.as_ref().is_none_or(|action| action.matches(&activity.action))
            && target.as_ref().is_none_or(is_target)
            && from.is_none_or(|from| activity.occurred_at >= from)
            && to.is_none_or(|to| activity.occurred_at < to)
            && self.needle.as_ref().is_none_or(|needle| needle.is_in_activity(activity))
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

    /// Whether the needle is in one of the values of `json`, or with `keys` in a key.
    pub(crate) fn is_in_json(&self, json: &str, keys: bool) -> bool {
        // Escapes hide text, keys and punctuation fake it: only where neither can be is the plain search the answer.
        if !json.contains('\\') && !self.is_in(json) {
            return false;
        }
        serde_json::from_str(json).is_ok_and(|value| self.is_in_value(value, keys))
    }

    /// Numbers are searched as they are written: `49.90` and `1e400` as well.
    fn is_in_value(&self, value: &RawValue, keys: bool) -> bool {
        let mut values = vec![value];
        while let Some(value) = values.pop() {
            let json = value.get();
            let is_found = match json.as_bytes().first() {
                Some(b'{') => {
                    let members =
                        serde_json::from_str::<BTreeMap<String, &RawValue>>(json).unwrap_or_default();
                    values.extend(members.values());
                    keys && members.keys().any(|key| self.is_in(key))
                }
                Some(b'[') => {
                    values.extend(serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default());
                    false
                }
                Some(b'"') => serde_json::from_str::<String>(json).is_ok_and(|text| self.is_in(&text)),
                _ => json != "null" && self.is_in(json),
            };
            if is_found {
                return true;
            }
        }
        false
    }

    fn is_in_activity(&self, activity: &Activity<'_>) -> bool {
        let is_in = |text: &Option<Text<'_>>| text.as_ref().is_some_and(|text| self.is_in(text));
        let is_in_entity =
            |entity: &Entity<'_>| self.is_in(&entity.id) || is_in(&entity.kind) || is_in(&entity.name);
        self.is_in(&activity.id)
            || self.is_in(&activity.action)
            || activity.actor.as_ref().is_some_and(is_in_entity)
            || activity.targets.iter().any(is_in_entity)
            || activity.context.as_ref().is_some_and(|context| {
                let Context { ip, user_agent, request_id, correlation_id } = context;
                [ip, user_agent, request_id, correlation_id].into_iter().any(is_in)
            })
            || activity.metadata.as_ref().is_some_and(|metadata| self.is_in_json(metadata.as_str(), true))
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
    fn json_is_searched_as_it_is_written_without_its_punctuation() {
        let json = r#"{"amount":49.90,"big":123456789012345678901234567890,"e":[1E5,-0.0],"gone":null,
            "yes":true,"nested":[{"k\u00e9y":"caf\u00e9 \"x\""}]}"#;
        let check = |needle: &str, keys: bool, expected: bool| {
            assert_eq!(Needle::new(needle).is_in_json(json, keys), expected, "{needle}, keys {keys}");
        };
        for needle in ["49.90", "9012345678901234567890", "1e5", "-0.0", "TRUE", "CAFÉ", "\"x"] {
            check(needle, false, true);
        }
        for needle in ["null", "{", ",", "u00e9", "e\":", "kéy", "amount"] {
            check(needle, false, false);
        }
        for needle in ["kéy", "amount", "GONE"] {
            check(needle, true, true);
        }
        assert!(!Needle::new("x").is_in_json("x", true));
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
