//! How commands on the same machine reach a running server: a socket in its data directory.
//!
//! A connection asks for one thing in a line of JSON and is answered in one. `{"command": "snapshot"}` makes a snapshot in a
//! folder of the data directory, names its files and holds it until the connection ends, however that comes about.
//! Invariants: only the owner of the data directory may connect, and nothing listens on a network; one snapshot at a
//! time; none is left behind by a server or a client that was killed, once the server has started again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tidings_log::SnapshotFile;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::report::one_line;

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// The folder of a snapshot that is being read, in the data directory.
const SNAPSHOT: &str = ".snapshot";
/// The longest request.
const MAX_REQUEST_BYTES: u64 = 4096;

/// Makes a snapshot in an empty folder.
pub type TakeSnapshot = dyn Fn(&Path) -> anyhow::Result<Vec<SnapshotFile>> + Send + Sync;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Make a snapshot and hold it.
    Snapshot,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The snapshot, which is there until the connection ends.
    Snapshot {
        /// Its folder.
        folder: PathBuf,
        /// Its files.
        files: Vec<File>,
    },
    /// It cannot be done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A file of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct File {
    /// Within the folder.
    pub path: PathBuf,
    /// The bytes at its beginning that belong to the snapshot.
    pub bytes: u64,
}

/// The open socket; closed when it is dropped.
pub struct Control {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Control {
    /// Opens the socket. Without one the server runs all the same, but cannot be asked.
    pub fn start(data_dir: &Path, take: Arc<TakeSnapshot>) -> Option<Self> {
        match Self::open(data_dir, take) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::warn!(error = one_line(&error), "no control socket: backups cannot be made");
                None
            }
        }
    }

    fn open(data_dir: &Path, take: Arc<TakeSnapshot>) -> anyhow::Result<Self> {
        remove_snapshot(data_dir).context("remove an old snapshot")?;
        let path = data_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            // Whoever has left it is gone: the data directory is ours.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("remove an old control socket");
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .context("keep others from the control socket")?;
        let data_dir = data_dir.to_owned();
        let serving = tokio::spawn(async move {
            // One after the other: that makes it one snapshot at a time.
            while let Ok((stream, _)) = listener.accept().await {
                if let Err(error) = serve(stream, &data_dir, &take).await {
                    tracing::warn!(error = one_line(&error), "a request of the control socket failed");
                }
            }
        });
        Ok(Self { path, serving })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(stream: UnixStream, data_dir: &Path, take: &Arc<TakeSnapshot>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    (&mut stream).take(MAX_REQUEST_BYTES).read_until(b'\n', &mut line).await.context("read a request")?;
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Snapshot) => snapshot(data_dir, take).await,
        Err(error) => Err(anyhow::Error::new(error).context("the request is none that is known")),
    };
    let answer = answer.unwrap_or_else(|error| Answer::Refused { reason: one_line(&error) });
    let mut line = serde_json::to_vec(&answer).context("write an answer")?;
    line.push(b'\n');
    let answered = stream.write_all(&line).await;
    if answered.is_ok() {
        // Nothing more is said: this ends with the connection.
        let _ = stream.read_u8().await;
    }
    remove_snapshot(data_dir).context("remove a snapshot")
}

async fn snapshot(data_dir: &Path, take: &Arc<TakeSnapshot>) -> anyhow::Result<Answer> {
    remove_snapshot(data_dir).context("remove an old snapshot")?;
    let folder = data_dir.join(SNAPSHOT);
    std::fs::create_dir(&folder).context("make a folder for the snapshot")?;
    let folder = folder.canonicalize().context("name the snapshot's folder")?;
    let files = tokio::task::spawn_blocking({
        let (take, folder) = (Arc::clone(take), folder.clone());
        move || take(&folder)
    });
    let files = files.await.context("making the snapshot panicked")??;
    let files = files.into_iter().map(|SnapshotFile { path, bytes }| File { path, bytes }).collect();
    Ok(Answer::Snapshot { folder, files })
}

fn remove_snapshot(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(data_dir.join(SNAPSHOT)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
