//! One activity: who did what, when.
//!
//! Invariant: what is written of it passes the platform's rules (`crates/activity/src/rules.rs`). What a client has put into
//! its request must not decide whether the request is recorded: what breaks a rule is shortened, replaced or left out.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::redact::redact;

const MAX_TENANT_CHARS: usize = 128;
const MAX_ACTION_CHARS: usize = 128;
const MAX_TYPE_CHARS: usize = 128;
const MAX_ENTITY_ID_CHARS: usize = 256;
const MAX_TARGETS: usize = 64;
const MAX_USER_AGENT_CHARS: usize = 1024;
const MAX_REQUEST_ID_CHARS: usize = 256;
const MAX_METADATA_BYTES: usize = 32 * 1024;
const MAX_ACTIVITY_BYTES: usize = 64 * 1024;

const TOO_LONG: &str = "[too long]";

/// Who did what, when. It has its id from the start, so that sending it again stores nothing twice.
///
/// ```
/// use tidings_tower::Activity;
///
/// let activity = Activity::new("acme", "invoice.paid")
///     .actor("user", "ada")
///     .target("invoice", "2026-117")
///     .target("customer", "7")
///     .context("ip", "192.0.2.7")
///     .metadata("amount", 12.5);
/// assert_eq!(serde_json::to_value(&activity)?["targets"][1]["id"], "7");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Activity {
    id: Uuid,
    tenant: String,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Entity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Entity>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    context: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    occurred_at: Timestamp,
}

#[derive(Debug, Clone, Serialize)]
struct Entity {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    id: String,
}

impl Activity {
    /// An activity of now. Activities of one tenant keep their order; `action` is a word such as `invoice.paid`, or what
    /// [`crate::RequestHead::action`] makes of a route.
    pub fn new(tenant: &str, action: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            tenant: tenant.to_owned(),
            action: legal_action(action),
            actor: None,
            targets: Vec::new(),
            context: Map::new(),
            metadata: Map::new(),
            occurred_at: Timestamp::now(),
        }
    }

    /// Who did it; nobody, if `id` is empty.
    pub fn actor(mut self, kind: &str, id: &str) -> Self {
        self.actor = Entity::new(kind, id);
        self
    }

    /// What it was done to; may be said up to 64 times.
    pub fn target(mut self, kind: &str, id: &str) -> Self {
        if self.targets.len() < MAX_TARGETS {
            self.targets.extend(Entity::new(kind, id));
        }
        self
    }

    /// A field of the context: `ip`, `user_agent`, `request_id` or `correlation_id`. Other fields and what is no address
    /// are left out.
    pub fn context(mut self, name: &str, value: &str) -> Self {
        let value = match name {
            "ip" => value.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string()),
            "user_agent" => clipped(value, MAX_USER_AGENT_CHARS),
            "request_id" | "correlation_id" => clipped(value, MAX_REQUEST_ID_CHARS),
            _ => None,
        };
        if let Some(value) = value {
            self.context.insert(name.to_owned(), value.into());
        }
        self
    }

    /// More about it. Fields with the name of a secret, at any depth, are replaced by [`crate::REDACTED`].
    pub fn metadata(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.to_owned(), redact(name, value.into()));
        self
    }

    pub(crate) fn has_context(&self, name: &str) -> bool {
        self.context.contains_key(name)
    }

    /// Its JSON, as the platform takes it; or why there is none.
    pub(crate) fn into_json(mut self) -> Result<Vec<u8>, &'static str> {
        // A shortened tenant would be another one's.
        if clipped(&self.tenant, MAX_TENANT_CHARS).as_ref() != Some(&self.tenant) {
            return Err("the tenant is empty, longer than 128 characters or holds a control character");
        }
        if self.action.is_empty() {
            return Err("the action is empty");
        }
        self.limit_metadata();
        loop {
            let json = json_of(&self);
            if json.len() <= MAX_ACTIVITY_BYTES || self.targets.is_empty() {
                return Ok(json);
            }
            self.targets.truncate(self.targets.len() / 2);
        }
    }

    /// Takes the largest fields out until the rest fits.
    fn limit_metadata(&mut self) {
        while json_of(&self.metadata).len() > MAX_METADATA_BYTES {
            let largest = self.metadata.iter_mut().max_by_key(|(_, value)| json_of(value).len());
            match largest {
                Some((_, value)) if *value != TOO_LONG => *value = TOO_LONG.into(),
                // The names alone are too much.
                _ => self.metadata.clear(),
            }
        }
    }
}

impl Entity {
    fn new(kind: &str, id: &str) -> Option<Self> {
        Some(Self { kind: clipped(kind, MAX_TYPE_CHARS), id: clipped(id, MAX_ENTITY_ID_CHARS)? })
    }
}

fn json_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names are texts, and nothing else can fail")
}

/// Without `*`, which the platform's search reserves: `/files/{*path}` keeps the name, a bare one gets one.
fn legal_action(action: &str) -> String {
    clipped(&action.replace("{*", "{").replace('*', "any"), MAX_ACTION_CHARS).unwrap_or_default()
}

/// A text of 1 to so many characters without control characters, or none.
fn clipped(text: &str, max_chars: usize) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    Some(match text.char_indices().nth(max_chars) {
        None => text.chars().map(visible).collect(),
        // The mark tells that it is not the whole.
        Some(_) => text.chars().take(max_chars - 1).map(visible).chain(['…']).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(activity: Activity) -> Value {
        serde_json::from_slice(&activity.into_json().unwrap()).unwrap()
    }

    fn activity() -> Activity {
        Activity::new("acme", "a")
    }

    #[test]
    fn what_breaks_a_rule_is_shortened_replaced_or_left_out() {
        let hostile = activity()
            .context("ip", "nowhere")
            .context("user_agent", &format!("a\tb{}", "x".repeat(2000)))
            .context("request_id", "")
            .context("correlation_id", &"é".repeat(257))
            .context("other", "x")
            .actor("", &"x".repeat(300))
            .target("order", "");
        let made = made((0..100).fold(hostile, |activity, id| activity.target("order", &id.to_string())));
        let chars = |value: &Value| value.as_str().unwrap().chars().count();
        let context = made["context"].as_object().unwrap();
        assert_eq!(context.keys().collect::<Vec<_>>(), ["correlation_id", "user_agent"]);
        assert_eq!((chars(&context["user_agent"]), chars(&context["correlation_id"])), (1024, 256));
        assert!(context["user_agent"].as_str().unwrap().starts_with("a bxx"));
        assert_eq!((chars(&made["actor"]["id"]), made["actor"].get("type")), (256, None));
        assert_eq!(made["targets"].as_array().unwrap().len(), MAX_TARGETS);
    }

    #[test]
    fn actions_hold_no_stars() {
        assert_eq!(legal_action("POST /files/{*path}"), "POST /files/{path}");
        assert_eq!(legal_action("POST /files/*"), "POST /files/any");
        assert_eq!(legal_action(&"é".repeat(200)), "é".repeat(127) + "…");
    }

    #[test]
    fn what_is_too_large_loses_its_largest_parts() {
        let large = activity().metadata("status", 200).metadata("query", "\0".repeat(20_000));
        assert_eq!(made(large)["metadata"], serde_json::json!({"status": 200, "query": TOO_LONG}));
        let named = (0..100)
            .fold(activity(), |activity, at| activity.metadata(&format!("{at}{}", "x".repeat(500)), 1));
        assert_eq!(made(named).get("metadata"), None);
        let long = ["é".repeat(128), "\u{10000}".repeat(256)];
        let wide = (0..64).fold(activity(), |activity, _| activity.target(&long[0], &long[1]));
        let json = wide.into_json().unwrap();
        assert!((MAX_ACTIVITY_BYTES / 4..=MAX_ACTIVITY_BYTES).contains(&json.len()), "{}", json.len());
    }

    #[test]
    fn nobodys_activity_is_nobody_elses() {
        for tenant in ["", "a\nb", &"x".repeat(129)] {
            assert!(Activity::new(tenant, "a").into_json().unwrap_err().contains("tenant"));
        }
        assert!(Activity::new("acme", "").into_json().unwrap_err().contains("action"));
    }
}
