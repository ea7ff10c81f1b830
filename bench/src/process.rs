//! A server under measurement: started as its user starts it, watched through `/proc`.
//!
//! Owns the child process and its data directory. Everything measured here comes from the kernel's own
//! accounting, so that the same numbers can be had for any peer.

use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to become ready before the benchmark gives up.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running `tidings` process, killed when dropped.
pub struct Platform {
    child: Child,
    started: Instant,
    ready_after: Duration,
    /// Address of the Kafka listener.
    pub kafka: String,
    /// Address of the HTTP listener; empty for a broker alone.
    pub http: String,
}

impl Platform {
    /// Starts `tidings <mode>` (`up` or `broker`) on free ports and waits for its ready file.
    pub fn start(binary: &Path, mode: &str, data_dir: &Path) -> Result<Self> {
        let ports = Ports::free()?;
        let mut platform = Self::spawn(binary, mode, data_dir, &ports)?;
        platform.wait_ready(data_dir)?;
        Ok(platform)
    }

    /// Starts the process and returns at once, so that a client can race its start-up.
    pub fn spawn(binary: &Path, mode: &str, data_dir: &Path, ports: &Ports) -> Result<Self> {
        let kafka = format!("127.0.0.1:{}", ports.kafka);
        let http = format!("127.0.0.1:{}", ports.http);
        let mut command = Command::new(binary);
        command.arg(mode).arg("--data-dir").arg(data_dir).arg("--kafka").arg(&kafka);
        if mode == "up" {
            command.arg("--http").arg(&http);
        }
        command.arg("--ready-file").arg(ready_file(data_dir));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let http = if mode == "up" { http } else { String::new() };
        Ok(Self { child, started, ready_after: Duration::ZERO, kafka, http })
    }

    /// Waits until the ready file appears, and notes how long after the start that was.
    pub fn wait_ready(&mut self, data_dir: &Path) -> Result<()> {
        let file = ready_file(data_dir);
        while !file.exists() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended before it was ready: {status}");
            }
            if self.started.elapsed() > START_LIMIT {
                bail!("the server was not ready within {START_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        self.ready_after = self.started.elapsed();
        Ok(())
    }

    /// When the process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Time from start to ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Resident memory now, in MB (10^6 bytes).
    pub fn resident_mb(&self) -> Result<f64> {
        self.status_mb("VmRSS:")
    }

    /// The most resident memory it ever had, in MB (10^6 bytes).
    pub fn peak_resident_mb(&self) -> Result<f64> {
        self.status_mb("VmHWM:")
    }

    /// CPU time of the process so far, user and system, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("read /proc stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // USER_HZ is 100 on every Linux architecture that Rust supports.
        Ok(ticks as f64 / 100.0)
    }

    fn status_mb(&self, key: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(key)).context("read /proc status")?;
        let kib: f64 = line.split_whitespace().nth(1).context("read /proc status")?.parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports chosen before the start, so that a client can knock before the server is up.
pub struct Ports {
    kafka: u16,
    http: u16,
}

impl Ports {
    /// Two ports that were free a moment ago.
    pub fn free() -> Result<Self> {
        let (kafka, http) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Self { kafka: kafka.local_addr()?.port(), http: http.local_addr()?.port() })
    }
}

fn ready_file(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("ready.json")
}
