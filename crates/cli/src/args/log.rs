//! Arguments of the commands that look at a data directory without a broker.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use tidings_model::TopicPartition;

/// Which data directory.
#[derive(Args, Clone, Debug)]
pub struct DataDirArgs {
    /// Directory that holds everything the platform keeps [default: data_dir in tidings.toml, or else ./tidings-data]
    #[arg(long, value_name = "DIR", env = "TIDINGS_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file that says where the data directory is [default: tidings.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "TIDINGS_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `tidings log …`
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Read every byte of every log and say what is damaged; status 1 if data is lost
    Check(LogCheckArgs),
    /// Take damage out of a log, so that a broker starts with it
    Repair(LogRepairArgs),
    /// Print the batches of a segment
    Dump(LogDumpArgs),
}

/// `tidings log check`
#[derive(Args, Debug)]
pub struct LogCheckArgs {
    /// Where.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// Only these partitions, as orders-3 [default: all]
    #[arg(value_name = "TOPIC-PARTITION")]
    pub partitions: Vec<TopicPartition>,
    /// Look without the lock, also while a broker runs; its last batches may then look torn
    #[arg(long)]
    pub read_only: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `tidings log repair`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("remedy").required(true))]
pub struct LogRepairArgs {
    /// Where.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// The partition, as orders-3
    #[arg(value_name = "TOPIC-PARTITION")]
    pub partition: TopicPartition,
    /// Keep the valid batches behind the damage at their offsets; the lost offsets stay empty
    #[arg(long, group = "remedy")]
    pub drop_damaged: bool,
    /// End the log before this offset; what is valid behind it is lost as well
    #[arg(long, value_name = "OFFSET", group = "remedy")]
    pub truncate_at: Option<i64>,
    /// Do it; without this it is only shown
    #[arg(long)]
    pub yes: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `tidings log dump`
#[derive(Args, Debug)]
pub struct LogDumpArgs {
    /// A segment's .log file, or a .cut file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print the records of batches that are not compressed, too
    #[arg(long)]
    pub records: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}
