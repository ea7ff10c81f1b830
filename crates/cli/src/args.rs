//! The command line: every command, argument and the help a person reads.
//!
//! Owns the words only. What a setting means when it is not given on the command line is `config.rs`; what a command does is
//! in `commands/`.

mod backup;
mod bucket;
mod clients;
mod log;
mod server;

pub use backup::BackupCommand;
pub use clients::{
    ActivityCommand, ClaimCheckCommand, ClusterArgs, DlqCommand, EraseArgs, GroupCommand, HttpArgs, ListArgs,
    PayloadsArgs, SelectionArgs, SendArgs, TailArgs, TopicCommand,
};
pub use log::{DataDirArgs, LogCheckArgs, LogCommand, LogDumpArgs, LogRepairArgs};
pub use server::{BrokerArgs, DemoArgs, ServerArgs, UpArgs};

use clap::{Parser, Subcommand};

/// An event streaming platform in one program: a Kafka-compatible broker, an activity stream, a failure inbox, an HTTP API.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, max_term_width = 110, after_help = TOP_EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the whole platform: broker, activity stream, HTTP API
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Start the broker alone
    #[command(after_help = BROKER_EXAMPLES)]
    Broker(BrokerArgs),
    /// Start the platform and play two weeks of real flights through it
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Send, list and follow activities: who did what when
    #[command(subcommand, after_help = ACTIVITY_EXAMPLES)]
    Activity(ActivityCommand),
    /// The failure inbox: records that could not be processed
    #[command(subcommand, after_help = DLQ_EXAMPLES)]
    Dlq(DlqCommand),
    /// Delete large values beside the cluster when their records are gone
    #[command(subcommand, after_help = CLAIM_CHECK_EXAMPLES)]
    ClaimCheck(ClaimCheckCommand),
    /// List, create, delete and describe topics of any Kafka cluster
    #[command(subcommand, after_help = TOPIC_EXAMPLES)]
    Topic(TopicCommand),
    /// List, describe and delete consumer groups of any Kafka cluster
    #[command(subcommand, after_help = GROUP_EXAMPLES)]
    Group(GroupCommand),
    /// Check, repair and dump the logs of a data directory whose broker is stopped
    #[command(subcommand, after_help = LOG_EXAMPLES)]
    Log(LogCommand),
    /// Copy a running server's data directory, check the copy, and make a data directory of it
    #[command(subcommand, after_help = BACKUP_EXAMPLES)]
    Backup(BackupCommand),
}

const TOP_EXAMPLES: &str = "\
Examples:
  tidings demo                       see it work, with real events
  tidings up                         start the platform: Kafka on 127.0.0.1:9092, HTTP on 127.0.0.1:8080
  tidings activity list --tenant UA  ask what happened

Settings come from, weakest first: defaults, tidings.toml, TIDINGS_* in the environment, the command line.
Logs go to standard error; TIDINGS_LOG=debug shows more.";

const UP_EXAMPLES: &str = "\
Examples:
  tidings up
  tidings up --data-dir /var/lib/tidings --set num.partitions=4 --set log.retention.hours=48
  tidings up --bootstrap kafka-1:9092,kafka-2:9092     serve a Kafka cluster; starts no broker
  tidings up --kafka 127.0.0.1:0 --http 127.0.0.1:0 --ready-file ready.json

When it is ready it prints one line beginning with `ready` that names the addresses. SIGHUP has it read its settings again: `log`,
`activity.retention_days` and `activity.retention_days_per_tenant` change at once; for whatever else has changed it tells that
this waits for a restart.

tidings.toml, with every key this command knows:
  data_dir = \"./tidings-data\"       # TIDINGS_DATA_DIR
  kafka = \"127.0.0.1:9092\"          # TIDINGS_KAFKA
  advertised = \"tidings.lan:9092\"   # TIDINGS_ADVERTISED
  http = \"127.0.0.1:8080\"           # TIDINGS_HTTP
  host_names = [\"tidings.lan\"]      # TIDINGS_HOST_NAMES, with commas
  bootstrap = \"kafka-1:9092\"        # TIDINGS_BOOTSTRAP: a cluster, instead of kafka, durability and [broker]
  ready_file = \"ready.json\"         # TIDINGS_READY_FILE
  durability = \"power\"              # TIDINGS_DURABILITY: power or process
  insecure = false                  # TIDINGS_INSECURE
  log = \"info\"                      # TIDINGS_LOG
  [cluster]                         # how to log in at bootstrap
  security_protocol = \"sasl_ssl\"    # TIDINGS_CLUSTER_SECURITY_PROTOCOL: plaintext, ssl, sasl_plaintext or sasl_ssl
  ca_file = \"/etc/kafka/ca.pem\"     # TIDINGS_CLUSTER_CA_FILE: whom to trust, instead of the system's authorities
  verify_host_name = true           # TIDINGS_CLUSTER_VERIFY_HOST_NAME
  certificate_file = \"client.pem\"   # TIDINGS_CLUSTER_CERTIFICATE_FILE: the client's own
  key_file = \"client.key\"           # TIDINGS_CLUSTER_KEY_FILE
  key_password_file = \"key.secret\"  # TIDINGS_CLUSTER_KEY_PASSWORD_FILE
  sasl_mechanism = \"SCRAM-SHA-512\"  # TIDINGS_CLUSTER_SASL_MECHANISM: or SCRAM-SHA-256 or PLAIN
  user = \"tidings\"                  # TIDINGS_CLUSTER_USER
  password_file = \"kafka.secret\"    # TIDINGS_CLUSTER_PASSWORD_FILE; or password, TIDINGS_CLUSTER_PASSWORD
  [broker]                          # Kafka's own names
  num.partitions = 4                # TIDINGS_BROKER_NUM_PARTITIONS
  [activity]
  topic = \"activities\"              # TIDINGS_ACTIVITY_TOPIC: its group, dead letters and retries are named after it
  store = \"sqlite\"                  # TIDINGS_ACTIVITY_STORE: or postgres://USER:PASSWORD@HOST:PORT/DATABASE
  retention_days = 0                # TIDINGS_ACTIVITY_RETENTION_DAYS: since it occurred; 0 keeps it for ever
  retention_days_per_tenant.acme = 30   # TIDINGS_ACTIVITY_RETENTION_DAYS_PER_TENANT: acme=30,globex=0
  partitions = 3                    # TIDINGS_ACTIVITY_PARTITIONS
  dlq_partitions = 1                # TIDINGS_ACTIVITY_DLQ_PARTITIONS
  ack_timeout_ms = 2000             # TIDINGS_ACTIVITY_ACK_TIMEOUT_MS: then the fallback takes what was sent
  breaker_failures = 5              # TIDINGS_ACTIVITY_BREAKER_FAILURES: in a row, then nobody waits any more
  breaker_open_ms = 30000           # TIDINGS_ACTIVITY_BREAKER_OPEN_MS: until one request tries again
  spool_max_bytes = 0               # TIDINGS_ACTIVITY_SPOOL_MAX_BYTES: a file for when the store is away too";

const BROKER_EXAMPLES: &str = "\
Examples:
  tidings broker
  tidings broker --data-dir /var/lib/tidings --kafka 127.0.0.1:9092 --set auto.create.topics.enable=false
  tidings broker --set log.min.free.bytes=5368709120       refuse produces while less than 5 GiB are free
                                                           [default: a twentieth of the disk, at most 1 GiB]";

const DEMO_EXAMPLES: &str = "\
Examples:
  tidings demo                       two weeks of flights from New York, 36,534 events; stays up until Ctrl-C
  tidings demo --full --exit         the whole year, about a million events, then stop
  tidings demo --exit --json         for machines: the summary as JSON, status 0 if every event is stored once
  tidings demo --kafka 127.0.0.1:0 --http 127.0.0.1:0      on free ports

Playing it twice on the same directory stores nothing twice, also after a kill -9.";

const ACTIVITY_EXAMPLES: &str = "\
Examples:
  tidings activity send --tenant acme --actor user:ada --action invoice.paid --target invoice:17
  tidings activity send --file events.ndjson
  tidings activity list --tenant acme --action 'invoice.*' --limit 10
  tidings activity tail --tenant acme
  tidings activity erase --tenant acme --actor ada --requested-by privacy-officer";

const DLQ_EXAMPLES: &str = "\
Examples:
  tidings dlq list activities
  tidings dlq show activities 0-17
  tidings dlq queues orders
  tidings dlq redrive activities 0-17 0-18
  tidings dlq discard activities --all --dry-run";

const CLAIM_CHECK_EXAMPLES: &str = "\
Examples:
  tidings claim-check collect scans --directory /srv/payloads
  tidings claim-check collect scans --bucket s3://payloads/scans

Run it once a day, one at a time. Where something cannot be read, nothing is deleted.";

const TOPIC_EXAMPLES: &str = "\
Examples:
  tidings topic list
  tidings topic create orders --partitions 6 --config cleanup.policy=compact
  tidings topic describe orders --bootstrap kafka-1:9092";

const LOG_EXAMPLES: &str = "\
Examples:
  tidings log check                                    every log in ./tidings-data
  tidings log check --data-dir /var/lib/tidings --json orders-3
  tidings log repair orders-3 --drop-damaged           shows what would be done
  tidings log repair orders-3 --truncate-at 4711 --yes
  tidings log dump tidings-data/orders-3/00000000000000000000.log --records

Every byte that a repair takes out of a log is kept in a .cut file beside it.";

const BACKUP_EXAMPLES: &str = "\
Examples:
  tidings backup create /backups/monday --data-dir /var/lib/tidings       while the server runs
  tidings backup verify /backups/monday
  tidings backup restore /backups/monday --data-dir /var/lib/tidings-new
  tidings backup create s3://backups/tidings/monday        with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION
  tidings backup verify s3://backups/tidings/monday --endpoint https://minio.lan:9000

A backup has everything that was acknowledged before it began. One without manifest.json was not finished.
Plain http:// needs AWS_ALLOW_HTTP=true.";

const GROUP_EXAMPLES: &str = "\
Examples:
  tidings group list
  tidings group describe activity-writer
  tidings group delete old-service";
