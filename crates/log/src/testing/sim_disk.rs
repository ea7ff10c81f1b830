//! The simulated disk as the log sees it.
//!
//! Owns the faults and the capture of crashes. Invariants: every operation is counted, in the order in
//! which it takes effect, so that a crash can be placed before any of them.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::sim_state::{Loss, Node, State};
use crate::disk::{DirEntry, Disk, DiskDir, DiskFile, DiskLock, DiskRoot, DiskSpace, OpenMode};

/// Kinds of operations that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// Writing.
    Write,
    /// Changing a file's length.
    SetLen,
    /// Any sync, of a file, a directory or everything.
    Sync,
    /// Asking whether the file system has given up.
    EnsureAlive,
    /// Renaming.
    Rename,
}

/// What the disk says it can hold.
const SIZE_BYTES: u64 = 1 << 40;

/// A disk in memory.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
    /// Rings when a sync is held or let go.
    holding: Arc<Condvar>,
    open_files: Arc<OpenFilesCount>,
}

#[derive(Debug, Default)]
struct OpenFilesCount {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shared {
    state: State,
    locks: HashSet<PathBuf>,
    operations_count: u64,
    syncs_count: u64,
    faults: Vec<Fault>,
    space_left_bytes: Option<u64>,
    capture: Option<Capture>,
    hold: Option<Hold>,
    held_syncs_count: usize,
    /// How many syncs of a thread were held in all, and how often those held were let go.
    my_held_syncs_count: usize,
    let_go_count: u64,
    panics_at_sync: bool,
}

/// Whose syncs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    All,
    Of(ThreadId),
}

#[derive(Debug)]
struct Fault {
    operation: Operation,
    path_part: String,
    skip: usize,
    times: usize,
    errno: i32,
}

#[derive(Debug)]
struct Capture {
    at_operation: u64,
    loss: Loss,
    note: Arc<AtomicU64>,
    captured: Option<Captured>,
}

/// A crash that was captured while the test ran on.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The disk after the crash.
    pub disk: SimDisk,
    /// What the test's note was at that moment.
    pub note: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk after a crash at this moment; this one goes on.
    pub fn crash(&self, loss: Loss) -> Self {
        Self::of(self.shared.lock().state.after_crash(loss))
    }

    fn of(state: State) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { state, ..Shared::default() })), ..Self::default() }
    }

    /// Places a crash before the operation of this number; `note` is read at that moment.
    pub fn capture_at(&self, at_operation: u64, loss: Loss, note: Arc<AtomicU64>) {
        self.shared.lock().capture = Some(Capture { at_operation, loss, note, captured: None });
    }

    /// The crash placed by [`SimDisk::capture_at`], if its moment has come.
    pub fn captured(&self) -> Option<Captured> {
        self.shared.lock().capture.as_ref()?.captured.clone()
    }

    /// How many operations there were.
    pub fn operations_count(&self) -> u64 {
        self.shared.lock().operations_count
    }

    /// How many of them were syncs.
    pub fn syncs_count(&self) -> u64 {
        self.shared.lock().syncs_count
    }

    /// How many files are open.
    pub fn open_files_count(&self) -> usize {
        self.open_files.now.load(SeqCst)
    }

    /// How many were open at most since this was asked for the last time.
    pub fn take_most_open_files_count(&self) -> usize {
        self.open_files.most.swap(self.open_files_count(), SeqCst)
    }

    /// Lets the next `times` operations of this kind on paths containing `path_part` fail with `errno`,
    /// after `skip` that succeed.
    pub fn fail(&self, operation: Operation, path_part: &str, skip: usize, times: usize, errno: i32) {
        let path_part = path_part.to_owned();
        self.shared.lock().faults.push(Fault { operation, path_part, skip, times, errno });
    }

    /// Lets everything succeed again.
    pub fn heal(&self) {
        let mut shared = self.shared.lock();
        shared.faults.clear();
        shared.space_left_bytes = None;
    }

    /// From now on lets syncs wait until [`SimDisk::release_syncs`].
    pub fn hold_syncs(&self) {
        self.shared.lock().hold = Some(Hold::All);
    }

    /// From now on lets syncs of the calling thread wait until each is let go.
    pub fn hold_my_syncs(&self) {
        self.shared.lock().hold = Some(Hold::Of(std::thread::current().id()));
    }

    /// How many syncs of that thread have had to wait so far.
    pub fn my_held_syncs_count(&self) -> usize {
        self.shared.lock().my_held_syncs_count
    }

    /// Lets the syncs that are held go on; later ones wait again.
    pub fn let_held_go(&self) {
        self.shared.lock().let_go_count += 1;
        self.holding.notify_all();
    }

    /// Waits until so many syncs are held.
    pub fn wait_for_held_syncs(&self, count: usize) {
        let mut shared = self.shared.lock();
        while shared.held_syncs_count < count {
            self.holding.wait(&mut shared);
        }
    }

    /// How many syncs are held now.
    pub fn held_syncs_count(&self) -> usize {
        self.shared.lock().held_syncs_count
    }

    /// Lets all syncs go on; with `panics` the first one panics instead, as a bug of ours would.
    pub fn release_syncs(&self, panics: bool) {
        let mut shared = self.shared.lock();
        shared.hold = None;
        shared.panics_at_sync = panics;
        self.holding.notify_all();
    }

    /// Limits by how much files may still grow; then comes `ENOSPC`, after a short write if some fits.
    pub fn set_space_left(&self, bytes: u64) {
        self.shared.lock().space_left_bytes = Some(bytes);
    }

    /// Changes a file's bytes behind everybody's back, durably.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let state = &mut self.shared.lock().state;
        let inode = state.file(path)?;
        let mut data = state.inodes[inode].data.clone();
        change(&mut data);
        state.inodes[inode].set_len(0);
        state.inodes[inode].write(0, &data);
        state.inodes[inode].sync();
        Ok(())
    }

    /// The files below a directory.
    pub fn files(&self, dir: &Path) -> Vec<PathBuf> {
        let shared = self.shared.lock();
        let below = shared.state.names.iter().filter(|(path, _)| path.starts_with(dir));
        below.filter(|(_, node)| **node != Node::Dir).map(|(path, _)| path.clone()).collect()
    }

    /// Counts an operation, captures a crash before it, and decides whether it fails.
    fn operate<T>(
        &self,
        operation: Operation,
        path: &Path,
        effect: impl FnOnce(&mut Shared, bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut shared = self.shared.lock();
        if operation == Operation::Sync {
            self.hold(&mut shared);
        }
        let now = shared.operations_count;
        shared.operations_count += 1;
        shared.syncs_count += u64::from(operation == Operation::Sync);
        if let Some(Capture { at_operation, loss, ref note, captured: None }) = shared.capture
            && at_operation == now
        {
            let note = note.load(SeqCst);
            let disk = Self::of(shared.state.after_crash(loss));
            shared.capture.as_mut().expect("just seen").captured = Some(Captured { disk, note });
        }
        match shared.fault(operation, path) {
            None => effect(&mut shared, true),
            Some(errno) => {
                // The effect still learns of it: a failed sync has consequences.
                let _ = effect(&mut shared, false);
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    fn hold(&self, shared: &mut MutexGuard<'_, Shared>) {
        shared.held_syncs_count += 1;
        self.holding.notify_all();
        let (me, let_go_count) = (std::thread::current().id(), shared.let_go_count);
        shared.my_held_syncs_count += usize::from(shared.hold == Some(Hold::Of(me)));
        let waits = |shared: &Shared| {
            shared.let_go_count == let_go_count
                && shared.hold.is_some_and(|hold| hold == Hold::All || hold == Hold::Of(me))
        };
        while waits(shared) {
            self.holding.wait(shared);
        }
        shared.held_syncs_count -= 1;
        assert!(!std::mem::take(&mut shared.panics_at_sync), "a panic on demand");
    }

    fn handle(&self, inode: usize, path: &Path) -> Arc<dyn DiskFile> {
        let errors_count = self.shared.lock().state.inodes.get(inode).map_or(0, |inode| inode.errors_count);
        let seen = AtomicU64::new(errors_count);
        let open_count = self.open_files.now.fetch_add(1, SeqCst) + 1;
        self.open_files.most.fetch_max(open_count, SeqCst);
        Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned(), seen })
    }
}

impl Shared {
    /// The error that an operation fails with, if it is to.
    fn fault(&mut self, operation: Operation, path: &Path) -> Option<i32> {
        let path_text = path.to_string_lossy();
        let hits = |fault: &&mut Fault| {
            fault.operation == operation && fault.times > 0 && path_text.contains(&fault.path_part)
        };
        let mut errno = None;
        for fault in self.faults.iter_mut().filter(hits) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else {
                fault.times -= 1;
                errno = Some(fault.errno);
            }
        }
        errno
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.operate(Operation::Open, path, |shared, succeeds| {
            let state = &mut shared.state;
            match (state.file(path), mode) {
                _ if !succeeds => Ok(0),
                (Ok(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
                (Ok(inode), OpenMode::Truncate) => {
                    state.inodes[inode].set_len(0);
                    Ok(inode)
                }
                (Ok(inode), _) => Ok(inode),
                (Err(_), OpenMode::CreateNew | OpenMode::Truncate) => state.create(path),
                (Err(error), _) => Err(error),
            }
        })?;
        Ok(self.handle(inode, path))
    }

    fn open_root(&self, path: &Path) -> io::Result<Box<dyn DiskRoot>> {
        let seen = AtomicU64::new(self.shared.lock().state.errors_count);
        Ok(Box::new(SimRoot { disk: self.clone(), path: path.to_owned(), seen }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut shared = self.shared.lock();
        if shared.state.file(path).is_err() {
            shared.state.create(path)?;
        }
        if !shared.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), path: path.to_owned() })))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let state = &mut self.shared.lock().state;
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        above.into_iter().for_each(|dir| state.create_dir(dir));
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let shared = self.shared.lock();
        let state = &shared.state;
        if state.names.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.iter().filter(|(found, _)| found.parent() == Some(path));
        let entry = |(path, node): (&PathBuf, &Node)| DirEntry {
            name: path.file_name().expect("has a parent").to_string_lossy().into_owned(),
            is_dir: *node == Node::Dir,
            len: match node {
                Node::Dir => 0,
                Node::File(inode) => state.inodes[*inode].data.len() as u64,
            },
        };
        Ok(inside.map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(Operation::Rename, from, |shared, succeeds| match succeeds {
            true => shared.state.rename(from, to),
            false => Ok(()),
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.lock().state.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.lock().state.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let state = &mut self.shared.lock().state;
        let inside: Vec<_> = state.names.keys().filter(|found| found.starts_with(path)).cloned().collect();
        inside.iter().rev().try_for_each(|path| state.remove(path))
    }

    /// Changes nothing, and so is no operation that a crash could come before.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskDir>> {
        let mut shared = self.shared.lock();
        match shared.fault(Operation::Open, path) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None if shared.state.names.get(path) != Some(&Node::Dir) => Err(io::ErrorKind::NotFound.into()),
            None => Ok(Box::new(SimDir { disk: self.clone(), path: path.to_owned() })),
        }
    }

    fn space(&self, _: &Path) -> io::Result<DiskSpace> {
        let left = self.shared.lock().space_left_bytes;
        let available_bytes = left.unwrap_or(SIZE_BYTES);
        Ok(DiskSpace { available_bytes, total_bytes: SIZE_BYTES, is_read_only: false })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: PathBuf,
    /// Failed syncs that this descriptor knows of.
    seen: AtomicU64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.open_files.now.fetch_sub(1, SeqCst);
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let shared = self.disk.shared.lock();
        let data = &shared.state.inodes[self.inode].data;
        let from = data.len().min(position as usize);
        let count = buffer.len().min(data.len() - from);
        buffer[..count].copy_from_slice(&data[from..from + count]);
        Ok(count)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.disk.operate(Operation::Write, &self.path, |shared, succeeds| {
            let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            let inode = &mut shared.state.inodes[self.inode];
            let growth = (position as usize + bytes.len()).saturating_sub(inode.data.len()) as u64;
            if let Some(left) = &mut shared.space_left_bytes {
                if growth > *left {
                    bytes.truncate(bytes.len().saturating_sub((growth - *left) as usize));
                }
                *left -= growth.min(*left);
                if bytes.is_empty() {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            if !succeeds {
                // A failed write may have written something.
                bytes.truncate(bytes.len() / 2);
            }
            inode.write(position as usize, &bytes);
            Ok(bytes.len())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate(Operation::SetLen, &self.path, |shared, succeeds| {
            if succeeds {
                shared.state.inodes[self.inode].set_len(len as usize);
            }
            Ok(())
        })
    }

    /// Simulated files can't.
    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.shared.lock().state.inodes[self.inode].data.len() as u64)
    }

    /// The simulated disk has no clock: everything was written long ago.
    fn modified_ms(&self) -> io::Result<i64> {
        Ok(0)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operate(Operation::Sync, &self.path, |shared, succeeds| {
            let state = &mut shared.state;
            let inode = &mut state.inodes[self.inode];
            if succeeds {
                inode.sync();
            } else {
                inode.fail_sync();
                state.errors_count += 1;
            }
            reported(&self.seen, inode.errors_count)
        })
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[derive(Debug)]
struct SimDir {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskDir for SimDir {
    fn sync_names(&self) -> io::Result<()> {
        self.disk.operate(Operation::Sync, &self.path, |shared, succeeds| {
            if succeeds {
                shared.state.sync_dir(&self.path);
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct SimRoot {
    disk: SimDisk,
    path: PathBuf,
    seen: AtomicU64,
}

/// The error of an earlier sync, which a descriptor has not been told yet.
fn reported(seen: &AtomicU64, errors_count: u64) -> io::Result<()> {
    if seen.swap(errors_count, SeqCst) == errors_count {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(EIO))
    }
}

const EIO: i32 = 5;

impl DiskRoot for SimRoot {
    fn sync_all(&self) -> io::Result<()> {
        self.disk.operate(Operation::Sync, &self.path, |shared, succeeds| {
            if succeeds {
                shared.state.sync_all();
            } else {
                shared.state.inodes.iter_mut().for_each(|inode| inode.fail_sync());
                shared.state.errors_count += 1;
            }
            reported(&self.seen, shared.state.errors_count)
        })
    }

    /// Changes nothing, and so is no operation that a crash could come before.
    fn ensure_alive(&self) -> io::Result<()> {
        let fault = self.disk.shared.lock().fault(Operation::EnsureAlive, &self.path);
        fault.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.shared.lock().locks.remove(&self.path);
    }
}
