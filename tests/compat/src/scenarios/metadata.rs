//! Metadata, DescribeCluster, DescribeTopicPartitions, DescribeLogDirs.

use serde_json::{Value, json};

use crate::records::batch;
use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "Metadata", name: "a topic by name and id", body: one_topic },
    Scenario { api: "Metadata", name: "all, none, unknown and impossible topics", body: lists },
    Scenario { api: "Metadata", name: "each field changed", body: changed },
    Scenario { api: "Metadata", name: "a topic is made automatically", body: automatic },
    Scenario { api: "DescribeCluster", name: "the cluster", body: cluster },
    Scenario { api: "DescribeTopicPartitions", name: "pages", body: pages },
    Scenario { api: "DescribeTopicPartitions", name: "each field changed", body: changed_page },
    Scenario { api: "DescribeLogDirs", name: "known and unknown partitions", body: log_dirs },
    Scenario { api: "DescribeLogDirs", name: "each field changed", body: changed_log_dirs },
];

/// The first version that can forbid that topics are made.
const MAY_FORBID: i16 = 4;
/// The first version that asks by topic id.
const BY_ID: i16 = 12;

fn one_topic(run: &mut Run<'_>) {
    let topic = run.topic("orders", 3);
    run.ask("by name", json!({"topics": [{"name": topic.name}], "allowAutoTopicCreation": false}));
    let operations = json!({"topics": [{"name": topic.name}], "allowAutoTopicCreation": false,
        "includeTopicAuthorizedOperations": true, "includeClusterAuthorizedOperations": true});
    run.ask("with operations", operations);
    if run.version >= BY_ID {
        run.ask(
            "by id",
            json!({"topics": [{"name": null, "topicId": topic.id}], "allowAutoTopicCreation": false}),
        );
        run.ask(
            "by both",
            json!({"topics": [{"name": topic.name, "topicId": topic.id}], "allowAutoTopicCreation": false}),
        );
    }
}

fn lists(run: &mut Run<'_>) {
    let (first, second) = (run.topic("first", 1), run.topic("second", 2));
    // Other scenarios' topics are listed as well, where all are asked for: only ours are of interest.
    let known = [json!({"name": first.name}), json!({"name": second.name})];
    run.ask("two", json!({"topics": known, "allowAutoTopicCreation": false}));
    run.ask("twice the same", json!({"topics": [known[0], known[0]], "allowAutoTopicCreation": false}));
    if run.version >= 1 {
        run.ask("none", json!({"topics": [], "allowAutoTopicCreation": false}));
    }
    if run.version >= MAY_FORBID {
        for name in [run.name("unknown"), String::new(), "..".to_owned(), "a/b".to_owned(), "x".repeat(250)] {
            run.ask(
                &format!("the topic {name:.20}"),
                json!({"topics": [{"name": name}], "allowAutoTopicCreation": false}),
            );
        }
    }
}

fn changed(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let body = json!({"topics": [{"name": topic.name}], "allowAutoTopicCreation": false});
    // With null every topic of the run would be in the answer, and versions that cannot forbid it would make topics.
    run.mutate(&body, &["topics", "allowAutoTopicCreation"]);
    if run.version >= MAY_FORBID {
        run.ask("without a name", json!({"topics": [{"name": null}], "allowAutoTopicCreation": false}));
    }
    if run.version >= BY_ID {
        for id in ["0".repeat(32), "0".repeat(31) + "1", "f".repeat(32)] {
            run.ask(&id, json!({"topics": [{"name": null, "topicId": id}], "allowAutoTopicCreation": false}));
        }
    }
}

fn automatic(run: &mut Run<'_>) {
    let name = run.name("made");
    let body = json!({"topics": [{"name": name}], "allowAutoTopicCreation": true});
    run.ask("the first time", body.clone());
    run.ask_until("once it is there", "Metadata", &body, |answer| answer["topics"][0]["errorCode"] == 0);
}

fn cluster(run: &mut Run<'_>) {
    let body = json!({"includeClusterAuthorizedOperations": false, "endpointType": 1});
    run.ask("as it is", body.clone());
    run.mutate(&body, &[]);
}

fn page(topics: &[&str], limit: i32, cursor: Value) -> Value {
    let topics: Vec<Value> = topics.iter().map(|name| json!({"name": name})).collect();
    json!({"topics": topics, "responsePartitionLimit": limit, "cursor": cursor})
}

fn pages(run: &mut Run<'_>) {
    let (first, second) = (run.topic("first", 3), run.topic("second", 2));
    let (unknown, names) = (run.name("unknown"), [first.name.as_str(), second.name.as_str()]);
    run.ask("all", page(&names, 2000, Value::Null));
    for limit in [-1, 0, 1, 2, 3, 4, 5] {
        run.ask(&format!("{limit} partitions"), page(&names, limit, Value::Null));
    }
    let at = |topic: &str, partition: i32| json!({"topicName": topic, "partitionIndex": partition});
    run.ask("from the second partition on", page(&names, 2, at(&first.name, 1)));
    run.ask("from the second topic on", page(&names, 9, at(&second.name, 0)));
    run.ask("from beyond the end on", page(&names, 9, at(&first.name, 9)));
    run.ask("from a negative partition on", page(&names, 9, at(&first.name, -1)));
    run.ask("from a topic that is not asked for on", page(&names, 9, at(&unknown, 0)));
    run.ask("unknown ones", page(&[&first.name, &unknown, "a/b"], 9, Value::Null));
    run.ask("one twice", page(&[&first.name, &first.name], 9, Value::Null));
}

fn changed_page(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let cursor = json!({"topicName": topic.name, "partitionIndex": 0});
    // Without a list of topics every topic of the run would be in the answer.
    run.mutate_within(&page(&[&topic.name], 9, cursor), "topics", &[]);
}

fn log_dirs(run: &mut Run<'_>) {
    let topic = run.topic("orders", 2);
    let records = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
        "partitionData": [{"index": 0, "records": batch(&["a", "b"])}]}]});
    run.ask_other("fill", "Produce", records);
    let of = |name: &str, partitions: &[i32]| json!({"topic": name, "partitions": partitions});
    run.ask("both", json!({"topics": [of(&topic.name, &[0, 1])]}));
    run.ask("one and an unknown one", json!({"topics": [of(&topic.name, &[0, 9])]}));
    run.ask(
        "only unknown ones",
        json!({"topics": [of(&topic.name, &[9]), of(&run.name("unknown"), &[0]), of("", &[0])]}),
    );
    run.ask("none of a topic", json!({"topics": [of(&topic.name, &[])]}));
    run.ask("one twice", json!({"topics": [of(&topic.name, &[0, 0])]}));
    run.ask("nothing", json!({"topics": []}));
}

fn changed_log_dirs(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    // With null every topic of the run would be in the answer.
    run.mutate_within(&json!({"topics": [{"topic": topic.name, "partitions": [0]}]}), "topics", &[]);
}
