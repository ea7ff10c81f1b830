//! The seam under all file access.
//!
//! Owns what the log needs from a file system, and nothing more, so that tests can put a disk there that
//! loses unsynced writes. Invariants: no other module of this crate touches the file system; positions
//! are explicit, there is no cursor; only a sync makes anything durable, of a file its contents, of a
//! directory its names. Does not retry and does not interpret errors.

mod real;
mod unsynced;

pub use real::RealDisk;
pub use unsynced::UnsyncedDisk;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// To read; it must exist.
    Read,
    /// To read and write; it must exist.
    Write,
    /// To read and write; it must not exist.
    CreateNew,
    /// To read and write, emptied if it exists.
    Truncate,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name without its directory; names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// A file's length.
    pub len: u64,
}

/// The room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that this process may still use.
    pub available_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Whether it was mounted for reading only. One that met errors of its disk may not say so: see [`DiskRoot::ensure_alive`].
    pub is_read_only: bool,
}

/// Keeps a lock file locked until dropped.
pub trait DiskLock: Send + Sync + Debug {}

/// A file system, real or simulated.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. A created file's name is durable after [`Disk::sync_dir`] of its directory.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file system for [`DiskRoot::sync_all`]; `path` is any directory on it.
    fn open_root(&self, path: &Path) -> io::Result<Box<dyn DiskRoot>>;
    /// Locks a file, creating it if needed; none when another process or opener holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
    /// Creates a directory and those above it; existing ones are no error.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory, in no order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Renames within a file system, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name within a file system; the new one must not exist.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a directory, so that its names can be made durable when there may be no descriptor left for that.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskDir>>;
    /// Makes a directory's names durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync_names()
    }
    /// The room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at a position; fewer bytes than asked for at the end of the file, 0 behind it.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes at a position; may write fewer bytes than given.
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Cuts the file or extends it by zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes room from `position` on, so that writing there succeeds on a full disk; the length stays. A file system
    /// that can't is no error.
    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// When the contents were last changed, in milliseconds since 1970.
    fn modified_ms(&self) -> io::Result<i64>;
    /// Makes the contents durable, and the metadata needed to read them back.
    fn sync_data(&self) -> io::Result<()>;
    /// The descriptor, for transfers within the kernel; simulated files have none.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// An open directory.
pub trait DiskDir: Send + Sync + Debug {
    /// Makes its names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// A descriptor on a file system, held open so that it reports every write-back error since.
pub trait DiskRoot: Send + Sync + Debug {
    /// Makes the whole file system durable: contents and names.
    fn sync_all(&self) -> io::Result<()>;
    /// Fails if the file system has given up, as ext4 does when it finds itself damaged and goes read-only.
    ///
    /// A sync that ends before this may have said yes all the same. `syncfs` does nothing on a file system that is
    /// read-only, and between the moment in which ext4 gives its journal up and the one in which it says so, `syncfs` and
    /// `fdatasync` find no transaction to wait for (`jbd2_complete_transaction` in Linux 6.18's `fs/jbd2/journal.c`). A
    /// success here means that the journal was alive, and so was whatever was synced before.
    fn ensure_alive(&self) -> io::Result<()>;
}

/// Fills `buffer` from `position` on; `UnexpectedEof` when the file ends before.
pub(crate) fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<()> {
    let read = read_up_to(file, buffer, position)?;
    if read < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Fills as much of `buffer` as the file has from `position` on and returns how much that is.
pub(crate) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Writes all of `buffers` from `position` on, however many calls that takes.
pub(crate) fn write_all_at(
    file: &dyn DiskFile,
    mut buffers: &mut [IoSlice<'_>],
    position: u64,
) -> io::Result<()> {
    let mut at = position;
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        // Linux takes at most 1,024 slices in one call.
        let some = &buffers[..buffers.len().min(MAX_SLICES)];
        let written = file.write_vectored_at(some, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        at += written as u64;
        IoSlice::advance_slices(&mut buffers, written);
    }
    Ok(())
}

const MAX_SLICES: usize = 1024;

/// Reads a whole small file; none when it doesn't exist.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let read = read_up_to(&*file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Replaces a small file so that after a crash either the old or the new contents are there, whole.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    write_file(disk, &temporary, bytes)?.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// Writes a small file without making it durable.
pub(crate) fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(path, OpenMode::Truncate)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)?;
    Ok(file)
}
