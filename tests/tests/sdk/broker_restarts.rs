//! The only broker dies, and comes back with what it had acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
use tidings::testing::{Broker, BrokerOptions};
use tidings::{Producer, ProducerOptions, Record};
use tidings_tests::until;

use crate::broker_kills::work_through;
use crate::support::STOP_LIMIT;

/// Longer than a consumer waits before it asks who owns what, and than it waits for the answer.
const OUTAGE: Duration = Duration::from_secs(20);

#[test]
fn a_broker_that_is_killed_and_restarted_costs_no_record_and_no_order() {
    let broker = Broker::with(BrokerOptions { durable: true, ..BrokerOptions::default() }).unwrap();
    work_through(broker.bootstrap(), 3, |_, until_work_goes_on| {
        broker.kill().unwrap();
        broker.restart().unwrap();
        until_work_goes_on();
    });
}

/// The client library ended the process by an assertion when a coordinator came back whose answer a question had waited for in vain.
#[test]
fn a_coordinator_that_is_away_while_it_is_asked_who_owns_what_may_come_back() {
    let broker = Broker::with(BrokerOptions { durable: true, ..BrokerOptions::default() }).unwrap();
    broker.create_topic("orders", 1).unwrap();
    let cluster = broker.cluster();
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let mut options = ConsumerOptions::new("billing", ["orders"]);
    options.revoke_wait = Duration::ZERO;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let handler = move |_: &tidings::ReceivedRecord| {
        counted.fetch_add(1, Ordering::SeqCst);
        Outcome::Done
    };
    let consumer = Consumer::for_each(&cluster, producer.clone(), options, handler).unwrap();
    until("it has its partition", || (!consumer.state().partitions.is_empty()).then_some(()));
    let away_since = Instant::now();
    broker.kill().unwrap();
    until("the question has run out of time", || (away_since.elapsed() > OUTAGE).then_some(()));
    broker.restart().unwrap();
    until("the record is handled", || {
        let sent =
            producer.send_batch_blocking(&[Record::new("orders").value("placed")], Duration::from_secs(5));
        (sent[0].is_ok() && count.load(Ordering::SeqCst) > 0).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
}
