//! Apache Kafka itself as a child process: one node in KRaft mode on free ports and a directory of its own.
//!
//! Owns its settings and its end: it is killed when the value is dropped, and when this process ends, however that comes. The jars that the Java programs need bring it; no script of its own is run.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidings_postgres_server::free_port;

use crate::server::Server;
use crate::wait::until_within;

const START_LIMIT: Duration = Duration::from_secs(90);
/// Any 16 bytes in base64: every run is a cluster of its own.
const CLUSTER_ID: &str = "dGlkaW5ncy1vcmFjbGUwMA";
/// A heap that is enough for a judge, and compilation that is cheap to start with.
const JVM: JvmOptions = &["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// Arguments of a virtual machine.
pub(crate) type JvmOptions = &'static [&'static str];

/// A running node.
pub struct ApacheKafka {
    node: Node,
    address: String,
}

impl ApacheKafka {
    /// Starts a node from this folder of jars and waits until it accepts connections; `settings` are lines of
    /// `server.properties`.
    ///
    /// # Panics
    /// With what the node has logged, if it does not start.
    #[track_caller]
    pub fn start(jars: &Path, settings: &str) -> Self {
        let scratch = tempfile::tempdir().expect("make a directory for Apache Kafka");
        let (kafka, controller) = (free_port(), free_port());
        let settings = own_settings(&scratch.path().join("data"), kafka, controller) + settings;
        let node = Node::start(jars, JVM, scratch, &settings, &[], &[kafka]);
        Self { node, address: format!("127.0.0.1:{kafka}") }
    }

    /// The address, as clients take it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything it has printed.
    pub fn logged(&self) -> String {
        self.node.logged()
    }
}

/// The only node of its cluster, with its directory.
pub(crate) struct Node {
    server: Server,
    scratch: TempDir,
}

impl Node {
    /// Formats `scratch` with these arguments besides, starts a node there and waits until it accepts connections on all `ports`.
    ///
    /// # Panics
    /// With what the node has logged, if it does not start.
    #[track_caller]
    pub(crate) fn start(
        jars: &Path,
        jvm: JvmOptions,
        scratch: TempDir,
        settings: &str,
        format_arguments: &[&str],
        ports: &[u16],
    ) -> Self {
        let properties = scratch.path().join("server.properties");
        std::fs::write(&properties, settings).expect("write Apache Kafka's settings");
        let is_formatted = format_storage(jars, jvm, &properties, scratch.path(), format_arguments);
        let mut node = Self { server: spawn_kafka(jars, jvm, &properties, scratch.path()), scratch };
        assert!(is_formatted, "Apache Kafka could not format its directory:\n{}", node.logged());
        until_within(START_LIMIT, "Apache Kafka answers", || {
            if let Some(status) = node.server.ended() {
                panic!("Apache Kafka ended with {status}:\n{}", node.logged());
            }
            let connects = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
            ports.iter().all(connects).then_some(())
        });
        node
    }

    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("server.log")).unwrap_or_default()
    }
}

/// Kafka's defaults but for what a single node needs, and no waiting for members that do not come.
fn own_settings(data: &Path, kafka: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        data.display()
    )
}

/// Formats the directory that the settings name, with these arguments besides; what is printed goes into `server.log` in `folder`. Answers whether it
/// went well.
pub(crate) fn format_storage(
    jars: &Path,
    jvm: JvmOptions,
    properties: &Path,
    folder: &Path,
    arguments: &[&str],
) -> bool {
    let mut format = java(jars, jvm, "kafka.tools.StorageTool", folder);
    format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(properties).args(arguments);
    format.status().expect("run java").success()
}

/// Starts a node.
pub(crate) fn spawn_kafka(jars: &Path, jvm: JvmOptions, properties: &Path, folder: &Path) -> Server {
    let mut broker = java(jars, jvm, "kafka.Kafka", folder);
    broker.arg(properties);
    Server::run(broker)
}

fn java(jars: &Path, jvm: JvmOptions, class: &str, folder: &Path) -> Command {
    let log =
        File::options().create(true).append(true).open(folder.join("server.log")).expect("make a log file");
    let mut command = Command::new("java");
    command.args(jvm).arg("-cp").arg(jars.join("*")).arg(class).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("share a file")).stderr(log);
    command
}
