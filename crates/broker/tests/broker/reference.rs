//! Every message at every version as data: the generated reference of the wire crate's own tests, which the tests here
//! make requests from.

#[path = "../../../wire/tests/reference/plausible.rs"]
pub mod plausible;
#[path = "../../../wire/tests/reference/schemas.rs"]
mod schemas;

use bytes::Bytes;
use tidings_wire::{DecodeError, Decoder, Message};

pub use schemas::SCHEMAS;

/// A message as data. Ranges of versions include both ends.
pub struct Schema {
    pub name: &'static str,
    pub versions: (i16, i16),
    pub flexible: (i16, i16),
    pub fields: &'static [Field],
    /// Decodes a whole frame.
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
    Bool,
    Fixed(usize),
    String,
    Bytes,
    Struct(&'static [Field]),
    Array(&'static Kind),
}

fn recode<M: Message>(frame: Bytes, version: i16) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(frame.clone());
    M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(frame)
}
