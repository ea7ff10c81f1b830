//! The consumer protocol of KIP-848, and DeleteRecords.

use serde_json::json;

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "ConsumerGroupHeartbeat", name: "a member joins and leaves", body: life },
    Scenario { api: "ConsumerGroupHeartbeat", name: "each field changed", body: changed },
    Scenario { api: "ConsumerGroupDescribe", name: "each field changed", body: changed_description },
    Scenario { api: "DeleteRecords", name: "each field changed", body: changed_deletion },
];

fn life(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    let mut body = json!({"groupId": group, "memberId": "a-member", "memberEpoch": 0, "rebalanceTimeoutMs": 30_000,
        "subscribedTopicNames": [topic.name], "topicPartitions": []});
    let answer = run.ask("join", body.clone());
    body["memberId"] = answer["memberId"].clone();
    body["memberEpoch"] = 99.into();
    run.ask("an epoch of the future", body.clone());
    run.ask_other("what there is", "ConsumerGroupDescribe", json!({"groupIds": [group]}));
    let leave = json!({"groupId": group, "memberId": body["memberId"], "memberEpoch": -1});
    run.ask("leave", leave.clone());
    run.ask("leave again", leave);
}

/// Only what no group comes of: the base is refused, because nobody has joined.
fn changed(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let body =
        json!({"groupId": group, "memberId": "nobody", "memberEpoch": 7, "subscribedTopicNames": ["orders"]});
    run.mutate(&body, &["groupId", "memberEpoch"]);
}

fn changed_description(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    run.mutate(&json!({"groupIds": [group]}), &[]);
}

fn changed_deletion(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let body = json!({"topics": [{"name": topic.name, "partitions": [{"partitionIndex": 0, "offset": 0}]}], "timeoutMs": 10_000});
    run.mutate(&body, &["timeoutMs"]);
}
