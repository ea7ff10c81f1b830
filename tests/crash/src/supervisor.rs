//! A hand between the broker and the kernel: sees each write, sync, cut and rename before it happens, and decides.
//!
//! Owns the filter (seccomp's user notification), the thread that answers, and the counting. Invariants: a call
//! that is let go is the kernel's own; one that is failed never reaches it; the process waits meanwhile, so that
//! what the decision does (cut the power, kill) comes before the call. Unlike `strace` it counts over all threads,
//! and can be told new decisions while the process runs.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tidings_tests::Launch;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `pwritev`: all of the log's writes.
    Write,
    /// `fdatasync`, `fsync`, `syncfs`.
    Sync,
    /// `ftruncate`.
    Cut,
    /// `rename` and its relatives.
    Rename,
}

/// A call that waits for its decision.
#[derive(Debug)]
pub struct Call {
    /// What it does.
    pub operation: Operation,
    /// The file, where the call names one by a descriptor.
    pub path: Option<PathBuf>,
    /// How many calls came before it.
    pub index: u64,
    /// The thread that calls; killing it kills its process.
    pub pid: u32,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The kernel does it.
    Go,
    /// It fails with this error.
    Fail(i32),
    /// It is not done, and the caller is told that it was.
    Pretend,
    /// The process is killed instead.
    Kill,
}

type Decide = Box<dyn FnMut(&Call) -> Decision + Send>;

/// Decides over the calls of one process.
#[derive(Clone)]
pub struct Supervisor(Arc<Mutex<Decide>>);

#[cfg(target_arch = "x86_64")]
const RENAMES: [libc::c_long; 3] = [libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];
#[cfg(not(target_arch = "x86_64"))]
const RENAMES: [libc::c_long; 3] = [libc::SYS_renameat, libc::SYS_renameat, libc::SYS_renameat2];

const CALLS: [(libc::c_long, Operation); 8] = [
    (libc::SYS_pwritev, Operation::Write),
    (libc::SYS_fdatasync, Operation::Sync),
    (libc::SYS_fsync, Operation::Sync),
    (libc::SYS_syncfs, Operation::Sync),
    (libc::SYS_ftruncate, Operation::Cut),
    (RENAMES[0], Operation::Rename),
    (RENAMES[1], Operation::Rename),
    (RENAMES[2], Operation::Rename),
];

impl Supervisor {
    /// Lets everything go, until told otherwise.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Box::new(|_| Decision::Go))))
    }

    /// Decides like this from now on.
    pub fn decide(&self, decide: impl FnMut(&Call) -> Decision + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(decide);
    }

    /// Kills the process when so many calls have been made from now on.
    pub fn kill_after(&self, calls: u64) {
        let mut left = calls;
        self.decide(move |_| {
            if left == 0 {
                return Decision::Kill;
            }
            left -= 1;
            Decision::Go
        });
    }

    /// Has the process started under supervision.
    pub fn supervise(&self, launch: Launch) -> io::Result<Launch> {
        let (ours, theirs) = UnixStream::pair()?;
        let supervisor = self.clone();
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
            // Without a listener the process never came to its filter, or died on the way.
            if let Ok(Some(listener)) = receive(&ours) {
                supervisor.answer(&listener);
            }
        })?;
        // SAFETY: between fork and exec the hook makes system calls only; it neither allocates nor locks.
        Ok(unsafe {
            launch.before_exec(move || {
                let listener = install_filter()?;
                send(&theirs, &listener)
            })
        })
    }

    /// Answers until the process is gone.
    fn answer(&self, listener: &OwnedFd) {
        let mut index = 0;
        while let Some(notified) = next_call(listener) {
            let number = libc::c_long::from(notified.data.nr);
            let operation = CALLS.iter().find(|(call, _)| *call == number).map(|(_, operation)| *operation);
            let Some(operation) = operation else { break };
            let path = match operation {
                Operation::Rename => None,
                _ => std::fs::read_link(format!("/proc/{}/fd/{}", notified.pid, notified.data.args[0])).ok(),
            };
            let call = Call { operation, path, index, pid: notified.pid };
            index += 1;
            let decision = {
                let mut decide = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                decide(&call)
            };
            if decision == Decision::Kill {
                // SAFETY: a system call without pointers. The thread waits for us, so the id is still its own.
                unsafe { libc::kill(notified.pid as i32, libc::SIGKILL) };
                continue;
            }
            let done = if operation == Operation::Write { bytes_of(&notified) } else { 0 };
            respond(listener, notified.id, decision, done);
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

/// The filter: our calls ask, all others go.
fn install_filter() -> io::Result<OwnedFd> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const LEN: usize = CALLS.len() + 3;
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut program: [libc::sock_filter; LEN] = [statement(RETURN, libc::SECCOMP_RET_ALLOW); LEN];
    // The call's number is the first field.
    program[0] = statement(LOAD, 0);
    for (at, (call, _)) in CALLS.iter().enumerate() {
        // Jumps over the calls that are left and over "allow".
        let jt = (CALLS.len() - at) as u8;
        program[1 + at] = libc::sock_filter { code: EQUAL, jt, jf: 0, k: *call as u32 };
    }
    program[LEN - 1] = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);
    let filter = libc::sock_fprog { len: LEN as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program live until the calls return; nothing else is pointed to.
    let listener = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
}

/// The next call; none when the process is gone.
fn next_call(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, alive during the call.
        let polled = unsafe { libc::poll(&raw mut poll, 1, -1) };
        if polled < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if poll.revents & libc::POLLIN == 0 {
            return None;
        }
        // The kernel wants it zeroed.
        // SAFETY: integers only, for which zero is a value.
        let mut notified: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a notification to where it is given room for one.
        let received =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notified) };
        if received == 0 {
            return Some(notified);
        }
        // The caller died between the poll and now; others may call yet.
    }
}

/// How many bytes a `pwritev` is about: what it answers when it is done.
fn bytes_of(notified: &libc::seccomp_notif) -> i64 {
    let [_, pointer, count, ..] = notified.data.args;
    let mut vectors = vec![0u8; usize::try_from(count).unwrap_or(0).min(4096) * 16];
    let memory = std::fs::File::open(format!("/proc/{}/mem", notified.pid));
    let read = memory.and_then(|memory| memory.read_exact_at(&mut vectors, pointer));
    if read.is_err() {
        return 0;
    }
    let lengths = vectors.chunks_exact(16).filter_map(|vector| vector[8..].try_into().ok());
    lengths.map(|bytes: [u8; 8]| i64::from_ne_bytes(bytes)).sum()
}

fn respond(listener: &OwnedFd, id: u64, decision: Decision, done: i64) {
    let val = if decision == Decision::Pretend { done } else { 0 };
    let (error, flags) = match decision {
        Decision::Fail(errno) => (-errno, 0),
        Decision::Pretend => (0, 0),
        Decision::Go | Decision::Kill => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the kernel reads the response during the call. It fails when the caller is dead: fine.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
}

fn send(socket: &UnixStream, listener: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [listener.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    rustix::net::sendmsg(socket, &[io::IoSlice::new(b"l")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut messages = ancillary.drain();
    Ok(messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    }))
}
