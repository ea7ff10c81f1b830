//! Record batches inside a message, and the pieces of an encoded frame.
//!
//! Owns the seam through which a fetch answer carries a file range that never passes through memory: the
//! message holds [`Records::External`], the frame a [`Chunk::External`], and whoever writes the frame
//! splices the bytes in. Never looks inside a batch.

use bytes::Bytes;

/// The value of a `records` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// Record batches in memory.
    Bytes(Bytes),
    /// `len` bytes which the writer of the frame provides; `token` tells it which.
    External {
        /// Chosen by whoever encodes, meaningful to whoever writes the frame.
        token: u32,
        /// The exact number of bytes that will be spliced in.
        len: u32,
    },
}

impl Records {
    /// The size in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len as usize,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, unless they are elsewhere. Decoded records always have them.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::External { .. } => None,
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// One piece of an encoded frame, in writing order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes to write as they are.
    Bytes(Bytes),
    /// The place where the records with this token belong.
    External {
        /// The token of the [`Records::External`].
        token: u32,
        /// The exact number of bytes to write.
        len: u32,
    },
}

impl Chunk {
    /// The size in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len as usize,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
