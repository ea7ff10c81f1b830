//! Apache Kafka itself as a child process: one node in KRaft mode on free ports and a directory of its own.
//!
//! Owns its settings and its end: it is killed when the value is dropped, and when this process ends, however that comes. The jars that the Java programs need bring it; no script of its own is run.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;

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
    process: Child,
    address: String,
    scratch: TempDir,
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
        let properties = scratch.path().join("server.properties");
        let text = own_settings(&scratch.path().join("data"), kafka, controller) + settings;
        std::fs::write(&properties, text).expect("write Apache Kafka's settings");
        let is_formatted = format_storage(jars, JVM, &properties, scratch.path(), &[]);
        let process = spawn_kafka(jars, JVM, &properties, scratch.path());
        let mut node = Self { process, address: format!("127.0.0.1:{kafka}"), scratch };
        assert!(is_formatted, "Apache Kafka could not format its directory:\n{}", node.logged());
        node.wait_until_it_answers();
        node
    }

    /// The address, as clients take it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything it has printed.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("server.log")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_until_it_answers(&mut self) {
        until_within(START_LIMIT, "Apache Kafka answers", || {
            if let Some(status) = self.process.try_wait().expect("wait for Apache Kafka") {
                panic!("Apache Kafka ended with {status}:\n{}", self.logged());
            }
            TcpStream::connect(&self.address).ok()
        });
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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

/// Starts a node that ends with this process, however that ends.
pub(crate) fn spawn_kafka(jars: &Path, jvm: JvmOptions, properties: &Path, folder: &Path) -> Child {
    let mut broker = java(jars, jvm, "kafka.Kafka", folder);
    // What ends a test by force must not leave a virtual machine behind.
    let end_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
    unsafe { broker.arg(properties).pre_exec(end_with_us) };
    spawn_for_the_process(broker).expect("run java")
}

fn java(jars: &Path, jvm: JvmOptions, class: &str, folder: &Path) -> Command {
    let log =
        File::options().create(true).append(true).open(folder.join("server.log")).expect("make a log file");
    let mut command = Command::new("java");
    command.args(jvm).arg("-cp").arg(jars.join("*")).arg(class).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("share a file")).stderr(log);
    command
}

/// Spawns from a thread that lives as long as the process: the kernel ends a child with the *thread* that started it, and
/// a test's thread ends with its test.
pub(crate) fn spawn_for_the_process(command: Command) -> std::io::Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, spawned) = channel();
    spawner.send((command, answer)).map_err(std::io::Error::other)?;
    spawned.recv().map_err(std::io::Error::other)?
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
    listener.local_addr().expect("find a free port").port()
}
