//! A message as data: the types of the generated `schemas`.
//!
//! Included by its path, like `schemas`, by the broker's tests and the fuzz targets.

use bytes::Bytes;
use tidings_wire::DecodeError;

/// A message as data. Ranges of versions include both ends.
pub struct Schema {
    pub name: &'static str,
    pub versions: (i16, i16),
    pub flexible: (i16, i16),
    pub fields: &'static [Field],
    /// Decodes a whole frame; what it answers with is the including test's business.
    pub recode: fn(Bytes, i16) -> Result<Bytes, DecodeError>,
}

/// A field as data.
pub struct Field {
    pub kind: Kind,
    pub versions: (i16, i16),
    pub nullable: (i16, i16),
    pub tag: Option<u32>,
}

/// The type of a field.
pub enum Kind {
    /// A byte, 0 or 1.
    Bool,
    /// So many bytes.
    Fixed(usize),
    /// Text.
    String,
    /// Bytes or record batches.
    Bytes,
    /// Fields in a row.
    Struct(&'static [Field]),
    /// Any number of one type.
    Array(&'static Kind),
}
