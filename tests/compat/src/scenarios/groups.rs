//! The classic group protocol, and what administrators ask about groups.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "FindCoordinator", name: "of groups and transactions", body: coordinators },
    Scenario { api: "FindCoordinator", name: "each field changed", body: changed_search },
    Scenario { api: "JoinGroup", name: "the life of a group of one", body: life },
    Scenario { api: "JoinGroup", name: "two members", body: two_members },
    Scenario { api: "JoinGroup", name: "requests that are wrong", body: wrong_joins },
    Scenario { api: "JoinGroup", name: "static members", body: static_members },
    Scenario { api: "JoinGroup", name: "a group of another protocol", body: other_protocols },
    Scenario { api: "JoinGroup", name: "each field changed", body: changed_join },
    Scenario { api: "SyncGroup", name: "states and generations", body: syncs },
    Scenario { api: "SyncGroup", name: "each field changed", body: changed_sync },
    Scenario { api: "Heartbeat", name: "states and generations", body: heartbeats },
    Scenario { api: "Heartbeat", name: "each field changed", body: changed_heartbeat },
    Scenario { api: "LeaveGroup", name: "members known and unknown", body: leaves },
    Scenario { api: "LeaveGroup", name: "each field changed", body: changed_leave },
    Scenario { api: "DescribeGroups", name: "groups in every state", body: describe },
    Scenario { api: "DescribeGroups", name: "each field changed", body: changed_description },
    Scenario { api: "ListGroups", name: "filters", body: list },
    Scenario { api: "DeleteGroups", name: "groups in every state", body: delete },
    Scenario { api: "DeleteGroups", name: "each field changed", body: changed_deletion },
];

/// The first version of JoinGroup that answers a newcomer with an id to come back with (KIP-394).
const ID_FIRST: i16 = 4;
/// The first version of the others that knows static members.
const STATIC_JOIN: i16 = 5;

const MEMBER_ID_REQUIRED: i64 = 79;

/// A member of a group, on connection 0.
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its generation.
    pub generation: i64,
    group: String,
}

impl Member {
    /// The only member of a stable group.
    pub fn joined(run: &mut Run<'_>, group: &str) -> Self {
        Self::joined_for(run, group, "orders")
    }

    /// The same, with a subscription to a topic.
    pub fn joined_for(run: &mut Run<'_>, group: &str, topic: &str) -> Self {
        let version = run.newest("JoinGroup");
        let answer = joins(run, version, subscribed(join(group), topic));
        let member = Self::of(group, &answer);
        let sync = member.sync(json!([{"memberId": member.id, "assignment": "hex:00"}]));
        run.ask_other("sync", "SyncGroup", sync);
        member
    }

    fn of(group: &str, answer: &Value) -> Self {
        let id = answer["memberId"].as_str().unwrap_or_default().to_owned();
        Self { id, generation: answer["generationId"].as_i64().unwrap_or(-1), group: group.to_owned() }
    }

    fn sync(&self, assignments: Value) -> Value {
        json!({"groupId": self.group, "generationId": self.generation, "memberId": self.id, "protocolType": "consumer",
            "protocolName": "range", "assignments": assignments})
    }

    fn heartbeat(&self) -> Value {
        json!({"groupId": self.group, "generationId": self.generation, "memberId": self.id})
    }

    /// Leaves.
    pub fn leave(&self, run: &mut Run<'_>) {
        let leave = json!({"groupId": self.group, "members": [{"memberId": self.id}]});
        run.ask_other("leave", "LeaveGroup", leave);
    }
}

/// A consumer's subscription in version 0: topics, no user data.
fn subscribed(mut join: Value, topic: &str) -> Value {
    let length = u16::try_from(topic.len()).expect("a short name");
    let parts: [&[u8]; 5] = [&[0, 0, 0, 0, 0, 1], &length.to_be_bytes(), topic.as_bytes(), &[0xff; 4], &[]];
    join["protocols"][0]["metadata"] = crate::records::value(&parts.concat());
    join
}

fn join(group: &str) -> Value {
    json!({"groupId": group, "sessionTimeoutMs": 30_000, "rebalanceTimeoutMs": 30_000, "memberId": "", "protocolType": "consumer",
        "protocols": [{"name": "range", "metadata": "hex:0000"}]})
}

/// Joins, coming back with the id if that is asked for; the last answer.
fn joins(run: &mut Run<'_>, version: i16, mut body: Value) -> Value {
    let answer = run.ask_version("join", "JoinGroup", version, body.clone());
    if answer["errorCode"] != MEMBER_ID_REQUIRED {
        return answer;
    }
    body["memberId"] = answer["memberId"].clone();
    run.ask_version("join with the id", "JoinGroup", version, body)
}

fn coordinators(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    run.find_transaction_coordinator(&group);
    let key = |key: &str, kind: i8| json!({"key": key, "keyType": kind, "coordinatorKeys": [key]});
    for kind in [0, 1, 2, 3, 9, -1] {
        run.ask(&format!("of kind {kind}"), key(&group, kind));
        run.ask(&format!("of kind {kind} without a name"), key("", kind));
    }
    if run.version >= 4 {
        run.ask("two", json!({"coordinatorKeys": [group, "another"]}));
        run.ask("one twice", json!({"coordinatorKeys": [group, group]}));
        run.ask("none", json!({"coordinatorKeys": []}));
    }
}

fn changed_search(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    run.mutate(&json!({"key": group, "keyType": 0, "coordinatorKeys": [group]}), &["keyType"]);
}

fn life(run: &mut Run<'_>) {
    let (group, version) = (run.name("readers"), run.version);
    run.find_coordinator(&group);
    let member = Member::of(&group, &joins(run, version, join(&group)));
    run.ask_other("a heartbeat before the sync", "Heartbeat", member.heartbeat());
    let sync = member.sync(json!([{"memberId": member.id, "assignment": "hex:0011"}]));
    run.ask_other("sync", "SyncGroup", sync.clone());
    run.ask_other("sync again", "SyncGroup", sync);
    run.ask_other("a heartbeat", "Heartbeat", member.heartbeat());
    let mut again = join(&group);
    again["memberId"] = member.id.as_str().into();
    let again = run.ask("join again, as before", again.clone());
    let member = Member::of(&group, &again);
    let sync = member.sync(json!([{"memberId": member.id, "assignment": "hex:0022"}]));
    run.ask_other("sync as before", "SyncGroup", sync);
    let mut changed = join(&group);
    changed["memberId"] = member.id.as_str().into();
    changed["protocols"][0]["metadata"] = "hex:0001".into();
    let again = run.ask("join with another subscription", changed);
    let member = Member::of(&group, &again);
    run.ask_other("a heartbeat while it rebalances", "Heartbeat", member.heartbeat());
    member.leave(run);
    run.ask_other("what is left", "DescribeGroups", json!({"groups": [group]}));
    let mut back = join(&group);
    back["memberId"] = member.id.as_str().into();
    run.ask("join with an id that is gone", back);
}

fn two_members(run: &mut Run<'_>) {
    let (group, version) = (run.name("readers"), run.version);
    run.find_coordinator(&group);
    let first = Member::of(&group, &joins(run, version, join(&group)));
    let sync = first.sync(json!([{"memberId": first.id, "assignment": "hex:0011"}]));
    run.ask_other("sync alone", "SyncGroup", sync);
    run.on_connection(1);
    let mut body = join(&group);
    if version >= ID_FIRST {
        let answer = run.ask("the second joins", body.clone());
        body["memberId"] = answer["memberId"].clone();
    }
    let second = run.send("the second waits", "JoinGroup", version, &body);
    run.on_connection(0);
    // The second request has arrived when the first member hears of the rebalance.
    run.ask_until("the first hears of it", "Heartbeat", &first.heartbeat(), |answer| {
        answer["errorCode"] == 27
    });
    let mut again = join(&group);
    again["memberId"] = first.id.as_str().into();
    let first = Member::of(&group, &run.ask("the first joins again", again));
    let second = Member::of(&group, &run.receive(second));
    run.on_connection(1);
    let waiting = run.send(
        "the second waits for its part",
        "SyncGroup",
        run.newest("SyncGroup"),
        &second.sync(json!([])),
    );
    run.on_connection(0);
    let parts = json!([{"memberId": first.id, "assignment": "hex:0011"}, {"memberId": second.id, "assignment": "hex:0022"}]);
    run.ask_other("the leader gives out parts", "SyncGroup", first.sync(parts));
    run.receive(waiting);
    run.ask_other("both are there", "DescribeGroups", json!({"groups": [group]}));
    second.leave(run);
    run.ask_other("the first hears that the second left", "Heartbeat", first.heartbeat());
    run.ask_other("one is left", "DescribeGroups", json!({"groups": [group]}));
    first.leave(run);
}

fn wrong_joins(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let mut case = |what: &str, field: &str, value: Value| {
        let mut body = join(&group);
        body[field] = value;
        run.ask(what, body);
    };
    case("no group", "groupId", json!(""));
    case("a session that is too short", "sessionTimeoutMs", json!(5999));
    case("a session that is too long", "sessionTimeoutMs", json!(1_800_001));
    case("no session", "sessionTimeoutMs", json!(0));
    case("a negative session", "sessionTimeoutMs", json!(-1));
    case("a member that nobody knows", "memberId", json!("nobody"));
    case("no type of protocol", "protocolType", json!(""));
    case("no protocols", "protocols", json!([]));
    // A member that has no id yet would be one at once, and Kafka would never answer it.
    if run.version >= ID_FIRST {
        let mut body = join(&group);
        body["protocols"] = json!([body["protocols"][0], body["protocols"][0]]);
        run.ask("a protocol twice", body);
    }
    run.ask_other("no group came of it", "DescribeGroups", json!({"groups": [group]}));
}

fn static_members(run: &mut Run<'_>) {
    if run.version < STATIC_JOIN {
        return;
    }
    let group = run.name("readers");
    run.find_coordinator(&group);
    let with = |instance: &str, id: &str| {
        let mut body = join(&group);
        body["groupInstanceId"] = instance.into();
        body["memberId"] = id.into();
        body
    };
    let member = Member::of(&group, &run.ask("the first time", with("a", "")));
    run.ask_other(
        "sync",
        "SyncGroup",
        member.sync(json!([{"memberId": member.id, "assignment": "hex:0011"}])),
    );
    run.ask_other("what there is", "DescribeGroups", json!({"groups": [group]}));
    let back = Member::of(&group, &run.ask("it comes back", with("a", "")));
    let mut beat = back.heartbeat();
    beat["groupInstanceId"] = "a".into();
    run.ask_other("a heartbeat of the new id", "Heartbeat", beat.clone());
    beat["memberId"] = member.id.as_str().into();
    run.ask_other("a heartbeat of the old id", "Heartbeat", beat.clone());
    beat["groupInstanceId"] = "b".into();
    run.ask_other("a heartbeat of an unknown instance", "Heartbeat", beat);
    run.ask("a join with the old id", with("a", &member.id));
    run.ask("a join of an unknown instance with an id", with("b", &back.id));
    let mut sync = back.sync(json!([]));
    sync["groupInstanceId"] = "a".into();
    run.ask_other("sync of the new id", "SyncGroup", sync.clone());
    sync["memberId"] = member.id.as_str().into();
    run.ask_other("sync of the old id", "SyncGroup", sync);
    let leave = |id: &str, instance: &str| json!({"groupId": group, "members": [{"memberId": id, "groupInstanceId": instance}]});
    run.ask_other("the old id leaves", "LeaveGroup", leave(&member.id, "a"));
    run.ask_other("an unknown instance leaves", "LeaveGroup", leave("", "b"));
    run.ask_other("the instance leaves", "LeaveGroup", leave("", "a"));
    run.ask_other("nobody is left", "DescribeGroups", json!({"groups": [group]}));
}

fn other_protocols(run: &mut Run<'_>) {
    let (group, version) = (run.name("workers"), run.version);
    run.find_coordinator(&group);
    let mut connect = join(&group);
    connect["protocolType"] = "connect".into();
    connect["protocols"] =
        json!([{"name": "sessioned", "metadata": "hex:01"}, {"name": "compatible", "metadata": "hex:02"}]);
    let answer = joins(run, version, connect.clone());
    let id = answer["memberId"].as_str().unwrap_or_default().to_owned();
    let sync = json!({"groupId": group, "generationId": 1, "memberId": id, "protocolType": "connect", "protocolName": "sessioned",
        "assignments": [{"memberId": id, "assignment": "hex:0a0b"}]});
    run.ask_other("sync", "SyncGroup", sync);
    run.on_connection(1);
    run.ask("a consumer in a group of workers", join(&group));
    connect["protocols"] = json!([{"name": "eager", "metadata": "hex:01"}]);
    run.ask("no protocol in common", connect);
    run.ask_other("what there is", "DescribeGroups", json!({"groups": [group]}));
    run.ask_other("it leaves", "LeaveGroup", json!({"groupId": group, "members": [{"memberId": id}]}));
}

fn changed_join(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    // Before ids are handed out first, each of these would be a member that the next waits for.
    if run.version >= ID_FIRST {
        run.mutate(&join(&group), &["groupInstanceId"]);
    }
}

fn syncs(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let nobody = Member { id: "nobody".to_owned(), generation: 1, group: group.clone() };
    run.ask("of a group that there is not", nobody.sync(json!([])));
    let version = run.newest("JoinGroup");
    let member = Member::of(&group, &joins(run, version, join(&group)));
    run.ask("of a stranger", nobody.sync(json!([])));
    let with = |field: &str, value: Value| {
        let mut body = member.sync(json!([{"memberId": member.id, "assignment": "hex:0011"}]));
        body[field] = value;
        body
    };
    run.ask("of an older generation", with("generationId", json!(0)));
    run.ask("of a newer generation", with("generationId", json!(2)));
    if run.version >= 5 {
        run.ask("of another type of protocol", with("protocolType", json!("connect")));
        run.ask("of another protocol", with("protocolName", json!("roundrobin")));
    }
    let assigned = with(
        "assignments",
        json!([{"memberId": member.id, "assignment": "hex:0011"}, {"memberId": "nobody", "assignment": "hex:22"}]),
    );
    run.ask("of the leader, with a part for a stranger", assigned);
    run.ask("again, without parts", with("assignments", json!([])));
    run.ask(
        "again, with another part",
        with("assignments", json!([{"memberId": member.id, "assignment": "hex:99"}])),
    );
    run.ask("of an older generation, when stable", with("generationId", json!(0)));
    member.leave(run);
    run.ask("of a member that has left", member.sync(json!([])));
}

fn changed_sync(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let member = Member::joined(run, &group);
    run.mutate(&member.sync(json!([{"memberId": member.id, "assignment": "hex:00"}])), &[]);
}

fn heartbeats(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let beat =
        |generation: i64, id: &str| json!({"groupId": group, "generationId": generation, "memberId": id});
    run.ask("in a group that there is not", beat(1, "nobody"));
    run.ask("without a group", json!({"groupId": "", "generationId": 1, "memberId": "nobody"}));
    let member = Member::joined(run, &group);
    run.ask("of the member", beat(member.generation, &member.id));
    run.ask("of an older generation", beat(member.generation - 1, &member.id));
    run.ask("of a newer generation", beat(member.generation + 1, &member.id));
    run.ask("of a stranger", beat(member.generation, "nobody"));
    run.ask("without an id", beat(member.generation, ""));
    member.leave(run);
    run.ask("of a member that has left", beat(member.generation, &member.id));
}

fn changed_heartbeat(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let member = Member::joined(run, &group);
    run.mutate(&member.heartbeat(), &[]);
}

fn leaves(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let leave = |ids: &[&str]| {
        let members: Vec<Value> = ids.iter().map(|id| json!({"memberId": id})).collect();
        json!({"groupId": group, "memberId": ids.first().copied().unwrap_or_default(), "members": members})
    };
    run.ask("a group that there is not", leave(&["nobody"]));
    let member = Member::joined(run, &group);
    run.ask("a stranger", leave(&["nobody"]));
    run.ask("nobody", leave(&[]));
    run.ask("without an id", leave(&[""]));
    run.ask("the member and a stranger", leave(&[&member.id, "nobody"]));
    run.ask("the member again", leave(&[&member.id]));
    let member = Member::joined(run, &group);
    run.ask("the member twice", leave(&[&member.id, &member.id]));
    run.ask_other("nobody is left", "DescribeGroups", json!({"groups": [group]}));
}

fn changed_leave(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    Member::joined(run, &group);
    let body = json!({"groupId": group, "memberId": "nobody", "members": [{"memberId": "nobody", "groupInstanceId": null, "reason": "why not"}]});
    run.mutate(&body, &[]);
}

fn describe(run: &mut Run<'_>) {
    let (group, empty) = (run.name("readers"), run.name("empty"));
    run.find_coordinator(&group);
    let version = run.newest("JoinGroup");
    let member = Member::of(&group, &joins(run, version, join(&group)));
    let ask = |groups: &[&str], operations: bool| json!({"groups": groups, "includeAuthorizedOperations": operations});
    run.ask("before the sync", ask(&[&group], false));
    let sync = member.sync(json!([{"memberId": member.id, "assignment": "hex:0011"}]));
    run.ask_other("sync", "SyncGroup", sync);
    Member::joined(run, &empty).leave(run);
    run.ask("stable, empty, none", ask(&[&group, &empty, "nobody", ""], false));
    run.ask("with operations", ask(&[&group, "nobody"], true));
    run.ask("one twice", ask(&[&group, &group], false));
    run.ask("nothing", ask(&[], false));
}

fn changed_description(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    Member::joined(run, &group);
    run.mutate(&json!({"groups": [group]}), &[]);
}

/// All scenarios' groups are in the list, so only filters that leave none or few are compared.
fn list(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let state = |states: &[&str], types: &[&str]| json!({"statesFilter": states, "typesFilter": types});
    if run.version >= 4 {
        run.ask("a state that there is not", state(&["Nowhere"], &[]));
        run.ask("groups that sync", state(&["PreparingRebalance"], &[]));
        run.ask("dead groups", state(&["Dead"], &[]));
    }
    if run.version >= 5 {
        run.ask("a type that there is not", state(&[], &["nothing"]));
        run.ask("a type in capitals", state(&["Dead"], &["CLASSIC"]));
        run.ask("both", state(&["Dead", "dead"], &["classic", "consumer"]));
    }
    let (version, wanted) = (run.version, run.name("readers"));
    Member::joined(run, &group);
    run.ask_for_one("one of all", "ListGroups", version, state(&[], &[]), "groups", &wanted);
    if version >= 4 {
        run.ask_for_one(
            "one of the stable ones",
            "ListGroups",
            version,
            state(&["Stable"], &[]),
            "groups",
            &wanted,
        );
        run.ask_for_one(
            "one of the stable ones, in small letters",
            "ListGroups",
            version,
            state(&["stable"], &[]),
            "groups",
            &wanted,
        );
        run.ask_for_one(
            "not one of the empty ones",
            "ListGroups",
            version,
            state(&["Empty"], &[]),
            "groups",
            &wanted,
        );
    }
}

fn delete(run: &mut Run<'_>) {
    let (group, empty) = (run.name("readers"), run.name("empty"));
    run.find_coordinator(&group);
    Member::joined(run, &empty).leave(run);
    let member = Member::joined(run, &group);
    let names = |names: &[&str]| json!({"groupsNames": names});
    run.ask("stable, empty, none", names(&[&group, &empty, "nobody", ""]));
    run.ask("one that is gone", names(&[&empty]));
    member.leave(run);
    run.ask("one twice", names(&[&group, &group]));
    run.ask("nothing", names(&[]));
    run.ask_other("none is left", "DescribeGroups", json!({"groups": [group, empty]}));
}

fn changed_deletion(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    run.mutate(&json!({"groupsNames": [group]}), &[]);
}
