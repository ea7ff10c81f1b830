//! A server under measurement, watched through `/proc`.
//!
//! Owns the child process. Everything measured here comes from the kernel's own accounting, so that the same figures
//! can be had for any peer, whatever language it is written in.

use anyhow::{Context, Result};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fs::File;
use std::ops::Sub;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// A running process, killed when dropped and when the thread that started it ends.
pub struct Process {
    child: Child,
    log: PathBuf,
    started: Instant,
}

/// What a process has used since it started.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// Context switches of its living threads, voluntary or not.
    pub context_switches: f64,
}

impl Process {
    /// Starts `command`, whose output goes to the file `log`.
    pub fn spawn(mut command: Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A benchmark that is killed leaves no servers behind to spoil the next one.
        let end_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
        unsafe { command.pre_exec(end_with_us) };
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", program(&command).display()))?;
        Ok(Self { child, log, started })
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last lines it wrote, for an error message.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Resident memory now, in MB (10^6 bytes).
    pub fn resident_mb(&self) -> Result<f64> {
        self.status_mb("VmRSS:")
    }

    /// The most resident memory it ever had, in MB (10^6 bytes).
    pub fn peak_resident_mb(&self) -> Result<f64> {
        self.status_mb("VmHWM:")
    }

    /// Processor time and context switches so far.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage { cpu_seconds: self.cpu_seconds()?, context_switches: self.context_switches()? })
    }

    fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.proc_file("stat")?;
        let after_name = stat.rsplit_once(')').context("read /proc stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // USER_HZ is 100 on every Linux architecture that Rust supports.
        Ok(ticks as f64 / 100.0)
    }

    fn context_switches(&self) -> Result<f64> {
        let mut switches = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end between the listing and the reading.
            let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
            switches +=
                counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(switches)
    }

    fn status_mb(&self, key: &str) -> Result<f64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find(|line| line.starts_with(key)).context("read /proc status")?;
        let kib: f64 = line.split_whitespace().nth(1).context("read /proc status")?.parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("read {path}: {}", self.last_words()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            context_switches: self.context_switches - earlier.context_switches,
        }
    }
}

fn program(command: &Command) -> &Path {
    Path::new(command.get_program())
}
