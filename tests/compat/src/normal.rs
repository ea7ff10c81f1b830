//! What two brokers may answer differently without any client noticing, and how it is made equal.
//!
//! Owns the rules, and there are no others:
//! - the names that a scenario makes lose what makes them its own;
//! - a broker's own port and cluster id become `<port>` and `<cluster>`;
//! - the id of a topic that the scenario made becomes `<id of NAME>`, a producer id that was given out `<producer N>`;
//! - member ids that the broker has made (they end with a UUID) end with `<uuid>`;
//! - the folder of a broker's logs and the size of its disk become `<folder>` and `<bytes>`;
//! - what an answer to Fetch tells of one topic in several places stands in one: Kafka tells errors first;
//! - the id of a fetch session becomes `<session>`;
//! - moments of the run become `<now>`; times that a scenario has chosen stay;
//! - a text for people (an error's message) becomes `<text>`, so only whether there is one is compared;
//! - arrays of structs and of texts are sorted, as clients look up what they asked for by its name: Kafka's own order is
//!   that of hash maps.

use std::collections::HashMap;

use serde_json::Value;

use crate::broker::Broker;

/// The first moment of a run: no scenario chooses a later time. (July 2025.)
const NOW_MS: std::ops::Range<i64> = 1_752_000_000_000..10_000_000_000_000;

/// Fields that are for people.
const TEXTS: [&str; 3] = ["errorMessage", "batchIndexErrorMessage", "documentation"];

/// The rules, with what a run has learnt of its broker.
#[derive(Debug)]
pub struct Normal<'a> {
    broker: &'a Broker,
    /// What the scenario's names end with.
    suffix: String,
    topics: HashMap<String, String>,
    producers: HashMap<i64, usize>,
}

impl<'a> Normal<'a> {
    /// Knows nothing but the broker, and what the scenario's names end with.
    pub fn new(broker: &'a Broker, suffix: String) -> Self {
        Self { broker, suffix, topics: HashMap::new(), producers: HashMap::new() }
    }

    /// A name of the scenario without what makes it its own.
    pub fn name(&self, name: &str) -> String {
        name.replace(&self.suffix, "")
    }

    /// A topic's id.
    pub fn learn_topic(&mut self, id: &str, name: &str) {
        self.topics.insert(id.to_owned(), name.to_owned());
    }

    /// A producer id that the broker gave out.
    pub fn learn_producer(&mut self, id: i64) {
        let number = self.producers.len();
        self.producers.entry(id).or_insert(number);
    }

    /// An answer as it is compared.
    pub fn answer(&mut self, api: &str, mut answer: Value) -> Value {
        if let (Some(id), "InitProducerId") = (answer["producerId"].as_i64().filter(|id| *id >= 0), api) {
            self.learn_producer(id);
        }
        self.learn_topics(&answer);
        if let ("Fetch", Some(topics)) = (api, answer["responses"].as_array_mut()) {
            join_topics(topics);
        }
        self.value("", &mut answer);
        answer
    }

    /// Topics that are named together with their id.
    fn learn_topics(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let name = map.get("name").or_else(|| map.get("topicName")).and_then(Value::as_str);
                let id =
                    map.get("topicId").and_then(Value::as_str).filter(|id| !id.trim_matches('0').is_empty());
                if let (Some(name), Some(id)) = (name.filter(|name| !name.is_empty()), id) {
                    self.learn_topic(id, name);
                }
                map.values().for_each(|value| self.learn_topics(value));
            }
            Value::Array(elements) => elements.iter().for_each(|value| self.learn_topics(value)),
            _ => {}
        }
    }

    fn value(&self, field: &str, value: &mut Value) {
        match value {
            Value::Object(map) => map.iter_mut().for_each(|(name, value)| self.value(name, value)),
            Value::Array(elements) => {
                elements.iter_mut().for_each(|element| self.value(field, element));
                if elements.iter().all(|element| element.is_object() || element.is_string()) {
                    elements.sort_by_cached_key(|element| (identity(element), element.to_string()));
                }
            }
            Value::String(text) => {
                if let Some(normal) = self.text(field, text) {
                    *text = normal;
                }
            }
            Value::Number(number) => {
                if let Some(normal) = number.as_i64().and_then(|number| self.number(field, number)) {
                    *value = normal.into();
                }
            }
            _ => {}
        }
    }

    fn text(&self, field: &str, text: &str) -> Option<String> {
        if TEXTS.contains(&field) && !text.is_empty() {
            return Some("<text>".to_owned());
        }
        if field == "logDir" {
            return Some("<folder>".to_owned());
        }
        if text == self.broker.cluster_id {
            return Some("<cluster>".to_owned());
        }
        if let Some(name) = self.topics.get(text) {
            return Some(format!("<id of {}>", self.name(name)));
        }
        if text.contains(&self.suffix) {
            return Some(self.name(text));
        }
        let start = text.len().checked_sub(UUID_LEN)?;
        let ends_with_uuid = text.is_char_boundary(start) && is_uuid(&text[start..]);
        ends_with_uuid.then(|| format!("{}<uuid>", &text[..start]))
    }

    fn number(&self, field: &str, number: i64) -> Option<String> {
        if field == "port" && number == self.broker.port {
            return Some("<port>".to_owned());
        }
        if field == "producerId" {
            return Some(format!("<producer {}>", self.producers.get(&number)?));
        }
        if matches!(field, "totalBytes" | "usableBytes") && number > 0 {
            return Some("<bytes>".to_owned());
        }
        if field == "sessionId" && number != 0 {
            return Some("<session>".to_owned());
        }
        NOW_MS.contains(&number).then(|| "<now>".to_owned())
    }
}

/// Moves the partitions of a topic that is named more than once to where it is named first.
fn join_topics(topics: &mut Vec<Value>) {
    let mut joined: Vec<Value> = Vec::new();
    for mut topic in topics.drain(..) {
        let is_same =
            |known: &&mut Value| known["topic"] == topic["topic"] && known["topicId"] == topic["topicId"];
        match joined.iter_mut().find(is_same) {
            Some(known) => {
                let partitions = topic["partitions"].as_array_mut().map(std::mem::take).unwrap_or_default();
                known["partitions"].as_array_mut().expect("an array of partitions").extend(partitions);
            }
            None => joined.push(topic),
        }
    }
    *topics = joined;
}

const UUID_LEN: usize = 36;

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// Fields that tell the elements of an array apart: the first of each row that an element has.
const IDENTITIES: [&[&str]; 2] = [
    &[
        "name",
        "topic",
        "topicName",
        "groupId",
        "memberId",
        "transactionalId",
        "resourceName",
        "key",
        "topicId",
        "apiKey",
    ],
    &["index", "partitionIndex", "partition", "partitionId", "nodeId", "brokerId", "baseOffset", "offset"],
];

/// What tells an element of an array apart from its neighbours; empty where nothing does.
pub fn identity(element: &Value) -> String {
    let part = |name: &&str| match element.get(*name)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        // Numbers in their order.
        Value::Number(number) => Some(format!("{:>10}", number.as_i64()?)),
        _ => None,
    };
    let parts: Vec<String> = IDENTITIES.iter().filter_map(|names| names.iter().find_map(part)).collect();
    parts.join(" ")
}
