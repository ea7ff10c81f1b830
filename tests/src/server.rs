//! Other people's servers as child processes: they end with the value, and with this process, however that ends.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, set_parent_process_death_signal, waitid,
};

/// A running server.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Runs a command.
    #[track_caller]
    pub(crate) fn run(mut command: Command) -> Self {
        // What ends a test by force must not leave a server behind.
        let end_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor locks.
        unsafe { command.pre_exec(end_with_us) };
        let program = command.get_program().display().to_string();
        let spawned = spawn_for_the_process(command);
        Self { child: spawned.unwrap_or_else(|error| panic!("run {program}: {error}")) }
    }

    /// How it has ended by itself, if it has.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a server")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        signal_child(&self.child, signal);
    }

    /// `kill -9`.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill a server");
        self.child.wait().expect("wait for a server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal. A process that is to stop may go on for a moment, and answer somebody: waits until it does no more.
#[track_caller]
pub fn signal_child(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("send a signal");
    if signal == Signal::STOP {
        // An end before that is told to whoever waits for the end.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).expect("wait until it has stopped");
    }
}

/// Spawns from a thread that lives as long as the process: the kernel ends a child with the *thread* that started it, and
/// a test's thread ends with its test.
fn spawn_for_the_process(command: Command) -> std::io::Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, spawned) = channel();
    spawner.send((command, answer)).map_err(std::io::Error::other)?;
    spawned.recv().map_err(std::io::Error::other)?
}
