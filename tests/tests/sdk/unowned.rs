//! A topic that the group leaves to nobody.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use tidings::consumer::{ConsumerOptions, GroupProtocol};
use tidings::{Record, now_ms};
use tidings_tests::{Connection, until};
use tidings_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use tidings_wire::messages::heartbeat_request::HeartbeatRequest;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use tidings_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use tidings_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};

use crate::support::{Remembering, Scene};

const NONE: i16 = 0;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const SESSION_MS: i32 = 30_000;
const HEARTBEAT: Duration = Duration::from_millis(50);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A topic and the number of its partitions.
type Topic = (String, i32);

/// The member that assigns, by hand: everything goes to the others, but for what it has not heard of.
struct Leader {
    connection: Connection,
    group: String,
    protocol: &'static str,
    member_id: String,
    generation_id: i32,
    topics: Vec<Topic>,
    /// Not heard of the first time that somebody subscribes to it.
    late: String,
    /// Generations in which it was left to nobody.
    blind_count: usize,
}

/// It, on a thread of its own.
struct Running {
    stop: Sender<()>,
    thread: JoinHandle<usize>,
}

impl Leader {
    /// Joins the group as its first member.
    fn start(scene: &Scene, group: &str, protocol: &'static str, topics: Vec<Topic>, late: &str) -> Running {
        let mut connection = Connection::open(scene.cluster.bootstrap().split(',').next().unwrap()).unwrap();
        let request = FindCoordinatorRequest { key: group.to_owned(), ..Default::default() };
        let address = until("the group has a coordinator", || {
            let found = connection.call(2, &request).unwrap();
            (found.error_code == NONE).then(|| format!("{}:{}", found.host, found.port))
        });
        let mut leader = Self {
            connection: Connection::open(&address).unwrap(),
            group: group.to_owned(),
            protocol,
            member_id: String::new(),
            generation_id: -1,
            topics,
            late: late.to_owned(),
            blind_count: 0,
        };
        leader.join();
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                leader.beat();
            }
            leader.leave();
            leader.blind_count
        });
        Running { stop, thread }
    }

    fn join(&mut self) {
        let joined = self.ask_to_join();
        assert_eq!((joined.error_code, &joined.leader), (NONE, &joined.member_id), "the first one assigns");
        self.generation_id = joined.generation_id;
        let assignments = self.assign(&joined.members);
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation_id,
            member_id: self.member_id.clone(),
            assignments,
            ..SyncGroupRequest::default()
        };
        let error_code = self.connection.call(3, &request).unwrap().error_code;
        assert!([NONE, REBALANCE_IN_PROGRESS].contains(&error_code), "sync: {error_code}");
    }

    fn ask_to_join(&mut self) -> JoinGroupResponse {
        let protocol = JoinGroupRequestProtocol {
            name: self.protocol.to_owned(),
            metadata: subscription(),
            ..Default::default()
        };
        let mut request = JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            member_id: self.member_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        };
        let mut joined = self.connection.call(5, &request).unwrap();
        if joined.error_code == MEMBER_ID_REQUIRED {
            request.member_id.clone_from(&joined.member_id);
            joined = self.connection.call(5, &request).unwrap();
        }
        self.member_id.clone_from(&joined.member_id);
        joined
    }

    fn assign(&mut self, members: &[JoinGroupResponseMember]) -> Vec<SyncGroupRequestAssignment> {
        let subscribes = |member: &JoinGroupResponseMember, topic: &str| {
            // A length before each name: one may begin with another.
            let name = [&(topic.len() as i16).to_be_bytes()[..], topic.as_bytes()].concat();
            member.metadata.windows(name.len()).any(|window| window == name)
        };
        let is_blind = self.blind_count == 0 && members.iter().any(|member| subscribes(member, &self.late));
        self.blind_count += usize::from(is_blind);
        let known = self.topics.iter().filter(|(name, _)| !(is_blind && *name == self.late));
        let known: Vec<&Topic> = known.collect();
        let assignment = |member: &JoinGroupResponseMember| {
            let topics = known.iter().filter(|(name, _)| subscribes(member, name));
            let assignment = assignment(&topics.copied().collect::<Vec<_>>());
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment,
                ..Default::default()
            }
        };
        members.iter().map(assignment).collect()
    }

    fn beat(&mut self) {
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation_id,
            member_id: self.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        match self.connection.call(3, &request).unwrap().error_code {
            NONE => {}
            REBALANCE_IN_PROGRESS => self.join(),
            other => panic!("heartbeat: error code {other}"),
        }
    }

    fn leave(&mut self) {
        let member = MemberIdentity { member_id: self.member_id.clone(), ..MemberIdentity::default() };
        let request =
            LeaveGroupRequest { group_id: self.group.clone(), members: vec![member], ..Default::default() };
        assert_eq!(self.connection.call(3, &request).unwrap().error_code, NONE);
    }
}

/// Kafka's `ConsumerProtocolSubscription`, to nothing.
fn subscription() -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(1); // version
    bytes.put_i32(0); // topics
    bytes.put_i32(-1); // user data
    bytes.put_i32(0); // partitions owned
    bytes.into()
}

/// Kafka's `ConsumerProtocolAssignment`.
fn assignment(topics: &[&Topic]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(1); // version
    bytes.put_i32(topics.len() as i32);
    for (name, partitions) in topics {
        bytes.put_i16(name.len() as i16);
        bytes.put_slice(name.as_bytes());
        bytes.put_i32(*partitions);
        (0..*partitions).for_each(|partition| bytes.put_i32(partition));
    }
    bytes.put_i32(-1); // user data
    bytes.into()
}

impl Running {
    /// How often it was blind.
    fn stop(self) -> usize {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

/// Has a member make its topics and leave, and describes them.
fn make_topics<const N: usize>(scene: &Scene, options: &ConsumerOptions, names: [&str; N]) -> Vec<Topic> {
    let mut options = options.clone();
    // A static one would stay a member.
    options.instance_id = None;
    let maker = scene.consume(options, &Remembering::default());
    until("it has joined", || (!maker.state().partitions.is_empty()).then_some(()));
    let described = names.map(|name| scene.admin.describe_topic(name).unwrap());
    maker.stop(STOP_LIMIT).unwrap();
    described.into_iter().map(|topic| (topic.name, topic.partitions.len() as i32)).collect()
}

fn what_is_left_to_nobody_is_assigned_anew(
    protocol: GroupProtocol,
    name: &'static str,
    instance_id: Option<&str>,
) {
    let scene = Scene::new();
    let handler = Remembering::default();
    let mut options = scene.options();
    options.protocol = protocol;
    options.instance_id = instance_id.map(str::to_owned);
    let retry = format!("{}.{}.retry", scene.topic, scene.group);
    let topics = make_topics(&scene, &options, [&scene.topic, &retry]);
    let leader = Leader::start(&scene, &scene.group, name, topics, &retry);
    let consumer = scene.consume(options, &handler);
    let owned = || -> BTreeSet<String> {
        consumer.state().partitions.iter().map(|owned| owned.topic.to_string()).collect()
    };
    let sources_only = BTreeSet::from([scene.topic.clone()]);
    until("it owns its source, and nobody owns its retries", || (owned() == sources_only).then_some(()));
    scene.send(&[
        Record::new(retry.as_str()).value("again"),
        Record::new(scene.topic.as_str()).value("first"),
    ]);
    until("both are done", || (handler.counts() == (2, 1)).then_some(()));
    assert_eq!(leader.stop(), 1, "once it had not heard of the topic");
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_retry_topic_that_is_left_to_nobody_is_assigned_anew() {
    what_is_left_to_nobody_is_assigned_anew(GroupProtocol::Cooperative, "cooperative-sticky", None);
}

#[test]
fn also_by_a_static_member() {
    what_is_left_to_nobody_is_assigned_anew(GroupProtocol::Cooperative, "cooperative-sticky", Some("only"));
}

#[test]
fn also_where_everything_is_taken_away_at_each_rebalance() {
    what_is_left_to_nobody_is_assigned_anew(GroupProtocol::Eager, "range", None);
}

#[test]
fn so_is_a_delay_topic() {
    let scene = Scene::new();
    let handler = Remembering::default();
    let mut options = scene.options();
    options.instance_id = None;
    options.delayed_delivery = true;
    let (delay, group) = (format!("{}.{}.delay", scene.topic, scene.group), format!("{}.delay", scene.group));
    let topics = make_topics(&scene, &options, [&delay]);
    let leader = until("the one that made the topics has left", || {
        let members = scene.admin.describe_group(&group).map_or(0, |group| group.members.len());
        (members == 0).then(|| Leader::start(&scene, &group, "range", topics.clone(), &delay))
    });
    let consumer = scene.consume(options, &handler);
    let record = Record::new(scene.topic.as_str()).value("later").due_at_ms(now_ms() + 500);
    scene.send(&[record]);
    until("it is done when it is due", || (handler.counts() == (1, 1)).then_some(()));
    assert_eq!(leader.stop(), 1, "once it had not heard of the topic");
    consumer.stop(STOP_LIMIT).unwrap();
}
