//! DescribeAcls, CreateAcls and DeleteAcls, where nobody looks after ACLs.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "DescribeAcls", name: "without an authorizer", body: described },
    Scenario { api: "CreateAcls", name: "without an authorizer", body: created },
    Scenario { api: "DeleteAcls", name: "without an authorizer", body: deleted },
];

/// Any.
const ANY: i8 = 1;
/// A topic's type.
const TOPIC: i8 = 2;
/// The pattern that is a name.
const LITERAL: i8 = 3;
/// The operation of consumers.
const READ: i8 = 3;
/// The permission that allows.
const ALLOW: i8 = 3;

fn filter() -> Value {
    json!({"resourceTypeFilter": TOPIC, "resourceNameFilter": "orders", "patternTypeFilter": LITERAL,
        "principalFilter": "User:a", "hostFilter": "*", "operation": READ, "permissionType": ALLOW})
}

fn any() -> Value {
    json!({"resourceTypeFilter": ANY, "resourceNameFilter": null, "patternTypeFilter": ANY,
        "principalFilter": null, "hostFilter": null, "operation": ANY, "permissionType": ANY})
}

fn described(run: &mut Run<'_>) {
    run.ask("any", any());
    run.ask("those of one", filter());
    run.mutate(&filter(), &[]);
}

fn created(run: &mut Run<'_>) {
    let acl = |name: &str| {
        json!({"resourceType": TOPIC, "resourceName": name, "resourcePatternType": LITERAL,
            "principal": "User:a", "host": "*", "operation": READ, "permissionType": ALLOW})
    };
    run.ask("none", json!({"creations": []}));
    run.ask("two", json!({"creations": [acl("orders"), acl("returns")]}));
    run.mutate(&json!({"creations": [acl("orders")]}), &[]);
}

fn deleted(run: &mut Run<'_>) {
    run.ask("none", json!({"filters": []}));
    run.ask("two", json!({"filters": [any(), filter()]}));
    run.mutate(&json!({"filters": [filter()]}), &[]);
}
