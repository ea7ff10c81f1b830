//! DescribeGroups: one group with its members.

use bytes::Bytes;

use crate::classic::member::Member;
use crate::{GroupCoordinator, GroupState};

/// A member of a described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its static instance (version 4 on).
    pub group_instance_id: Option<String>,
    /// The client id it joined with.
    pub client_id: String,
    /// The address it joined from.
    pub client_host: String,
    /// Its metadata for the selected protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// A described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Its id.
    pub group_id: String,
    /// Its state.
    pub state: GroupState,
    /// What its members are, such as `consumer`; empty if it never had any.
    pub protocol_type: String,
    /// The selected protocol; empty unless the group is stable.
    pub protocol: String,
    /// Its generation, which DescribeGroups does not tell.
    pub generation_id: i32,
    /// Its leader, which DescribeGroups does not tell.
    pub leader_id: Option<String>,
    /// Its members by id.
    pub members: Vec<DescribedMember>,
}

impl GroupCoordinator {
    /// Handles a DescribeGroups for one group. A group that does not exist is told as [`GroupState::Dead`]; from
    /// version 6 on also with [`tidings_model::ErrorCode::GroupIdNotFound`].
    pub fn describe_group(&self, group_id: &str) -> Option<DescribedGroup> {
        self.assert_replayed();
        let group = self.groups.get(group_id)?;
        let is_stable = group.state() == GroupState::Stable;
        let protocol = group.protocol_name.as_deref().filter(|_| is_stable);
        let describe = |member: &Member| DescribedMember {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.as_deref().map(str::to_owned),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: member.assignment.clone(),
        };
        Some(DescribedGroup {
            group_id: group.id.to_string(),
            state: group.state(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            generation_id: group.generation_id,
            leader_id: group.leader_id.as_deref().map(str::to_owned),
            members: group.members.values().map(describe).collect(),
        })
    }
}
