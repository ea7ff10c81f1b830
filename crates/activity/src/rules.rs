//! What makes a draft acceptable: the rules on content, checked on the HTTP side and again by the writer.
//!
//! Owns every rule that goes beyond the JSON shape, which serde's derive checks and `diagnose` explains. Invariant: a
//! draft that passes can be stored by every store, shown in every format and found again: its texts are within their
//! limits and hold no control characters (PostgreSQL takes no NUL, and a line break in a name forges log lines).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess};
use tidings_http::{FieldError, FieldErrors};

use crate::activity::{Draft, Entity, Metadata};
use crate::limits::{
    MAX_ACTION_CHARS, MAX_ENTITY_ID_CHARS, MAX_ID_CHARS, MAX_METADATA_BYTES, MAX_METADATA_DEPTH,
    MAX_NAME_CHARS, MAX_REQUEST_ID_CHARS, MAX_TARGETS, MAX_TENANT_CHARS, MAX_TYPE_CHARS,
    MAX_USER_AGENT_CHARS,
};
use crate::text::Text;
use crate::timestamp::Timestamp;

/// Where a draft comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A caller over HTTP, who may not say when we received it.
    Caller,
    /// A record of the topic.
    Record,
}

impl Draft<'_> {
    /// Checks every rule and names every field that breaks one.
    pub fn check(&self, origin: Origin) -> Result<(), FieldErrors> {
        let mut errors = Errors(FieldErrors::default());
        if let Some(id) = &self.id {
            errors.text("id", id, MAX_ID_CHARS);
        }
        errors.text("tenant", &self.tenant, MAX_TENANT_CHARS);
        errors.text("action", &self.action, MAX_ACTION_CHARS);
        if self.action.contains('*') {
            errors.push("action", "holds '*', which stands for any ending in a search");
        }
        if let Some(actor) = &self.actor {
            errors.entity(actor, |field| format!("actor.{field}"));
        }
        let targets = self.targets.as_deref().unwrap_or_default();
        if targets.len() > MAX_TARGETS {
            errors.push(
                "targets",
                format!("has {} elements, more than the {MAX_TARGETS} allowed", targets.len()),
            );
        }
        for (index, target) in targets.iter().enumerate().take(MAX_TARGETS) {
            errors.entity(target, |field| format!("targets[{index}].{field}"));
        }
        self.check_context(&mut errors);
        if let Some(metadata) = &self.metadata {
            errors.metadata(metadata);
        }
        errors.time("occurred_at", self.occurred_at.as_ref());
        match origin {
            Origin::Caller if self.received_at.is_some() => {
                errors.push("received_at", "is given by the service: leave it out");
            }
            _ => errors.time("received_at", self.received_at.as_ref()),
        }
        if errors.0.is_empty() { Ok(()) } else { Err(errors.0) }
    }

    fn check_context(&self, errors: &mut Errors) {
        let Some(context) = &self.context else { return };
        if let Some(ip) = &context.ip
            && ip.parse::<IpAddr>().is_err()
        {
            errors.push("context.ip", format!("expected an IPv4 or IPv6 address, found {:?}", shortened(ip)));
        }
        let texts = [
            ("context.user_agent", &context.user_agent, MAX_USER_AGENT_CHARS),
            ("context.request_id", &context.request_id, MAX_REQUEST_ID_CHARS),
            ("context.correlation_id", &context.correlation_id, MAX_REQUEST_ID_CHARS),
        ];
        for (field, text, max_chars) in texts {
            if let Some(text) = text {
                errors.text(field, text, max_chars);
            }
        }
    }
}

/// What is wrong so far. Field names are built only for fields that are wrong.
struct Errors(FieldErrors);

impl Errors {
    fn push(&mut self, field: &str, detail: impl Into<String>) {
        self.0.push(FieldError::new(field, detail));
    }

    fn text(&mut self, field: &str, text: &Text<'_>, max_chars: usize) {
        if let Err(detail) = check_text(text, max_chars) {
            self.push(field, detail);
        }
    }

    fn entity(&mut self, entity: &Entity<'_>, field: impl Fn(&str) -> String) {
        let texts = [
            ("type", entity.kind.as_ref(), MAX_TYPE_CHARS),
            ("id", Some(&entity.id), MAX_ENTITY_ID_CHARS),
            ("name", entity.name.as_ref(), MAX_NAME_CHARS),
        ];
        for (name, text, max_chars) in texts {
            if let Some(text) = text
                && let Err(detail) = check_text(text, max_chars)
            {
                self.push(&field(name), detail);
            }
        }
    }

    fn time(&mut self, field: &str, text: Option<&Text<'_>>) {
        if let Some(text) = text
            && let Err(error) = Timestamp::parse(text)
        {
            self.push(field, error.to_string());
        }
    }

    fn metadata(&mut self, metadata: &Metadata<'_>) {
        let text = metadata.as_str();
        if text.len() > MAX_METADATA_BYTES {
            let detail = format!("has {} bytes, more than the {MAX_METADATA_BYTES} allowed", text.len());
            return self.push("metadata", detail);
        }
        if !text.starts_with('{') {
            return self.push("metadata", format!("expected an object, found {}", shortened(text)));
        }
        let mut parser = serde_json::Deserializer::from_str(text);
        if let Err(error) = (Strict { depth: 1 }).deserialize(&mut parser) {
            self.push("metadata", error.to_string());
        }
    }
}

pub(crate) fn check_text(text: &str, max_chars: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    // The length in bytes is at least the length in characters, and is known.
    if text.len() > max_chars {
        let chars = text.chars().count();
        if chars > max_chars {
            return Err(format!("has {chars} characters, more than the {max_chars} allowed"));
        }
    }
    match text.chars().position(char::is_control) {
        Some(at) => Err(format!("holds a control character at position {at}")),
        None => Ok(()),
    }
}

fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Walks JSON that is known to be well formed and refuses what readers disagree about: deep nesting, a key given
/// twice, numbers beyond every number type.
struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn inner<E: de::Error>(&self) -> Result<Strict, E> {
        if self.depth > MAX_METADATA_DEPTH {
            return Err(E::custom(format!("is nested deeper than the {MAX_METADATA_DEPTH} levels allowed")));
        }
        Ok(Strict { depth: self.depth + 1 })
    }
}

impl<'de> de::Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = entries.next_key::<Text<'de>>()? {
            if !keys.insert(key.clone()) {
                return Err(de::Error::custom(format!("holds the key {:?} twice", shortened(&key))));
            }
            entries.next_value_seed(self.inner()?)?;
        }
        Ok(())
    }
}

/// The keys of one object: most have a handful, for which comparing is cheaper than hashing.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<Text<'a>>,
    many: HashSet<Text<'a>>,
}

impl<'a> Keys<'a> {
    const FEW: usize = 16;

    /// Whether `key` is new.
    fn insert(&mut self, key: Text<'a>) -> bool {
        if self.few.contains(&key) {
            false
        } else if self.few.len() < Self::FEW {
            self.few.push(key);
            true
        } else {
            self.many.insert(key)
        }
    }
}

/// `errors` as a sentence for logs and for the failure inbox.
pub fn summary(errors: &FieldErrors) -> Cow<'static, str> {
    let listed = errors.listed();
    let shown: Vec<String> = listed.iter().take(5).map(ToString::to_string).collect();
    let rest = listed.len() - shown.len();
    match (rest, errors.has_more()) {
        (0, _) if shown.is_empty() => Cow::Borrowed("no error"),
        (0, _) => Cow::Owned(shown.join("; ")),
        (_, false) => Cow::Owned(format!("{}; and {rest} more", shown.join("; "))),
        (_, true) => Cow::Owned(format!("{}; and more than {rest} more", shown.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[&str]) {
        let draft: Draft<'_> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        let found = match draft.check(Origin::Caller) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.listed().iter().map(ToString::to_string).collect(),
        };
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn takes_good_drafts() {
        check(r#"{"tenant":"UA","action":"flight.departed"}"#, &[]);
        check(
            r#"{"id":"1","tenant":"acmé","actor":{"type":"user","id":"u1","name":"Ann"},"action":"invoice.created",
                "targets":[{"id":"i1"}],"context":{"ip":"::1","user_agent":"curl","request_id":"r","correlation_id":"c"},
                "metadata":{"a":[1,{"b":null}],"c":1e5},"occurred_at":"2013-01-01T10:17:00Z"}"#,
            &[],
        );
    }

    #[test]
    fn names_every_broken_rule() {
        check(
            r#"{"id":"","tenant":"a\nb","action":"x.*","actor":{"id":""},"targets":[{"id":"1"},{"id":"\u0000"}],
                "context":{"ip":"1.2.3","request_id":""},"metadata":[1],"occurred_at":"today","received_at":"x"}"#,
            &[
                "id: is empty",
                "tenant: holds a control character at position 1",
                "action: holds '*', which stands for any ending in a search",
                "actor.id: is empty",
                "targets[1].id: holds a control character at position 0",
                "context.ip: expected an IPv4 or IPv6 address, found \"1.2.3\"",
                "context.request_id: is empty",
                "metadata: expected an object, found [1]",
                "occurred_at: expected an RFC 3339 timestamp such as 2013-01-01T10:17:00Z, found \"today\"",
                "received_at: is given by the service: leave it out",
            ],
        );
        let long = "é".repeat(129);
        check(
            &format!(r#"{{"tenant":"{long}","action":"a"}}"#),
            &["tenant: has 129 characters, more than the 128 allowed"],
        );
    }

    #[test]
    fn refuses_metadata_that_readers_disagree_about() {
        let with = |metadata: &str| format!(r#"{{"tenant":"t","action":"a","metadata":{metadata}}}"#);
        check(&with(r#"{"a":{"b":1,"b":2}}"#), &["metadata: holds the key \"b\" twice at line 1 column 15"]);
        check(&with(r#"{"a":1e999}"#), &["metadata: number out of range at line 1 column 10"]);
        let deep = |levels: usize| with(&format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels)));
        check(&deep(MAX_METADATA_DEPTH - 1), &[]);
        let draft = deep(MAX_METADATA_DEPTH);
        let draft: Draft<'_> = serde_json::from_str(&draft).unwrap();
        let errors = draft.check(Origin::Caller).unwrap_err();
        assert!(errors.listed()[0].detail.contains("nested deeper than the 32 levels"), "{errors:?}");
        let abyss = with(&format!("{{\"a\":{}", "[".repeat(10_000)));
        assert!(serde_json::from_str::<Draft<'_>>(&abyss).is_err());
        let wide = (0..100).map(|key| format!("\"k{key}\":0")).collect::<Vec<_>>().join(",");
        check(&with(&format!("{{{wide}}}")), &[]);
        let twice = with(&format!("{{{wide},\"k99\":0}}"));
        let draft: Draft<'_> = serde_json::from_str(&twice).unwrap();
        assert!(draft.check(Origin::Caller).is_err());
    }
}
