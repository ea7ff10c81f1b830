//! Three nodes of Apache Kafka as child processes: a cluster with replicas, whose brokers can be killed one by one.
//!
//! Owns their settings, ports and directories, and their end: with the value, or with the process, however that comes.
//! Every node is a broker and a controller, as small as it can be; topics have three replicas, and a record is
//! acknowledged when two have it, so that one node may be missing at any time.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;
use tempfile::TempDir;
use tidings_postgres_server::free_port;

use crate::apache_kafka::{JvmOptions, format_storage, spawn_kafka};
use crate::kafka::Kafka;
use crate::programs::installed;
use crate::server::Server;
use crate::wait::until_within;

/// Three virtual machines on a machine with two processors take their time.
const START_LIMIT: Duration = Duration::from_secs(180);
const NODES: usize = 3;
const JVM: JvmOptions = &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];
/// Where nodes are killed: it is soon noticed that one is missing.
const NOTICES_SOON: &str = "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n";
/// Where all nodes live: a busy machine may keep one silent for a while, and nothing is to move because of that.
const IS_PATIENT: &str = "broker.session.timeout.ms=60000\ncontroller.quorum.fetch.timeout.ms=30000\n";

/// A running cluster.
pub struct ApacheCluster {
    nodes: Vec<Node>,
    jars: PathBuf,
    scratch: TempDir,
}

struct Node {
    /// None while it is down.
    process: Option<Server>,
    address: String,
    directory: PathBuf,
}

impl ApacheCluster {
    /// Starts the nodes from this folder of jars and waits until all of them serve.
    ///
    /// # Panics
    /// With what the nodes have logged, if they do not start.
    #[track_caller]
    pub fn start(jars: &Path) -> Self {
        Self::start_with(jars, NOTICES_SOON)
    }

    #[track_caller]
    fn start_with(jars: &Path, attention: &str) -> Self {
        let scratch = tempfile::tempdir().expect("make a directory for Apache Kafka");
        // For clients, and for controllers.
        let ports: Vec<_> = (0..NODES).map(|_| (free_port(), free_port())).collect();
        let node = |index: usize| {
            let directory = scratch.path().join(format!("node-{}", index + 1));
            std::fs::create_dir(&directory).expect("make a directory for a node");
            let settings = settings(&directory, index, &ports) + attention;
            std::fs::write(directory.join("server.properties"), settings).expect("write a node's settings");
            Node { process: None, address: format!("127.0.0.1:{}", ports[index].0), directory }
        };
        let nodes: Vec<_> = (0..NODES).map(node).collect();
        let mut cluster = Self { nodes, jars: jars.to_owned(), scratch };
        cluster.format();
        (0..NODES).for_each(|index| cluster.spawn(index));
        cluster.wait_until_all_serve();
        cluster
    }

    /// The addresses of all nodes, as clients take them.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// How many nodes there are.
    pub fn nodes_count(&self) -> usize {
        self.nodes.len()
    }

    /// `kill -9` of a node, counted from 0.
    pub fn kill(&mut self, index: usize) {
        if let Some(process) = self.nodes[index].process.take() {
            process.kill();
        }
    }

    /// Sends a signal to a node that runs, counted from 0.
    #[track_caller]
    pub fn signal(&self, index: usize, signal: Signal) {
        self.nodes[index].process.as_ref().expect("the node runs").signal(signal);
    }

    /// Sends a signal to every node that runs.
    pub fn signal_all(&self, signal: Signal) {
        self.nodes.iter().filter_map(|node| node.process.as_ref()).for_each(|process| process.signal(signal));
    }

    /// Starts the nodes that were killed again, with their data, and waits until all serve.
    #[track_caller]
    pub fn revive(&mut self) {
        for index in 0..NODES {
            if self.nodes[index].process.is_none() {
                self.spawn(index);
            }
        }
        self.wait_until_all_serve();
    }

    /// Formats one directory with Kafka's tool, and makes the others of it: the tool starts a virtual machine each time.
    fn format(&self) {
        let first = &self.nodes[0].directory;
        let is_formatted = format_storage(&self.jars, JVM, &first.join("server.properties"), first, &[]);
        assert!(is_formatted, "Apache Kafka could not format its directory:\n{}", self.logged());
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            std::fs::create_dir(node.directory.join("data")).expect("make a data directory");
            for entry in std::fs::read_dir(first.join("data")).expect("list what was formatted") {
                let path = entry.expect("list what was formatted").path();
                let copy = node.directory.join("data").join(path.file_name().expect("a file has a name"));
                std::fs::copy(&path, copy).expect("copy what was formatted");
            }
            let properties = node.directory.join("data/meta.properties");
            let text = std::fs::read_to_string(&properties).expect("read what was formatted");
            let own = |line: &str| match line.split_once('=') {
                Some(("node.id", _)) => format!("node.id={}\n", index + 1),
                Some(("directory.id", _)) => format!("directory.id=tidingsTestsNode0000{}A\n", index + 1),
                _ => format!("{line}\n"),
            };
            std::fs::write(&properties, text.lines().map(own).collect::<String>())
                .expect("write a node's identity");
        }
    }

    fn spawn(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.process =
            Some(spawn_kafka(&self.jars, JVM, &node.directory.join("server.properties"), &node.directory));
    }

    /// Every node answers, and knows all of them.
    #[track_caller]
    fn wait_until_all_serve(&mut self) {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address.clone()).collect();
        for address in addresses {
            until_within(START_LIMIT, "all nodes of Apache Kafka serve", || {
                self.panic_if_one_has_ended();
                TcpStream::connect(&address).ok()?;
                let client: BaseConsumer = Kafka::new(&address).config().create().expect("make a client");
                let metadata = client.fetch_metadata(None, Duration::from_secs(5)).ok()?;
                let ids: BTreeSet<_> = metadata.brokers().iter().map(|broker| broker.id()).collect();
                (ids.len() == NODES).then_some(())
            });
        }
    }

    #[track_caller]
    fn panic_if_one_has_ended(&mut self) {
        for index in 0..NODES {
            if let Some(status) = self.nodes[index].process.as_mut().and_then(Server::ended) {
                panic!("node {} of Apache Kafka ended with {status}:\n{}", index + 1, self.logged());
            }
        }
    }

    /// Everything its nodes have printed.
    pub fn logged(&self) -> String {
        let log =
            |node: &Node| std::fs::read_to_string(node.directory.join("server.log")).unwrap_or_default();
        self.nodes.iter().map(log).collect()
    }

    /// Where everything of it lies.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }
}

impl Drop for ApacheCluster {
    fn drop(&mut self) {
        (0..NODES).for_each(|index| self.kill(index));
    }
}

/// A cluster that all tests of this process share: started by the first, ended with the process.
#[track_caller]
pub fn shared_apache_cluster() -> String {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        // SAFETY: the function lives as long as the program, and takes care not to unwind.
        unsafe { libc::atexit(end_shared) };
        *shared = Some(ApacheCluster::start_with(&jars(), IS_PATIENT));
    }
    shared.as_ref().map(ApacheCluster::bootstrap).unwrap_or_default()
}

static SHARED: Mutex<Option<ApacheCluster>> = Mutex::new(None);

extern "C" fn end_shared() {
    // Values in statics are never dropped. Whoever still holds the lock has started nothing that outlives the process.
    let _ = std::panic::catch_unwind(|| SHARED.try_lock().ok().and_then(|mut shared| shared.take()));
}

/// The jars of Apache Kafka that `cargo xtask test` installs.
pub fn jars() -> PathBuf {
    std::env::var_os("XTASK_KAFKA_LIBS").map_or_else(|| installed("java/jars"), PathBuf::from)
}

/// Kafka's defaults but for what makes it small.
fn settings(directory: &Path, index: usize, ports: &[(u16, u16)]) -> String {
    let (kafka, controller) = ports[index];
    let voter =
        |(index, (_, controller)): (usize, &(u16, u16))| format!("{}@127.0.0.1:{controller}", index + 1);
    let voters: Vec<_> = ports.iter().enumerate().map(voter).collect();
    format!(
        "process.roles=broker,controller\n\
         node.id={}\n\
         controller.quorum.voters={}\n\
         listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         default.replication.factor=3\n\
         min.insync.replicas=2\n\
         offsets.topic.replication.factor=3\n\
         offsets.topic.num.partitions=3\n\
         transaction.state.log.replication.factor=3\n\
         transaction.state.log.min.isr=2\n\
         transaction.state.log.num.partitions=3\n\
         group.initial.rebalance.delay.ms=0\n\
         num.network.threads=2\n\
         num.io.threads=2\n\
         log.cleaner.enable=false\n",
        index + 1,
        voters.join(","),
        directory.join("data").display()
    )
}
