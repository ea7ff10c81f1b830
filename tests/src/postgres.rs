//! PostgreSQL as a child process: a server of a test's own, on a free port and a directory of its own.
//!
//! Owns its settings and its end, with the value or with this process. It is never synced: what a test kills is what talks to
//! it. It refuses to run as root, so it runs as nobody then.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

use crate::apache_kafka::{free_port, spawn_for_the_process};
use crate::wait::until_within;

const START_LIMIT: Duration = Duration::from_secs(60);
/// The user that has no rights anywhere.
const NOBODY: u32 = 65_534;

/// A running server.
pub struct Postgres {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Postgres {
    /// Makes a database and starts its server, and waits until it answers.
    ///
    /// # Panics
    /// With what it said, if it does not start.
    #[track_caller]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("make a directory for PostgreSQL");
        let data = directory.path().join("data");
        if rustix::process::getuid().is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("give a directory away");
        }
        let mut initdb = program("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--no-locale", "-E", "UTF8", "-D"]);
        let made = initdb.arg(&data).output().expect("run initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut server = program("postgres");
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "log_min_messages=fatal"]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its own way to end at once, and all of its processes with it.
        let end_with_us = || Ok(set_parent_process_death_signal(Some(Signal::QUIT))?);
        // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
        unsafe { server.pre_exec(end_with_us) };
        let process = spawn_for_the_process(server).expect("run postgres");
        let mut postgres = Self { process, port, _directory: directory };
        until_within(START_LIMIT, "PostgreSQL answers", || {
            let ended = postgres.process.try_wait().expect("wait for PostgreSQL");
            assert!(ended.is_none(), "PostgreSQL ended: {ended:?}");
            postgres::Client::connect(&postgres.url(), postgres::NoTls).ok()
        });
        postgres
    }

    /// The address of its database, as clients take it.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    /// A connection.
    #[track_caller]
    pub fn connect(&self) -> postgres::Client {
        postgres::Client::connect(&self.url(), postgres::NoTls).expect("connect to PostgreSQL")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
        let _ = self.process.wait();
    }
}

/// A program of PostgreSQL: Debian puts them where the shell does not look.
fn program(name: &str) -> Command {
    let debian = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(debian).into_iter().flatten().filter_map(Result::ok);
    let newest =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    let mut command = Command::new(newest.unwrap_or_else(|| PathBuf::from(name)));
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    command
}
