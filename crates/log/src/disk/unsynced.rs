//! The disk that is there, without its flushes: for brokers that live as long as a test.
//!
//! A sync is a word here. What was written survives the end of a process, however that comes, because the system has it;
//! a power cut may take everything. Never for data that anybody wants to keep.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, Disk, DiskDir, DiskFile, DiskLock, DiskRoot, DiskSpace, OpenMode, RealDisk};

/// The machine's own file system, never flushed.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnsyncedDisk;

impl Disk for UnsyncedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(RealDisk.open(path, mode)?)))
    }

    fn open_root(&self, _: &Path) -> io::Result<Box<dyn DiskRoot>> {
        Ok(Box::new(UnsyncedRoot))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        RealDisk.lock(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }

    fn open_dir(&self, _: &Path) -> io::Result<Box<dyn DiskDir>> {
        Ok(Box::new(UnsyncedRoot))
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        RealDisk.space(path)
    }
}

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.0.write_vectored_at(buffers, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(position, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.0.modified_ms()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_fd()
    }
}

#[derive(Debug)]
struct UnsyncedRoot;

impl DiskRoot for UnsyncedRoot {
    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn ensure_alive(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskDir for UnsyncedRoot {
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}
