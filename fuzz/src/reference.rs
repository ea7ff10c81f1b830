//! Every message at every version as data, and what must hold for one that was read.
//!
//! The generated `schemas` expects its types and `recode` in its parent module.

#[path = "../../crates/wire/tests/reference/plausible.rs"]
pub mod plausible;
#[path = "../../crates/wire/tests/reference/schema.rs"]
mod schema;
#[path = "../../crates/wire/tests/reference/schemas.rs"]
mod schemas;

use bytes::Bytes;
use tidings_wire::{DecodeError, Decoder, Encoder, Message};

pub use schema::{Field, Kind, Schema};
pub use schemas::SCHEMAS;

/// Whatever decodes can be encoded, and decodes to the same value again.
fn recode<M: Message + PartialEq + std::fmt::Debug>(
    frame: Bytes,
    version: i16,
) -> Result<Bytes, DecodeError> {
    let len = frame.len();
    let mut d = Decoder::new(frame);
    let (message, allocated) = crate::allocations::counted(|| M::decode(&mut d, version));
    assert!(allocated <= 20 * len + 16 * 1024, "{} {version}: {allocated} bytes for {len}", M::NAME);
    let message = message?;
    d.finish()?;
    let mut e = Encoder::new();
    message.encode(&mut e, version).expect("a decoded message has a byte form");
    let bytes = e.into_bytes().expect("a decoded message has its records in memory");
    let again =
        M::decode(&mut Decoder::new(bytes.clone()), version).expect("an encoded message can be decoded");
    // NaN is not equal to itself; its text is.
    assert!(again == message || format!("{again:?}") == format!("{message:?}"), "{} {version}", M::NAME);
    Ok(bytes)
}
