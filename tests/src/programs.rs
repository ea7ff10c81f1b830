//! The client programs of other languages (`tests/clients`): how each is run.
//!
//! What they import is installed by `cargo xtask test` (`--only clients`) under `target/clients`. They are
//! ordinary programs: the address of the cluster is their one argument, status 0 says that all held.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Launch, Tidings};
use crate::wait::until_within;

const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// A client program by language and name.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// Node.js with KafkaJS: a file's name.
    KafkaJs(&'static str),
    /// Node.js 22 with `@platformatic/kafka`: a file's name.
    Platformatic(&'static str),
    /// Python with `confluent-kafka`: a file's name.
    Python(&'static str),
    /// Python with `kafka-python`: a file's name.
    KafkaPython(&'static str),
    /// Python with `aiokafka`: a file's name.
    AioKafka(&'static str),
    /// Go with franz-go: a check's name.
    FranzGo(&'static str),
    /// Go with sarama: a check's name.
    Sarama(&'static str),
    /// Java with the newest `kafka-clients`: a class's name.
    Java(&'static str),
    /// Java with `kafka-clients` 3.9: a class's name.
    Java39(&'static str),
}

impl Program {
    /// Runs the program against a broker of its own; panics with its output when it fails.
    #[track_caller]
    pub fn passes(self) {
        let (bootstrap, _running) = cluster_under_test();
        let output = tempfile::tempdir().expect("make a directory for output");
        let path = output.path().join("output");
        let file = std::fs::File::create(&path).expect("make an output file");
        let mut command = self.command();
        command.arg(bootstrap).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("share a file")).stderr(file);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_within(PROGRAM_LIMIT, "the program has ended", || {
                child.try_wait().expect("wait for a program")
            })
        }));
        let _ = child.kill();
        let _ = child.wait();
        let printed = std::fs::read(&path).expect("read the output");
        let passed = status.as_ref().is_ok_and(std::process::ExitStatus::success);
        assert!(passed, "{self:?}: {status:?}\n{}", String::from_utf8_lossy(&printed));
    }

    fn command(self) -> Command {
        match self {
            Self::KafkaJs(name) => node("node".into(), "kafkajs", name),
            Self::Platformatic(name) => {
                node(installed("platformatic/node_modules/node/bin/node"), "platformatic", name)
            }
            Self::Python(name) => python("python", name),
            Self::KafkaPython(name) => python("kafka-python", name),
            Self::AioKafka(name) => python("aiokafka", name),
            Self::FranzGo(check) => go("franz-go", check),
            Self::Sarama(check) => go("sarama", check),
            Self::Java(class) => java("java-4.4", class),
            Self::Java39(class) => java("java-3.9", class),
        }
    }
}

fn node(node: PathBuf, client: &str, name: &str) -> Command {
    let mut command = Command::new(node);
    command.arg(node_programs(client).join(format!("{name}.mjs")));
    command
}

fn python(client: &str, name: &str) -> Command {
    let mut command = Command::new(installed(&format!("{client}/venv")).join("bin/python"));
    command.arg(sources(client).join(format!("{name}.py"))).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn go(client: &str, check: &str) -> Command {
    let mut command = Command::new(installed(&format!("{client}/checks")));
    command.arg(check);
    command
}

/// With settings for programs that end soon: the best machine code would come too late.
fn java(client: &str, class: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(format!(
        "{}:{}/*",
        installed(&format!("{client}/classes")).display(),
        installed(&format!("{client}/jars")).display()
    ));
    command.arg(class);
    command
}

/// A client program that runs until it is told to end. Dropping it kills it.
pub struct Application {
    process: Child,
    output: TempDir,
}

impl Application {
    /// Starts a Kafka Streams application, by its class.
    #[track_caller]
    pub fn streams(class: &str, arguments: &[String]) -> Self {
        let output = tempfile::tempdir().expect("make a directory for output");
        let file = std::fs::File::create(output.path().join("output")).expect("make an output file");
        let mut command = java("streams", class);
        command.args(arguments).stdin(Stdio::piped());
        command.stdout(file.try_clone().expect("share a file")).stderr(file);
        let process = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self { process, output }
    }

    /// `kill -9`.
    pub fn kill_now(mut self) {
        self.process.kill().expect("kill the application");
        self.process.wait().expect("wait for the application");
    }

    /// Ends its standard input and waits until it has ended; panics with its output when it fails.
    #[track_caller]
    pub fn end(mut self, limit: Duration) {
        drop(self.process.stdin.take());
        let status = until_within(limit, "the application has ended", || {
            self.process.try_wait().expect("wait for the application")
        });
        assert!(status.success(), "the application ended with {status}");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let printed = std::fs::read(self.output.path().join("output")).unwrap_or_default();
            eprintln!("the application had printed:\n{}", String::from_utf8_lossy(&printed));
        }
    }
}

/// Runs a tool of Apache Kafka's own, by its class; answers what it printed. Panics when it fails.
#[track_caller]
pub fn kafka_tool(class: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("java");
    command.arg("-Xmx128m").arg("-cp").arg(installed("java/jars").join("*")).arg(class).args(arguments);
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{class}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// Where a test's clients connect: a broker of the test's own or, to compare, the cluster that
/// `XTASK_CLUSTER` names. The broker lives as long as the second value.
#[track_caller]
pub fn cluster_under_test() -> (String, Option<(Tidings, TempDir)>) {
    if let Ok(bootstrap) = std::env::var("XTASK_CLUSTER") {
        return (bootstrap, None);
    }
    let directory = tempfile::tempdir().expect("make a data directory");
    let tidings = Launch::broker(directory.path()).start();
    (tidings.bootstrap(), Some((tidings, directory)))
}

fn sources(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(client)
}

/// What was installed for the programs; panics with the command that installs it.
#[track_caller]
pub fn installed(folder: &str) -> PathBuf {
    let root = std::env::var_os("XTASK_CLIENTS").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("the test knows its own path");
        test.ancestors().nth(3).expect("tests lie in target/<profile>/deps").join("clients")
    });
    let path = root.join(folder);
    assert!(path.exists(), "{} is missing: run `cargo xtask test --only clients` first", path.display());
    path
}

/// The programs of a client, copied to where Node.js finds what they import.
fn node_programs(client: &str) -> PathBuf {
    static COPIED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let modules = installed(&format!("{client}/node_modules"));
    let folder = modules.with_file_name("programs");
    let mut copied = COPIED.lock().expect("no test failed while it copied");
    if copied.insert(client.to_owned()) {
        std::fs::create_dir_all(&folder).expect("make a directory for the programs");
        for entry in std::fs::read_dir(sources(client)).expect("list the programs") {
            let path = entry.expect("list the programs").path();
            if path.extension().is_some_and(|extension| extension == "mjs") {
                std::fs::copy(&path, folder.join(path.file_name().expect("a program is a file")))
                    .expect("copy a program");
            }
        }
    }
    folder
}
