//! A topic that the group leaves to nobody.
//!
//! One in seventy consumers of new groups on a busy cluster never read its retry topic: the node that the assigning member had asked
//! did not know it yet, and librdkafka, which leaves such a topic to nobody, does not look again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use tidings::admin::AdminError;
use tidings::consumer::{Consumer, ConsumerOptions, GroupProtocol};
use tidings::{Record, now_ms};
use tidings_tests::{Connection, CoordinatorOf, GroupMember, LONG, Membership, until, until_within};
use tidings_wire::messages::join_group_response::JoinGroupResponseMember;
use tidings_wire::messages::sync_group_request::SyncGroupRequestAssignment;

use crate::support::{Remembering, STOP_LIMIT, Scene};

const NONE: i16 = 0;
/// `COORDINATOR_LOAD_IN_PROGRESS` and `COORDINATOR_NOT_AVAILABLE`.
const NOT_READY: [i16; 2] = [14, 15];
const REBALANCE_IN_PROGRESS: i16 = 27;
const SESSION_MS: i32 = 30_000;
const HEARTBEAT: Duration = Duration::from_millis(50);

/// A topic and the number of its partitions.
type Topic = (String, i32);

/// The member that assigns, by hand: everything goes in turn to who subscribes to it, but for what it has not heard of.
struct Leader {
    member: GroupMember,
    topics: Vec<Topic>,
    /// Not heard of at first.
    late: String,
    has_heard: Arc<AtomicBool>,
}

/// It, on a thread of its own.
struct Running {
    has_heard: Arc<AtomicBool>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Leader {
    /// Joins the group as its first member.
    fn start(scene: &Scene, group: &str, protocol: &'static str, topics: Vec<Topic>, late: &str) -> Running {
        let mut connection = Connection::open(scene.cluster.bootstrap().split(',').next().unwrap()).unwrap();
        let address = connection.coordinator(CoordinatorOf::Group, group);
        let membership = Membership {
            group_id: group.to_owned(),
            protocol,
            subscription: subscription(),
            session_timeout_ms: SESSION_MS,
        };
        let member = GroupMember::new(&address, membership).unwrap();
        let mut leader = Self { member, topics, late: late.to_owned(), has_heard: Arc::default() };
        leader.join();
        let has_heard = Arc::clone(&leader.has_heard);
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                leader.beat();
            }
            assert_eq!(leader.member.leave().unwrap(), NONE);
        });
        Running { has_heard, stop, thread }
    }

    fn join(&mut self) {
        let joined = until("the coordinator has read what it has to know", || {
            Some(self.member.join().unwrap()).filter(|joined| !NOT_READY.contains(&joined.error_code))
        });
        assert_eq!((joined.error_code, &joined.leader), (NONE, &joined.member_id), "the first one assigns");
        let error_code = self.member.sync(self.assign(&joined.members)).unwrap();
        assert!([NONE, REBALANCE_IN_PROGRESS].contains(&error_code), "sync: {error_code}");
    }

    fn assign(&self, members: &[JoinGroupResponseMember]) -> Vec<SyncGroupRequestAssignment> {
        let subscribes = |member: &JoinGroupResponseMember, topic: &str| {
            // A length before each name: one may begin with another.
            let name = [&(topic.len() as i16).to_be_bytes()[..], topic.as_bytes()].concat();
            member.metadata.windows(name.len()).any(|window| window == name)
        };
        let has_heard = self.has_heard.load(Ordering::SeqCst);
        let mut shares = vec![Vec::new(); members.len()];
        for (name, partitions) in self.topics.iter().filter(|(name, _)| has_heard || *name != self.late) {
            let takers: Vec<_> =
                (0..members.len()).filter(|index| subscribes(&members[*index], name)).collect();
            for (partition, taker) in (0..*partitions).zip(takers.iter().cycle()) {
                shares[*taker].push((name.as_str(), partition));
            }
        }
        let assign = |(member, share): (&JoinGroupResponseMember, Vec<(&str, i32)>)| {
            let (member_id, assignment) = (member.member_id.clone(), assignment(&share));
            SyncGroupRequestAssignment { member_id, assignment, ..Default::default() }
        };
        members.iter().zip(shares).map(assign).collect()
    }

    fn beat(&mut self) {
        match self.member.heartbeat().unwrap() {
            NONE => {}
            REBALANCE_IN_PROGRESS => self.join(),
            other => panic!("heartbeat: error code {other}"),
        }
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

/// Kafka's `ConsumerProtocolAssignment`, with each partition as a topic of its own: its readers add up.
fn assignment(share: &[(&str, i32)]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(1); // version
    bytes.put_i32(share.len() as i32);
    for (name, partition) in share {
        bytes.put_i16(name.len() as i16);
        bytes.put_slice(name.as_bytes());
        bytes.put_i32(1);
        bytes.put_i32(*partition);
    }
    bytes.put_i32(-1); // user data
    bytes.into()
}

impl Running {
    /// From now on it knows all topics; who asks it to assign anew gets them.
    fn hear(&self) {
        self.has_heard.store(true, Ordering::SeqCst);
    }

    fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}

/// Has a member make its topics and leave, and describes them.
fn make_topics<const N: usize>(scene: &Scene, options: &ConsumerOptions, names: [&str; N]) -> Vec<Topic> {
    let mut options = options.clone();
    // A static one would stay a member.
    options.instance_id = None;
    let maker = scene.consume(options, &Remembering::default());
    until("it has joined", || (!maker.state().partitions.is_empty()).then_some(()));
    // The nodes of a cluster hear of them one after the other, and any of them may be asked.
    let described = names.map(|name| until("a topic is known", || scene.admin.describe_topic(name).ok()));
    maker.stop(STOP_LIMIT).unwrap();
    described.into_iter().map(|topic| (topic.name, topic.partitions.len() as i32)).collect()
}

fn what_is_left_to_nobody_is_assigned_anew(
    protocol: GroupProtocol,
    name: &'static str,
    instance_ids: &[Option<&str>],
) {
    let scene = Scene::new();
    let handler = Remembering::default();
    let mut options = scene.options();
    options.protocol = protocol;
    let retry = format!("{}.{}.retry", scene.topic, scene.group);
    let topics = make_topics(&scene, &options, [&scene.topic, &retry]);
    let leader = Leader::start(&scene, &scene.group, name, topics, &retry);
    let start = |instance_id: &Option<&str>| {
        let mut options = options.clone();
        options.instance_id = instance_id.map(str::to_owned);
        scene.consume(options, &handler)
    };
    let consumers: Vec<Consumer> = instance_ids.iter().map(start).collect();
    let owned = || -> Vec<String> {
        let partitions = consumers.iter().flat_map(|consumer| consumer.state().partitions);
        partitions.map(|owned| owned.topic.to_string()).collect()
    };
    let sources_only = vec![scene.topic.clone(); 3];
    until("they own their source, and nobody owns its retries", || (owned() == sources_only).then_some(()));
    leader.hear();
    scene.send(&[
        Record::new(retry.as_str()).value("again"),
        Record::new(scene.topic.as_str()).value("first"),
    ]);
    // A partition that moves without a word may have two owners for a moment.
    // Who has asked for it in vain waits longer before the next time.
    until_within(3 * LONG, "both are done", || (handler.counts().0 == 2).then_some(()));
    leader.stop();
    consumers.into_iter().for_each(|consumer| consumer.stop(STOP_LIMIT).unwrap());
}

#[test]
fn a_retry_topic_that_is_left_to_nobody_is_assigned_anew() {
    what_is_left_to_nobody_is_assigned_anew(GroupProtocol::Cooperative, "cooperative-sticky", &[None]);
}

#[test]
fn also_by_several_members_of_which_some_are_static() {
    let instance_ids = [Some("a"), None, Some("c")];
    what_is_left_to_nobody_is_assigned_anew(GroupProtocol::Cooperative, "cooperative-sticky", &instance_ids);
}

#[test]
fn also_where_everything_is_taken_away_at_each_rebalance() {
    what_is_left_to_nobody_is_assigned_anew(GroupProtocol::Eager, "range", &[None, None]);
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
        let has_left = match scene.admin.describe_group(&group) {
            Ok(group) => group.members.is_empty(),
            Err(error) => matches!(error, AdminError::UnknownGroup { .. }),
        };
        has_left.then(|| Leader::start(&scene, &group, "range", topics.clone(), &delay))
    });
    let consumer = scene.consume(options, &handler);
    let record = Record::new(scene.topic.as_str()).value("later").due_at_ms(now_ms() + 500);
    scene.send(&[record]);
    let members_count = || scene.admin.describe_group(&group).map_or(0, |group| group.members.len());
    until("the group has a second member", || (members_count() == 2).then_some(()));
    leader.hear();
    until_within(3 * LONG, "it is done when it is due", || (handler.counts() == (1, 1)).then_some(()));
    leader.stop();
    consumer.stop(STOP_LIMIT).unwrap();
}
