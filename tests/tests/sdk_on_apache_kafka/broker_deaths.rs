//! Brokers of a cluster die, one after the other, while the others go on.

use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, HandlerError, Output};
use tidings::reader::{ReadFrom, TopicReader};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record};
use tidings_tests::{ApacheCluster, Connection, CoordinatorOf, jars, until, until_within};

use crate::broker_kills::work_through;

const PATIENCE: Duration = Duration::from_secs(120);

/// Six virtual machines at once are too many for a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn brokers_that_die_one_after_the_other_cost_no_record_and_no_order() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = ApacheCluster::start(&jars());
    let (bootstrap, nodes_count) = (cluster.bootstrap(), cluster.nodes_count());
    work_through(&bootstrap, nodes_count, |node, until_work_goes_on| {
        cluster.kill(node);
        until_work_goes_on();
        cluster.revive();
    });
}

/// The node that coordinates a group dies while the group's offsets are on their way to it.
#[test]
fn a_coordinator_that_dies_with_a_transaction_under_way_keeps_nobody_waiting() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = ApacheCluster::start(&jars());
    let bootstrap = cluster.bootstrap();
    let nodes: Vec<&str> = bootstrap.split(',').collect();
    let sdk = Cluster::new(&*bootstrap);
    let admin = Admin::new(&sdk, PATIENCE).unwrap();
    ["orders", "copies"].iter().for_each(|topic| admin.create_topic(&TopicSpec::new(*topic, 6)).unwrap());
    let mut connection = Connection::open(nodes[0]).unwrap();
    let coordinator = connection.coordinator(CoordinatorOf::Group, "copying");
    // Of the transaction another one, so that it gets as far as the group's.
    let ids = (0..).map(|number| format!("copying-{number}"));
    let transactional_id = {
        let mut others =
            ids.filter(|id| connection.coordinator(CoordinatorOf::Transactions, id) != coordinator);
        others.next().unwrap()
    };
    let (second, seconds) = channel();
    let (stopped, is_stopped) = channel();
    let handler = move |batch: &[ReceivedRecord], output: &mut Output| {
        if batch.iter().any(|order| order.value.as_deref() == Some(b"second")) && second.send(()).is_ok() {
            is_stopped.recv().unwrap();
        }
        // To every node: what waits for the one that dies makes the client look who is there.
        for (order, partition) in
            batch.iter().flat_map(|order| (0..6).map(move |partition| (order, partition)))
        {
            output.send(Record::new("copies").value(order.value.clone().unwrap()).partition(partition));
        }
        Ok::<(), HandlerError>(())
    };
    let options = ConsumerOptions::new("copying", ["orders"]);
    let copying = Consumer::exactly_once(&sdk, options, &transactional_id, handler).unwrap();
    let options = ProducerOptions { delivery_timeout: PATIENCE, ..ProducerOptions::default() };
    let producer = Producer::new(&sdk, options).unwrap();
    let order = |value: &str| {
        let sent = producer.send_batch_blocking(&[Record::new("orders").value(value)], PATIENCE);
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    };
    let copies = || {
        // Nodes leave meanwhile.
        let mut reader = TopicReader::open(&sdk, "copies", ReadFrom::Earliest, PATIENCE).ok()?;
        let mut count = 0;
        while reader.next_until_end(PATIENCE).ok()?.is_some() {
            count += 1;
        }
        Some(count)
    };
    // With it the client has found the group's coordinator.
    order("first");
    until_within(PATIENCE, "the first is copied", || (copies() == Some(6)).then_some(()));
    order("second");
    seconds.recv().unwrap();
    drop(seconds);
    let index = nodes.iter().position(|node| *node == coordinator).unwrap();
    cluster.signal(index, Signal::STOP);
    stopped.send(()).unwrap();
    let begun = Instant::now();
    until("the offsets are on their way", || (begun.elapsed() > Duration::from_millis(500)).then_some(()));
    cluster.kill(index);
    until_within(PATIENCE, "the second is copied", || (copies() == Some(12)).then_some(()));
    copying.stop(PATIENCE).unwrap();
}
