//! Who a data directory belongs to: `meta.properties`, and each partition's `partition.metadata`.
//!
//! Owns both formats, which are Kafka's. Invariants: `meta.properties` carries `tidings.version`, so that
//! neither another program's directory nor another version's is taken for ours.
//!
//! ```text
//! meta.properties                    partition.metadata
//! version=1                          version: 0
//! tidings.version=1                  topic_id: IdC9UIXrSEmn8H9Ft-ziBQ
//! cluster.id=9WEbYs4hTBqKvZq3vGYzKw
//! node.id=0
//! directory.id=Vt8sGZ1IT9m4bDQ0XqPzRA
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use tidings_model::TopicId;

use super::OpenError;
use crate::config::DataDirOptions;
use crate::disk::{Disk, read_file, replace_file};

pub(crate) const META: &str = "meta.properties";
/// The version of Kafka's file format.
const KAFKA_VERSION: &str = "1";
/// The version of what is ours: raised when an older program would misread the directory.
const VERSION: &str = "1";

/// The name of a partition's metadata file.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";

#[derive(Debug)]
pub(super) struct Meta {
    pub cluster_id: String,
    pub directory_id: String,
}

impl Meta {
    /// Reads `meta.properties`, or writes it in a new directory.
    pub fn load_or_create(disk: &dyn Disk, dir: &Path, options: &DataDirOptions) -> Result<Self, OpenError> {
        let path = dir.join(META);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::NotWritable { path: dir.to_owned(), source }
            }
            _ => OpenError::Io { path: path.clone(), source },
        };
        match read_file(disk, &path).map_err(failed)? {
            Some(bytes) => Self::check(&String::from_utf8_lossy(&bytes), dir, options),
            None => {
                let cluster_id = options.cluster_id.clone().unwrap_or_else(random_id);
                let meta = Self { cluster_id, directory_id: random_id() };
                replace_file(disk, &path, meta.encode(options.node_id).as_bytes()).map_err(failed)?;
                sync_names(disk, dir).map_err(failed)?;
                Ok(meta)
            }
        }
    }

    fn encode(&self, node_id: i32) -> String {
        let Self { cluster_id, directory_id } = self;
        format!(
            "version={KAFKA_VERSION}\ntidings.version={VERSION}\ncluster.id={cluster_id}\nnode.id={node_id}\n\
             directory.id={directory_id}\n"
        )
    }

    fn check(text: &str, dir: &Path, options: &DataDirOptions) -> Result<Self, OpenError> {
        check_version(text, dir)?;
        let properties = properties(text);
        let get = |key: &str| properties.get(key).copied().unwrap_or("");
        if get("node.id") != options.node_id.to_string() {
            let (expected, found) = (options.node_id, get("node.id").to_owned());
            return Err(OpenError::Node { path: dir.to_owned(), expected, found });
        }
        Ok(Self { cluster_id: get("cluster.id").to_owned(), directory_id: get("directory.id").to_owned() })
    }
}

fn properties(text: &str) -> HashMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key, value.trim())).collect()
}

/// Whether the contents of `meta.properties` are of a directory that this program reads and writes.
pub(crate) fn check_version(text: &str, dir: &Path) -> Result<(), OpenError> {
    let properties = properties(text);
    for (key, expected) in [("version", KAFKA_VERSION), ("tidings.version", VERSION)] {
        let found = properties.get(key).copied().unwrap_or("");
        if found != expected {
            let expected = format!("{key}={expected}");
            let found = match found {
                "" => format!("no {key} in {META}"),
                found => format!("{key}={found}"),
            };
            return Err(OpenError::Version { path: dir.to_owned(), expected, found });
        }
    }
    Ok(())
}

/// Makes the names of a directory and of those above it durable, which may all be new. Where one may not be opened,
/// someone else made it and what is below.
fn sync_names(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for parent in dir.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match disk.sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// A random id. The standard library seeds its hash maps with randomness of the system, which is all
/// that ids need that only have to differ.
fn random_id() -> String {
    let half = || RandomState::new().hash_one("id").to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half());
    bytes[8..].copy_from_slice(&half());
    // The version and variant bits of a random UUID.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    TopicId(bytes).to_string()
}

pub(super) fn encode_partition_metadata(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}\n")
}

/// The topic id in a partition's folder; zero when the file is missing or not whole.
pub(crate) fn partition_metadata_id(disk: &dyn Disk, dir: &Path) -> io::Result<TopicId> {
    let bytes = read_file(disk, &dir.join(PARTITION_METADATA))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "));
    Ok(id.and_then(|id| id.trim().parse().ok()).unwrap_or(TopicId::ZERO))
}
