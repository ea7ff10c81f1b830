//! How commands on the same machine reach a running server: a socket in its data directory.
//!
//! A connection asks for one thing in a line of JSON and is answered in one. `{"command": "snapshot"}` makes a snapshot in a
//! folder of the data directory, names its files and holds it until the connection ends, however that comes about.
//! Invariants: only the owner of the data directory may connect, and nothing listens on a network; one snapshot at a
//! time, and who is silent holds up nobody else; none is left behind by a server or a client that was killed, once the
//! server has started again; where one was there is never another, so that a client that has outlived its server finds
//! nothing instead of somebody else's files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tidings_log::SnapshotFile;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::report::one_line;

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// Where the folder of a snapshot is that is being read, in the data directory. Not `.snapshot-` and something, which could be
/// the folder of a partition: topics may be called so.
const SNAPSHOTS: &str = ".snapshot";
/// The longest request.
const MAX_REQUEST_BYTES: u64 = 4096;

/// How long a request may take to arrive.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);
/// How long a request waits while another one has a snapshot.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait after the system refused a connection for want of descriptors or memory.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Connections that are served at once; more wait.
const MAX_CONNECTIONS: usize = 16;

/// Makes a snapshot in an empty folder.
pub type TakeSnapshot = dyn Fn(&Path) -> anyhow::Result<Snapshot> + Send + Sync;

/// What is in a snapshot's folder.
pub struct Snapshot {
    /// Its files.
    pub files: Vec<SnapshotFile>,
    /// What must stay free on the disk of the data directory.
    pub min_free_bytes: u64,
}

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
        /// What must stay free on the disk of the data directory.
        min_free_bytes: u64,
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
        let served = Arc::new(Served {
            data_dir,
            take,
            snapshot: Mutex::default(),
            is_ending: AtomicBool::new(false),
        });
        Ok(Self { path, serving: tokio::spawn(accept(listener, served)) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What connections share.
struct Served {
    data_dir: PathBuf,
    take: Arc<TakeSnapshot>,
    /// Held by the connection whose snapshot there is.
    snapshot: Mutex<()>,
    /// Whether that connection is at its end and only removes the snapshot, which takes as long as the disk takes.
    is_ending: AtomicBool,
}

/// Accepts until the server ends, whatever fails: clients may have taken all descriptors for a moment, and who is connected
/// goes on reading a snapshot.
async fn accept(listener: UnixListener, served: Arc<Served>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept connections");
                sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if connections.len() == MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let served = served.clone();
        connections.spawn(async move {
            if let Err(error) = served.serve(stream).await {
                tracing::warn!(error = one_line(&error), "a request of the control socket failed");
            }
        });
    }
}

impl Served {
    async fn serve(&self, stream: UnixStream) -> anyhow::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        let request = (&mut stream).take(MAX_REQUEST_BYTES);
        let read = timeout(REQUEST_PATIENCE, { request }.read_until(b'\n', &mut line)).await;
        read.context("no request came in time")?.context("read a request")?;
        match serde_json::from_slice(&line) {
            Ok(Request::Snapshot) => self.hold_snapshot(&mut stream).await,
            Err(error) => {
                refuse(&mut stream, anyhow::Error::new(error).context("the request is none that is known"))
                    .await
            }
        }
    }

    async fn hold_snapshot(&self, stream: &mut BufReader<UnixStream>) -> anyhow::Result<()> {
        let Some(_one_at_a_time) = self.wait_for_turn().await else {
            return refuse(stream, anyhow::anyhow!("another backup is being made")).await;
        };
        match self.take_snapshot().await {
            // Nothing more is said: this ends with the connection.
            Ok(answer) => {
                if answer_with(stream, &answer).await.is_ok() {
                    let _ = stream.read_u8().await;
                }
            }
            Err(error) => drop(refuse(stream, error).await),
        }
        self.is_ending.store(true, Ordering::Relaxed);
        let removed = self.remove_snapshot().await;
        self.is_ending.store(false, Ordering::Relaxed);
        removed.context("remove a snapshot")
    }

    /// `None` if somebody reads a snapshot for longer than anybody waits.
    async fn wait_for_turn(&self) -> Option<MutexGuard<'_, ()>> {
        loop {
            match timeout(BUSY_PATIENCE, self.snapshot.lock()).await {
                Ok(turn) => return Some(turn),
                Err(_) if self.is_ending.load(Ordering::Relaxed) => {}
                Err(_) => return None,
            }
        }
    }

    async fn remove_snapshot(&self) -> anyhow::Result<()> {
        let data_dir = self.data_dir.clone();
        Ok(tokio::task::spawn_blocking(move || remove_snapshot(&data_dir)).await??)
    }

    async fn take_snapshot(&self) -> anyhow::Result<Answer> {
        self.remove_snapshot().await.context("remove an old snapshot")?;
        let folder = self.data_dir.join(SNAPSHOTS).join(Uuid::now_v7().to_string());
        std::fs::create_dir_all(&folder).context("make a folder for the snapshot")?;
        let folder = folder.canonicalize().context("name the snapshot's folder")?;
        let taken = tokio::task::spawn_blocking({
            let (take, folder) = (Arc::clone(&self.take), folder.clone());
            move || take(&folder)
        });
        let Snapshot { files, min_free_bytes } = taken.await.context("making the snapshot panicked")??;
        let files = files.into_iter().map(|SnapshotFile { path, bytes }| File { path, bytes }).collect();
        Ok(Answer::Snapshot { folder, files, min_free_bytes })
    }
}

async fn refuse(stream: &mut BufReader<UnixStream>, error: anyhow::Error) -> anyhow::Result<()> {
    answer_with(stream, &Answer::Refused { reason: one_line(&error) }).await
}

async fn answer_with(stream: &mut BufReader<UnixStream>, answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer).context("write an answer")?;
    line.push(b'\n');
    stream.write_all(&line).await.context("answer")
}

fn remove_snapshot(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(data_dir.join(SNAPSHOTS)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_reads_a_snapshot_is_waited_for_shortly_and_its_removal_to_the_end() {
        let served = |is_ending| Served {
            data_dir: PathBuf::new(),
            take: Arc::new(|_: &Path| unreachable!()),
            snapshot: Mutex::default(),
            is_ending: AtomicBool::new(is_ending),
        };
        let (read, removed) = (served(false), served(true));
        let (_reading, removing) = (read.snapshot.lock().await, removed.snapshot.lock().await);
        let longer = async {
            assert!(timeout(2 * BUSY_PATIENCE, removed.wait_for_turn()).await.is_err());
            drop(removing);
            assert!(removed.wait_for_turn().await.is_some());
        };
        let (refused, ()) = tokio::join!(read.wait_for_turn(), longer);
        assert!(refused.is_none());
    }
}
