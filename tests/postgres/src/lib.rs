//! PostgreSQL itself as a child process, for tests: a throwaway cluster on a free port of loopback, synced as in earnest.
//!
//! Owns the cluster's directory and its end: it is killed when the value is dropped, and when this process ends, however that
//! comes. PostgreSQL refuses to run as root: where the tests do, it runs as `nobody`. Its log is printed when something
//! expected of it does not happen.

mod port;

use std::fs::{File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

pub use port::{ReservedPort, free_port};

const START_LIMIT: Duration = Duration::from_secs(60);
/// `nobody`, on Debian and most others.
const UNPRIVILEGED: u32 = 65_534;
const USER: &str = "tidings";
/// What nothing may print.
pub const PASSWORD: &str = "s3cret-of-the-test";

/// The cluster that the tests of one program share, while any of them runs.
static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());

/// A running server.
pub struct PostgresServer {
    port: u16,
    scratch: TempDir,
    databases: AtomicU32,
    process: Mutex<Process>,
    /// Settings besides those of every server.
    settings: Vec<String>,
}

/// The server belongs to a thread of its own: the kernel ends it with the thread that started it.
struct Process {
    pid: Pid,
    end: Sender<()>,
    ended: Receiver<()>,
}

impl PostgresServer {
    /// The server that all tests of this program share.
    #[track_caller]
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of the test's own, which it may hurt.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// The same with TLS switched on, for those who want it; both are PEM.
    #[track_caller]
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_with(|folder| {
            let file = |name: &str, text: &str| {
                let path = folder.join(name);
                std::fs::write(&path, text).expect("write a file for TLS");
                give_away(&path);
                path.display().to_string()
            };
            let (certificate, key) = (file("server.pem", certificate), file("server.key", key));
            vec!["ssl=on".into(), format!("ssl_cert_file={certificate}"), format!("ssl_key_file={key}")]
        })
    }

    #[track_caller]
    fn start_with(settings: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let scratch = tempfile::tempdir().expect("make a directory for PostgreSQL");
        give_away(scratch.path());
        let password = scratch.path().join("password");
        std::fs::write(&password, PASSWORD).expect("write a password file");
        give_away(&password);
        let mut initdb = unprivileged("initdb", scratch.path(), "initdb.log");
        // Nobody cuts the power while the cluster is made.
        initdb.args([
            "--no-sync",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--username",
            USER,
        ]);
        initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(scratch.path().join("data"));
        let status = initdb.status().expect("run initdb");
        assert!(status.success(), "initdb ended with {status}:\n{}", read(scratch.path(), "initdb.log"));
        let port = free_port();
        let settings = settings(scratch.path());
        let process = Mutex::new(launch(scratch.path(), port, &settings));
        let server = Self { port, scratch, databases: AtomicU32::new(0), process, settings };
        server.wait_until_it_answers();
        server
    }

    /// A new database, as a URL.
    #[track_caller]
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Asks one database by `psql`; answers the rows as text, with `|` between columns.
    #[track_caller]
    pub fn query(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {words}\n{}", self.logged());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn psql(&self, database: &str, sql: &str) -> std::process::Output {
        let mut psql = Command::new(program("psql"));
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1", "--username", USER]);
        psql.arg(format!("--port={}", self.port)).args(["--dbname", database, "--command", sql]);
        psql.env("PGPASSWORD", PASSWORD).stdin(Stdio::null()).output().expect("run psql")
    }

    /// `kill -9`, and waits until the server is gone. What was connected notices by itself.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let process = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = process.ended.recv();
    }

    /// Sends the server a signal. Its children, which answer those who are connected, do not get it.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = kill_process(process.pid, signal);
    }

    /// Stops the server with all its children: connections stay, new ones are made, and nobody answers. `Signal::CONT` to all
    /// lets them go on.
    pub fn signal_all(&self, signal: Signal) {
        self.signal(signal);
        let server = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pid;
        for child in children(server) {
            let _ = kill_process(child, signal);
        }
    }

    /// Starts a killed server again, in the same place.
    #[track_caller]
    pub fn restart(&self) {
        *self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            launch(self.scratch.path(), self.port, &self.settings);
        self.wait_until_it_answers();
    }

    /// Everything the server has logged.
    pub fn logged(&self) -> String {
        read(self.scratch.path(), "server.log")
    }

    #[track_caller]
    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err()
            || !self.psql("postgres", "SELECT 1").status.success()
        {
            let mut process = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if process.ended.try_recv().is_ok() {
                // The children of a killed server are still at its memory.
                *process = launch(self.scratch.path(), self.port, &self.settings);
            }
            drop(process);
            assert!(Instant::now() < deadline, "PostgreSQL does not answer:\n{}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Whoever is stopped hears nothing.
        self.signal_all(Signal::CONT);
        let process = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A shutdown that waits for nobody, and leaves no process behind that writes into the directory.
        let _ = kill_process(process.pid, Signal::QUIT);
        let _ = process.end.send(());
        let _ = process.ended.recv_timeout(START_LIMIT);
    }
}

fn launch(scratch: &Path, port: u16, settings: &[String]) -> Process {
    let mut command = unprivileged("postgres", scratch, "server.log");
    command.arg("-D").arg(scratch.join("data")).arg("-p").arg(port.to_string());
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=40",
        "shared_buffers=64MB",
        "fsync=on",
    ] {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    // What ends a test by force must not leave a server behind.
    let end_with_us = || Ok(set_parent_process_death_signal(Some(Signal::QUIT))?);
    // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
    unsafe { command.pre_exec(end_with_us) };
    let (started, start) = channel();
    let (end, told) = channel::<()>();
    let (tell, ended) = channel();
    std::thread::spawn(move || {
        let mut child = command.spawn().expect("run postgres");
        started.send(Pid::from_child(&child)).expect("somebody started this");
        wait(&mut child, &told);
        let _ = tell.send(());
    });
    Process { pid: start.recv().expect("postgres starts"), end, ended }
}

/// Waits for the end, by itself or by a kill.
fn wait(child: &mut Child, told: &Receiver<()>) {
    let mut deadline: Option<Instant> = None;
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if told.recv_timeout(Duration::from_millis(20)).is_ok() {
            deadline = Some(Instant::now() + Duration::from_secs(5));
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let _ = child.kill();
        }
    }
}

/// A program of PostgreSQL as a user that it accepts, its words in a file.
fn unprivileged(name: &str, scratch: &Path, log: &str) -> Command {
    let log = File::options().create(true).append(true).open(scratch.join(log)).expect("open a log file");
    let mut command = Command::new(program(name));
    if geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().expect("share a file")).stderr(log);
    command
}

/// The processes that a process has started, and not waited for.
fn children(parent: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; behind it come the state and the parent.
        let parent_pid = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent_pid == Some(parent.as_raw_nonzero().get())
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// Makes a path the unprivileged user's.
fn give_away(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("give a path away");
    }
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("close a path to others");
}

/// Debian keeps the server's programs out of the way, by version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .max();
    let path = newest.map(|(_, folder)| folder.join("bin").join(name)).filter(|path| path.exists());
    path.unwrap_or_else(|| PathBuf::from(name))
}

fn read(folder: &Path, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.join(name)).unwrap_or_default()).into_owned()
}
