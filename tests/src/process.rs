//! The `tidings` program as a child process: started on free ports and a directory of the test's own, waited
//! for by its ready file, killed when the test is done with it.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tidings_postgres_server::free_port;

use crate::http::Http;
use crate::kafka::Kafka;
use crate::server::signal_child;
use crate::wait::{LONG, until_within};

/// How long a start may take before the test gives up.
const START_LIMIT: Duration = LONG;
/// How long a platform waits for an acknowledgement: on a machine that does much else the fallback would now
/// and then take what its two seconds are not enough for. What happens then is for tests that say so.
const ACK_TIMEOUT: (&str, &str) = ("TIDINGS_ACTIVITY_ACK_TIMEOUT_MS", "30000");

/// An address of this machine that nobody else is given, for a server that is to come back to it.
pub fn kept_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// How `tidings` is to be started.
pub struct Launch {
    command: Command,
    scratch: TempDir,
    ready_file: Option<PathBuf>,
    /// Where a server is to listen for Kafka clients.
    kafka: Option<String>,
    /// The cluster that services are to use.
    cluster: Option<String>,
}

impl Launch {
    /// The whole platform on free ports, with its data in `data_dir`.
    pub fn up(data_dir: &Path) -> Self {
        Self::up_at("127.0.0.1:0", data_dir)
    }

    /// The same with its HTTP port at this address.
    pub fn up_at(http: &str, data_dir: &Path) -> Self {
        Self::server("up", data_dir).arguments(["--http", http]).environment(ACK_TIMEOUT.0, ACK_TIMEOUT.1)
    }

    /// The broker alone.
    pub fn broker(data_dir: &Path) -> Self {
        Self::server("broker", data_dir)
    }

    /// The services alone, on a cluster that runs already.
    pub fn up_on(bootstrap: &str, data_dir: &Path) -> Self {
        let mut launch = Self::command("up").arguments(["--http", "127.0.0.1:0", "--bootstrap", bootstrap]);
        launch.cluster = Some(bootstrap.to_owned());
        let launch = launch.environment(ACK_TIMEOUT.0, ACK_TIMEOUT.1);
        launch.argument("--data-dir").argument(data_dir).with_ready_file()
    }

    fn server(command: &str, data_dir: &Path) -> Self {
        let mut launch = Self::command(command);
        launch.kafka = Some("127.0.0.1:0".to_owned());
        launch.argument("--data-dir").argument(data_dir).with_ready_file()
    }

    /// Any command, without addresses and without a ready file.
    pub fn command(name: &str) -> Self {
        let mut launch = Self::program(&binary());
        launch.command.arg(name);
        launch
    }

    /// `tidings up` with nothing but what [`Launch::environment`] will say.
    pub fn up_by_environment() -> Self {
        Self::command("up").with_ready_file()
    }

    fn program(program: &Path) -> Self {
        let scratch = tempfile::tempdir().expect("make a directory for logs");
        let mut command = Command::new(program);
        // The test says what is set, not the shell it runs in.
        for (name, _) in std::env::vars_os() {
            if ["TIDINGS_", "AWS_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
                command.env_remove(name);
            }
        }
        command.current_dir(scratch.path()).stdin(Stdio::null());
        command.stdout(log(scratch.path(), "stdout")).stderr(log(scratch.path(), "stderr"));
        Self { command, scratch, ready_file: None, kafka: None, cluster: None }
    }

    fn with_ready_file(mut self) -> Self {
        let path = self.scratch.path().join("ready.json");
        self.command.arg("--ready-file").arg(&path);
        self.ready_file = Some(path);
        self
    }

    /// Listens for Kafka clients here instead of on a free port.
    pub fn at(mut self, address: &str) -> Self {
        self.kafka = Some(address.to_owned());
        self
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Calls `hook` in the new process, right before the program takes it over.
    ///
    /// # Safety
    /// As for [`CommandExt::pre_exec`]: between fork and exec the hook may neither allocate nor lock.
    pub unsafe fn before_exec(
        mut self,
        hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.command.pre_exec(hook) };
        self
    }

    /// Runs as another user; the last thing to say before the start. The program is copied to where that user may execute it.
    pub fn as_user(mut self, uid: u32) -> Self {
        let program = self.scratch.path().join("tidings");
        std::fs::copy(binary(), &program).expect("copy the program");
        open_to_others(self.scratch.path());
        // The ready file lies there.
        std::os::unix::fs::chown(self.scratch.path(), Some(uid), None).expect("give the scratch away");
        let mut command = Command::new(program);
        command.args(self.command.get_args()).uid(uid).current_dir("/").stdin(Stdio::null());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdout(log(self.scratch.path(), "stdout")).stderr(log(self.scratch.path(), "stderr"));
        self.command = command;
        self
    }

    /// Starts the program and waits until it is ready; panics with its log if it ends before.
    #[track_caller]
    pub fn start(self) -> Tidings {
        let ready_file = self.ready_file.clone().expect("this command has no ready file");
        let mut tidings = self.spawn();
        tidings.ready = until_within(START_LIMIT, "tidings is ready", || {
            if let Some(status) = tidings.child.try_wait().expect("wait for tidings") {
                panic!("tidings ended with {status} before it was ready:\n{}", tidings.logged());
            }
            let text = std::fs::read_to_string(&ready_file).ok()?;
            Some(serde_json::from_str(&text).expect("the ready file is JSON"))
        });
        tidings
    }

    /// Starts the program and waits for nothing.
    pub fn spawn(mut self) -> Tidings {
        if let Some(address) = &self.kafka {
            self.command.args(["--kafka", address]);
        }
        let started = Instant::now();
        let child =
            self.command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", binary().display()));
        Tidings { child, ready: Value::Null, cluster: self.cluster, scratch: self.scratch, started }
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(self, limit: Duration) -> Ended {
        self.spawn().wait(limit)
    }
}

/// A running `tidings`; dropping it kills it.
pub struct Tidings {
    child: Child,
    ready: Value,
    cluster: Option<String>,
    scratch: TempDir,
    started: Instant,
}

/// How a `tidings` ended.
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// From when it was waited for (or started, if later) to its end.
    pub took: Duration,
}

impl Tidings {
    /// What the ready file says.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of the Kafka port, as clients take it, or the cluster that it uses in the place of its own.
    #[track_caller]
    pub fn bootstrap(&self) -> String {
        let cluster = self.cluster.as_deref();
        cluster.unwrap_or_else(|| self.ready["kafka"].as_str().expect("the Kafka port is open")).to_owned()
    }

    /// A client of its cluster.
    #[track_caller]
    pub fn kafka(&self) -> Kafka {
        Kafka::new(&self.bootstrap())
    }

    /// A client of its HTTP port.
    #[track_caller]
    pub fn http(&self) -> Http {
        Http::new(self.ready["http"].as_str().expect("the HTTP port is open"))
    }

    /// Resident memory now, from the kernel.
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read the process status");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the status names VmRSS");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number");
        kilobytes * 1024
    }

    /// `kill -9`: the program gets no chance to do anything.
    pub fn kill_now(mut self) {
        self.child.kill().expect("kill tidings");
        self.child.wait().expect("wait for tidings");
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn terminate(self, limit: Duration) -> Ended {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Sends a signal; one that stops it has stopped it on return.
    pub fn signal(&self, signal: Signal) {
        signal_child(&self.child, signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for tidings").is_none()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ended {
        let since = Instant::now();
        let status =
            until_within(limit, "tidings has ended", || self.child.try_wait().expect("wait for tidings"));
        let took = since.elapsed().min(self.started.elapsed());
        Ended {
            status,
            stdout: read(self.scratch.path(), "stdout"),
            stderr: read(self.scratch.path(), "stderr"),
            took,
        }
    }

    /// Everything it has printed and logged.
    pub fn logged(&self) -> String {
        format!("{}{}", read(self.scratch.path(), "stdout"), read(self.scratch.path(), "stderr"))
    }
}

impl Drop for Tidings {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("tidings had logged:\n{}", self.logged());
        }
    }
}

/// The program under test: what `cargo xtask test` built, or what lies beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("XTASK_TIDINGS_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the test knows its own path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let path = folder.join("tidings");
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}

fn log(folder: &Path, name: &str) -> File {
    File::create(folder.join(name)).expect("make a log file")
}

/// The log so far; a log that is cut at an odd byte is shown as far as it goes.
fn read(folder: &Path, name: &str) -> String {
    let mut bytes = Vec::new();
    File::open(folder.join(name)).and_then(|mut file| file.read_to_end(&mut bytes)).expect("read a log file");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn open_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .expect("open a directory to others");
}
