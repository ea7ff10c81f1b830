//! Metadata and DescribeCluster.

use serde_json::json;

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "Metadata", name: "a topic by name and id", body: one_topic },
    Scenario { api: "Metadata", name: "all, none, unknown and impossible topics", body: lists },
    Scenario { api: "Metadata", name: "each field changed", body: changed },
    Scenario { api: "Metadata", name: "a topic is made automatically", body: automatic },
    Scenario { api: "DescribeCluster", name: "the cluster", body: cluster },
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
