//! A queue of bytes that moves to a file where nobody takes them.
//!
//! Many HTTP clients send their whole request before they read any of its answer. A stream's results would then pile
//! up in memory, or stop the reading of the request and with it both sides for ever. Here they go to a file that has
//! no name and goes with the queue. Invariants: bytes come out as they went in; memory holds at most
//! [`MAX_MEMORY_BYTES`] and one piece; files are bounded, each and together, and a queue that is full makes the
//! writer wait; a reader that takes nothing while it is waited for, by a full queue or at the end, is given up, and then the queue
//! holds nothing any more. A queue keeps the place of its stream until its reader is gone or given up.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use uuid::Uuid;

use crate::limits::STALL_TIMEOUT;

/// What is kept in memory before the file is used.
pub const MAX_MEMORY_BYTES: usize = 128 * 1024;
/// The longest file: the results of some ten million lines.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// The most bytes of all files together.
pub const MAX_FILES_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// What is read from the file at once.
const READ_BYTES: usize = 64 * 1024;

/// The files of all queues.
pub struct ResultFiles {
    folder: PathBuf,
    max_file_bytes: u64,
    max_files_bytes: u64,
    stall_timeout: Duration,
    /// What they have together.
    bytes: AtomicU64,
}

/// The end that bytes are put in at. Dropped without [`ResultWriter::end`], nobody waits for the reader.
pub struct ResultWriter(Arc<Shared>);

/// The end that bytes are taken from.
pub struct ResultReader(Arc<Shared>);

struct Shared {
    files: Arc<ResultFiles>,
    queue: Mutex<Queue>,
    /// Rung by either side after each change; there is one waiter on each.
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct Queue {
    /// Comes before what is in the file.
    memory: VecDeque<Bytes>,
    memory_bytes: usize,
    file: Option<ResultFile>,
    writer_gone: bool,
    failure: Option<io::Error>,
    reader_gone: bool,
    _place: Option<OwnedSemaphorePermit>,
}

/// A file without a name, which is gone when it is closed, by a crash too.
struct ResultFile {
    file: File,
    read_position: u64,
    write_position: u64,
    files: Arc<ResultFiles>,
}

impl ResultFiles {
    /// None yet; they will be made in `folder`.
    pub fn new(folder: PathBuf) -> Arc<Self> {
        Self::with_limits(&folder, MAX_FILE_BYTES, MAX_FILES_BYTES, STALL_TIMEOUT)
    }

    fn with_limits(
        folder: &Path,
        max_file_bytes: u64,
        max_files_bytes: u64,
        stall_timeout: Duration,
    ) -> Arc<Self> {
        let (folder, bytes) = (folder.to_owned(), AtomicU64::new(0));
        Arc::new(Self { folder, max_file_bytes, max_files_bytes, stall_timeout, bytes })
    }

    /// The folder that they are made in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Room for so many bytes, if there is any.
    fn take(&self, bytes: u64) -> bool {
        let taken = |all: u64| Some(all + bytes).filter(|all| *all <= self.max_files_bytes);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A queue that keeps `place` for as long as its reader is waited for.
pub fn result_queue(files: &Arc<ResultFiles>, place: OwnedSemaphorePermit) -> (ResultWriter, ResultReader) {
    let queue = Queue { _place: Some(place), ..Queue::default() };
    let shared = Arc::new(Shared {
        files: Arc::clone(files),
        queue: Mutex::new(queue),
        filled: Notify::new(),
        drained: Notify::new(),
    });
    (ResultWriter(Arc::clone(&shared)), ResultReader(shared))
}

impl ResultWriter {
    /// Appends; waits only while the file is at its limit. False if nobody takes anything any more.
    pub async fn push(&self, bytes: Bytes) -> io::Result<bool> {
        loop {
            let drained = self.0.drained.notified();
            match self.0.queue.lock().push(&bytes, &self.0.files)? {
                Pushed::Done => {
                    self.0.filled.notify_one();
                    return Ok(true);
                }
                Pushed::ReaderGone => return Ok(false),
                Pushed::Full => {}
            }
            if tokio::time::timeout(self.0.files.stall_timeout, drained).await.is_err() {
                self.0.give_up(false);
                return Ok(false);
            }
        }
    }

    /// That is all; waits until the reader has it and is gone, or gives it up.
    pub async fn end(self) {
        self.0.queue.lock().writer_gone = true;
        self.0.filled.notify_one();
        loop {
            let drained = self.0.drained.notified();
            if self.0.queue.lock().reader_gone {
                return;
            }
            if tokio::time::timeout(self.0.files.stall_timeout, drained).await.is_err() {
                self.0.give_up(true);
                return;
            }
        }
    }

    /// [`ResultWriter::end`] with an error, which the reader gets after all that was put in.
    pub async fn fail(self, error: io::Error) {
        self.0.queue.lock().failure = Some(error);
        self.end().await;
    }
}

impl Drop for ResultWriter {
    fn drop(&mut self) {
        self.0.queue.lock().writer_gone = true;
        self.0.filled.notify_one();
    }
}

impl ResultReader {
    /// The next bytes; waits for them. `None` when the writer is gone and all is taken.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let filled = self.0.filled.notified();
            {
                let mut queue = self.0.queue.lock();
                match queue.pop() {
                    Ok(None) if queue.writer_gone => return queue.failure.take().map(Err),
                    Ok(None) => {}
                    Ok(Some(bytes)) => {
                        self.0.drained.notify_one();
                        return Some(Ok(bytes));
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            filled.await;
        }
    }
}

impl Drop for ResultReader {
    fn drop(&mut self) {
        // The writer may still be waiting for others, and needs none of this any more.
        let gone = Queue { reader_gone: true, ..Queue::default() };
        let held = std::mem::replace(&mut *self.0.queue.lock(), gone);
        drop(held);
        self.0.drained.notify_one();
    }
}

impl Shared {
    /// Lets go of all that the reader has not taken. Should it come back, its answer breaks off, unless that `is_whole`.
    fn give_up(&self, is_whole: bool) {
        let mut queue = self.queue.lock();
        let is_taken = queue.memory.is_empty() && queue.file.as_ref().is_none_or(ResultFile::is_empty);
        let late = (!is_whole || !is_taken).then(|| io::Error::from(io::ErrorKind::TimedOut));
        let failure = queue.failure.take().or(late);
        *queue = Queue { reader_gone: true, writer_gone: true, failure, ..Queue::default() };
    }
}

enum Pushed {
    Done,
    Full,
    ReaderGone,
}

impl Queue {
    fn push(&mut self, bytes: &Bytes, files: &Arc<ResultFiles>) -> io::Result<Pushed> {
        if self.reader_gone {
            return Ok(Pushed::ReaderGone);
        }
        let file_is_empty = self.file.as_ref().is_none_or(ResultFile::is_empty);
        if file_is_empty && self.memory_bytes < MAX_MEMORY_BYTES {
            self.memory_bytes += bytes.len();
            self.memory.push_back(bytes.clone());
            return Ok(Pushed::Done);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(ResultFile::new(files)?),
        };
        Ok(if file.append(bytes)? { Pushed::Done } else { Pushed::Full })
    }

    fn pop(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(bytes) = self.memory.pop_front() {
            self.memory_bytes -= bytes.len();
            return Ok(Some(bytes));
        }
        match &mut self.file {
            Some(file) if !file.is_empty() => file.read().map(Some),
            _ => Ok(None),
        }
    }
}

impl ResultFile {
    fn new(files: &Arc<ResultFiles>) -> io::Result<Self> {
        let path = files.folder.join(format!("results-{}.tmp", Uuid::now_v7()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, read_position: 0, write_position: 0, files: Arc::clone(files) })
    }

    fn is_empty(&self) -> bool {
        self.read_position == self.write_position
    }

    /// False if it, or all of them together, are as long as they may be.
    fn append(&mut self, bytes: &Bytes) -> io::Result<bool> {
        let length = bytes.len() as u64;
        if self.write_position >= self.files.max_file_bytes || !self.files.take(length) {
            return Ok(false);
        }
        // A short write into the page cache: not worth another thread.
        if let Err(error) = self.file.write_all_at(bytes, self.write_position) {
            self.files.give_back(length);
            return Err(error);
        }
        self.write_position += length;
        Ok(true)
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let left = self.write_position - self.read_position;
        let mut bytes = vec![0; READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES))];
        self.file.read_exact_at(&mut bytes, self.read_position)?;
        self.read_position += bytes.len() as u64;
        if self.is_empty() {
            self.file.set_len(0)?;
            self.files.give_back(self.write_position);
            (self.read_position, self.write_position) = (0, 0);
        }
        Ok(bytes.into())
    }
}

impl Drop for ResultFile {
    fn drop(&mut self) {
        self.files.give_back(self.write_position);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const SOON: Duration = Duration::from_millis(20);

    fn piece(number: usize) -> Bytes {
        format!("{number:>4000}").into()
    }

    /// A queue, and how many places are free: one if the queue is done with its own.
    fn queue(files: &Arc<ResultFiles>) -> (ResultWriter, ResultReader, Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let (writer, reader) = result_queue(files, place);
        (writer, reader, places)
    }

    async fn drain(mut reader: ResultReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await {
            all.extend_from_slice(&bytes.unwrap());
        }
        all
    }

    /// Pushes until the queue is full and waits.
    async fn fill(writer: &ResultWriter) -> Vec<u8> {
        let mut pushed = Vec::new();
        for number in 0.. {
            let push = std::pin::pin!(writer.push(piece(number)));
            match futures_util::FutureExt::now_or_never(push) {
                Some(done) => assert!(done.unwrap()),
                None => break,
            }
            pushed.extend_from_slice(&piece(number));
        }
        pushed
    }

    #[tokio::test]
    async fn keeps_order_through_memory_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResultFiles::new(folder.path().to_owned());
        let (writer, mut reader, places) = queue(&files);
        let mut expected = Vec::new();
        let mut found = Vec::new();
        for number in 0..500 {
            assert!(writer.push(piece(number)).await.unwrap());
            expected.extend_from_slice(&piece(number));
            if number % 7 == 0 {
                found.extend_from_slice(&reader.next().await.unwrap().unwrap());
            }
        }
        assert!(writer.0.queue.lock().memory_bytes <= MAX_MEMORY_BYTES);
        assert!(files.bytes.load(Ordering::Relaxed) > 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        let ending = tokio::spawn(writer.end());
        found.extend(drain(reader).await);
        assert_eq!(found, expected);
        ending.await.unwrap();
        assert_eq!((files.bytes.load(Ordering::Relaxed), places.available_permits()), (0, 1));
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_writer_wait() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResultFiles::with_limits(folder.path(), 100_000, 1_000_000, PATIENCE);
        let (writer, reader, _places) = queue(&files);
        let writing = tokio::spawn(async move {
            let mut expected = Vec::new();
            for number in 0..500 {
                writer.push(piece(number)).await.unwrap();
                expected.extend_from_slice(&piece(number));
            }
            expected
        });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        let found = drain(reader).await;
        assert_eq!(found, writing.await.unwrap());
    }

    #[tokio::test]
    async fn a_reader_that_goes_stops_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResultFiles::with_limits(folder.path(), 0, 0, PATIENCE);
        let (writer, reader, places) = queue(&files);
        fill(&writer).await;
        let writing = tokio::spawn(async move { writer.push(piece(1)).await });
        tokio::task::yield_now().await;
        drop(reader);
        assert!(!writing.await.unwrap().unwrap());
        assert_eq!(places.available_permits(), 1);
    }

    /// The place was free as soon as the request had been read, the file stayed as long as the connection, and a full one
    /// made its writer wait for ever.
    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResultFiles::with_limits(folder.path(), 100_000, 1_000_000, SOON);
        let (writer, mut reader, places) = queue(&files);
        fill(&writer).await;
        assert!(!writer.push(piece(0)).await.unwrap(), "the queue stays full");
        assert_eq!((files.bytes.load(Ordering::Relaxed), places.available_permits()), (0, 1));
        assert!(reader.next().await.unwrap().is_err(), "the answer breaks off");
        assert!(reader.next().await.is_none());
        // One that has all to take, and one that has all and does not go.
        for is_taken in [false, true] {
            let (writer, mut reader, places) = queue(&files);
            assert!(writer.push(piece(0)).await.unwrap());
            if is_taken {
                assert_eq!(reader.next().await.unwrap().unwrap(), piece(0));
            }
            assert_eq!(places.available_permits(), 0);
            writer.end().await;
            assert_eq!(places.available_permits(), 1);
            match reader.next().await {
                None => assert!(is_taken),
                Some(broken) => assert!(!is_taken && broken.is_err()),
            }
        }
    }

    #[tokio::test]
    async fn the_files_have_one_limit_together() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResultFiles::with_limits(folder.path(), 1_000_000, 100_000, PATIENCE);
        let (one, one_reader, _) = queue(&files);
        let mut expected = fill(&one).await;
        let (other, other_reader, _) = queue(&files);
        assert!(fill(&other).await.len() < MAX_MEMORY_BYTES + piece(0).len(), "memory only");
        assert!(files.bytes.load(Ordering::Relaxed) <= 100_000);
        drop((other, other_reader));
        // Whoever reads goes on.
        let reading = tokio::spawn(drain(one_reader));
        for number in 0..100 {
            assert!(one.push(piece(number)).await.unwrap());
            expected.extend_from_slice(&piece(number));
        }
        one.end().await;
        assert_eq!(reading.await.unwrap(), expected);
        assert_eq!(files.bytes.load(Ordering::Relaxed), 0);
    }
}
