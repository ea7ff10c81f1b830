//! Makes a backup of a running server.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use tidings_log::{Disk, RealDisk};

use super::copy::{copy, sync_names};
use super::manifest::Entry;
use super::{DATA, Manifest, require_empty};
use crate::control::{Answer, Request, SOCKET};

/// Why no server can be asked.
#[derive(Debug, thiserror::Error)]
#[error("no server runs on {data_dir}")]
pub struct NoServer {
    data_dir: String,
}

impl NoServer {
    /// What to do about it.
    pub fn hint(&self) -> String {
        "name the data directory with --data-dir; one whose server is stopped can be copied as it is"
            .to_owned()
    }
}

/// Asks the server of `data_dir` for a snapshot and copies it to `backup`.
pub fn create(data_dir: &Path, backup: &Path) -> anyhow::Result<Manifest> {
    require_empty(backup)?;
    let mut manifest = Manifest::new(jiff::Timestamp::now().to_string());
    let mut server = connect(data_dir)?;
    let (folder, files, min_free_bytes) = match ask(&mut server)? {
        Answer::Snapshot { folder, files, min_free_bytes } => (folder, files, min_free_bytes),
        Answer::Refused { reason } => bail!("the server makes no snapshot: {reason}"),
    };
    let data = backup.join(DATA);
    std::fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
    require_room(&data, &folder, files.iter().map(|file| file.bytes).sum(), min_free_bytes)?;
    for file in files {
        let target = data.join(&file.path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let crc = copy(&folder.join(&file.path), &target, file.bytes)?;
        manifest.files.push(Entry::new(file.path, file.bytes, crc));
    }
    // The server removes the snapshot.
    drop(server);
    sync_names(backup)?;
    manifest.write(backup)?;
    // The backup's own name is durable with its parent only.
    if let Some(parent) = backup.canonicalize()?.parent() {
        std::fs::File::open(parent)?.sync_all().with_context(|| format!("sync {}", parent.display()))?;
    }
    Ok(manifest)
}

/// A backup on the server's own disk must not fill it so far that the server refuses produces.
fn require_room(data: &Path, snapshot: &Path, bytes: u64, min_free_bytes: u64) -> anyhow::Result<()> {
    let available_bytes = RealDisk.space(data).context("ask for free space")?.available_bytes;
    let is_same_disk = std::fs::metadata(data)?.dev() == std::fs::metadata(snapshot)?.dev();
    let kept_bytes = if is_same_disk { min_free_bytes } else { 0 };
    if available_bytes < bytes.saturating_add(kept_bytes) {
        bail!(
            "the backup has {bytes} bytes, and of {available_bytes} that are free at {} {kept_bytes} must stay so",
            data.display()
        );
    }
    Ok(())
}

fn connect(data_dir: &Path) -> anyhow::Result<UnixStream> {
    let socket = data_dir.join(SOCKET);
    match UnixStream::connect(&socket) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Err(NoServer { data_dir: data_dir.display().to_string() }.into())
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
