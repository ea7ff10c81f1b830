//! OffsetCommit, OffsetFetch, OffsetDelete: what a group has committed.

use serde_json::{Value, json};

use crate::run::{Run, Scenario, Topic};
use crate::scenarios::groups::Member;

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "OffsetCommit", name: "commits without a member", body: without_members },
    Scenario { api: "OffsetCommit", name: "commits of a member", body: of_a_member },
    Scenario { api: "OffsetCommit", name: "each field changed", body: changed_commit },
    Scenario { api: "OffsetCommit", name: "topics that are wrong", body: wrong_topics },
    Scenario { api: "OffsetFetch", name: "what was committed", body: fetch },
    Scenario { api: "OffsetFetch", name: "each field changed", body: changed_fetch },
    Scenario { api: "OffsetDelete", name: "offsets of groups alive and dead", body: delete },
    Scenario { api: "OffsetDelete", name: "each field changed", body: changed_deletion },
];

/// The first version of OffsetFetch that asks for several groups.
const GROUPS: i16 = 8;
/// The first version of OffsetFetch that can ask for all of a group's offsets.
const ALL_TOPICS: i16 = 2;

fn commit(group: &str, topic: &Topic, offset: i64) -> Value {
    json!({"groupId": group, "generationIdOrMemberEpoch": -1, "memberId": "", "groupInstanceId": null, "retentionTimeMs": -1,
        "topics": [{"name": topic.name, "topicId": topic.id, "partitions": [
            {"partitionIndex": 0, "committedOffset": offset, "committedLeaderEpoch": -1, "committedMetadata": "note"}]}]})
}

/// Asks for partitions 0 and 1 of a topic, in the form of the version.
fn question(group: &str, topic: &Topic) -> Value {
    let topics = json!([{"name": topic.name, "topicId": topic.id, "partitionIndexes": [0, 1]}]);
    let old = json!([{"name": topic.name, "partitionIndexes": [0, 1]}]);
    json!({"groupId": group, "topics": old, "groups": [{"groupId": group, "memberId": null, "memberEpoch": -1, "topics": topics}],
        "requireStable": false})
}

fn committed(run: &mut Run<'_>, group: &str, topic: &Topic) {
    run.ask_other("what is committed", "OffsetFetch", question(group, topic));
}

fn without_members(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    for offset in [5, 3, 0, -1, -2, i64::MAX, i64::MIN] {
        run.ask(&format!("offset {offset}"), commit(&group, &topic, offset));
        committed(run, &group, &topic);
    }
    for (generation, member) in [(0, ""), (1, ""), (-1, "nobody"), (1, "nobody"), (-2, "")] {
        let mut body = commit(&group, &topic, 7);
        body["generationIdOrMemberEpoch"] = generation.into();
        body["memberId"] = member.into();
        run.ask(&format!("generation {generation} of member '{member}'"), body);
    }
    let mut body = commit(&group, &topic, 7);
    body["topics"][0]["partitions"][0]["committedMetadata"] = "x".repeat(4096).into();
    run.ask("the longest note", body.clone());
    body["topics"][0]["partitions"][0]["committedMetadata"] = "x".repeat(4097).into();
    run.ask("a note that is too long", body);
    committed(run, &group, &topic);
}

fn of_a_member(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 1), run.name("readers"));
    run.find_coordinator(&group);
    let member = Member::joined(run, &group);
    let by = |generation: i64, id: &str, instance: Value| {
        let mut body = commit(&group, &topic, 7);
        body["generationIdOrMemberEpoch"] = generation.into();
        body["memberId"] = id.into();
        body["groupInstanceId"] = instance;
        body
    };
    run.ask("of the member", by(member.generation, &member.id, Value::Null));
    run.ask("of an older generation", by(member.generation - 1, &member.id, Value::Null));
    run.ask("of a newer generation", by(member.generation + 1, &member.id, Value::Null));
    run.ask("of another member", by(member.generation, "nobody", Value::Null));
    run.ask("without a member", by(-1, "", Value::Null));
    run.ask("without a generation", by(-1, &member.id, Value::Null));
    if run.version >= 7 {
        run.ask("of another instance", by(member.generation, &member.id, "instance".into()));
    }
    committed(run, &group, &topic);
    member.leave(run);
    run.ask("of the member that has left", by(member.generation, &member.id, Value::Null));
    run.ask("when all have left", by(-1, "", Value::Null));
}

fn changed_commit(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.mutate(&commit(&group, &topic, 5), &[]);
    committed(run, &group, &topic);
}

fn wrong_topics(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 1), run.name("readers"));
    run.find_coordinator(&group);
    let unknown = Topic { name: run.name("unknown"), id: "0".repeat(31) + "7" };
    let mut body = commit(&group, &topic, 5);
    let known = body["topics"][0].clone();
    let mut outside = known.clone();
    outside["partitions"][0]["partitionIndex"] = 9.into();
    body["topics"] = json!([known, commit(&group, &unknown, 5)["topics"][0]]);
    run.ask("known and unknown", body.clone());
    body["topics"] = json!([outside]);
    run.ask("a partition that there is not", body.clone());
    body["topics"] = json!([known, known]);
    run.ask("a topic twice", body.clone());
    body["topics"] = json!([]);
    run.ask("nothing", body);
    committed(run, &group, &topic);
}

fn fetch(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.ask("before anything is committed", question(&group, &topic));
    run.ask_other("commit", "OffsetCommit", commit(&group, &topic, 5));
    run.ask("one committed, one not", question(&group, &topic));
    let unknown = Topic { name: run.name("unknown"), id: "0".repeat(31) + "7" };
    run.ask("an unknown topic", question(&group, &unknown));
    let nobody = run.name("nobody");
    run.ask("an unknown group", question(&nobody, &topic));
    run.ask("a group without a name", question("", &topic));
    let mut body = question(&group, &topic);
    body["topics"] = json!([]);
    body["groups"][0]["topics"] = json!([]);
    run.ask("no topics", body.clone());
    if run.version >= ALL_TOPICS {
        body["topics"] = Value::Null;
        body["groups"][0]["topics"] = Value::Null;
        run.ask("all topics", body.clone());
        body["groupId"] = nobody.as_str().into();
        body["groups"][0]["groupId"] = nobody.as_str().into();
        run.ask("all topics of an unknown group", body.clone());
    }
    if run.version >= 7 {
        let mut body = question(&group, &topic);
        body["requireStable"] = true.into();
        run.ask("only what is stable", body);
    }
    if run.version >= GROUPS {
        let (mut body, other) = (question(&group, &topic), question(&nobody, &topic));
        body["groups"] = json!([body["groups"][0], other["groups"][0]]);
        run.ask("two groups", body.clone());
        body["groups"] = json!([body["groups"][0], body["groups"][0]]);
        run.ask("a group twice", body.clone());
        body["groups"] = json!([]);
        run.ask("no group", body);
    }
}

fn changed_fetch(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.ask_other("commit", "OffsetCommit", commit(&group, &topic, 5));
    run.mutate(&question(&group, &topic), &[]);
}

fn deletion(group: &str, topic: &str, partition: i32) -> Value {
    json!({"groupId": group, "topics": [{"name": topic, "partitions": [{"partitionIndex": partition}]}]})
}

fn delete(run: &mut Run<'_>) {
    let (topic, other, group) = (run.topic("orders", 2), run.topic("other", 1), run.name("readers"));
    run.find_coordinator(&group);
    run.ask("of a group that there is not", deletion(&group, &topic.name, 0));
    run.ask_other("commit", "OffsetCommit", commit(&group, &topic, 5));
    run.ask("one", deletion(&group, &topic.name, 0));
    committed(run, &group, &topic);
    run.ask("one that is not committed", deletion(&group, &topic.name, 1));
    run.ask_other("commit", "OffsetCommit", commit(&group, &topic, 5));
    run.ask("a partition that there is not", deletion(&group, &topic.name, 9));
    run.ask("a topic that there is not", deletion(&group, &run.name("unknown"), 0));
    let member = Member::joined_for(run, &group, &topic.name);
    run.ask("of a topic that a member reads", deletion(&group, &topic.name, 0));
    run.ask("of a topic that no member reads", deletion(&group, &other.name, 0));
    committed(run, &group, &topic);
    member.leave(run);
    run.ask("when all have left", deletion(&group, &topic.name, 0));
}

fn changed_deletion(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 2), run.name("readers"));
    run.find_coordinator(&group);
    run.ask_other("commit", "OffsetCommit", commit(&group, &topic, 5));
    run.mutate(&deletion(&group, &topic.name, 0), &[]);
}
