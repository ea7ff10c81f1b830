//! One scenario in one version on one broker: what is asked, and what came back.
//!
//! Owns the connections and the record of exchanges. The same code runs once for each broker, so whatever a broker chooses
//! itself (ids of topics, members and producers) is taken from its own answers. Names are made of the scenario's own, so
//! that scenarios do not meet.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tidings_tests::until_within;

use crate::broker::{self, Broker};
use crate::codec;
use crate::connection::{Connection, Received};
use crate::definitions::Definitions;
use crate::mutate;
use crate::normal::{Normal, identity};

/// How long a broker may take to know a new topic or to become a coordinator.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// An answer that takes longer is told of: a scenario should not wait.
const SLOW: Duration = Duration::from_secs(3);

/// Changed requests that Kafka never answers: one version of the API waits long enough, the others don't ask.
const UNANSWERED: [(&str, &str); 3] = [
    ("AddPartitionsToTxn", "transactions = []"),
    ("WriteTxnMarkers", "markers.topics = [{"),
    ("WriteTxnMarkers", "markers.topics.partitionIndexes = [0,0]"),
];

/// A scenario: its body runs in every version of its API.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// The API whose versions it goes through.
    pub api: &'static str,
    /// What happens, in a few words.
    pub name: &'static str,
    /// What happens.
    pub body: fn(&mut Run<'_>),
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The API.
    pub api: String,
    /// Its version.
    pub version: i16,
    /// What is asked, in a few words.
    pub what: String,
    /// The answer, normalised; a text where there is none.
    pub outcome: Value,
}

/// A request that is on its way.
#[must_use]
#[derive(Debug)]
pub struct Sent {
    connection: usize,
    correlation_id: i32,
    exchange: usize,
}

/// A topic of the scenario's own.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// A scenario that runs.
pub struct Run<'a> {
    /// The version of the scenario's API.
    pub version: i16,
    api: &'static str,
    prefix: String,
    broker: &'a Broker,
    /// The other broker: a version is used only if both serve it.
    other: &'a Broker,
    definitions: &'a Definitions,
    connections: Vec<Option<Connection>>,
    current: usize,
    normal: Normal<'a>,
    exchanges: Vec<Exchange>,
}

impl<'a> Run<'a> {
    /// Prepares a scenario; `number` makes its names its own.
    pub fn new(
        scenario: &Scenario,
        number: usize,
        version: i16,
        broker: &'a Broker,
        other: &'a Broker,
        definitions: &'a Definitions,
    ) -> Self {
        let prefix = format!("{}-{number}-v{version}", scenario.api.to_lowercase());
        Self {
            version,
            api: scenario.api,
            broker,
            other,
            definitions,
            connections: Vec::new(),
            current: 0,
            normal: Normal::new(broker, format!("-{prefix}")),
            exchanges: Vec::new(),
            prefix,
        }
    }

    /// What was asked and answered.
    pub fn finish(self) -> Vec<Exchange> {
        self.exchanges
    }

    /// Notes that the scenario could not go on.
    pub fn broke(&mut self, why: &str) {
        self.note(self.api.to_owned(), self.version, "the scenario goes on", format!("no: {why}").into());
    }

    /// A name that no other scenario uses.
    pub fn name(&self, stem: &str) -> String {
        format!("{stem}-{}", self.prefix)
    }

    /// Uses another connection from now on; they are opened when something is sent.
    pub fn on_connection(&mut self, index: usize) -> &mut Self {
        self.current = index;
        self
    }

    /// The newest version that both brokers serve.
    pub fn newest(&self, api: &str) -> i16 {
        let last = |broker: &Broker| broker.served.get(api).map(|versions| versions.last);
        let both = last(self.broker).zip(last(self.other));
        both.map(|(ours, theirs)| ours.min(theirs)).unwrap_or_else(|| panic!("{api} is not served by both"))
    }

    /// Asks the scenario's API in the scenario's version.
    pub fn ask(&mut self, what: &str, body: Value) -> Value {
        let (api, version) = (self.api, self.version);
        self.ask_version(what, api, version, body)
    }

    /// Asks another API, in the newest version of both.
    pub fn ask_other(&mut self, what: &str, api: &str, body: Value) -> Value {
        let version = self.newest(api);
        self.ask_version(what, api, version, body)
    }

    /// Asks any API in any version.
    pub fn ask_version(&mut self, what: &str, api: &str, version: i16, body: Value) -> Value {
        let sent = self.send(what, api, version, &body);
        self.receive(sent)
    }

    /// Sends a request whose answer is received later.
    pub fn send(&mut self, what: &str, api: &str, version: i16, body: &Value) -> Sent {
        let definition = self.definitions.api(api);
        let correlation_id = self.connection().correlation_id();
        let frame = codec::request_frame(definition, version, correlation_id, body);
        self.connection().send(&frame);
        self.note(definition.name.clone(), version, what, "not received".into());
        Sent { connection: self.current, correlation_id, exchange: self.exchanges.len() - 1 }
    }

    /// Receives an answer. The raw one is returned, the normalised one is compared.
    pub fn receive(&mut self, sent: Sent) -> Value {
        let exchange = &self.exchanges[sent.exchange];
        let (api, version) = (self.definitions.api(&exchange.api), exchange.version);
        let mut raw = Value::Null;
        let started = Instant::now();
        let received = self.receive_frame(sent.connection);
        if started.elapsed() > SLOW {
            let what = &self.exchanges[sent.exchange].what;
            eprintln!(
                "{} took {:?} for {} version {version}: {what}",
                self.broker.address,
                started.elapsed(),
                api.name
            );
        }
        let outcome = match received {
            Ok(frame) => match codec::response(api, version, &frame) {
                Ok((found, _)) if found != sent.correlation_id => "an answer to another request".into(),
                Ok((_, answer)) => {
                    raw = answer.clone();
                    self.normal.answer(&api.name, answer)
                }
                Err(error) => format!("cannot be read: {error:#}").into(),
            },
            Err(outcome) => outcome.to_string().into(),
        };
        self.exchanges[sent.exchange].outcome = outcome;
        raw
    }

    /// Sends bytes as they are, and notes whether an answer comes or the connection ends.
    pub fn send_bytes(&mut self, what: &str, bytes: &[u8]) {
        self.connection().send(bytes);
        let outcome = match self.receive_frame(self.current) {
            Ok(frame) => codec::hex(&frame),
            Err(outcome) => outcome.to_string(),
        };
        self.note(self.api.to_owned(), self.version, what, outcome.into());
    }

    /// Sends bytes as they are, and notes only whether an answer comes or the connection ends.
    pub fn whether_answered(&mut self, what: &str, bytes: &[u8]) {
        self.send_bytes(what, bytes);
        let exchange = self.exchanges.last_mut().expect("something was sent");
        if exchange.outcome.as_str().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            exchange.outcome = "an answer".into();
        }
    }

    /// Sends a request that nobody answers.
    pub fn send_only(&mut self, api: &str, version: i16, body: &Value) {
        let definition = self.definitions.api(api);
        let correlation_id = self.connection().correlation_id();
        let frame = codec::request_frame(definition, version, correlation_id, body);
        self.connection().send(&frame);
    }

    /// Asks the scenario's API with each field of `body` changed in every way that may matter, one at a time; not those
    /// whose path (without indexes) is in `except`.
    pub fn mutate(&mut self, body: &Value, except: &[&str]) {
        let definition = self.definitions.api(self.api);
        let is_newest = self.version == self.newest(self.api);
        let waits = |what: &str| {
            UNANSWERED.iter().any(|(api, start)| *api == definition.name && what.starts_with(start))
        };
        for mutation in mutate::mutations(&definition.request, self.version, body, except) {
            if is_newest || !waits(&mutation.what) {
                self.ask(&mutation.what, mutation.body);
            }
        }
    }

    /// The same, but for the field `within` itself: only what lies in it is changed.
    pub fn mutate_within(&mut self, body: &Value, within: &str, except: &[&str]) {
        let definition = self.definitions.api(self.api);
        let of_itself = format!("{within} = ");
        for mutation in mutate::mutations(&definition.request, self.version, body, except) {
            if !mutation.what.starts_with(&of_itself) {
                self.ask(&mutation.what, mutation.body);
            }
        }
    }

    /// Makes a topic and waits until the broker knows it; none of this is compared.
    pub fn topic(&mut self, stem: &str, partitions: i32) -> Topic {
        self.topic_with(stem, partitions, json!([]))
    }

    /// The same with configs.
    pub fn topic_with(&mut self, stem: &str, partitions: i32, configs: Value) -> Topic {
        let name = self.name(stem);
        let body = json!({"timeoutMs": 10_000, "topics": [
            {"name": name, "numPartitions": partitions, "replicationFactor": 1, "configs": configs}]});
        let answer = self.quietly("CreateTopics", 7, &body).expect("ask for a topic");
        assert_eq!(answer["topics"][0]["errorCode"], 0, "create {name}");
        let id = answer["topics"][0]["topicId"].as_str().expect("a topic's id").to_owned();
        self.settle(&name, partitions);
        self.normal.learn_topic(&id, &name);
        Topic { name, id }
    }

    /// Waits until the broker has taken in every change so far: metadata is a log, and a new topic is its last record.
    pub fn catch_up(&mut self) {
        let marker = format!("marker-{}", self.exchanges.len());
        self.topic(&marker, 1);
    }

    /// Waits until the broker leads that many partitions of a topic: its metadata may tell of them before it does.
    pub fn settle(&mut self, topic: &str, partitions: i32) {
        let wanted: Vec<Value> =
            (0..partitions).map(|index| json!({"partitionIndex": index, "timestamp": -1})).collect();
        let body = json!({"replicaId": -1, "topics": [{"name": topic, "partitions": wanted}]});
        until_within(SETTLE_LIMIT, "a topic is known", || {
            let answer = self.quietly("ListOffsets", 5, &body).ok()?;
            let found = answer["topics"][0]["partitions"].as_array()?;
            found.iter().all(|partition| partition["errorCode"] == 0).then_some(())
        });
    }

    /// Asks until the answer is as wanted, or time is up; only the last answer is compared.
    pub fn ask_until(
        &mut self,
        what: &str,
        api: &str,
        body: &Value,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let version = if api == self.api { self.version } else { self.newest(api) };
        until_within(SETTLE_LIMIT, what, || {
            let answer = self.quietly(api, version, body).ok()?;
            wanted(&answer).then_some(())
        });
        self.ask_version(what, api, version, body.clone())
    }

    /// Asks for a producer id; not compared.
    pub fn producer_id(&mut self) -> i64 {
        let body = json!({"transactionalId": null, "transactionTimeoutMs": 60_000});
        let answer = self.quietly("InitProducerId", 4, &body).expect("ask for a producer id");
        let id = answer["producerId"].as_i64().expect("a producer id");
        self.normal.learn_producer(id);
        id
    }

    /// Makes a transactional producer as `body` says: its id and epoch. Not compared, because how often a broker puts the
    /// producer off depends on the time.
    pub fn transactional_producer(&mut self, body: &Value) -> (i64, i64) {
        let (id, epoch) = until_within(SETTLE_LIMIT, "there is a producer", || {
            let answer = self.quietly("InitProducerId", 4, body).ok()?;
            let number = |name: &str| answer[name].as_i64();
            if answer["errorCode"] == 0 { number("producerId").zip(number("producerEpoch")) } else { None }
        });
        self.normal.learn_producer(id);
        (id, epoch)
    }

    /// Waits until the broker coordinates a group; not compared.
    pub fn find_coordinator(&mut self, group: &str) {
        self.settle_coordinator(group, 0);
    }

    /// Waits until the broker coordinates transactions; not compared.
    pub fn find_transaction_coordinator(&mut self, transactional_id: &str) {
        self.settle_coordinator(transactional_id, 1);
    }

    /// Waits until the coordinator of groups knows the topic too, which it hears of after the broker; not compared.
    pub fn settle_in_groups(&mut self, topic: &Topic) {
        let group = self.name("those-who-wait");
        let mut body = json!({"groupId": group, "memberId": "waits", "memberEpoch": 0, "rebalanceTimeoutMs": 30_000,
            "subscribedTopicNames": [topic.name], "topicPartitions": []});
        until_within(SETTLE_LIMIT, "the coordinator knows the topic", || {
            let answer = self.quietly("ConsumerGroupHeartbeat", 1, &body).ok()?;
            answer["assignment"]["topicPartitions"].as_array().filter(|topics| !topics.is_empty()).map(|_| ())
        });
        body["memberEpoch"] = (-1).into();
        self.quietly("ConsumerGroupHeartbeat", 1, &body).expect("leave");
    }

    fn settle_coordinator(&mut self, key: &str, kind: i8) {
        /// Loading, not available, another node.
        const NOT_YET: std::ops::RangeInclusive<i64> = 14..=16;
        let body = json!({"key": key, "keyType": kind});
        let stranger = json!({"groupId": key, "generationId": 1, "memberId": "a stranger"});
        // The protocols look at different things to see whether they have loaded.
        let new_stranger =
            json!({"groupId": key, "memberId": "a stranger", "memberEpoch": 1, "rebalanceTimeoutMs": -1});
        until_within(SETTLE_LIMIT, "there is a coordinator", || {
            let mut settled = |api: &str, version: i16, body: &Value| {
                let answer = self.quietly(api, version, body).ok()?;
                answer["errorCode"].as_i64().filter(|code| !NOT_YET.contains(code))
            };
            settled("FindCoordinator", 3, &body)?;
            if kind == 0 {
                settled("Heartbeat", 3, &stranger)?;
                settled("ConsumerGroupHeartbeat", 0, &new_stranger)?;
            }
            Some(())
        });
    }

    /// Asks for a list and compares only the element of that name, or that it is not there.
    pub fn ask_for_one(
        &mut self,
        what: &str,
        api: &str,
        version: i16,
        body: Value,
        list: &str,
        wanted: &str,
    ) {
        self.ask_version(what, api, version, body);
        let wanted = self.normal.name(wanted);
        let exchange = self.exchanges.last_mut().expect("something was asked");
        if let Some(elements) = exchange.outcome.get_mut(list).and_then(Value::as_array_mut) {
            elements.retain(|element| identity(element) == wanted);
        }
    }

    /// Asks without comparing.
    pub fn quietly(&mut self, api: &str, version: i16, body: &Value) -> Result<Value> {
        let definitions = self.definitions;
        broker::ask(self.connection(), definitions, api, version, body)
    }

    fn note(&mut self, api: String, version: i16, what: &str, outcome: Value) {
        self.exchanges.push(Exchange { api, version, what: what.to_owned(), outcome });
    }

    fn connection(&mut self) -> &mut Connection {
        if self.connections.len() <= self.current {
            self.connections.resize_with(self.current + 1, || None);
        }
        let slot = &mut self.connections[self.current];
        slot.get_or_insert_with(|| Connection::open(&self.broker.address).expect("connect to the broker"))
    }

    /// The next frame of a connection, or how it ended; it is opened anew the next time.
    fn receive_frame(&mut self, connection: usize) -> Result<Vec<u8>> {
        let open = self.connections.get_mut(connection).and_then(Option::as_mut);
        let received = open.context("the connection was closed before")?.receive();
        if let Ok(Received::Frame(frame)) = received {
            return Ok(frame);
        }
        self.connections[connection] = None;
        Err(match received? {
            Received::Silence => anyhow!("no answer"),
            _ => anyhow!("the connection is closed"),
        })
    }
}
