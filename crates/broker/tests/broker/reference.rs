//! Every message at every version as data: the generated reference of the wire crate's own tests, which the tests here
//! make requests from.

#[path = "../../../wire/tests/reference/plausible.rs"]
pub mod plausible;
#[path = "../../../wire/tests/reference/schema.rs"]
mod schema;
#[path = "../../../wire/tests/reference/schemas.rs"]
mod schemas;

use bytes::Bytes;
use tidings_wire::{DecodeError, Decoder, Message};

pub use schema::{Field, Kind, Schema};
pub use schemas::SCHEMAS;

fn recode<M: Message>(frame: Bytes, version: i16) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(frame.clone());
    M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(frame)
}
