//! The client programs of other languages (`tests/clients`): how each is run.
//!
//! What they import is installed by `cargo xtask test` (`--only clients`) under `target/clients`. They are
//! ordinary programs: the address of the cluster is their one argument, status 0 says that all held.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Launch, Tidings};
use crate::wait::until_within;

const PROGRAM_LIMIT: Duration = Duration::from_secs(300);

/// A client program by language and name.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// Node.js with KafkaJS: a file's name.
    KafkaJs(&'static str),
    /// Python with `confluent-kafka`: a file's name.
    Python(&'static str),
    /// Java with `kafka-clients`: a class's name.
    Java(&'static str),
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
            Self::KafkaJs(name) => {
                let mut command = Command::new("node");
                command.arg(kafkajs_programs().join(format!("{name}.mjs")));
                command
            }
            Self::Python(name) => {
                let mut command = Command::new(installed("python/venv").join("bin/python"));
                command.arg(sources("python").join(format!("{name}.py"))).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Self::Java(name) => {
                let jars = installed("java/jars");
                let classes = installed("java/classes");
                let mut command = Command::new("java");
                command
                    .arg("-Xmx128m")
                    .arg("-cp")
                    .arg(format!("{}:{}/*", classes.display(), jars.display()))
                    .arg(name);
                command
            }
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

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language)
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

/// The KafkaJS programs, copied to where Node.js finds what they import.
fn kafkajs_programs() -> &'static Path {
    static COPIED: OnceLock<PathBuf> = OnceLock::new();
    COPIED.get_or_init(|| {
        let modules = installed("kafkajs/node_modules");
        let folder = modules.with_file_name("programs");
        std::fs::create_dir_all(&folder).expect("make a directory for the programs");
        for entry in std::fs::read_dir(sources("kafkajs")).expect("list the programs") {
            let path = entry.expect("list the programs").path();
            if path.extension().is_some_and(|extension| extension == "mjs") {
                std::fs::copy(&path, folder.join(path.file_name().expect("a program is a file")))
                    .expect("copy a program");
            }
        }
        folder
    })
}
