//! A member of a classic group that does nothing by itself: it joins, is assigned and beats when a test says so.
//!
//! Invariants: an error code of the group is an answer, and the test's to judge; an error is the connection's, and its user makes
//! a new one (see [`GroupMember::reconnect`]).

use std::io;

use bytes::Bytes;
use tidings_wire::messages::heartbeat_request::HeartbeatRequest;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::join_group_response::JoinGroupResponse;
use tidings_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use tidings_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};

use crate::connection::Connection;

const MEMBER_ID_REQUIRED: i16 = 79;

/// How it joins.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The group.
    pub group_id: String,
    /// The one way of assigning that it offers (`range`, `cooperative-sticky`).
    pub protocol: &'static str,
    /// Kafka's `ConsumerProtocolSubscription`.
    pub subscription: Bytes,
    /// How long it may be silent, and how long others wait for it in a rebalance.
    pub session_timeout_ms: i32,
}

/// A member.
#[derive(Debug)]
pub struct GroupMember {
    connection: Connection,
    membership: Membership,
    member_id: String,
    generation_id: i32,
}

impl GroupMember {
    /// One that has not joined yet, at the group's coordinator.
    pub fn new(coordinator: &str, membership: Membership) -> io::Result<Self> {
        let connection = Connection::open(coordinator)?;
        Ok(Self { connection, membership, member_id: String::new(), generation_id: -1 })
    }

    /// Goes on over a new connection, as the member that it is.
    pub fn reconnect(&mut self, coordinator: &str) -> io::Result<()> {
        self.connection = Connection::open(coordinator)?;
        Ok(())
    }

    /// Joins, or joins again.
    pub fn join(&mut self) -> io::Result<JoinGroupResponse> {
        let Membership { group_id, protocol, subscription, session_timeout_ms } = self.membership.clone();
        let mut request = JoinGroupRequest {
            group_id,
            session_timeout_ms,
            rebalance_timeout_ms: session_timeout_ms,
            member_id: self.member_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![JoinGroupRequestProtocol {
                name: protocol.to_owned(),
                metadata: subscription,
                ..Default::default()
            }],
            ..JoinGroupRequest::default()
        };
        let mut joined = self.connection.call(5, &request)?;
        if joined.error_code == MEMBER_ID_REQUIRED {
            request.member_id.clone_from(&joined.member_id);
            joined = self.connection.call(5, &request)?;
        }
        self.member_id.clone_from(&joined.member_id);
        self.generation_id = joined.generation_id;
        Ok(joined)
    }

    /// Hands in the assignments (none unless it leads); answers the error code.
    pub fn sync(&mut self, assignments: Vec<SyncGroupRequestAssignment>) -> io::Result<i16> {
        let request = SyncGroupRequest {
            group_id: self.membership.group_id.clone(),
            generation_id: self.generation_id,
            member_id: self.member_id.clone(),
            assignments,
            ..SyncGroupRequest::default()
        };
        Ok(self.connection.call(3, &request)?.error_code)
    }

    /// Says that it lives; answers the error code.
    pub fn heartbeat(&mut self) -> io::Result<i16> {
        let request = HeartbeatRequest {
            group_id: self.membership.group_id.clone(),
            generation_id: self.generation_id,
            member_id: self.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        Ok(self.connection.call(3, &request)?.error_code)
    }

    /// Leaves; answers the error code.
    pub fn leave(mut self) -> io::Result<i16> {
        let request = LeaveGroupRequest {
            group_id: self.membership.group_id,
            members: vec![MemberIdentity { member_id: self.member_id, ..MemberIdentity::default() }],
            ..LeaveGroupRequest::default()
        };
        Ok(self.connection.call(3, &request)?.error_code)
    }
}
