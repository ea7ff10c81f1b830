//! `cargo xtask codegen [--check]`: Rust for Kafka's messages from Kafka's own definitions.
//!
//! Owns the list of what is generated and from which artifacts. Maven fetches the artifacts by coordinate; the
//! definitions stay under `target/codegen`, and only names, types and versions reach the generated code, never
//! their prose. To add a message, add its name to [`SOURCES`] and run the task.
//!
//! Invariant: the output depends on nothing but the artifacts and this code, so `--check` (which writes nothing)
//! fails exactly when the committed files are not what the task would write.

mod definition;
mod merge;
mod rust;
mod schema;
mod source;
mod types;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use definition::Definition;
use source::{Artifact, Source};

/// Where the newest definitions come from.
const KAFKA: &str = "4.3.1";
/// The last release that defined the versions which 4.0 dropped and old clients still speak.
const KAFKA_BEFORE: &str = "3.9.1";

/// Everything that is generated.
const SOURCES: &[Source] = &[
    Source {
        artifact: Artifact { name: "kafka-clients", version: KAFKA },
        before: Some(Artifact { name: "kafka-clients", version: KAFKA_BEFORE }),
        directory: "common/message",
        apis: &[
            "Produce",
            "Fetch",
            "ListOffsets",
            "Metadata",
            "OffsetCommit",
            "OffsetFetch",
            "FindCoordinator",
            "JoinGroup",
            "Heartbeat",
            "LeaveGroup",
            "SyncGroup",
            "DescribeGroups",
            "ListGroups",
            "ApiVersions",
            "CreateTopics",
            "DeleteTopics",
            "DeleteRecords",
            "InitProducerId",
            "OffsetForLeaderEpoch",
            "AddPartitionsToTxn",
            "AddOffsetsToTxn",
            "EndTxn",
            "WriteTxnMarkers",
            "TxnOffsetCommit",
            "DescribeAcls",
            "CreateAcls",
            "DeleteAcls",
            "DescribeConfigs",
            "AlterConfigs",
            "CreatePartitions",
            "DeleteGroups",
            "IncrementalAlterConfigs",
            "OffsetDelete",
            "DescribeCluster",
            "DescribeLogDirs",
            "DescribeTopicPartitions",
            "DescribeProducers",
            "DescribeTransactions",
            "ListTransactions",
            "ConsumerGroupHeartbeat",
            "ConsumerGroupDescribe",
        ],
        others: &["ConsumerProtocolSubscription", "ConsumerProtocolAssignment"],
    },
    Source {
        artifact: Artifact { name: "kafka-group-coordinator", version: KAFKA },
        before: None,
        directory: "common/message",
        apis: &[],
        others: &[
            "OffsetCommitKey",
            "OffsetCommitValue",
            "GroupMetadataKey",
            "GroupMetadataValue",
            "ConsumerGroupMetadataKey",
            "ConsumerGroupMetadataValue",
            "ConsumerGroupPartitionMetadataKey",
            "ConsumerGroupMemberMetadataKey",
            "ConsumerGroupMemberMetadataValue",
            "ConsumerGroupTargetAssignmentMetadataKey",
            "ConsumerGroupTargetAssignmentMetadataValue",
            "ConsumerGroupTargetAssignmentMemberKey",
            "ConsumerGroupTargetAssignmentMemberValue",
            "ConsumerGroupCurrentMemberAssignmentKey",
            "ConsumerGroupCurrentMemberAssignmentValue",
            "ConsumerGroupRegularExpressionKey",
            "ConsumerGroupRegularExpressionValue",
        ],
    },
    Source {
        artifact: Artifact { name: "kafka-transaction-coordinator", version: KAFKA },
        before: None,
        directory: "common/message",
        apis: &[],
        others: &["TransactionLogKey", "TransactionLogValue"],
    },
    Source {
        artifact: Artifact { name: "kafka-metadata", version: KAFKA },
        before: None,
        directory: "common/metadata",
        apis: &[],
        others: &["TopicRecord", "PartitionRecord", "RemoveTopicRecord", "ConfigRecord", "ProducerIdsRecord"],
    },
];

const MESSAGES: &str = "crates/wire/src/messages";
const SCHEMAS: &str = "crates/wire/tests/reference/schemas.rs";

/// Runs the task in the repository that holds this crate.
pub fn run(args: &[String]) -> Result<()> {
    let check = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => bail!("usage: cargo xtask codegen [--check]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("find the repository")?;
    let files = generate(root)?;
    if check { compare(root, &files) } else { write(root, &files) }
}

/// Every generated file by its path in the repository, formatted.
fn generate(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut definitions: Vec<Definition> = Vec::new();
    for source in SOURCES {
        definitions.extend(source.definitions(root)?);
    }
    let api_keys = source::api_keys(root, &SOURCES[0])?;
    let mut files = BTreeMap::new();
    for definition in &definitions {
        let path = format!("{MESSAGES}/{}.rs", rust::snake_case(&definition.name));
        files.insert(PathBuf::from(path), rust::message_file(definition)?);
    }
    files.insert(PathBuf::from(format!("{MESSAGES}/api_key.rs")), rust::api_key_file(&api_keys, &SOURCES[0]));
    files.insert(PathBuf::from(format!("{MESSAGES}.rs")), rust::index_file(&definitions));
    files.insert(PathBuf::from(SCHEMAS), schema::file(&definitions)?);
    for (path, content) in &mut files {
        *content = source::rustfmt(root, content).with_context(|| format!("format {}", path.display()))?;
    }
    Ok(files)
}

fn write(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    for path in stale(root, files)? {
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    for (path, content) in files {
        let path = root.join(path);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == *content) {
            continue;
        }
        let directory = path.parent().context("find the directory of a generated file")?;
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn compare(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    let mut differing = stale(root, files)?;
    for (path, content) in files {
        if !std::fs::read_to_string(root.join(path)).is_ok_and(|old| old == *content) {
            differing.push(path.clone());
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    bail!("generated files are out of date (run `cargo xtask codegen`): {differing:?}")
}

/// Files in the directory of messages that no definition makes any more.
fn stale(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>> {
    let directory = root.join(MESSAGES);
    let mut stale = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.strip_prefix(root).is_ok_and(|relative| !files.contains_key(relative)) {
            stale.push(path);
        }
    }
    Ok(stale)
}
