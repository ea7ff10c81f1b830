//! Arguments of the commands that talk to a running platform or cluster.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::bucket::BucketArgs;
use crate::address;

/// Which Kafka cluster.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// Address of the Kafka cluster [default: bootstrap or else kafka in tidings.toml, or else 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT,…", env = "TIDINGS_BOOTSTRAP", value_parser = address::of_bootstrap)]
    pub bootstrap: Option<String>,

    /// Configuration file that says where the cluster is and, in [cluster], how to log in there [default: tidings.toml, if
    /// there is one]
    #[arg(long, value_name = "FILE", env = "TIDINGS_CONFIG")]
    pub cluster_config: Option<PathBuf>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Which platform.
#[derive(Args, Clone, Debug)]
pub struct HttpArgs {
    /// Address of the platform's HTTP API [default: http in tidings.toml, or else 127.0.0.1:8080]
    #[arg(long = "http", value_name = "HOST:PORT", env = "TIDINGS_HTTP", value_parser = address::of_http)]
    pub given: Option<String>,

    /// What was given, or else what the settings say; empty until they are read.
    #[arg(skip)]
    pub http: String,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `tidings activity …`
#[derive(Debug, Subcommand)]
pub enum ActivityCommand {
    /// Send one activity, or many from a file or standard input (NDJSON)
    Send(SendArgs),
    /// List stored activities, newest first
    List(ListArgs),
    /// Follow the stream as activities arrive
    Tail(TailArgs),
    /// Delete all that an actor did, for good
    Erase(EraseArgs),
}

/// `tidings activity send`
#[derive(Args, Debug)]
pub struct SendArgs {
    /// Where to.
    #[command(flatten)]
    pub http: HttpArgs,

    /// NDJSON file, one activity per line; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tenant", "actor", "action", "target", "id", "occurred_at", "metadata"])]
    pub file: Option<PathBuf>,

    /// Tenant it belongs to
    #[arg(long, required_unless_present = "file")]
    pub tenant: Option<String>,

    /// Who did it, as TYPE:ID or TYPE:ID:NAME
    #[arg(long, value_name = "TYPE:ID")]
    pub actor: Option<String>,

    /// What was done, as invoice.paid
    #[arg(long, required_unless_present = "file")]
    pub action: Option<String>,

    /// What it was done to, as TYPE:ID or TYPE:ID:NAME; may be repeated
    #[arg(long, value_name = "TYPE:ID")]
    pub target: Vec<String>,

    /// Id of the activity [default: a new UUIDv7]
    #[arg(long)]
    pub id: Option<String>,

    /// When it happened (RFC 3339) [default: now]
    #[arg(long, value_name = "TIME")]
    pub occurred_at: Option<String>,

    /// Free JSON to keep with it
    #[arg(long, value_name = "JSON")]
    pub metadata: Option<String>,
}

/// `tidings activity list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Where to ask.
    #[command(flatten)]
    pub http: HttpArgs,

    /// Tenant
    #[arg(long)]
    pub tenant: String,

    /// Only by the actor with this id
    #[arg(long)]
    pub actor: Option<String>,

    /// Only this action; a final * matches any ending, as invoice.*
    #[arg(long)]
    pub action: Option<String>,

    /// Only on the target with this id
    #[arg(long)]
    pub target: Option<String>,

    /// Only what happened at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,

    /// Only what happened before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,

    /// Only what contains this text
    #[arg(long, value_name = "TEXT")]
    pub q: Option<String>,

    /// How many, at most 500
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,

    /// Go on where an earlier list ended
    #[arg(long)]
    pub cursor: Option<String>,
}

/// `tidings activity erase`
#[derive(Args, Debug)]
pub struct EraseArgs {
    /// Where to.
    #[command(flatten)]
    pub http: HttpArgs,

    /// Tenant
    #[arg(long)]
    pub tenant: String,

    /// Id of the actor whose activities are deleted
    #[arg(long)]
    pub actor: String,

    /// Who asks for it, for the record
    #[arg(long, value_name = "NAME")]
    pub requested_by: String,
}

/// `tidings activity tail`
#[derive(Args, Debug)]
pub struct TailArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Topic of the activities
    #[arg(long, default_value = "activities")]
    pub topic: String,

    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<String>,

    /// Only this action; a final * matches any ending
    #[arg(long)]
    pub action: Option<String>,

    /// Begin with what is already there
    #[arg(long)]
    pub from_beginning: bool,

    /// Stop after this many
    #[arg(long, value_name = "COUNT")]
    pub max: Option<u64>,
}

/// `tidings dlq …`
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List the dead letters of a topic
    List {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Topic the records came from
        topic: String,
        /// How many, at most 500
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Go on where an earlier list ended
        #[arg(long)]
        cursor: Option<String>,
        /// Also those already redriven or discarded
        #[arg(long)]
        all: bool,
    },
    /// Show one dead letter: the original record, why it failed, where it came from
    Show {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Topic the record came from
        topic: String,
        /// Id as `dlq list` shows it: PARTITION-OFFSET
        id: String,
    },
    /// Show which keys wait in groups that preserve their order: how many records, and behind which letter
    Queues {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Topic the records came from
        topic: String,
        /// How many, those with the most waiting first
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Send dead letters back to the group that failed on them
    Redrive {
        /// Which ones.
        #[command(flatten)]
        selection: SelectionArgs,
        /// At most so many a second, for a target that has just recovered
        #[arg(long, value_name = "COUNT", conflicts_with = "dry_run", value_parser = from_1)]
        max_per_second: Option<NonZeroU32>,
    },
    /// Mark dead letters as done without processing them
    Discard(SelectionArgs),
}

/// The standard library's words for 0 name its types.
fn from_1(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("expected a whole number from 1 to {}", NonZeroU32::MAX))
}

/// Which dead letters.
#[derive(Args, Debug)]
pub struct SelectionArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Topic the records came from
    pub topic: String,
    /// Ids as `dlq list` shows them: PARTITION-OFFSET; or --all
    #[arg(value_name = "IDS|--all", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All that are pending
    #[arg(long)]
    pub all: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `tidings claim-check …`
#[derive(Debug, Subcommand)]
pub enum ClaimCheckCommand {
    /// Delete the payloads in a directory or a bucket that no record can refer to any more
    Collect {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Topics whose payloads are collected
        #[arg(required = true)]
        topics: Vec<String>,
        /// Where the payloads lie.
        #[command(flatten)]
        place: PayloadsArgs,
        /// How long it may take to read each topic, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
}

/// Where payloads lie.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("place").required(true))]
pub struct PayloadsArgs {
    /// Directory in which the payloads lie
    #[arg(long, value_name = "DIR", group = "place", conflicts_with = "endpoint")]
    pub directory: Option<PathBuf>,
    /// Bucket in which the payloads lie, as s3://BUCKET/PREFIX
    #[arg(long, value_name = "ADDRESS", group = "place")]
    pub bucket: Option<String>,
    /// Of the bucket.
    #[command(flatten)]
    pub reached: BucketArgs,
}

/// `tidings topic …`
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// List topics
    List {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Also internal topics, such as __consumer_offsets
        #[arg(long)]
        internal: bool,
    },
    /// Create a topic
    Create {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Name of the topic
        topic: String,
        /// Number of partitions
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// Copies of each partition; -1 leaves it to the cluster
        #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..))]
        replication_factor: i32,
        /// A topic setting by its Kafka name, as retention.ms=60000; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = super::server::key_value)]
        config: Vec<(String, String)>,
    },
    /// Delete a topic and everything in it
    Delete {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Name of the topic
        topic: String,
    },
    /// Show a topic's partitions and offsets
    Describe {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Name of the topic
        topic: String,
    },
}

/// `tidings group …`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List consumer groups
    List {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Show a group's members, offsets and lag
    Describe {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Name of the group
        group: String,
    },
    /// Delete a group that has no members, and its offsets
    Delete {
        /// Which cluster.
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Name of the group
        group: String,
    },
}
