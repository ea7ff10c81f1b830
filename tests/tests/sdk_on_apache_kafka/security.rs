//! A node of Apache Kafka with TLS and logins: everything the SDK and the platform do goes through it, and whoever is refused
//! is told why, by every kind of client, before the time is over that the caller gave.

use std::time::{Duration, Instant};

use serde_json::json;
use tidings::admin::{Admin, AdminError, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, Outcome, Phase};
use tidings::failure::{Failure, FailureInbox, Selection, StatusFilter};
use tidings::producer::{TransactionError, TransactionalOptions, TransactionalProducer};
use tidings::reader::{ReadError, ReadFrom, TopicReader};
use tidings::{
    Cluster, KafkaFault, Mechanism, Producer, ProducerOptions, ReceivedRecord, Record, ResilientOptions,
    ResilientProducer, Security, SendError, TlsProblem,
};
use tidings_tests::{Authority, KAFKA_PASSWORD, KAFKA_USER, Launch, SecureKafka, jars, until_within};

use crate::support::{PATIENCE, patient_producer};

/// How long refused callers say they would wait. Calm nodes refuse within two seconds, busy ones take a while longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// So many mistakes are made at once, by six clients each.
const AT_ONCE: usize = 5;

/// One node for all: it takes seconds to start.
#[test]
fn a_cluster_with_tls_and_logins() {
    let node = SecureKafka::start(&jars());
    for (mechanism, topic) in [(Mechanism::ScramSha512, "by-scram"), (Mechanism::Plain, "by-plain")] {
        works(&Cluster::new(node.sasl_ssl()).security(login(&node, mechanism)), topic);
    }
    works_with_a_certificate_of_its_own(&node);
    other_hosts_are_taken_where_that_is_asked_for(&node);
    the_refused_are_told(&node);
    the_platform_works(&node);
    the_platform_tells_who_refuses_it(&node);
}

fn trusting(node: &SecureKafka) -> Security {
    Security::tls().ca_pem(node.authority().pem())
}

fn login(node: &SecureKafka, mechanism: Mechanism) -> Security {
    trusting(node).sasl(mechanism, KAFKA_USER, KAFKA_PASSWORD)
}

/// Admin, producers of every kind, a group, an inbox and a reader.
#[track_caller]
fn works(cluster: &Cluster, topic: &str) {
    let admin = Admin::new(cluster, PATIENCE).unwrap();
    admin.create_topic(&TopicSpec::new(topic, 1).replication(1)).unwrap();
    let producer = Producer::new(cluster, patient_producer()).unwrap();
    producer.send_batch_blocking(&[record(topic, "plain")], PATIENCE).pop().unwrap().unwrap();
    let options =
        ResilientOptions { timeout: PATIENCE, producer: patient_producer(), ..ResilientOptions::default() };
    let resilient = ResilientProducer::new(cluster, options).unwrap();
    block_on(resilient.send(&record(topic, "resilient"))).unwrap();
    let options = TransactionalOptions { timeout: PATIENCE, ..TransactionalOptions::default() };
    let mut transactional = TransactionalProducer::open(cluster, topic, options).unwrap();
    transactional.write(&[record(topic, "transactional")]).unwrap();

    // Kafka says that a transaction is committed before its end is in the partition.
    let values = until_within(PATIENCE, "all can be read", || {
        let mut reader = TopicReader::open(cluster, topic, ReadFrom::Earliest, PATIENCE).unwrap();
        let mut values = Vec::new();
        while let Some(record) = reader.next_until_end(PATIENCE).unwrap() {
            values.push(String::from_utf8(record.value.unwrap_or_default()).unwrap());
        }
        (values.len() >= 3).then_some(values)
    });
    assert_eq!(values, ["plain", "resilient", "transactional"]);

    let group = format!("{topic}-group");
    let mut options = ConsumerOptions::new(&group, [topic]);
    options.backoff.initial = Duration::from_millis(20);
    let reject = |_: &ReceivedRecord| Outcome::Reject(Failure::new("no"));
    let consumer = Consumer::for_each(cluster, producer.clone(), options, reject).unwrap();
    let inbox = FailureInbox::new(cluster, producer, topic).timeout(PATIENCE);
    until_within(PATIENCE, "the letters are there", || {
        let page = inbox.list(StatusFilter::Parked, None, 10).ok()?;
        (page.items.len() == 3).then_some(())
    });
    until_within(PATIENCE, "the offsets are committed", || {
        let offsets = admin.group_offsets(&group).unwrap();
        (!offsets.is_empty() && offsets.iter().all(|offset| offset.lag <= 1)).then_some(())
    });
    assert_eq!(inbox.discard(&Selection::All, "a test", false).unwrap().done, 3);
    drop(consumer);
}

fn works_with_a_certificate_of_its_own(node: &SecureKafka) {
    let identity = node.authority().of_host("client", None);
    let security = trusting(node).client_certificate_pem(identity.certificate, identity.key);
    works(&Cluster::new(node.mutual_tls()).security(security), "by-certificate");
}

fn other_hosts_are_taken_where_that_is_asked_for(node: &SecureKafka) {
    let cluster = Cluster::new(node.other_host()).security(trusting(node).ignore_host_name());
    Admin::new(&cluster, PATIENCE).unwrap().connect().unwrap();
}

/// A mistake: where a client connects, how, and whether a fault tells what is wrong.
struct Mistake {
    name: &'static str,
    address: String,
    security: Security,
    is_told: fn(&KafkaFault) -> bool,
}

/// Some at once, because it takes a while to be sure that waiting does not help.
fn the_refused_are_told(node: &SecureKafka) {
    let check = |mistake: Mistake| {
        let Mistake { name, address, security, is_told } = mistake;
        let cluster = Cluster::new(address).security(security);
        for (client, fault, took) in faults(&cluster) {
            assert!(is_told(&fault), "{name}, {client}: {fault:?}\n{}", node.logged());
            assert!(!fault.hint().is_empty() && !format!("{fault:?} {fault}").contains("s3cret"));
            // With room for a busy machine.
            assert!(took < 2 * TIMEOUT, "{name}, {client}: after {took:?}");
        }
    };
    let mut mistakes = mistakes(node);
    while !mistakes.is_empty() {
        let some = mistakes.split_off(mistakes.len().saturating_sub(AT_ONCE));
        std::thread::scope(|scope| some.into_iter().for_each(|one| drop(scope.spawn(|| check(one)))));
    }
}

fn mistakes(node: &SecureKafka) -> Vec<Mistake> {
    let mistake = |name, address, security, is_told| Mistake { name, address, security, is_told };
    let wrong = |mechanism| trusting(node).sasl(mechanism, KAFKA_USER, "s3cret but wrong");
    let strange = Security::tls().ca_pem(Authority::new("a stranger").pem());
    let is_login: fn(&KafkaFault) -> bool = |fault| matches!(fault, KafkaFault::Authentication { .. });
    vec![
        mistake("wrong password, SCRAM", node.sasl_ssl(), wrong(Mechanism::ScramSha512), is_login),
        mistake("wrong password, PLAIN", node.sasl_ssl(), wrong(Mechanism::Plain), is_login),
        mistake("no login at all", node.sasl_ssl(), trusting(node), is_login),
        mistake(
            "a mechanism that is off",
            node.sasl_ssl(),
            login(node, Mechanism::ScramSha256),
            |fault| matches!(fault, KafkaFault::Mechanism { offered, .. } if offered.contains("SCRAM-SHA-512")),
        ),
        mistake(
            "an authority that is not trusted",
            node.sasl_ssl(),
            strange.sasl(Mechanism::ScramSha512, KAFKA_USER, KAFKA_PASSWORD),
            |fault| matches!(fault, KafkaFault::Tls { problem: TlsProblem::Untrusted { .. }, .. }),
        ),
        mistake(
            "another host's certificate",
            node.other_host(),
            trusting(node),
            |fault| matches!(fault, KafkaFault::Tls { problem: TlsProblem::OtherHost { host }, .. } if host == "127.0.0.1"),
        ),
        mistake("plaintext to a port with TLS", node.sasl_ssl(), Security::plaintext(), |fault| {
            matches!(fault, KafkaFault::Tls { problem: TlsProblem::ServerSpeaksTls, .. })
        }),
        mistake("TLS to a port without it", node.plaintext(), trusting(node), |fault| {
            matches!(fault, KafkaFault::Tls { problem: TlsProblem::ServerSpeaksPlaintext, .. })
        }),
        mistake("no certificate where one is wanted", node.mutual_tls(), trusting(node), |fault| {
            matches!(fault, KafkaFault::Tls { problem: TlsProblem::ClientCertificate { .. }, .. })
        }),
        mistake(
            "a login where there is none",
            node.plaintext(),
            Security::plaintext().sasl(Mechanism::Plain, KAFKA_USER, KAFKA_PASSWORD),
            |fault| matches!(fault, KafkaFault::Mechanism { offered, .. } if offered.is_empty()),
        ),
    ]
}

/// A producer whose client gives a record up when the caller's time is over.
fn producer_options() -> ProducerOptions {
    ProducerOptions { delivery_timeout: TIMEOUT, ..ProducerOptions::default() }
}

/// What every kind of client says of a cluster that refuses it, and after how long; all at once.
fn faults(cluster: &Cluster) -> Vec<(&'static str, KafkaFault, Duration)> {
    type Try = fn(&Cluster) -> KafkaFault;
    let clients: [(&str, Try); 6] = [
        ("admin", of_admin),
        ("reader", of_reader),
        ("producer", of_producer),
        ("resilient producer", of_resilient_producer),
        ("transactional producer", of_transactional_producer),
        ("consumer", of_consumer),
    ];
    std::thread::scope(|scope| {
        let one = |(name, fault): (&'static str, Try)| {
            scope.spawn(move || {
                let since = Instant::now();
                (name, fault(cluster), since.elapsed())
            })
        };
        let running = clients.map(one);
        running.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

fn of_admin(cluster: &Cluster) -> KafkaFault {
    let admin = Admin::new(cluster, TIMEOUT).unwrap();
    match admin.create_topic(&TopicSpec::new("never", 1)) {
        Err(AdminError::Kafka { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

fn of_reader(cluster: &Cluster) -> KafkaFault {
    match TopicReader::open(cluster, "never", ReadFrom::Earliest, TIMEOUT) {
        Err(ReadError::Kafka { fault, .. }) => fault,
        other => panic!("{:?}", other.err()),
    }
}

fn of_producer(cluster: &Cluster) -> KafkaFault {
    let producer = Producer::new(cluster, producer_options()).unwrap();
    let error = producer.send_batch_blocking(&[record("never", "x")], TIMEOUT).pop().unwrap().unwrap_err();
    assert!(error.is_outage() && error.may_be_written() && !error.is_transient(), "{error:?}");
    refusal(error)
}

fn of_resilient_producer(cluster: &Cluster) -> KafkaFault {
    let options =
        ResilientOptions { timeout: TIMEOUT, producer: producer_options(), ..ResilientOptions::default() };
    let producer = ResilientProducer::new(cluster, options).unwrap();
    refusal(block_on(producer.send(&record("never", "x"))).unwrap_err())
}

fn refusal(error: SendError) -> KafkaFault {
    match error {
        SendError::Refused { fault, .. } => fault,
        other => panic!("{other:?}"),
    }
}

fn of_transactional_producer(cluster: &Cluster) -> KafkaFault {
    let options = TransactionalOptions { timeout: TIMEOUT, ..TransactionalOptions::default() };
    match TransactionalProducer::open(cluster, "never", options).err() {
        Some(TransactionError::Refused { fault }) => fault,
        other => panic!("{other:?}"),
    }
}

fn of_consumer(cluster: &Cluster) -> KafkaFault {
    let producer = Producer::new(cluster, ProducerOptions::default()).unwrap();
    let options = ConsumerOptions::new("never", ["never"]);
    let consumer =
        Consumer::for_each(cluster, producer, options, |_: &ReceivedRecord| Outcome::Done).unwrap();
    let state = || consumer.monitor().state();
    let fault = until_within(PATIENCE, "the consumer tells who refuses it", || {
        state().fault.filter(KafkaFault::is_refusal)
    });
    until_within(PATIENCE, "its phase tells the same", || match state().phase {
        Phase::Starting { waiting_for } => waiting_for.filter(|what| what.contains(&fault.hint())),
        other => panic!("{other:?}"),
    });
    fault
}

/// `tidings up --bootstrap` with its settings in a file, and a command.
fn the_platform_works(node: &SecureKafka) {
    let data = tempfile::tempdir().unwrap();
    let config = configured(node, data.path(), KAFKA_PASSWORD);
    let platform =
        Launch::up_on(&node.sasl_ssl(), data.path()).argument("--config").argument(&config).start();
    let http = platform.http();
    until_within(PATIENCE, "the platform is ready", || (http.get("/readyz").status == 200).then_some(()));
    let activity = json!({"id": "1", "tenant": "acme", "action": "invoice.paid"});
    // The first connection of the platform's producer may take longer than a caller waits.
    let is_taken = || http.post("/api/v1/activities", &activity).status == 200;
    until_within(PATIENCE, "an activity is taken", || is_taken().then_some(()));
    let list = || http.get("/api/v1/activities?tenant=acme").json()["items"].as_array().cloned();
    until_within(PATIENCE, "the activity is stored", || list().filter(|items| items.len() == 1));
    let has_inbox = || http.get("/api/v1/dlq/activities").status == 200;
    until_within(PATIENCE, "the letters are listed", || has_inbox().then_some(()));
    assert!(!platform.logged().contains(KAFKA_PASSWORD), "{}", platform.logged());

    let topics = Launch::command("topic").arguments(["list", "--bootstrap", &node.sasl_ssl()]);
    let ended = topics.argument("--cluster-config").argument(&config).run(PATIENCE);
    assert!(ended.status.success() && ended.stdout.contains("activities.dlq"), "{}", ended.stderr);
}

fn the_platform_tells_who_refuses_it(node: &SecureKafka) {
    let data = tempfile::tempdir().unwrap();
    let config = configured(node, data.path(), "s3cret but wrong");
    let platform =
        Launch::up_on(&node.sasl_ssl(), data.path()).argument("--config").argument(&config).start();
    let http = platform.http();
    until_within(PATIENCE, "its readiness tells what is wrong", || {
        let answer = http.get("/readyz");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status == 503 && text.contains("authentication refused") && text.contains("check user"))
            .then_some(())
    });
    let logged = platform.logged();
    assert!(logged.contains("authentication refused") && !logged.contains("s3cret"), "{logged}");
    drop(platform);

    let topics = Launch::command("topic").arguments(["list", "--bootstrap", &node.sasl_ssl()]);
    let ended = topics.argument("--cluster-config").argument(&config).run(PATIENCE);
    assert!(!ended.status.success() && ended.stderr.contains("check user and password"), "{}", ended.stderr);

    let without = Launch::up(data.path()).argument("--config").argument(&config).run(PATIENCE);
    assert!(!without.status.success() && without.stderr.contains("bootstrap"), "{}", without.stderr);
}

/// A configuration file, and a file with the password.
fn configured(node: &SecureKafka, folder: &std::path::Path, password: &str) -> std::path::PathBuf {
    std::fs::write(folder.join("kafka.secret"), format!("{password}\n")).unwrap();
    let text = format!(
        "[cluster]\nsecurity_protocol = 'sasl_ssl'\nca_file = '{}'\nsasl_mechanism = 'SCRAM-SHA-512'\n\
         user = '{KAFKA_USER}'\npassword_file = '{}'\n",
        node.directory().join("ca.pem").display(),
        folder.join("kafka.secret").display()
    );
    let path = folder.join("secure.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn record(topic: &str, value: &str) -> Record {
    Record::new(topic).key("k").value(value)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
