//! The last resort: a bounded file that keeps events while neither the cluster nor the store takes any.
//!
//! ```text
//! frame = version: u8 = 1 | length: u32 BE | crc: u32 BE, CRC-32C of the payload | payload
//! payload = ( length: u32 BE | event: CloudEvents JSON ) …
//! ```
//!
//! A frame is what was synced together. Invariants: what `append` answered is synced; frames are read in the order they
//! were appended; the file is at most as long as it may be, and what does not fit is refused. A torn frame at the end was
//! never answered and is cut at the next start; damage before the end is set aside in a file of its own, and told. The
//! place up to which frames were read is not kept: after a restart they come again, and are known by their ids.
//!
//! After a failed sync nobody knows what is on the disk: nothing is taken any more until a restart. A sync that succeeds counts
//! only if the file system is alive behind it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::alive::ensure_alive;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;
/// What is copied at once.
const COPY_BYTES: usize = 64 * 1024;

/// The file. One process has it open; the lock of the store beside it sees to that.
#[derive(Debug, Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    max_bytes: u64,
    /// [`ensure_alive`]; tests put another one there.
    ensure_alive: fn(&File) -> io::Result<()>,
    /// What `inner` says, for those who do not wait while somebody writes.
    pending_bytes: AtomicU64,
    inner: Mutex<Inner>,
}

impl Shared {
    fn count_pending(&self, inner: &Inner) {
        self.pending_bytes.store(inner.end_position - inner.read_position, Ordering::Release);
    }
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Where the first frame that is not read yet begins.
    read_position: u64,
    /// Where the next frame goes.
    end_position: u64,
    /// Whether a sync, or the repair of a failed write, has failed.
    poisoned: bool,
}

/// A frame's events, and where the next frame begins.
#[derive(Debug)]
pub struct Frame {
    /// The events, in order.
    pub events: Vec<Vec<u8>>,
    next_position: u64,
}

/// Why the spool did not take or give events.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file is as long as it may be.
    #[error("{path}: full: {needed_bytes} bytes do not fit into the {max_bytes} allowed", path = path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What was to be appended.
        needed_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// An earlier sync failed.
    #[error("{path}: takes nothing more until a restart, after a failed sync", path = path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// A frame is not what was written.
    #[error("{path}: damaged frame at byte {position}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the frame begins.
        position: u64,
    },
    /// The operating system refused.
    #[error("{path}: {operation}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Spool {
    /// Opens the file, which is made if absent, and finds its end.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, SpoolError> {
        Self::open_on(ensure_alive, path, max_bytes)
    }

    fn open_on(
        ensure_alive: fn(&File) -> io::Result<()>,
        path: &Path,
        max_bytes: u64,
    ) -> Result<Self, SpoolError> {
        let io = |operation| move |source| SpoolError::Io { path: path.to_owned(), operation, source };
        let options = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = options.map_err(io("open"))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder"))?;
        let length = file.metadata().map_err(io("ask for the length"))?.len();
        let mut end_position = 0;
        while let Some(next) = check_frame(&file, end_position, length).map_err(io("read"))? {
            end_position = next;
        }
        if end_position < length {
            cut(&file, path, end_position, length).map_err(io("cut a torn end"))?;
        }
        let inner = Inner { file, read_position: 0, end_position, poisoned: false };
        let (pending_bytes, inner) = (AtomicU64::new(end_position), Mutex::new(inner));
        let path = path.to_owned();
        Ok(Self { shared: Arc::new(Shared { path, max_bytes, ensure_alive, pending_bytes, inner }) })
    }

    /// Appends events as one frame and syncs it.
    pub fn append(&self, events: &[&[u8]]) -> Result<(), SpoolError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut inner = self.shared.inner.lock();
        if inner.poisoned {
            return Err(SpoolError::Poisoned { path: self.shared.path.clone() });
        }
        let frame = self.frame(inner.end_position, events)?;
        let position = inner.end_position;
        if let Err(error) = inner.file.write_all_at(&frame, position) {
            // A part of a frame must not stay in front of the next one.
            inner.poisoned = inner.file.set_len(position).and_then(|()| inner.file.sync_data()).is_err();
            return Err(self.failed("append", error));
        }
        if let Err(error) = inner.file.sync_data().and_then(|()| (self.shared.ensure_alive)(&inner.file)) {
            inner.poisoned = true;
            return Err(self.failed("sync", error));
        }
        inner.end_position += frame.len() as u64;
        self.shared.count_pending(&inner);
        Ok(())
    }

    /// The oldest frame that is not done, or `None`. It stays until [`Spool::done`].
    pub fn next_frame(&self) -> Result<Option<Frame>, SpoolError> {
        let inner = self.shared.inner.lock();
        if inner.read_position == inner.end_position {
            return Ok(None);
        }
        let damaged =
            || SpoolError::Damaged { path: self.shared.path.clone(), position: inner.read_position };
        let payload = read_frame(&inner.file, inner.read_position, inner.end_position)
            .map_err(|error| self.failed("read", error))?
            .ok_or_else(damaged)?;
        let next_position = inner.read_position + (HEADER_BYTES + payload.len()) as u64;
        let events = split(&payload).ok_or_else(damaged)?;
        Ok(Some(Frame { events, next_position }))
    }

    /// The events of a frame are elsewhere; with the last one the file is emptied.
    pub fn done(&self, frame: &Frame) -> Result<(), SpoolError> {
        let mut inner = self.shared.inner.lock();
        inner.read_position = frame.next_position;
        self.shared.count_pending(&inner);
        if inner.read_position < inner.end_position {
            return Ok(());
        }
        // Not synced: should the old length come back with a power cut, the frames only come again.
        inner.file.set_len(0).map_err(|error| self.failed("empty", error))?;
        (inner.read_position, inner.end_position) = (0, 0);
        Ok(())
    }

    /// Writes the frames that are not read yet to a new file at `path`; answers its length. Whoever appends waits.
    pub fn copy_to(&self, path: &Path) -> io::Result<u64> {
        let inner = self.shared.inner.lock();
        let mut copy = File::create_new(path)?;
        let mut position = inner.read_position;
        let mut buffer = vec![0; COPY_BYTES];
        while position < inner.end_position {
            let left = usize::try_from(inner.end_position - position).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            inner.file.read_exact_at(&mut buffer[..left], position)?;
            copy.write_all(&buffer[..left])?;
            position += left as u64;
        }
        Ok(position - inner.read_position)
    }

    /// Bytes of the frames that are not done. Waits for nobody.
    pub fn pending_bytes(&self) -> u64 {
        self.shared.pending_bytes.load(Ordering::Acquire)
    }

    fn frame(&self, end_position: u64, events: &[&[u8]]) -> Result<Vec<u8>, SpoolError> {
        let payload_bytes: usize = events.iter().map(|event| 4 + event.len()).sum();
        let needed_bytes = (HEADER_BYTES + payload_bytes) as u64;
        let full = || SpoolError::Full {
            path: self.shared.path.clone(),
            needed_bytes,
            max_bytes: self.shared.max_bytes,
        };
        if end_position + needed_bytes > self.shared.max_bytes {
            return Err(full());
        }
        let length = u32::try_from(payload_bytes).map_err(|_| full())?;
        let mut frame = vec![0; HEADER_BYTES];
        frame.reserve(payload_bytes);
        for event in events {
            // No event is longer than the payload, whose length fits.
            frame.extend_from_slice(&(event.len() as u32).to_be_bytes());
            frame.extend_from_slice(event);
        }
        let crc = crc32c::crc32c(&frame[HEADER_BYTES..]);
        frame[0] = VERSION;
        frame[1..5].copy_from_slice(&length.to_be_bytes());
        frame[5..9].copy_from_slice(&crc.to_be_bytes());
        Ok(frame)
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> SpoolError {
        SpoolError::Io { path: self.shared.path.clone(), operation, source }
    }
}

/// Where the frame at `position` ends, or `None` if there is no whole frame.
fn check_frame(file: &File, position: u64, end: u64) -> io::Result<Option<u64>> {
    let payload = read_frame(file, position, end)?.filter(|payload| split(payload).is_some());
    Ok(payload.map(|payload| position + (HEADER_BYTES + payload.len()) as u64))
}

/// The payload of the frame at `position`, if it is whole before `end`. Allocates no more than the file holds.
fn read_frame(file: &File, position: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
    if position + HEADER_BYTES as u64 > end {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, position)?;
    let [version, l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let (length, crc) = (u32::from_be_bytes([l0, l1, l2, l3]), u32::from_be_bytes([c0, c1, c2, c3]));
    let start = position + HEADER_BYTES as u64;
    if version != VERSION || start + u64::from(length) > end {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, start)?;
    Ok((crc32c::crc32c(&payload) == crc).then_some(payload))
}

fn split(mut payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut events = Vec::new();
    while let Some((length, rest)) = payload.split_first_chunk::<4>() {
        let (event, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        events.push(event.to_vec());
        payload = rest;
    }
    payload.is_empty().then_some(events)
}

/// Takes out what lies behind the last whole frame, and keeps it beside the file: nothing is thrown away unseen.
fn cut(file: &File, path: &Path, position: u64, length: u64) -> io::Result<()> {
    let mut rest = vec![0; usize::try_from(length - position).map_err(io::Error::other)?];
    file.read_exact_at(&mut rest, position)?;
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".cut-{}", uuid::Uuid::now_v7()));
    let kept = PathBuf::from(kept);
    std::fs::write(&kept, &rest)?;
    File::open(&kept)?.sync_all()?;
    tracing::warn!(
        path = %path.display(),
        position,
        bytes = rest.len(),
        kept = %kept.display(),
        "the spool ends in what is no whole frame: a torn write that was never answered, or damage"
    );
    file.set_len(position)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 10_000;

    fn texts(frame: &Frame) -> Vec<&str> {
        frame.events.iter().map(|event| std::str::from_utf8(event).unwrap()).collect()
    }

    #[track_caller]
    fn check_next(spool: &Spool, expected: &[&str]) -> Frame {
        let frame = spool.next_frame().unwrap().unwrap();
        assert_eq!(texts(&frame), expected);
        frame
    }

    #[test]
    fn frames_come_in_order_and_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("activities.spool");
        let spool = Spool::open(&path, MAX).unwrap();
        assert!(spool.next_frame().unwrap().is_none());
        spool.append(&[]).unwrap();
        assert_eq!(spool.pending_bytes(), 0);
        spool.append(&[b"a", b""]).unwrap();
        spool.append(&[b"b"]).unwrap();
        let first = check_next(&spool, &["a", ""]);
        check_next(&spool, &["a", ""]);
        spool.done(&first).unwrap();
        check_next(&spool, &["b"]);
        drop(spool);
        let spool = Spool::open(&path, MAX).unwrap();
        spool.append(&[b"c"]).unwrap();
        for expected in [&["a", ""][..], &["b"], &["c"]] {
            let frame = check_next(&spool, expected);
            spool.done(&frame).unwrap();
        }
        assert!(spool.next_frame().unwrap().is_none());
        assert_eq!((spool.pending_bytes(), std::fs::metadata(&path).unwrap().len()), (0, 0));
        spool.append(&[b"d"]).unwrap();
        check_next(&spool, &["d"]);
    }

    #[test]
    fn a_copy_holds_what_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool"), 1_000_000).unwrap();
        let long = vec![b'x'; COPY_BYTES];
        for events in [&[b"one".as_slice()][..], &[b"two", &long], &[b"three"]] {
            spool.append(events).unwrap();
        }
        let first = spool.next_frame().unwrap().unwrap();
        spool.done(&first).unwrap();
        let copy = folder.path().join("copy");
        assert_eq!(spool.copy_to(&copy).unwrap(), spool.pending_bytes());
        let copy = Spool::open(&copy, 1_000_000).unwrap();
        let second = copy.next_frame().unwrap().unwrap();
        assert_eq!(second.events, [b"two".to_vec(), long]);
        copy.done(&second).unwrap();
        check_next(&copy, &["three"]);
    }

    /// ext4 that finds itself damaged gives its journal up before it calls itself read-only, and a sync in between succeeds.
    #[test]
    fn a_sync_counts_only_if_the_file_system_is_alive_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("activities.spool");
        let spool = Spool::open(&path, MAX).unwrap();
        spool.append(&[b"before"]).unwrap();
        drop(spool);
        let spool = Spool::open_on(|_| Err(io::ErrorKind::ReadOnlyFilesystem.into()), &path, MAX).unwrap();
        let before = spool.pending_bytes();
        let refused = spool.append(&[b"lost"]).unwrap_err();
        assert!(matches!(refused, SpoolError::Io { operation: "sync", .. }), "{refused}");
        assert!(matches!(spool.append(&[b"later"]), Err(SpoolError::Poisoned { .. })));
        assert_eq!(spool.pending_bytes(), before, "what was refused is not published either");
        let frame = check_next(&spool, &["before"]);
        spool.done(&frame).unwrap();
        assert!(spool.next_frame().unwrap().is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("activities.spool");
        let spool = Spool::open(&path, 100).unwrap();
        spool.append(&[&[b'x'; 50]]).unwrap();
        assert!(matches!(spool.append(&[&[b'y'; 50]]), Err(SpoolError::Full { .. })));
        spool.append(&[&[b'z'; 20]]).unwrap();
        let frame = check_next(&spool, &["x".repeat(50).as_str()]);
        spool.done(&frame).unwrap();
        // The room of what is done comes back when all of it is.
        assert!(matches!(spool.append(&[&[b'y'; 50]]), Err(SpoolError::Full { .. })));
        let frame = check_next(&spool, &["z".repeat(20).as_str()]);
        spool.done(&frame).unwrap();
        spool.append(&[&[b'y'; 50]]).unwrap();
    }

    #[test]
    fn an_end_cut_anywhere_costs_the_last_frame_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("activities.spool");
        let spool = Spool::open(&path, MAX).unwrap();
        spool.append(&[b"first"]).unwrap();
        let whole = spool.pending_bytes();
        spool.append(&[b"second", b"third"]).unwrap();
        drop(spool);
        let bytes = std::fs::read(&path).unwrap();
        for length in whole..bytes.len() as u64 {
            std::fs::write(&path, &bytes[..length as usize]).unwrap();
            let spool = Spool::open(&path, MAX).unwrap();
            assert_eq!(spool.pending_bytes(), whole, "cut at {length}");
            spool.append(&[b"fourth"]).unwrap();
            let frame = check_next(&spool, &["first"]);
            spool.done(&frame).unwrap();
            check_next(&spool, &["fourth"]);
        }
    }

    #[test]
    fn any_flipped_bit_is_seen_and_what_it_costs_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("activities.spool");
        let spool = Spool::open(&path, MAX).unwrap();
        spool.append(&[b"first"]).unwrap();
        let whole = spool.pending_bytes() as usize;
        spool.append(&[b"second"]).unwrap();
        drop(spool);
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            let spool = Spool::open(&path, MAX).unwrap();
            let expected = if bit / 8 < whole { 0 } else { whole };
            assert_eq!(spool.pending_bytes(), expected as u64, "bit {bit}");
            let kept = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let kept: Vec<_> = kept.filter(|found| *found != path).collect();
            assert_eq!(std::fs::read(&kept[0]).unwrap(), flipped[expected..], "bit {bit}");
            std::fs::remove_file(&kept[0]).unwrap();
        }
    }
}
