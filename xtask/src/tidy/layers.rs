//! Who may import whom (ARCHITECTURE.md, "Layers"), compared with `cargo metadata`.
//!
//! Development and build dependencies count like any other: an engine crate has no edge to an application
//! crate, not even for its tests. A crate that is not in the table is a finding, so the table stays whole. An edge may be
//! allowed behind a feature only: then it is optional, and no part of the default build.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// What a crate may import from this workspace.
enum Allowed {
    Only(&'static [&'static str]),
    /// Nothing by default, and one crate behind a feature: its name, then the crate's.
    Behind(&'static str, &'static str),
    Anything,
}

use Allowed::{Anything, Behind, Only};

/// A new edge needs an architecture decision record.
const LAYERS: &[(&str, Allowed)] = &[
    // The engine.
    ("tidings-model", Only(&[])),
    ("tidings-wire", Only(&["tidings-model"])),
    ("tidings-log", Only(&["tidings-model"])),
    ("tidings-coordinator", Only(&["tidings-model", "tidings-wire"])),
    ("tidings-broker", Only(&["tidings-coordinator", "tidings-log", "tidings-model", "tidings-wire"])),
    // The SDK and the services on it. They reach the engine over the wire only.
    ("tidings", Behind("testing", "tidings-broker")),
    ("tidings-http", Only(&[])),
    ("tidings-activity", Only(&["tidings", "tidings-http", "tidings-postgres-server"])),
    ("tidings-console", Only(&["tidings", "tidings-http"])),
    // For other people's services: knows the platform's HTTP API only.
    ("tidings-tower", Only(&[])),
    // What wires, tests and measures it all.
    ("tidings-cli", Anything),
    ("tidings-postgres-server", Only(&[])),
    ("tidings-tests", Anything),
    ("tidings-crash", Anything),
    ("tidings-compat", Anything),
    ("tidings-bench", Anything),
    ("xtask", Only(&[])),
];

pub fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in packages(metadata)? {
        let name = text(package, "name")?;
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            findings.push(Finding::new(name, "this crate has no layer: add it to xtask/src/tidy/layers.rs"));
            continue;
        };
        for dependency in dependencies(package)?.iter().filter(|d| is_ours(d)) {
            let imported = text(dependency, "name")?;
            // A crate's own tests may want its features.
            let is_allowed = imported == name
                || match allowed {
                    Only(list) => list.contains(&imported),
                    Behind(feature, name) => imported == *name && is_behind(package, dependency, feature),
                    Anything => true,
                };
            if !is_allowed {
                findings.push(Finding::new(
                    name,
                    format!("may not depend on {imported} (see ARCHITECTURE.md, Layers)"),
                ));
            }
        }
    }
    Ok(findings)
}

/// Whether only this feature brings a dependency in, and nobody gets the feature unasked.
fn is_behind(package: &Value, dependency: &Value, feature: &str) -> bool {
    let brings = format!("dep:{}", dependency["name"].as_str().unwrap_or_default());
    let names = |list: &Value, name: &str| list.as_array().is_some_and(|list| list.iter().any(|n| n == name));
    let features = package["features"].as_object();
    let bringing: Vec<_> = features
        .into_iter()
        .flatten()
        .filter(|(_, list)| names(list, &brings))
        .map(|(name, _)| name.as_str())
        .collect();
    dependency["optional"] == true
        && bringing == [feature]
        && !names(&package["features"]["default"], feature)
}

/// The packages of the workspace, as `cargo metadata --no-deps` lists them.
pub fn packages(metadata: &Value) -> Result<&Vec<Value>> {
    metadata["packages"].as_array().context("cargo metadata lists no packages")
}

/// Every dependency of a package: normal, development and build.
pub fn dependencies(package: &Value) -> Result<&Vec<Value>> {
    package["dependencies"].as_array().context("a package of cargo metadata lists no dependencies")
}

/// Whether a dependency is a crate of this workspace.
pub fn is_ours(dependency: &Value) -> bool {
    dependency.get("path").is_some()
}

pub fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata has no text at '{key}'"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(package: &str, dependency: Value) -> Vec<String> {
        let metadata = json!({"packages": [{"name": package, "dependencies": [dependency]}]});
        check(&metadata).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_edge_of_the_table_passes_and_another_does_not() {
        assert!(findings("tidings-wire", json!({"name": "tidings-model", "path": "m"})).is_empty());
        let upwards = findings("tidings-log", json!({"name": "tidings-wire", "path": "w"}));
        assert_eq!(upwards, ["tidings-log: may not depend on tidings-wire (see ARCHITECTURE.md, Layers)"]);
    }

    #[test]
    fn an_edge_for_tests_only_counts_too() {
        let edge = json!({"name": "tidings", "path": "s", "kind": "dev"});
        assert_eq!(findings("tidings-broker", edge.clone()).len(), 1);
        assert!(findings("tidings", edge).is_empty(), "its own examples want its features");
    }

    #[test]
    fn the_sdk_reaches_the_engine_behind_a_feature_only() {
        let check = |optional: bool, default: Value| {
            let edge = json!({"name": "tidings-broker", "path": "b", "optional": optional});
            let features = json!({"default": default, "testing": ["dep:tidings-broker"]});
            let package = json!({"name": "tidings", "dependencies": [edge], "features": features});
            super::check(&json!({"packages": [package]})).unwrap().len()
        };
        assert_eq!(check(true, json!([])), 0);
        assert_eq!(check(true, json!(["testing"])), 1);
        assert_eq!(check(false, json!([])), 1);
        assert_eq!(
            findings("tidings", json!({"name": "tidings-log", "path": "l", "optional": true})).len(),
            1
        );
    }

    #[test]
    fn crates_of_others_are_not_our_layers() {
        assert!(findings("tidings-model", json!({"name": "tokio"})).is_empty());
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert_eq!(findings("tidings-new", json!({"name": "tokio"})).len(), 1);
    }
}
