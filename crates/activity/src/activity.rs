//! The activity: who did what to what, when and in which context.
//!
//! Two forms: a [`Draft`] is what callers and producers write, where much may be absent; an [`Activity`] is complete
//! and is what is stored and answered. Invariant: an `Activity` comes from a draft that passed [`Draft::check`], or
//! from a store that was given such ones. The rules are in `rules`, the wire form in `cloud_event`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::object::only_objects;
use crate::text::Text;
use crate::timestamp::Timestamp;

/// An activity as written by a caller: absent fields are filled in by [`Draft::complete`].
#[derive(Debug, Clone, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Draft<'a> {
    /// Unique within the tenant; a UUIDv7 is given where it is absent.
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
    /// Whose activity it is: nobody else sees it.
    #[serde(borrow)]
    pub tenant: Text<'a>,
    /// Who did it; absent where nobody is known.
    #[serde(borrow, default)]
    pub actor: Option<Entity<'a>>,
    /// What was done, such as `invoice.created`.
    #[serde(borrow)]
    pub action: Text<'a>,
    /// To what.
    #[serde(borrow, default)]
    pub targets: Option<Vec<Entity<'a>>>,
    /// From where.
    #[serde(borrow, default)]
    pub context: Option<Context<'a>>,
    /// Whatever else is worth keeping.
    #[serde(borrow, default)]
    pub metadata: Option<Metadata<'a>>,
    /// When, in RFC 3339; the time of receipt where it is absent.
    #[serde(borrow, default)]
    pub occurred_at: Option<Text<'a>>,
    /// When it was received, in RFC 3339: given by the service, never by a caller over HTTP.
    #[serde(borrow, default)]
    pub received_at: Option<Text<'a>>,
}

/// A complete activity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activity<'a> {
    /// Unique within the tenant.
    pub id: Text<'a>,
    /// Whose activity it is.
    pub tenant: Text<'a>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Entity<'a>>,
    /// What was done.
    pub action: Text<'a>,
    /// To what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Entity<'a>>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context<'a>>,
    /// Whatever else is worth keeping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata<'a>>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When the service received it.
    pub received_at: Timestamp,
}

/// An actor or a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Entity<'a> {
    /// What kind of thing it is, such as `user`.
    #[serde(rename = "type", borrow, default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text<'a>>,
    /// Which one.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Its name for people, as it was at the time.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
}

/// The circumstances of an activity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Context<'a> {
    /// The address the request came from.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Text<'a>>,
    /// The program that made the request.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Text<'a>>,
    /// The request.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Text<'a>>,
    /// The larger thing that the request was part of.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Text<'a>>,
}

/// Free JSON, kept as the text that was sent: no digit of a number and no order of keys is lost.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Metadata<'a>(Cow<'a, RawValue>);

only_objects!(Draft, Entity, Context);

// `remote = "Self"` turns the derived `Serialize` into an inherent function as well.
impl Serialize for Entity<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Serialize for Context<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'a> Draft<'a> {
    /// The activity, with `received_at` as the time of receipt unless the draft has one, and `new_id` where it has none.
    ///
    /// The draft must have passed [`Draft::check`]; a time that does not parse counts as absent.
    pub fn complete(self, received_at: Timestamp, new_id: impl FnOnce() -> String) -> Activity<'a> {
        let time = |text: &Option<Text<'_>>| text.as_ref().and_then(|text| Timestamp::parse(text).ok());
        let received_at = time(&self.received_at).unwrap_or(received_at);
        Activity {
            occurred_at: time(&self.occurred_at).unwrap_or(received_at),
            received_at,
            id: self.id.unwrap_or_else(|| Text::from(new_id())),
            tenant: self.tenant,
            actor: self.actor,
            action: self.action,
            targets: self.targets.unwrap_or_default(),
            context: self.context.filter(|context| !context.is_empty()),
            metadata: self.metadata.map(Metadata::on_one_line),
        }
    }
}

impl Activity<'_> {
    /// The same activity, owning its bytes.
    pub fn into_owned(self) -> Activity<'static> {
        Activity {
            id: self.id.into_owned(),
            tenant: self.tenant.into_owned(),
            actor: self.actor.map(Entity::into_owned),
            action: self.action.into_owned(),
            targets: self.targets.into_iter().map(Entity::into_owned).collect(),
            context: self.context.map(Context::into_owned),
            metadata: self.metadata.map(Metadata::into_owned),
            occurred_at: self.occurred_at,
            received_at: self.received_at,
        }
    }
}

impl Activity<'_> {
    /// About how many bytes of text it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        let entity = |entity: &Entity<'_>| {
            let text = |text: &Option<Text<'_>>| text.as_ref().map_or(0, |text| text.len());
            entity.id.len() + text(&entity.kind) + text(&entity.name)
        };
        size_of::<Self>()
            + self.id.len()
            + self.tenant.len()
            + self.action.len()
            + self.actor.as_ref().map_or(0, entity)
            + self.targets.iter().map(|target| size_of::<Entity<'_>>() + entity(target)).sum::<usize>()
            + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
    }
}

impl Entity<'_> {
    /// The same entity, owning its bytes.
    pub fn into_owned(self) -> Entity<'static> {
        Entity {
            kind: self.kind.map(Text::into_owned),
            id: self.id.into_owned(),
            name: self.name.map(Text::into_owned),
        }
    }
}

impl Context<'_> {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Context::default()
    }

    /// The same context, owning its bytes.
    pub fn into_owned(self) -> Context<'static> {
        Context {
            ip: self.ip.map(Text::into_owned),
            user_agent: self.user_agent.map(Text::into_owned),
            request_id: self.request_id.map(Text::into_owned),
            correlation_id: self.correlation_id.map(Text::into_owned),
        }
    }
}

impl<'a> Metadata<'a> {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The same metadata, owning its bytes.
    pub fn into_owned(self) -> Metadata<'static> {
        Metadata(Cow::Owned(self.0.into_owned()))
    }

    /// The same JSON without line breaks, which JSON has only between its tokens: a line of NDJSON stays one line.
    fn on_one_line(self) -> Self {
        if !self.as_str().contains(['\n', '\r']) {
            return self;
        }
        Self::from_text(self.as_str().replace(['\n', '\r'], " ")).unwrap_or(self)
    }

    /// From JSON text; an error if it is not JSON. Whether it is an object is checked with the rest of a draft.
    pub fn from_text(text: String) -> Result<Metadata<'static>, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Metadata(Cow::Owned(raw)))
    }
}

impl PartialEq for Metadata<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Metadata<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(|raw| Metadata(Cow::Borrowed(raw)))
    }
}
