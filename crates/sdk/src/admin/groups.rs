//! Groups: who is in them and how far behind they are.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::{Offset, TopicPartitionList};

use super::topics::block_on;
use super::{Admin, AdminError};
use crate::native::{KnownGroup, describe_groups};
use crate::outsider::outsider;
use crate::reader::offsets_at;

/// The state that the older call gives to a name that it does not know, and to each group of the consumer protocol (KIP-848).
const DEAD: &str = "Dead";

/// How often groups are asked for that have no coordinator.
const COORDINATOR_RETRY: Duration = Duration::from_millis(50);

/// A group in a list.
///
/// ```
/// use tidings::admin::GroupSummary;
///
/// let is_idle = |group: &GroupSummary| group.members == 0;
/// let billing = GroupSummary {
///     name: "billing".into(),
///     state: "Empty".into(),
///     protocol_type: "consumer".into(),
///     members: 0,
/// };
/// assert!(is_idle(&billing));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupSummary {
    /// Its name.
    pub name: String,
    /// Kafka's name of its state (`Stable`, `Empty`, …).
    pub state: String,
    /// What kind of group it is (`consumer`).
    pub protocol_type: String,
    /// How many members it has.
    pub members: usize,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupMember {
    /// The id which the coordinator gave it.
    pub member_id: String,
    /// The name which the client gave itself.
    pub client_id: String,
    /// The address it connects from.
    pub host: String,
}

/// How far a group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset the group will read.
    pub committed_offset: i64,
    /// The next offset to be written.
    pub end_offset: i64,
    /// Records between the two.
    pub lag: i64,
}

/// A group with its members and offsets.
///
/// ```
/// use tidings::admin::{GroupDescription, GroupMember, GroupOffset};
///
/// fn report(group: &GroupDescription) -> String {
///     let host = |member: &GroupMember| format!("{} on {}", member.client_id, member.host);
///     let members: Vec<String> = group.members.iter().map(host).collect();
///     let lag: i64 = group.offsets.iter().map(|offset: &GroupOffset| offset.lag).sum();
///     format!("{} is {}, {lag} records behind; {}", group.name, group.state, members.join(", "))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Kafka's name of its state.
    pub state: String,
    /// The assignment strategy its members agreed on.
    pub protocol: String,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// Every partition it has committed an offset for, by topic and partition.
    pub offsets: Vec<GroupOffset>,
}

impl Admin {
    /// All groups by name.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::Cluster;
    /// use tidings::admin::Admin;
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
    /// for group in admin.list_groups()? {
    ///     let lag: i64 = admin.group_offsets(&group.name)?.iter().map(|offset| offset.lag).sum();
    ///     println!("{} ({}): {} members, {lag} records behind", group.name, group.state, group.members);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list_groups(&self) -> Result<Vec<GroupSummary>, AdminError> {
        self.connect().map_err(self.not_connected("list groups"))?;
        let groups = self
            .ask_coordinators(|| self.query.fetch_group_list(None, self.timeout))
            .map_err(self.failed("list groups"))?;
        let mut groups: Vec<_> = groups.groups().iter().map(summarize).collect();
        self.summarize_anew(&mut groups).map_err(self.failed("list groups"))?;
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// One group with members, committed offsets and lag.
    pub fn describe_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let operation = format!("describe group {group}");
        self.connect().map_err(self.not_connected(&operation))?;
        let groups = self
            .ask_coordinators(|| self.query.fetch_group_list(Some(group), self.timeout))
            .map_err(self.failed(&operation))?;
        let found = groups.groups().iter().find(|found| found.name() == group);
        let classic = found.filter(|found| found.state() != DEAD).map(|found| KnownGroup {
            name: found.name().to_owned(),
            state: found.state().to_owned(),
            assignor: found.protocol().to_owned(),
            members: members(found),
        });
        let known = match classic {
            Some(known) => Some(known),
            None => self.describe_groups(&[group]).map_err(self.failed(&operation))?.pop(),
        };
        let offsets = self.group_offsets(group)?;
        match known {
            Some(KnownGroup { name, state, assignor: protocol, members }) => {
                Ok(GroupDescription { name, state, protocol, members, offsets })
            }
            None if offsets.is_empty() => Err(AdminError::UnknownGroup { group: group.into() }),
            None => Ok(GroupDescription {
                name: group.to_owned(),
                state: "Empty".to_owned(),
                protocol: String::new(),
                members: Vec::new(),
                offsets,
            }),
        }
    }

    /// What the older call calls dead, and is not.
    fn summarize_anew(&self, groups: &mut [GroupSummary]) -> Result<(), KafkaError> {
        let dead: Vec<_> =
            groups.iter().filter(|group| group.state == DEAD).map(|group| group.name.as_str()).collect();
        let known = self.describe_groups(&dead)?;
        for group in groups {
            if let Some(known) = known.iter().find(|known| known.name == group.name) {
                group.state.clone_from(&known.state);
                group.protocol_type = "consumer".to_owned();
                group.members = known.members.len();
            }
        }
        Ok(())
    }

    fn describe_groups(&self, groups: &[&str]) -> Result<Vec<KnownGroup>, KafkaError> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        self.ask_coordinators(|| describe_groups(self.query.client(), groups, self.timeout))
    }

    /// Committed offsets, end offsets and lag of a group; empty if it has committed nothing.
    pub fn group_offsets(&self, group: &str) -> Result<Vec<GroupOffset>, AdminError> {
        let operation = format!("read the offsets of group {group}");
        let mut query = TopicPartitionList::new();
        for topic in self.list_topics()? {
            for partition in &topic.partitions {
                query.add_partition(&topic.name, partition.partition);
            }
        }
        let committed = self.committed(group, query)?;
        let mut ends = TopicPartitionList::with_capacity(committed.len());
        for (topic, partition) in committed.keys() {
            ends.add_partition_offset(topic, *partition, Offset::End).map_err(self.failed(&operation))?;
        }
        let ends = match committed.is_empty() {
            true => HashMap::new(),
            false => offsets_at(&self.query, &ends, self.timeout).map_err(self.failed(&operation))?,
        };
        let offset = |((topic, partition), committed_offset): ((String, i32), i64)| {
            let end_offset = ends.get(&(topic.clone(), partition)).copied().unwrap_or(committed_offset);
            let lag = (end_offset - committed_offset).max(0);
            GroupOffset { topic, partition, committed_offset, end_offset, lag }
        };
        Ok(committed.into_iter().map(offset).collect())
    }

    /// Deletes a group and its offsets. It must have no members.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::Cluster;
    /// use tidings::admin::{Admin, AdminError};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
    /// match admin.describe_group("billing") {
    ///     Ok(group) if group.members.is_empty() => admin.delete_group("billing")?,
    ///     Ok(group) => println!("{} members are at work", group.members.len()),
    ///     Err(AdminError::UnknownGroup { group }) => println!("{group} has never read anything"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_group(&self, group: &str) -> Result<(), AdminError> {
        let operation = format!("delete group {group}");
        let client = self.client(&operation)?;
        let results = self
            .ask_coordinators(|| {
                let results = block_on(client.delete_groups(&[group], &self.options()))?;
                match results.first() {
                    Some(Err((_, code))) if has_no_coordinator(*code) => Err(KafkaError::AdminOp(*code)),
                    _ => Ok(results),
                }
            })
            .map_err(self.failed(&operation))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::NonEmptyGroup))) => {
                Err(AdminError::GroupNotEmpty { group: group.into() })
            }
            Some(Err((_, RDKafkaErrorCode::GroupIdNotFound))) => {
                Err(AdminError::UnknownGroup { group: group.into() })
            }
            Some(Err((_, code))) => Err(self.refused(operation, code)),
            _ => Ok(()),
        }
    }

    /// The committed offsets of a group among those partitions. A client can ask only for the group of its
    /// configuration, so one is made for the question; it never joins.
    fn committed(
        &self,
        group: &str,
        query: TopicPartitionList,
    ) -> Result<BTreeMap<(String, i32), i64>, AdminError> {
        let operation = format!("read the offsets of group {group}");
        if query.count() == 0 {
            return Ok(BTreeMap::new());
        }
        let mut config = self.cluster.reader_config(group)?;
        // Else a cluster keeps an offset back for as long as a transaction that is open is to change it.
        config.set("isolation.level", "read_uncommitted");
        let consumer = outsider(&self.cluster, &config)?;
        let committed = self
            .ask_coordinators(|| consumer.committed_offsets(query.clone(), self.timeout))
            .map_err(self.failed(&operation))?;
        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert((element.topic().to_string(), element.partition()), offset);
            }
        }
        Ok(offsets)
    }

    /// Asks again while nobody answers for the group: its coordinator starts, or moves to another node.
    fn ask_coordinators<T>(&self, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let answer = ask();
            let code = answer.as_ref().err().and_then(|error| match error {
                // The crate gives none of these.
                KafkaError::AdminOp(code) => Some(*code),
                error => error.rdkafka_error_code(),
            });
            if !code.is_some_and(has_no_coordinator) || Instant::now() > deadline {
                return answer;
            }
            std::thread::sleep(COORDINATOR_RETRY);
        }
    }
}

fn has_no_coordinator(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable | Code::NotCoordinator)
}

fn summarize(group: &GroupInfo) -> GroupSummary {
    GroupSummary {
        name: group.name().to_string(),
        state: group.state().to_string(),
        protocol_type: group.protocol_type().to_string(),
        members: group.members().len(),
    }
}

fn members(group: &GroupInfo) -> Vec<GroupMember> {
    let member = |member: &rdkafka::groups::GroupMemberInfo| GroupMember {
        member_id: member.id().to_string(),
        client_id: member.client_id().to_string(),
        host: member.client_host().trim_start_matches('/').to_string(),
    };
    group.members().iter().map(member).collect()
}
