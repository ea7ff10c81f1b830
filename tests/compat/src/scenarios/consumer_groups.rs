//! The consumer protocol of KIP-848, and DeleteRecords.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "ConsumerGroupHeartbeat", name: "a member joins and leaves", body: life },
    Scenario { api: "ConsumerGroupHeartbeat", name: "each field changed", body: changed },
    Scenario { api: "ConsumerGroupDescribe", name: "each field changed", body: changed_description },
    Scenario { api: "ConsumerGroupHeartbeat", name: "two members", body: two_members },
    Scenario { api: "ConsumerGroupHeartbeat", name: "static members", body: static_members },
    Scenario { api: "ConsumerGroupHeartbeat", name: "regular expressions and assignors", body: choices },
    Scenario { api: "ConsumerGroupDescribe", name: "groups of both kinds", body: describe },
    Scenario { api: "DeleteRecords", name: "what is left", body: delete_records },
    Scenario { api: "DeleteRecords", name: "each field changed", body: changed_deletion },
];

fn life(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.settle_in_groups(&topic);
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

/// A first heartbeat; from version 1 on clients name their members themselves.
fn join(group: &str, member: &str, topic: &str) -> Value {
    json!({"groupId": group, "memberId": member, "memberEpoch": 0, "rebalanceTimeoutMs": 30_000,
        "subscribedTopicNames": [topic], "topicPartitions": []})
}

fn heartbeat(group: &str, answer: &Value) -> Value {
    json!({"groupId": group, "memberId": answer["memberId"], "memberEpoch": answer["memberEpoch"], "rebalanceTimeoutMs": -1})
}

fn description(run: &mut Run<'_>, what: &str, group: &str) {
    run.ask_other(
        what,
        "ConsumerGroupDescribe",
        json!({"groupIds": [group], "includeAuthorizedOperations": true}),
    );
}

fn two_members(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.settle_in_groups(&topic);
    let first = run.ask("the first joins", join(&group, "member-1", &topic.name));
    run.ask("it beats", heartbeat(&group, &first));
    let second = run.ask("the second joins", join(&group, "member-2", &topic.name));
    description(run, "while one gives up a partition", &group);
    let all = json!([{"topicId": topic.id, "partitions": [0, 1]}]);
    let mut beat = heartbeat(&group, &first);
    beat["topicPartitions"] = all;
    let told = run.ask("the first still has both", beat.clone());
    beat["topicPartitions"] = told["assignment"]["topicPartitions"].clone();
    if beat["topicPartitions"].is_null() {
        beat["topicPartitions"] = json!([]);
    }
    let first = run.ask("the first has given one up", beat);
    let second = run.ask("the second gets it", heartbeat(&group, &second));
    run.ask("the second again", heartbeat(&group, &second));
    description(run, "when each has one", &group);
    let mut other = heartbeat(&group, &second);
    other["subscribedTopicNames"] = json!([]);
    run.ask("the second wants nothing", other);
    let mut leave = heartbeat(&group, &first);
    leave["memberEpoch"] = (-1).into();
    run.ask("the first leaves", leave);
    description(run, "when one is left", &group);
    let mut leave = heartbeat(&group, &second);
    leave["memberEpoch"] = (-1).into();
    run.ask("the second leaves", leave);
    description(run, "when all have left", &group);
}

fn static_members(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 1), run.name("readers"));
    run.find_coordinator(&group);
    run.settle_in_groups(&topic);
    let with = |mut body: Value, instance: &str| {
        body["instanceId"] = instance.into();
        body
    };
    let first = run.ask("the first time", with(join(&group, "member-1", &topic.name), "a"));
    run.ask("another in its place, while it is there", with(join(&group, "member-2", &topic.name), "a"));
    run.ask("it beats", with(heartbeat(&group, &first), "a"));
    run.ask("it beats as another instance", with(heartbeat(&group, &first), "b"));
    let mut away = with(heartbeat(&group, &first), "a");
    away["memberEpoch"] = (-2).into();
    run.ask("it goes for a moment", away);
    description(run, "while it is away", &group);
    let back = run.ask("it comes back", with(join(&group, "member-3", &topic.name), "a"));
    run.ask("the old one beats", with(heartbeat(&group, &first), "a"));
    let mut leave = with(heartbeat(&group, &back), "a");
    leave["memberEpoch"] = (-1).into();
    run.ask("it leaves", leave);
    description(run, "nobody is left", &group);
}

fn choices(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.settle_in_groups(&topic);
    for assignor in ["uniform", "range", "nobody", ""] {
        let mut body = join(&run.name(&format!("by-{assignor}")), "member-1", &topic.name);
        body["serverAssignor"] = assignor.into();
        run.ask(&format!("the assignor '{assignor}'"), body);
    }
    let mut unknown = join(&run.name("unknown"), "member-1", &topic.name);
    unknown["subscribedTopicNames"] = json!(["no-such-topic", topic.name]);
    run.ask("a topic that there is not", unknown);
    if run.version >= 1 {
        for (what, regex) in [("a regular expression", topic.name.as_str()), ("no regular expression", "(")] {
            let mut body = join(&run.name("expressions"), "member-1", &topic.name);
            body["subscribedTopicNames"] = Value::Null;
            body["subscribedTopicRegex"] = regex.into();
            run.ask(what, body);
        }
    }
    let mut nothing = join(&group, "member-1", &topic.name);
    nothing["subscribedTopicNames"] = Value::Null;
    run.ask("nothing is subscribed to", nothing);
    let mut owned = join(&group, "member-1", &topic.name);
    owned["topicPartitions"] = json!([{"topicId": topic.id, "partitions": [0]}]);
    run.ask("a newcomer that has something", owned);
    let mut timeless = join(&group, "member-1", &topic.name);
    timeless["rebalanceTimeoutMs"] = (-1).into();
    run.ask("a newcomer without a timeout", timeless);
}

fn describe(run: &mut Run<'_>) {
    let (topic, group, classic) = (run.topic("orders", 1), run.name("readers"), run.name("classic"));
    run.find_coordinator(&group);
    run.settle_in_groups(&topic);
    run.ask_other("join", "ConsumerGroupHeartbeat", join(&group, "member-1", &topic.name));
    super::groups::Member::joined(run, &classic);
    run.ask("of both kinds, unknown, empty", json!({"groupIds": [group, classic, "nobody", ""]}));
    run.ask("one twice", json!({"groupIds": [group, group]}));
    run.ask("none", json!({"groupIds": []}));
    run.ask_other("as a classic one", "DescribeGroups", json!({"groups": [group]}));
    run.ask_other("it is not empty", "DeleteGroups", json!({"groupsNames": [group]}));
    let removal = json!({"groupId": group, "members": [{"memberId": "member-1"}, {"memberId": "member-2"}]});
    run.ask_other("an administrator removes its member", "LeaveGroup", removal);
    run.ask("nobody is left", json!({"groupIds": [group]}));
}

fn delete_records(run: &mut Run<'_>) {
    let topic = run.topic("orders", 2);
    for values in [&["a", "b"][..], &["c", "d"]] {
        let body = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
            "partitionData": [{"index": 0, "records": crate::records::batch(values)}]}]});
        run.ask_other("fill", "Produce", body);
    }
    let before = |partition: i32, offset: i64| {
        json!({"timeoutMs": 10_000, "topics": [
        {"name": topic.name, "partitions": [{"partitionIndex": partition, "offset": offset}]}]})
    };
    let fetch = |offset: i64| {
        json!({"maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20, "topics": [{"topic": topic.name,
        "topicId": topic.id, "partitions": [{"partition": 0, "fetchOffset": offset, "partitionMaxBytes": 1 << 20}]}]})
    };
    for offset in [0, 1, 3, 1, 5, -2, i64::MAX] {
        run.ask(&format!("before {offset}"), before(0, offset));
    }
    run.ask_other("what is deleted", "Fetch", fetch(0));
    run.ask_other("what is left", "Fetch", fetch(3));
    run.ask("all", before(0, -1));
    run.ask("all of nothing", before(1, -1));
    run.ask_other("nothing is left", "Fetch", fetch(4));
    run.ask("a partition that there is not", before(9, 0));
    run.ask(
        "of an internal topic",
        json!({"timeoutMs": 10_000, "topics": [
        {"name": "__consumer_offsets", "partitions": [{"partitionIndex": 0, "offset": 0}]}]}),
    );
}
