//! A queue of bytes that moves to a file where nobody takes them.
//!
//! Many HTTP clients send their whole request before they read any of its answer. A stream's results would then pile
//! up in memory, or stop the reading of the request and with it both sides for ever. Here they go to a file that has
//! no name and goes with the queue. Invariants: bytes come out as they went in; memory holds at most
//! [`MAX_MEMORY_BYTES`] and one piece; the file is at most [`MAX_FILE_BYTES`] long, and a queue that is full makes the
//! writer wait.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// What is kept in memory before the file is used.
pub const MAX_MEMORY_BYTES: usize = 128 * 1024;
/// The longest file: the results of some ten million lines.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// What is read from the file at once.
const READ_BYTES: usize = 64 * 1024;

/// The end that bytes are put in at.
pub struct ResultWriter(Arc<Shared>);

/// The end that bytes are taken from.
pub struct ResultReader(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    max_file_bytes: u64,
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
    file: Option<File>,
    read_position: u64,
    write_position: u64,
    writer_gone: bool,
    failure: Option<io::Error>,
    reader_gone: bool,
}

/// A queue whose file, should it need one, is made in `folder`.
pub fn result_queue(folder: &Path) -> (ResultWriter, ResultReader) {
    with_limit(folder, MAX_FILE_BYTES)
}

fn with_limit(folder: &Path, max_file_bytes: u64) -> (ResultWriter, ResultReader) {
    let shared = Arc::new(Shared {
        folder: folder.to_owned(),
        max_file_bytes,
        queue: Mutex::default(),
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
            match self.0.queue.lock().push(&bytes, &self.0)? {
                Pushed::Done => {
                    self.0.filled.notify_one();
                    return Ok(true);
                }
                Pushed::ReaderGone => return Ok(false),
                Pushed::Full => {}
            }
            drained.await;
        }
    }
}

impl ResultWriter {
    /// Ends the queue with an error, which the reader gets after all that was put in.
    pub fn fail(self, error: io::Error) {
        self.0.queue.lock().failure = Some(error);
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
        self.0.queue.lock().reader_gone = true;
        self.0.drained.notify_one();
    }
}

enum Pushed {
    Done,
    Full,
    ReaderGone,
}

impl Queue {
    fn push(&mut self, bytes: &Bytes, shared: &Shared) -> io::Result<Pushed> {
        if self.reader_gone {
            return Ok(Pushed::ReaderGone);
        }
        let file_is_empty = self.read_position == self.write_position;
        if file_is_empty && self.memory_bytes < MAX_MEMORY_BYTES {
            self.memory_bytes += bytes.len();
            self.memory.push_back(bytes.clone());
            return Ok(Pushed::Done);
        }
        if self.write_position >= shared.max_file_bytes {
            return Ok(Pushed::Full);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless(&shared.folder)?),
        };
        // A short write into the page cache: not worth another thread.
        file.write_all_at(bytes, self.write_position)?;
        self.write_position += bytes.len() as u64;
        Ok(Pushed::Done)
    }

    fn pop(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(bytes) = self.memory.pop_front() {
            self.memory_bytes -= bytes.len();
            return Ok(Some(bytes));
        }
        let left = self.write_position - self.read_position;
        let (Some(file), 1..) = (&self.file, left) else { return Ok(None) };
        let mut bytes = vec![0; READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES))];
        file.read_exact_at(&mut bytes, self.read_position)?;
        self.read_position += bytes.len() as u64;
        if self.read_position == self.write_position {
            file.set_len(0)?;
            (self.read_position, self.write_position) = (0, 0);
        }
        Ok(Some(bytes.into()))
    }
}

/// A file without a name, which is gone when it is closed, by a crash too.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("results-{}.tmp", Uuid::now_v7()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: usize) -> Bytes {
        format!("{number:>4000}").into()
    }

    async fn drain(mut reader: ResultReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await {
            all.extend_from_slice(&bytes.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn keeps_order_through_memory_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, mut reader) = result_queue(folder.path());
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
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        drop(writer);
        found.extend(drain(reader).await);
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_writer_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = with_limit(folder.path(), 100_000);
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
        let (writer, reader) = with_limit(folder.path(), 0);
        while writer.0.queue.lock().memory_bytes < MAX_MEMORY_BYTES {
            writer.push(piece(0)).await.unwrap();
        }
        let writing = tokio::spawn(async move { writer.push(piece(1)).await });
        tokio::task::yield_now().await;
        drop(reader);
        assert!(!writing.await.unwrap().unwrap());
    }
}
