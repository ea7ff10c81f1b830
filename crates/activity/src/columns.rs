//! The columns in which every store keeps an activity, and the activity that they hold.
//!
//! Lists and objects are JSON, being read back whole only. Invariant: what comes out is what went in; a column that
//! holds anything else is an error that names it, not a guess.

use crate::activity::{Activity, Context, Entity, Metadata};
use crate::text::Text;
use crate::timestamp::Timestamp;

/// One row, borrowed from whatever the database answered.
pub struct Columns<'a> {
    pub id: Text<'a>,
    pub tenant: &'a str,
    /// In microseconds since the epoch.
    pub occurred_at: i64,
    /// In microseconds since the epoch.
    pub received_at: i64,
    pub action: &'a str,
    pub actor_id: Option<&'a str>,
    pub actor_type: Option<&'a str>,
    pub actor_name: Option<&'a str>,
    pub targets: Option<&'a str>,
    pub context: Option<&'a str>,
    pub metadata: Option<&'a str>,
}

impl Columns<'_> {
    /// The activity, or the name of the column that holds none.
    pub fn activity(&self) -> Result<Activity<'static>, &'static str> {
        let owned = |text: &str| Text::from(text.to_owned());
        let targets = match self.targets {
            None => Vec::new(),
            Some(json) => targets(json)?,
        };
        let context = match self.context {
            None => None,
            Some(json) => {
                Some(serde_json::from_str::<Context<'_>>(json).map_err(|_| "context")?.into_owned())
            }
        };
        let metadata = self.metadata.map(|json| Metadata::from_text(json.to_owned()).map_err(|_| "metadata"));
        Ok(Activity {
            id: self.id.clone().into_owned(),
            tenant: owned(self.tenant),
            actor: self.actor_id.map(|id| Entity {
                id: owned(id),
                kind: self.actor_type.map(owned),
                name: self.actor_name.map(owned),
            }),
            action: owned(self.action),
            targets,
            context,
            metadata: metadata.transpose()?,
            occurred_at: Timestamp::from_micros(self.occurred_at).ok_or("occurred_at")?,
            received_at: Timestamp::from_micros(self.received_at).ok_or("received_at")?,
        })
    }
}

/// The targets in their column.
pub fn targets(json: &str) -> Result<Vec<Entity<'static>>, &'static str> {
    let targets: Vec<Entity<'_>> = serde_json::from_str(json).map_err(|_| "targets")?;
    Ok(targets.into_iter().map(Entity::into_owned).collect())
}
