//! The resilient producer against a real broker that is down, hangs, is slow and comes back.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tidings::breaker::{BreakerOptions, BreakerState};
use tidings::{
    Cluster, Delivered, Producer, ProducerOptions, Record, ResilientOptions, ResilientProducer, SendError,
};
use tidings_tests::{LONG, Launch, Tidings, kept_address, until};

use crate::support::PATIENCE;

/// How long a send may take in these tests.
const TIMEOUT: Duration = Duration::from_millis(300);
/// What a busy machine may add to it, most times.
const SLACK: Duration = Duration::from_millis(500);
/// How long a breaker stays open in these tests: longer than a thread has to wait for a processor.
const OPEN_FOR: Duration = Duration::from_secs(3);

fn resilient(bootstrap: &str) -> ResilientProducer {
    resilient_within(bootstrap, TIMEOUT)
}

fn resilient_within(bootstrap: &str, timeout: Duration) -> ResilientProducer {
    let breaker = BreakerOptions { open_for: OPEN_FOR, ..BreakerOptions::default() };
    let producer = ProducerOptions { delivery_timeout: timeout, ..ProducerOptions::default() };
    let options = ResilientOptions { timeout, breaker, producer };
    ResilientProducer::new(&Cluster::new(bootstrap), options).unwrap()
}

/// A broker of this test's own, with a topic. Nobody takes its port while it is away.
fn broker() -> (Tidings, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).at(&kept_address()).start();
    broker.kafka().create_topic("orders", 1);
    (broker, directory)
}

/// Sends one record and says how long the answer took.
fn send(producer: &ResilientProducer, value: &str) -> (Result<Delivered, SendError>, Duration) {
    let record = Record::new("orders").partition(0).value(value);
    let begun = Instant::now();
    let mut results = producer.send_batch_blocking(std::slice::from_ref(&record));
    (results.pop().unwrap(), begun.elapsed())
}

/// Sends until one is acknowledged; the first also connects.
#[track_caller]
fn send_until_acknowledged(producer: &ResilientProducer, value: &str) {
    until("a record is acknowledged", || send(producer, value).0.ok());
    assert_eq!(producer.breaker_state(), BreakerState::Closed);
}

/// Answers come by the deadline: all of them, with what a busy machine adds to some, and most without.
#[track_caller]
fn are_in_time(mut took: Vec<Duration>) {
    took.sort();
    assert!(took[took.len() / 2] <= TIMEOUT + SLACK, "{took:?}");
    assert!(took[took.len() - 1] <= TIMEOUT + PATIENCE, "{took:?}");
}

/// Five sends fail by their deadline and open the breaker, whatever the cluster does. Answers the values that are refused then.
#[track_caller]
fn opens_after_five(producer: &ResilientProducer) -> Vec<String> {
    let mut all_took = Vec::new();
    for number in 1..=5 {
        let (result, took) = send(producer, &format!("lost-{number}"));
        let error = result.unwrap_err();
        assert!(error.is_outage() && !matches!(error, SendError::BreakerOpen { .. }), "{number}: {error:?}");
        all_took.push(took);
        let expected = if number < 5 { BreakerState::Closed } else { BreakerState::Open };
        assert_eq!(producer.breaker_state(), expected, "after {number}");
    }
    are_in_time(all_took);
    is_fast(producer)
}

/// While open, answers take well under 10 ms; the median is told apart from the hiccups of a busy machine. Answers what was
/// refused.
#[track_caller]
fn is_fast(producer: &ResilientProducer) -> Vec<String> {
    let (mut took, mut refused) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let value = format!("refused-{number}");
        let (result, elapsed) = send(producer, &value);
        // Where its time was over in the middle, this one is the probe.
        if let Err(SendError::BreakerOpen { retry_after, .. }) = result {
            assert!(retry_after <= OPEN_FOR);
            took.push(elapsed);
            refused.push(value);
        }
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{} answers while open: median {median:?}, worst {worst:?}", took.len());
    assert!(median < Duration::from_millis(1), "median {median:?}");
    assert!(took[took.len() * 95 / 100] < Duration::from_millis(10), "{took:?}");
    refused
}

#[test]
fn nobody_there() {
    // Port 9 (discard) has no listener on a test machine.
    opens_after_five(&resilient("127.0.0.1:9"));
}

#[test]
fn somebody_accepts_and_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    opens_after_five(&resilient(&listener.local_addr().unwrap().to_string()));
}

#[test]
fn a_stopped_broker_opens_the_breaker_and_one_that_goes_on_closes_it() {
    let (broker, _directory) = broker();
    let producer = resilient(&broker.bootstrap());
    send_until_acknowledged(&producer, "before");
    broker.signal(Signal::STOP);
    let refused = opens_after_five(&producer);
    broker.signal(Signal::CONT);
    send_until_acknowledged(&producer, "after");
    let values: Vec<String> =
        broker.kafka().read_all("orders").iter().map(tidings_tests::Record::value_text).collect();
    assert_eq!(values.first().map(String::as_str), Some("before"));
    assert!(values.contains(&"after".to_owned()), "{values:?}");
    assert!(!values.iter().any(|value| refused.contains(value)), "a refused record was written: {values:?}");
}

#[test]
fn a_killed_broker_opens_the_breaker_and_its_restart_closes_it() {
    let (broker, directory) = broker();
    let address = broker.bootstrap();
    let producer = resilient(&address);
    send_until_acknowledged(&producer, "before");
    broker.kill_now();
    opens_after_five(&producer);
    let broker = Launch::broker(directory.path()).at(&address).start();
    send_until_acknowledged(&producer, "after");
    drop(broker);
}

#[test]
fn a_broker_that_answers_after_the_deadline_opens_it_too() {
    let (broker, _directory) = broker();
    let producer = resilient(&broker.bootstrap());
    send_until_acknowledged(&producer, "before");
    let pass = |time: Duration| {
        let since = Instant::now();
        until("some time has passed", || (since.elapsed() >= time).then_some(()));
    };
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let all_took = std::thread::scope(|scope| {
        // It gets on with its work for a moment after each long pause: everything is answered, and late. Not for ever, should the
        // test fail.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && begun.elapsed() < 2 * LONG {
                broker.signal(Signal::STOP);
                pass(TIMEOUT * 10);
                broker.signal(Signal::CONT);
                pass(Duration::from_millis(20));
            }
        });
        let mut all_took = Vec::new();
        until("the breaker opens", || {
            all_took.push(send(&producer, "slow").1);
            (producer.breaker_state() == BreakerState::Open).then_some(())
        });
        is_fast(&producer);
        done.store(true, Ordering::Relaxed);
        all_took
    });
    are_in_time(all_took);
    send_until_acknowledged(&producer, "after");
}

#[test]
fn one_probe_goes_through_and_the_others_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let producer = resilient(&listener.local_addr().unwrap().to_string());
    opens_after_five(&producer);
    let since = Instant::now();
    until("the breaker may be tried", || (since.elapsed() >= OPEN_FOR).then_some(()));
    let (probes, refused) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| send(&producer, "probe").0)).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap().unwrap_err());
        results.partition::<Vec<_>, _>(|error| !matches!(error, SendError::BreakerOpen { .. }))
    });
    assert_eq!((probes.len(), refused.len()), (1, 15), "{probes:?}");
    assert_eq!(producer.breaker_state(), BreakerState::Open);
}

#[test]
fn records_that_are_refused_for_what_they_are_do_not_trip_it() {
    let (broker, _directory) = broker();
    let producer = resilient_within(&broker.bootstrap(), PATIENCE);
    send_until_acknowledged(&producer, "before");
    for _ in 0..10 {
        let error = send(&producer, &"x".repeat(3_000_000)).0.unwrap_err();
        assert!(!error.is_outage(), "{error:?}");
    }
    assert_eq!(producer.breaker_state(), BreakerState::Closed);
    send_until_acknowledged(&producer, "after");
}

/// The control: without a breaker, every send to a cluster that hangs costs its caller the whole deadline.
#[test]
fn without_a_breaker_every_send_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = Cluster::new(listener.local_addr().unwrap().to_string());
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    for _ in 0..8 {
        let begun = Instant::now();
        let record = Record::new("orders").value("x");
        let results = producer.send_batch_blocking(std::slice::from_ref(&record), TIMEOUT);
        assert!(results[0].is_err());
        assert!((TIMEOUT..TIMEOUT + PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
