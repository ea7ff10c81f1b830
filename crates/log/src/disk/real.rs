//! The disk that is there: Linux files through `rustix`.
//!
//! Owns the mapping to system calls. Invariants: interrupted calls are repeated; every descriptor closes
//! on exec. Does not keep state besides open descriptors.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustix::fs::{FallocateFlags, FlockOperation, StatVfsMountFlags};
use rustix::io::Errno;

use super::{DirEntry, Disk, DiskDir, DiskFile, DiskLock, DiskRoot, DiskSpace, OpenMode};

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::Write => {}
            OpenMode::CreateNew => drop(options.create_new(true)),
            OpenMode::Truncate => drop(options.create(true).truncate(true)),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn open_root(&self, path: &Path) -> io::Result<Box<dyn DiskRoot>> {
        Ok(Box::new(RealRoot(File::open(path)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let metadata = entry.metadata()?;
                entries.push(DirEntry { name, is_dir: metadata.is_dir(), len: metadata.len() });
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn DiskDir>> {
        Ok(Box::new(RealDir(File::open(path)?)))
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(DiskSpace {
            available_bytes: bytes(found.f_bavail),
            total_bytes: bytes(found.f_blocks),
            is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        repeat(|| self.0.read_at(buffer, position))
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        repeat(|| rustix::io::pwritev(&self.0, buffers, position).map_err(Into::into))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, position, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => result.map_err(Into::into),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let since = self.0.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated, whatever the error: the kernel may have dropped the pages it failed to write.
        rustix::fs::fdatasync(&self.0).map_err(Into::into)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[derive(Debug)]
struct RealDir(File);

impl DiskDir for RealDir {
    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[derive(Debug)]
struct RealRoot(File);

impl DiskRoot for RealRoot {
    fn sync_all(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.0).map_err(Into::into)
    }

    fn ensure_alive(&self) -> io::Result<()> {
        // To remove what is not there changes nothing, but takes a part in a transaction of the journal.
        match rustix::fs::fremovexattr(&self.0, "user.tidings.alive") {
            Err(error @ (Errno::ROFS | Errno::IO | Errno::UCLEAN)) => Err(error.into()),
            // There is no such attribute, or none at all, or they are not for us.
            _ => Ok(()),
        }
    }
}

/// The lock goes with the descriptor, so a killed process never leaves one behind.
#[derive(Debug)]
struct RealLock(File);

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing would not do: a child of this process that has not executed its program yet has the descriptor, too.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl DiskLock for RealLock {}

fn repeat<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As between the fork and the exec of a child.
    #[test]
    fn a_copy_of_the_descriptor_keeps_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let file = File::create(&path).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let copy = file.try_clone().unwrap();
        let lock = RealLock(file);
        assert!(RealDisk.lock(&path).unwrap().is_none());
        drop(lock);
        assert!(RealDisk.lock(&path).unwrap().is_some());
        drop(copy);
    }
}
