//! Makes a backup of a running server.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};

use super::Manifest;
use super::manifest::Entry;
use super::place::Place;
use super::progress::progress;
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
pub fn create(data_dir: &Path, backup: &dyn Place) -> anyhow::Result<Manifest> {
    backup.require_empty()?;
    let mut manifest = Manifest::new(jiff::Timestamp::now().to_string());
    let mut server = connect(data_dir)?;
    let (folder, files, min_free_bytes) = match ask(&mut server)? {
        Answer::Snapshot { folder, files, min_free_bytes } => (folder, files, min_free_bytes),
        Answer::Refused { reason } => bail!("the server makes no snapshot: {reason}"),
    };
    let bytes = files.iter().map(|file| file.bytes).sum();
    backup.require_room(&folder, bytes, min_free_bytes)?;
    let bar = progress(bytes)?;
    for file in files {
        bar.set_message(file.path.display().to_string());
        let crc = backup.store(&file.path, &folder.join(&file.path), file.bytes, &|bytes| bar.inc(bytes))?;
        manifest.files.push(Entry::new(file.path, file.bytes, crc));
    }
    bar.finish_and_clear();
    // The server removes the snapshot.
    drop(server);
    backup.finish(&manifest.to_json()?)?;
    Ok(manifest)
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
