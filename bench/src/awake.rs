//! Keeps the cores from halting while something is measured.
//!
//! The host of a virtual machine takes a core that has nothing to do, and gives it back with cold caches: whatever wakes up
//! there costs twice as much as on a core that was awake. That is the machine's price, not the program's.

use anyhow::{Context, Result};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The lowest there is: everybody else goes first.
const PRIORITY: i32 = 19;

/// A thread on each core that does nothing, until this is dropped.
pub struct Awake {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Starts the threads.
    pub fn start() -> Result<Self> {
        let mut awake = Self { is_over: Arc::default(), threads: Vec::new() };
        for core in 0..std::thread::available_parallelism()?.get() {
            let is_over = Arc::clone(&awake.is_over);
            let (told, ready) = std::sync::mpsc::channel();
            awake.threads.push(std::thread::spawn(move || {
                let kept = keep_to(core);
                let is_ready = kept.is_ok();
                let _ = told.send(kept);
                while is_ready && !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }));
            ready.recv()?.with_context(|| format!("keep core {core} awake"))?;
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// On Linux both are the calling thread's own.
fn keep_to(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)?;
    Ok(setpriority_process(None, PRIORITY)?)
}
