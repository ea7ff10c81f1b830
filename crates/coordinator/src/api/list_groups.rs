//! ListGroups: the groups of the shard, filtered by state (KIP-518) and type (KIP-848).

use crate::classic::subscription::CONSUMER_PROTOCOL_TYPE;
use crate::{GroupCoordinator, GroupState};

/// The type of every group of the classic protocol, as ListGroups tells it.
pub const GROUP_TYPE_CLASSIC: &str = "classic";

/// The type of every group of the consumer protocol.
pub const GROUP_TYPE_CONSUMER: &str = "consumer";

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group_id: String,
    /// What its members are, such as `consumer`; empty if it never had any.
    pub protocol_type: String,
    /// Its state (version 4 on).
    pub state: GroupState,
    /// Its type (version 5 on).
    pub group_type: &'static str,
}

impl GroupCoordinator {
    /// Handles a ListGroups. An empty filter lets everything through; names count without case, and a name that
    /// does not exist lets nothing through.
    pub fn list_groups(&self, states: &[String], types: &[String]) -> Vec<ListedGroup> {
        self.assert_replayed();
        let has = |filter: &[String], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let classic = self.groups.values().map(|group| ListedGroup {
            group_id: group.id.to_string(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state(),
            group_type: GROUP_TYPE_CLASSIC,
        });
        let consumer = self.consumer_groups.values().map(|group| ListedGroup {
            group_id: group.id.to_string(),
            protocol_type: CONSUMER_PROTOCOL_TYPE.to_owned(),
            state: group.state(),
            group_type: GROUP_TYPE_CONSUMER,
        });
        classic
            .chain(consumer)
            .filter(|group| has(states, group.state.as_str()) && has(types, group.group_type))
            .collect()
    }
}
