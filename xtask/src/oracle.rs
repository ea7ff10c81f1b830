//! `cargo xtask oracle`: the tests that clients can tell nothing apart by, against Apache Kafka itself.
//!
//! Starts one node of Apache Kafka (the jars that the Java programs need bring it) on free ports and an empty
//! directory, runs the client programs and the SDK's tests on it, and stops it. What fails here is wrong in the
//! test, not in the broker: Apache Kafka is the judge of compatibility. The gate runs the same tests on ours.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{clients, packages, test};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Any 16 bytes in base64: every run is a cluster of its own.
const CLUSTER_ID: &str = "dGlkaW5ncy1vcmFjbGUwMA";
const TESTS: [&str; 4] = ["clients", "rust", "streams", "sdk"];

/// Runs the tests, with `arguments` for `cargo test`; tells whether all passed.
pub fn run(repository: &Path, arguments: &[String]) -> Result<bool> {
    let target = test::target_directory(repository)?;
    packages::install_missing()?;
    clients::install(repository, &target)?;
    let kafka = Kafka::start(&target)?;
    println!("Apache Kafka answers at {}", kafka.address);
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--no-fail-fast", "-p", "tidings-tests"]).current_dir(repository);
    command.args(TESTS.iter().flat_map(|name| ["--test", name])).args(arguments);
    command.env("XTASK_CLUSTER", &kafka.address).env("XTASK_CLIENTS", target.join("clients"));
    Ok(command.status().context("run cargo test")?.success())
}

/// A running node; dropping it ends it.
struct Kafka {
    process: Child,
    address: String,
}

impl Kafka {
    fn start(target: &Path) -> Result<Self> {
        let folder = target.join("oracle");
        if folder.exists() {
            fs::remove_dir_all(&folder).context("empty the directory of the last run")?;
        }
        fs::create_dir_all(&folder).context("make a directory for Apache Kafka")?;
        let (kafka, controller) = (free_port()?, free_port()?);
        let properties = folder.join("server.properties");
        fs::write(&properties, settings(&folder.join("data"), kafka, controller))
            .context("write its settings")?;
        let java = |class: &str| {
            let mut command = Command::new("java");
            command.args(["-Xmx512m", "-cp"]).arg(target.join("clients/java/jars/*")).arg(class);
            command
        };
        let format = java("kafka.tools.StorageTool")
            .args(["format", "--cluster-id", CLUSTER_ID, "--config"])
            .arg(&properties)
            .stdout(Stdio::null())
            .status();
        if !format.context("run java")?.success() {
            bail!("Apache Kafka could not format its directory {}", folder.display());
        }
        let log = fs::File::create(folder.join("server.log")).context("make a log file")?;
        let process = java("kafka.Kafka").arg(&properties).stdout(log.try_clone()?).stderr(log).spawn();
        let mut node = Self { process: process.context("run java")?, address: format!("127.0.0.1:{kafka}") };
        node.wait_until_it_answers(&folder)?;
        Ok(node)
    }

    fn wait_until_it_answers(&mut self, folder: &Path) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(&self.address).is_err() {
            if self.process.try_wait().context("wait for Apache Kafka")?.is_some() {
                bail!("Apache Kafka ended: see {}", folder.join("server.log").display());
            }
            if Instant::now() > deadline {
                bail!("Apache Kafka does not answer after {START_LIMIT:?}");
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Kafka's defaults but for what a single node needs, and no waiting for members that do not come.
fn settings(data: &Path, kafka: u16, controller: u16) -> String {
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

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}
