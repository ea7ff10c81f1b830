//! A real S3 server as a child process: versitygw, which checks signatures and keeps objects as files.
//!
//! Owns the server's directory and its end: it is killed when the value is dropped, and when this process ends, however that comes.

use std::fs::File;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tempfile::TempDir;
use tidings::claim_check::BucketOptions;
use tidings_postgres_server::free_port;

use crate::process::Launch;
use crate::programs::installed;
use crate::server::Server;
use crate::wait::until;

const KEY: &str = "tidings";
/// What nothing may print.
pub const SECRET: &str = "s3cret-of-the-test";

/// The server that the tests of one program share, while any of them runs.
static SHARED: Mutex<Weak<S3Server>> = Mutex::new(Weak::new());

/// A running server.
pub struct S3Server {
    /// Ends before its directory goes.
    _process: Server,
    port: u16,
    scratch: TempDir,
    buckets: AtomicU32,
}

impl S3Server {
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

    #[track_caller]
    fn start() -> Self {
        let scratch = tempfile::tempdir().expect("make a directory for the S3 server");
        for folder in ["buckets", "about"] {
            std::fs::create_dir(scratch.path().join(folder)).expect("make a directory for the S3 server");
        }
        let port = free_port();
        let log = File::create(scratch.path().join("log")).expect("make a log file");
        let mut command = Command::new(installed("versitygw/versitygw"));
        command.args(["--access", KEY, "--secret", SECRET, "--port", &format!("127.0.0.1:{port}")]);
        command.args(["--keep-alive", "posix", "--sidecar"]);
        command.arg(scratch.path().join("about")).arg(scratch.path().join("buckets"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share a file")).stderr(log);
        let server = Self { _process: Server::run(command), port, scratch, buckets: AtomicU32::new(0) };
        until("the S3 server answers", || TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }

    /// A new bucket.
    #[track_caller]
    pub fn bucket(&self) -> String {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(self.folder(&name)).expect("make a bucket");
        name
    }

    /// Where a bucket's objects lie, as files of their names.
    pub fn folder(&self, bucket: &str) -> PathBuf {
        self.scratch.path().join("buckets").join(bucket)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How it is reached.
    pub fn options(&self) -> BucketOptions {
        BucketOptions {
            endpoint: Some(self.endpoint()),
            region: None,
            access_key_id: Some(KEY.into()),
            secret_access_key: Some(SECRET.into()),
            allow_http: true,
        }
    }

    /// Tells a command how it is reached.
    pub fn tell(&self, launch: Launch) -> Launch {
        launch
            .environment("AWS_ENDPOINT_URL", &self.endpoint())
            .environment("AWS_ACCESS_KEY_ID", KEY)
            .environment("AWS_SECRET_ACCESS_KEY", SECRET)
            .environment("AWS_ALLOW_HTTP", "true")
    }

    /// Everything it has logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }
}
