//! Every message at every version: what decodes can be encoded, decodes to the same again, and takes no more memory than
//! its bytes allow. Half of the inputs are made by the protocol's rules and then damaged, half are as they come.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidings_fuzz::choices::Choices;
use tidings_fuzz::reference::SCHEMAS;
use tidings_fuzz::reference::plausible::Plausible;
use tidings_wire::{Decoder, RequestHeader};

fuzz_target!(|data: &[u8]| {
    let _ = RequestHeader::decode(&mut Decoder::new(Bytes::copy_from_slice(data)));
    let mut choices = Choices::new(data);
    let schema = &SCHEMAS[choices.below(SCHEMAS.len())];
    let (oldest, newest) = schema.versions;
    let version = oldest + choices.below((newest - oldest) as usize + 1) as i16;
    let mut frame = Vec::new();
    if choices.below(2) == 0 {
        frame = Plausible::message(schema, version, &[], &mut |end| choices.below(end as usize) as u64);
        for _ in 0..choices.below(4) {
            if !frame.is_empty() {
                let at = choices.below(frame.len());
                frame[at] = choices.below(256) as u8;
            }
        }
    }
    frame.extend_from_slice(choices.rest());
    // What still decodes reaches a fixed point in one step.
    if let Ok(again) = (schema.recode)(Bytes::from(frame), version) {
        assert_eq!((schema.recode)(again.clone(), version), Ok(again), "{} {version}", schema.name);
    }
});
