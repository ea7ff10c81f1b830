//! Why a cleaning ended early. What it had replaced by then stays replaced.

use std::io;

use crate::batch::BatchHeader;
use crate::partition_log::ReadError;
use crate::segment::{Segment, SegmentError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanError {
    /// The log was deleted, or the data directory is closing.
    #[error("stopped")]
    Stopped,
    /// The disk failed.
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    /// The aborted transactions can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A batch can't be read; the log is not cleaned again until a restart.
    #[error("{file} is damaged: {what}")]
    Damaged { file: String, what: String },
}

impl CleanError {
    pub fn io(segment: &Segment, source: io::Error) -> Self {
        Self::Io { file: segment.log_path().display().to_string(), source }
    }

    pub fn of(segment: &Segment, error: SegmentError) -> Self {
        match error {
            SegmentError::Io(source) => Self::io(segment, source),
            SegmentError::Bad(bad) => {
                Self::Damaged { file: segment.log_path().display().to_string(), what: bad.to_string() }
            }
        }
    }

    pub fn records(segment: &Segment, header: &BatchHeader, error: impl std::fmt::Display) -> Self {
        let what = format!("batch at offset {}: {error}", header.base_offset);
        Self::Damaged { file: segment.log_path().display().to_string(), what }
    }
}
