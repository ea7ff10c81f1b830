//! Apache Kafka: one node in KRaft mode, broker and controller in one process.
//!
//! Owns its artifacts (fetched by Maven coordinate, once), its `server.properties` and its command line, which is what
//! its own start script would run. Settings are Kafka's defaults but for what a single node needs and for the time that
//! deleted data stays on disk, so that a round does not pay for the one before.

use super::{Peer, Ports};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The coordinates of the artifacts; Maven resolves what they depend on.
const POM: &str = include_str!("../../kafka/pom.xml");
const COPY_JARS: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// Any 16 bytes in base64: every start is a cluster of its own.
const CLUSTER_ID: &str = "dGlkaW5ncy1iZW5jaC0wMA";
/// What Kafka's start scripts give the virtual machine.
const JVM_OPTIONS: &[&str] = &[
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// Kafka with its defaults and perhaps one setting more.
pub struct Kafka {
    name: &'static str,
    jars: PathBuf,
    setting: &'static str,
}

impl Kafka {
    /// Kafka, fetched into `folder` and shown as `name`; `setting` is one line of `server.properties` or empty.
    pub fn new(name: &'static str, folder: &Path, setting: &'static str) -> Self {
        Self { name, jars: folder.join(format!("kafka-{}", version())), setting }
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(JVM_OPTIONS).arg("-cp").arg(self.jars.join("*"));
        command
    }

    fn properties(&self, data_dir: &Path, ports: &Ports) -> Result<String> {
        let (kafka, controller) = (ports.kafka, ports.other);
        let mut text = String::new();
        writeln!(text, "process.roles=broker,controller\nnode.id=1")?;
        writeln!(text, "controller.quorum.voters=1@127.0.0.1:{controller}")?;
        writeln!(text, "listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller}")?;
        writeln!(text, "advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}")?;
        writeln!(text, "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT")?;
        writeln!(text, "controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT")?;
        writeln!(text, "log.dirs={}", data_dir.display())?;
        writeln!(text, "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1")?;
        writeln!(text, "transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0")?;
        writeln!(text, "log.segment.delete.delay.ms=1000\n{}", self.setting)?;
        Ok(text)
    }
}

impl Peer for Kafka {
    fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> Result<String> {
        fetch(&self.jars)?;
        let setting = if self.setting.is_empty() { "defaults" } else { self.setting };
        Ok(format!("Apache Kafka {}, KRaft, one node, {setting}, {}", version(), JVM_OPTIONS[0]))
    }

    fn prepare(&self, data_dir: &Path, ports: &Ports) -> Result<()> {
        fetch(&self.jars)?;
        std::fs::create_dir_all(data_dir)?;
        let properties = properties_file(data_dir);
        std::fs::write(&properties, self.properties(data_dir, ports)?)?;
        let mut format = self.java();
        format.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"]);
        let output = format.arg(&properties).output().context("run java, which Apache Kafka needs")?;
        ensure!(output.status.success(), "Kafka's storage tool: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn command(&self, data_dir: &Path, _ports: &Ports) -> Command {
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(properties_file(data_dir));
        command
    }
}

/// The version of the one artifact that the pom names.
fn version() -> &'static str {
    let artifact = POM.split_once("<artifactId>kafka_").expect("the pom names Kafka").1;
    let version = artifact.split_once("<version>").expect("the pom names a version").1;
    version.split_once('<').expect("the pom is XML").0
}

fn properties_file(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("properties")
}

/// Has Maven copy the artifacts into `jars`, unless that was done before. The folder appears complete or not at all.
fn fetch(jars: &Path) -> Result<()> {
    if jars.is_dir() {
        return Ok(());
    }
    let parent = jars.parent().context("the artifacts need a folder")?;
    eprintln!("fetching Apache Kafka into {}", jars.display());
    let staging = tempfile::tempdir_in(parent)?;
    let pom = staging.path().join("pom.xml");
    std::fs::write(&pom, POM)?;
    let fetched = staging.path().join("jars");
    let status = Command::new("mvn")
        .args([
            "--quiet",
            "--batch-mode",
            "-Dstyle.color=never",
            "-DincludeScope=runtime",
            COPY_JARS,
            "--file",
        ])
        .arg(&pom)
        .arg(format!("-DoutputDirectory={}", fetched.display()))
        .status()
        .context("run mvn, which fetches Apache Kafka")?;
    ensure!(status.success(), "mvn could not fetch the artifacts of {}", pom.display());
    std::fs::rename(&fetched, jars).with_context(|| format!("create {}", jars.display()))
}
