//! One activity: who did what, when.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::redact::redact;

/// Who did what, when. It has its id from the start, so that sending it again stores nothing twice.
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
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// The platform takes no longer ones.
const MAX_ACTION_CHARS: usize = 128;

impl Activity {
    /// An activity of now. Activities of one tenant keep their order; `action` is a word such as `invoice.paid`.
    pub fn new(tenant: &str, action: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            tenant: tenant.to_owned(),
            action: action.chars().take(MAX_ACTION_CHARS).collect(),
            actor: None,
            targets: Vec::new(),
            context: Map::new(),
            metadata: Map::new(),
            occurred_at: Timestamp::now(),
        }
    }

    /// Who did it.
    pub fn actor(mut self, kind: &str, id: &str) -> Self {
        self.actor = Some(Entity { kind: kind.to_owned(), id: id.to_owned() });
        self
    }

    /// What it was done to; may be said several times.
    pub fn target(mut self, kind: &str, id: &str) -> Self {
        self.targets.push(Entity { kind: kind.to_owned(), id: id.to_owned() });
        self
    }

    /// A field of the context: `ip`, `user_agent`, `request_id` or `correlation_id`.
    pub fn context(mut self, name: &str, value: &str) -> Self {
        self.context.insert(name.to_owned(), value.into());
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
}
