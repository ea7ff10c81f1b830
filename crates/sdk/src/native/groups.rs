//! The description of groups of either protocol: the older call, which `rdkafka` makes, says of a group of the consumer protocol
//! (KIP-848) that it is dead.

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::{Event, ask_cluster, c_string};
use crate::admin::GroupMember;

/// A group that its coordinator knows.
#[derive(Debug)]
pub(crate) struct KnownGroup {
    pub(crate) name: String,
    /// Kafka's name of its state.
    pub(crate) state: String,
    /// The assignment strategy.
    pub(crate) assignor: String,
    pub(crate) members: Vec<GroupMember>,
}

/// Describes those of these groups that exist; the rest are left out. An error is that of the first group that could not be asked
/// for.
pub(crate) fn describe_groups<C: ClientContext>(
    client: &Client<C>,
    groups: &[&str],
    timeout: Duration,
) -> KafkaResult<Vec<KnownGroup>> {
    let names: Vec<CString> = groups.iter().map(|group| c_string(group)).collect::<KafkaResult<_>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let answer = ask_cluster(client, operation, timeout, |client, options, queue| {
        // SAFETY: all are live, and the names are NUL-terminated; librdkafka copies what it keeps.
        unsafe {
            let (groups, count) = (pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeConsumerGroups(client, groups, count, options, queue);
        }
    })?;
    answer.described_groups()
}

impl Event {
    fn described_groups(&self) -> KafkaResult<Vec<KnownGroup>> {
        // SAFETY: the event is live; an event of another kind gives null.
        let described = unsafe { sys::rd_kafka_event_DescribeConsumerGroups_result(self.0) };
        if described.is_null() {
            return Ok(Vec::new());
        }
        let mut count = 0;
        // SAFETY: the result is live, and `count` valid to write to; there are `count` groups, as live as the event.
        let groups = unsafe { sys::rd_kafka_DescribeConsumerGroups_result_groups(described, &mut count) };
        let mut known = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: `index` is less than the count; the group is as live as the event.
            let group = unsafe { &**groups.add(index) };
            match error_of(group) {
                RDKafkaErrorCode::NoError => known.push(known_group(group)),
                RDKafkaErrorCode::GroupIdNotFound => {}
                code => return Err(KafkaError::AdminOp(code)),
            }
        }
        known.retain(|group| group.state != "Dead");
        Ok(known)
    }
}

fn error_of(group: &sys::rd_kafka_ConsumerGroupDescription_t) -> RDKafkaErrorCode {
    // SAFETY: the group is live, and its error null or as live.
    unsafe {
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if error.is_null() { RDKafkaErrorCode::NoError } else { sys::rd_kafka_error_code(error).into() }
    }
}

fn known_group(group: &sys::rd_kafka_ConsumerGroupDescription_t) -> KnownGroup {
    use sys::rd_kafka_consumer_group_state_t as State;
    // SAFETY: the group is live; its texts are null or NUL-terminated, and live as long; `index` is less than the count.
    unsafe {
        let state = match sys::rd_kafka_ConsumerGroupDescription_state(group) {
            // What librdkafka has no name for: members on their way to what they were assigned.
            State::RD_KAFKA_CONSUMER_GROUP_STATE_UNKNOWN => "Reconciling".to_owned(),
            state => text(sys::rd_kafka_consumer_group_state_name(state)),
        };
        let member = |index| {
            let member = sys::rd_kafka_ConsumerGroupDescription_member(group, index);
            GroupMember {
                member_id: text(sys::rd_kafka_MemberDescription_consumer_id(member)),
                client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
                host: text(sys::rd_kafka_MemberDescription_host(member)).trim_start_matches('/').to_owned(),
            }
        };
        KnownGroup {
            name: text(sys::rd_kafka_ConsumerGroupDescription_group_id(group)),
            state,
            assignor: text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
            members: (0..sys::rd_kafka_ConsumerGroupDescription_member_count(group)).map(member).collect(),
        }
    }
}

/// # Safety
///
/// `text` is null or NUL-terminated.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and NUL-terminated as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
