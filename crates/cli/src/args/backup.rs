//! Arguments of `tidings backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::bucket::BucketArgs;
use super::log::DataDirArgs;

/// `tidings backup …`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Copy what a running server keeps, as of one instant, into a new directory or a bucket
    Create(BackupCreateArgs),
    /// Check every byte of a backup; status 1 if something is wrong
    Verify(BackupVerifyArgs),
    /// Make a data directory of a backup
    Restore(BackupRestoreArgs),
}

/// `tidings backup create`
#[derive(Args, Debug)]
pub struct BackupCreateArgs {
    /// Where to write it: a directory that is empty or not there, or s3://BUCKET/PREFIX with nothing in it
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// Of the bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Of which server.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

/// `tidings backup verify`
#[derive(Args, Debug)]
pub struct BackupVerifyArgs {
    /// The backup's directory, or s3://BUCKET/PREFIX
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// Of the bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
}

/// `tidings backup restore`
#[derive(Args, Debug)]
pub struct BackupRestoreArgs {
    /// The backup's directory, or s3://BUCKET/PREFIX
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// Of the bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The data directory to fill: empty or not there [default: data_dir in tidings.toml, or else ./tidings-data]
    #[arg(long, value_name = "DIR", env = "TIDINGS_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file that says where the data directory is [default: tidings.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "TIDINGS_CONFIG")]
    pub config: Option<PathBuf>,
}
