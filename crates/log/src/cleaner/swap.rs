//! Puts a cleaned segment in the place of those it was made from.
//!
//! Owns the names on the way, which are Kafka's, and what a start does with them. Invariants: the rename to
//! `.swap`, made durable, is the one moment at which the new segment counts: before it a crash leaves the old
//! ones, after it the next start finishes what follows; at no moment does a reader, or a start, see parts of both.
//!
//! ```text
//! B.log.cleaned    being written, or whole but not counted yet: removed by a start
//! B.log.swap       counts; the files of the old segments go, then it is renamed
//! B.log            done; its indexes are written, or rebuilt
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{CleanError, Cleaner};
use crate::disk::{DiskDir, DiskFile};
use crate::segment::Segment;

/// Ends the name of a cleaned segment's file that does not count yet.
pub(crate) const CLEANED_SUFFIX: &str = ".log.cleaned";
/// Ends the name of one that counts.
pub(crate) const SWAP_SUFFIX: &str = ".log.swap";

pub(super) fn cleaned_path(first: &Segment) -> PathBuf {
    first.log_path().with_extension(&CLEANED_SUFFIX[1..])
}

fn swap_path(first: &Segment) -> PathBuf {
    first.log_path().with_extension(&SWAP_SUFFIX[1..])
}

impl Cleaner<'_> {
    /// Replaces `group` by `segment`, whose bytes are durable in `file`, on the disk and for readers.
    pub(super) fn swap(
        &self,
        group: &[Arc<Segment>],
        segment: Arc<Segment>,
        file: Arc<dyn DiskFile>,
    ) -> Result<(), CleanError> {
        let (disk, open_files) = (&*self.storage.disk, &self.storage.open_files);
        let failed = |source: io::Error| CleanError::io(&group[0], source);
        self.check_stop()?;
        // Once the rename is done there may be no descriptor left for it.
        let dir = disk.open_dir(segment.dir()).map_err(failed)?;
        // Whoever is reading one of them goes on with its file.
        for (index, old) in group.iter().enumerate() {
            if let Err(error) = old.retire(self.storage) {
                group[..index].iter().for_each(|retired| retired.stay(self.storage));
                return Err(failed(error));
            }
        }
        // Its name is another one for a while.
        open_files.put_pinned(&segment, file);
        let committed =
            disk.rename(&cleaned_path(&group[0]), &swap_path(&group[0])).and_then(|()| dir.sync_names());
        let swapped = committed.and_then(|()| {
            self.log.replace_segments(group, segment.clone());
            finish_swap(self.storage, group, &segment, &*dir)
        });
        if let Err(error) = swapped {
            // Which of the two a start would find is not known any more, and both are right; but the names must
            // not be touched again before one has looked.
            let what = format!("replacing {} failed: {error}", group[0].log_path().display());
            self.storage.health.fail(what);
            return Err(failed(error));
        }
        open_files.unpin(&segment);
        // Without its indexes a segment is whole: they would be rebuilt.
        if let Err(error) = segment.flush_and_sync_indexes(self.storage) {
            tracing::warn!("writing the indexes of {} failed: {error}", segment.log_path().display());
        }
        Ok(())
    }
}

/// Removes the old files and gives the new one its name. Everything here can be done again by the next start.
fn finish_swap(
    storage: &crate::storage::Storage,
    group: &[Arc<Segment>],
    segment: &Segment,
    dir: &dyn DiskDir,
) -> io::Result<()> {
    let disk = &*storage.disk;
    for old in group {
        for path in old.paths() {
            // The first one's log is replaced below. Its transaction index may be the new one's already: a checkpoint
            // writes those of all segments.
            let stays = path == segment.txn_index_path() && segment.txn_index().summary().is_some();
            if path != segment.log_path() && !stays {
                remove_if_there(disk, &path)?;
            }
        }
    }
    // The old segments must be gone before the new one looks like any other.
    dir.sync_names()?;
    disk.rename(&swap_path(segment), &segment.log_path())?;
    dir.sync_names()
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(disk: &dyn crate::disk::Disk, path: &std::path::Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
