//! `tidings log`: the logs of a data directory, without a broker.
//!
//! Owns how an operator reads what `tidings_log::offline` has found. Does not judge: the library does.

mod check;
mod dump;
mod repair;

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use thiserror::Error;
use tidings_broker::OpenTopicsError;
use tidings_log::offline::{Access, OfflineDataDir, PartitionCheck};
use tidings_log::{OpenError, RealDisk};
use tidings_model::TopicPartition;

use crate::args::{DataDirArgs, LogCommand};
use crate::config::data_dir;

/// Runs the command.
pub fn run(command: &LogCommand) -> anyhow::Result<()> {
    match command {
        LogCommand::Check(args) => check::run(args),
        LogCommand::Repair(args) => repair::run(args),
        LogCommand::Dump(args) => dump::run(args),
    }
}

/// Why nothing could be looked at.
#[derive(Debug, Error)]
pub enum LogCommandError {
    /// The directory can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A partition was named that is not there.
    #[error("{topic_partition} has no folder in {}", data_dir.display())]
    NoPartition {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where it was sought.
        data_dir: PathBuf,
    },
    /// Data is lost; the details were printed before.
    #[error("{count} damaged {place} found", place = if *count == 1 { "place" } else { "places" })]
    Damaged {
        /// How many places.
        count: usize,
        /// What can be done about the first one.
        choice: String,
    },
    /// Nobody can tell which folders there should be, although nothing else is damaged.
    #[error("which topics there should be can't be told: {0}")]
    Topics(#[source] OpenTopicsError),
}

impl LogCommandError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open(OpenError::Locked { .. }) => {
                Some("stop the broker, or look without the lock: tidings log check --read-only".to_owned())
            }
            Self::Open(OpenError::Missing { .. }) => Some("name the directory with --data-dir".to_owned()),
            Self::Open(_) | Self::NoPartition { .. } | Self::Topics(_) => None,
            Self::Damaged { choice, .. } => Some(choice.clone()),
        }
    }
}

fn open(args: &DataDirArgs, access: Access) -> anyhow::Result<OfflineDataDir> {
    let path = data_dir(args.data_dir.as_deref(), args.config.as_deref())?;
    Ok(OfflineDataDir::open(Arc::new(RealDisk), &path, access).map_err(LogCommandError::from)?)
}

/// The partitions named, or all.
fn chosen(dir: &OfflineDataDir, named: &[TopicPartition]) -> anyhow::Result<Vec<TopicPartition>> {
    let all = dir.partitions()?;
    if named.is_empty() {
        return Ok(all);
    }
    if let Some(missing) = named.iter().find(|named| !all.contains(named)) {
        let (topic_partition, data_dir) = (missing.clone(), dir.path().to_owned());
        return Err(LogCommandError::NoPartition { topic_partition, data_dir }.into());
    }
    Ok(named.to_vec())
}

/// Checks partitions one after the other. The bar is for people: it is not shown where nobody looks.
fn check_all(dir: &OfflineDataDir, partitions: &[TopicPartition]) -> anyhow::Result<Vec<PartitionCheck>> {
    let mut total = 0;
    for topic_partition in partitions {
        total += dir.log_bytes(topic_partition)?;
    }
    let style = ProgressStyle::with_template("{msg:30} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    let bar = ProgressBar::new(total).with_style(style);
    let mut checks = Vec::with_capacity(partitions.len());
    for topic_partition in partitions {
        bar.set_message(topic_partition.to_string());
        checks.push(dir.check(topic_partition, &|bytes| bar.inc(bytes))?);
    }
    bar.finish_and_clear();
    Ok(checks)
}

/// The beginning of a command that repairs this partition.
fn repair_command(dir: &OfflineDataDir, topic_partition: &TopicPartition) -> String {
    format!("tidings log repair --data-dir {} {topic_partition}", dir.path().display())
}
