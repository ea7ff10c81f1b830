//! Topics and groups as tools show them.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidings::admin::{AdminError, TopicSpec};
use tidings::consumer::GroupProtocol;
use tidings_tests::{until, until_within};

use crate::support::{PATIENCE, Remembering, STOP_LIMIT, Scene};

/// Shorter than a session, after which a group gives up a member whether it has left or not.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn topics_are_created_described_and_deleted() {
    let scene = Scene::new();
    let spec = TopicSpec::new(&scene.topic, 5);
    assert!(matches!(scene.admin.create_topic(&spec), Err(AdminError::TopicExists { .. })));
    assert!(scene.admin.ensure_topics(&[spec]).unwrap().is_empty(), "an existing topic stays as it is");
    let other = format!("{}-other", scene.topic);
    let spec = TopicSpec::new(&other, 2).config("retention.ms", "60000");
    assert_eq!(scene.admin.ensure_topics(&[spec]).unwrap(), std::slice::from_ref(&other));
    scene.produce((0..50).map(|index| index.to_string()));
    let described = scene.admin.describe_topic(&scene.topic).unwrap();
    assert_eq!(described.partitions.len(), 3);
    assert_eq!(described.partitions.iter().map(|partition| partition.end_offset.unwrap()).sum::<i64>(), 50);
    assert!(described.partitions.iter().all(|partition| partition.start_offset == Some(0)));
    let described = scene.admin.describe_topic(&other).unwrap();
    assert_eq!(described.config, [("retention.ms".to_string(), "60000".to_string())]);
    match scene.admin.create_topic(&TopicSpec::new(format!("{other}-2"), 1).config("foo", "bar")) {
        Err(AdminError::Refused { name, reason, .. }) => {
            assert!(name == "InvalidConfig" && reason.contains("foo"), "{name}: {reason}");
        }
        other => panic!("{other:?}"),
    }
    let listed = || scene.admin.list_topics().unwrap().into_iter().any(|topic| topic.name == other);
    assert!(listed());
    scene.admin.delete_topic(&other).unwrap();
    // The nodes of a cluster forget it one after the other, and any of them may be asked.
    until("the topic is gone", || {
        matches!(scene.admin.describe_topic(&other), Err(AdminError::UnknownTopic { .. })).then_some(())
    });
    until("the topic is listed no more", || (!listed()).then_some(()));
    assert!(matches!(scene.admin.delete_topic(&other), Err(AdminError::UnknownTopic { .. })));
}

#[test]
fn groups_show_members_offsets_and_lag() {
    check_group(GroupProtocol::Eager);
}

/// The older calls of Kafka say that such a group is dead.
#[test]
fn groups_of_the_consumer_protocol_show_them_as_well() {
    check_group(GroupProtocol::Consumer);
}

fn check_group(protocol: GroupProtocol) {
    let scene = Scene::new();
    scene.produce((0..90).map(|index| index.to_string()));
    let described = scene.admin.describe_group(&scene.group);
    assert!(matches!(described, Err(AdminError::UnknownGroup { .. })), "{described:?}");
    let handler = Remembering::default();
    let mut options = scene.options();
    (options.instance_id, options.protocol) = (None, protocol);
    let consumer = scene.consume(options, &handler);
    let lag = || {
        let offsets = scene.admin.group_offsets(&scene.group).unwrap();
        let own: Vec<_> = offsets.into_iter().filter(|offset| offset.topic == scene.topic).collect();
        (
            own.iter().map(|offset| offset.committed_offset).sum::<i64>(),
            own.iter().map(|offset| offset.lag).sum::<i64>(),
        )
    };
    until("all is committed", || (lag() == (90, 0)).then_some(()));
    let shown = || {
        let described = scene.admin.describe_group(&scene.group).unwrap();
        let listed = scene.admin.list_groups().unwrap();
        let group = listed.into_iter().find(|group| group.name == scene.group).unwrap();
        [(described.state, described.members.len()), (group.state, group.members)]
    };
    until("the member has what it is to have", || {
        let stable = || ("Stable".to_owned(), 1);
        (shown() == [stable(), stable()]).then_some(())
    });
    assert!(matches!(scene.admin.delete_group(&scene.group), Err(AdminError::GroupNotEmpty { .. })));
    consumer.stop(STOP_LIMIT).unwrap();
    scene.produce((0..10).map(|index| index.to_string()));
    assert_eq!(lag(), (90, 10));
    // It asks to leave, and does not wait for long until that is answered.
    until_within(LEAVE_LIMIT, "a dynamic member has left", || {
        let empty = || ("Empty".to_owned(), 0);
        (shown() == [empty(), empty()]).then_some(())
    });
    scene.admin.delete_group(&scene.group).unwrap();
    let described = scene.admin.describe_group(&scene.group);
    assert!(matches!(described, Err(AdminError::UnknownGroup { .. })), "{described:?}");
}

/// A cluster keeps them back from whoever asks for committed ones only: the group seemed to have no lag.
#[test]
fn offsets_that_an_open_transaction_is_to_change_are_told() {
    let scene = Scene::new();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", scene.cluster.bootstrap()).set("group.id", &scene.group);
    let consumer: BaseConsumer = config.create().unwrap();
    let at = |offset: i64| {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&scene.topic, 0, Offset::Offset(offset)).unwrap();
        offsets
    };
    until("the offset is committed", || consumer.commit(&at(3), CommitMode::Sync).ok());
    config.remove("group.id");
    let writer: BaseProducer = config.set("transactional.id", format!("{}-0", scene.group)).create().unwrap();
    writer.init_transactions(PATIENCE).unwrap();
    writer.begin_transaction().unwrap();
    let group = consumer.group_metadata().unwrap();
    writer.send_offsets_to_transaction(&at(5), &group, PATIENCE).unwrap();
    let told = || -> Vec<i64> {
        let offsets = scene.admin.group_offsets(&scene.group).unwrap();
        offsets.into_iter().map(|offset| offset.committed_offset).collect()
    };
    assert_eq!(told(), [3]);
    writer.commit_transaction(PATIENCE).unwrap();
    until("what was committed is told", || (told() == [5]).then_some(()));
}
