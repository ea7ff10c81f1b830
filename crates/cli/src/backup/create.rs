//! Makes a backup of a running server.
//!
//! Owns the connection to the server, whose life is the snapshot's. Invariants: what is finished was copied while it lived; a store
//! whose pages do not hang together is not copied.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use tidings_activity::sqlite::{CORRUPT_HINT, CopyError, check_pages};
use tidings_log::{DataDir, RealDisk};

use super::Manifest;
use super::manifest::Entry;
use super::place::Place;
use super::progress::progress;
use crate::control::{Answer, File, Request, SOCKET};
use crate::platform::STORE_FILE;

/// Why no server can be asked.
#[derive(Debug, thiserror::Error)]
pub enum NoServer {
    /// Nobody has the data directory open.
    #[error("no server runs on {data_dir}")]
    Stopped {
        /// The data directory.
        data_dir: String,
    },
    /// Somebody has it open and listens to nobody.
    #[error("a server runs on {data_dir}, but nothing answers at its {SOCKET}")]
    Silent {
        /// The data directory.
        data_dir: String,
    },
}

impl NoServer {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Stopped { .. } => {
                "name the data directory with --data-dir; one whose server is stopped can be copied as it is"
            }
            Self::Silent { .. } => {
                "wait until it has started; if it has, its log says why it has no control socket, and a restart opens it anew. \
                 Do not copy the directory while it runs"
            }
        }
        .to_owned()
    }
}

/// What a backup would have of the store is no store.
#[derive(Debug, thiserror::Error)]
#[error("the store {store} is corrupt, and no backup was made: {found}")]
pub struct CorruptStore {
    /// The server's file.
    store: String,
    /// What was found first.
    found: String,
}

impl CorruptStore {
    /// What to do about it.
    pub fn hint(&self) -> String {
        CORRUPT_HINT.to_owned()
    }
}

/// Asks the server of `data_dir` for a snapshot and copies it to `backup`.
pub fn create(data_dir: &Path, backup: &dyn Place) -> anyhow::Result<Manifest> {
    backup.require_empty()?;
    let mut manifest = Manifest::new(jiff::Timestamp::now().to_string());
    let mut server = connect(data_dir)?;
    let (folder, files, min_free_bytes) = match ask(&mut server)? {
        Answer::Snapshot { folder, files, min_free_bytes } => (folder, files, min_free_bytes),
        Answer::Refused { reason } => bail!("the server makes no snapshot: {reason}"),
    };
    let bytes = files.iter().map(|file| file.bytes).sum();
    let copied = check_store(data_dir, &folder, &files)
        .and_then(|()| backup.require_room(&folder, bytes, min_free_bytes))
        .and_then(|()| copy(&folder, files, backup));
    if !is_held(&mut server)? {
        // Why a copy has failed that did: its files went with the server.
        let ended = "the server ended while its snapshot was copied";
        return Err(copied.err().map_or_else(|| anyhow!(ended), |error| error.context(ended)));
    }
    manifest.files = copied?;
    // The server removes the snapshot.
    drop(server);
    backup.finish(&manifest.to_json()?)?;
    Ok(manifest)
}

/// Looks at each page of the store's copy: SQLite copies what it cannot read, too, and serves what of it is whole. That is as much
/// as reading it once more; looking up each row in each index, which takes twice the processor time, is left to `verify`.
fn check_store(data_dir: &Path, folder: &Path, files: &[File]) -> anyhow::Result<()> {
    if !files.iter().any(|file| file.path == Path::new(STORE_FILE)) {
        return Ok(());
    }
    check_pages(&folder.join(STORE_FILE)).map_err(|error| match error {
        CopyError::Damaged { found, .. } => {
            CorruptStore { store: data_dir.join(STORE_FILE).display().to_string(), found }.into()
        }
        error => error.into(),
    })
}

/// Copies the files of the snapshot in `folder`.
fn copy(folder: &Path, files: Vec<File>, backup: &dyn Place) -> anyhow::Result<Vec<Entry>> {
    let bar = progress(files.iter().map(|file| file.bytes).sum())?;
    let mut entries = Vec::with_capacity(files.len());
    for File { path, bytes } in files {
        bar.set_message(path.display().to_string());
        let crc = backup.store(&path, &folder.join(&path), bytes, &|bytes| bar.inc(bytes))?;
        entries.push(Entry::new(path, bytes, crc));
    }
    bar.finish_and_clear();
    Ok(entries)
}

/// Whether the server has held its snapshot until now: it says nothing more, and its connection ends with it.
fn is_held(server: &mut UnixStream) -> anyhow::Result<bool> {
    server.set_nonblocking(true).context("look after the server")?;
    Ok(matches!(server.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock))
}

fn connect(data_dir: &Path) -> anyhow::Result<UnixStream> {
    let socket = data_dir.join(SOCKET);
    match UnixStream::connect(&socket) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            let is_in_use = DataDir::is_in_use(&RealDisk, data_dir).context("look for a server")?;
            let data_dir = data_dir.display().to_string();
            Err(if is_in_use { NoServer::Silent { data_dir } } else { NoServer::Stopped { data_dir } }.into())
        }
        connected => connected.with_context(|| format!("connect to {}", socket.display())),
    }
}

fn ask(server: &mut UnixStream) -> anyhow::Result<Answer> {
    let mut request = serde_json::to_vec(&Request::Snapshot)?;
    request.push(b'\n');
    server.write_all(&request).context("ask the server")?;
    let mut answer = String::new();
    BufReader::new(server).read_line(&mut answer).context("read the server's answer")?;
    serde_json::from_str(&answer).context("the server's answer is not understood")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tidings_log::SnapshotFile;
    use tokio::runtime::Runtime;

    use super::super::open;
    use super::*;
    use crate::control::{Control, Snapshot};

    const TEXT: &[u8] = b"text";

    /// What answers at the control socket; dropped, it ends as if killed.
    struct Server {
        _control: Control,
        _runtime: Runtime,
        /// The folders of its snapshots.
        snapshots: Receiver<PathBuf>,
    }

    impl Server {
        /// Snapshots have these files. The first one is a pipe: opening it waits for the other side to do so.
        fn start(data_dir: &Path, files: &'static [&'static str]) -> Self {
            let (taken, snapshots) = channel();
            let take = move |folder: &Path| {
                mknodat(CWD, folder.join(files[0]), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
                for file in &files[1..] {
                    fs::write(folder.join(file), TEXT)?;
                }
                taken.send(folder.to_owned())?;
                let file = |path: &&str| SnapshotFile { path: path.into(), bytes: TEXT.len() as u64 };
                Ok(Snapshot { files: files.iter().map(file).collect(), min_free_bytes: 0 })
            };
            let runtime = Runtime::new().unwrap();
            let control = {
                let _guard = runtime.enter();
                Control::start(data_dir, Arc::new(take)).unwrap()
            };
            Self { _control: control, _runtime: runtime, snapshots }
        }
    }

    /// A server was killed and started again in the middle of a long file. The backup took its other files from the snapshot of
    /// the next one, at the lengths of its own, and succeeded; no server started on what was restored of it.
    #[test]
    fn a_backup_that_outlives_its_server_is_none() {
        let check = |files: &'static [&'static str]| {
            let scene = tempfile::tempdir().unwrap();
            let (data_dir, target) = (scene.path().join("data"), scene.path().join("backup"));
            fs::create_dir(&data_dir).unwrap();
            let server = Server::start(&data_dir, files);
            let creating = std::thread::spawn({
                let (data_dir, target) = (data_dir.clone(), target.clone());
                move || create(&data_dir, &*open(&target, None)?)
            });
            let snapshot = server.snapshots.recv().unwrap();
            let mut long_file = fs::File::options().write(true).open(snapshot.join(files[0])).unwrap();
            drop(server);
            let server = Server::start(&data_dir, files);
            let mut next = connect(&data_dir).unwrap();
            assert!(matches!(ask(&mut next).unwrap(), Answer::Snapshot { .. }));
            assert_ne!(server.snapshots.recv().unwrap(), snapshot);
            long_file.write_all(TEXT).unwrap();
            drop(long_file);
            let error = creating.join().unwrap().unwrap_err();
            assert!(error.to_string().starts_with("the server ended"), "{error:#}");
            assert!(!target.join("manifest.json").exists());
        };
        check(&["one"]);
        check(&["one", "another"]);
    }
}
