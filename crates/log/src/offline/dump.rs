//! Reads a log, or one file of it or of what was cut out of one, for a person or a program to look at.
//!
//! Owns nothing but the loop. Invariants: damage is handed out like everything else, and the reading goes on behind
//! it; memory is bounded by the largest batch that is there in full.

use std::io;
use std::path::Path;

use bytes::Bytes;
use tidings_model::TopicPartition;

use super::OfflineDataDir;
use super::walk::{Bounds, Found, Walk};
use crate::batch::Batch;
use crate::disk::{Disk, OpenMode, read_exact_at};
use crate::segment::file_name;

/// What stands at a position of the file.
#[derive(Debug)]
pub enum SegmentItem {
    /// A batch whose CRC matches.
    Batch {
        /// Where it begins.
        position: u64,
        /// Its header and bytes.
        batch: Batch,
    },
    /// Bytes that form no valid batch.
    Damage {
        /// Where they begin.
        position: u64,
        /// How many.
        bytes: u64,
        /// Expected and found.
        what: String,
    },
}

impl OfflineDataDir {
    /// Hands every batch and every piece of damage in a partition's log to `handle`, in order. Positions are those in their segment;
    /// segments that are missing are passed over.
    pub fn read_log<E: From<io::Error>>(
        &self,
        topic_partition: &TopicPartition,
        mut handle: impl FnMut(SegmentItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let folder = self.folder(topic_partition);
        for (base_offset, _) in self.log_files(&folder)? {
            read_segment(&*self.disk, &folder.join(file_name(base_offset, "log")), &mut handle)?;
        }
        Ok(())
    }
}

/// Hands every batch and every piece of damage in a segment's file to `handle`, in order.
pub fn read_segment<E: From<io::Error>>(
    disk: &dyn Disk,
    path: &Path,
    mut handle: impl FnMut(SegmentItem) -> Result<(), E>,
) -> Result<(), E> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // A file under another name may begin with any offset.
    let next_offset = name.get(..20).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let mut walk = Walk::new(
        &*file,
        Bounds { len, next_offset, recovery_point: i64::MAX, holes_end: i64::MAX, limit: None },
    );
    while let Some(found) = walk.next_found()? {
        handle(match found {
            Found::Batch(located) => {
                let mut bytes = vec![0; located.header.size_bytes()];
                read_exact_at(&*file, &mut bytes, located.position)?;
                let batch = Batch { header: located.header, bytes: Bytes::from(bytes) };
                SegmentItem::Batch { position: located.position, batch }
            }
            Found::Damage(damage) => {
                let (position, bytes, what) = (damage.position, damage.bytes, damage.what);
                SegmentItem::Damage { position, bytes, what }
            }
        })?;
    }
    Ok(())
}
