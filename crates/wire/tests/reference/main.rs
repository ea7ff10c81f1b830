//! Every message at every version against a second implementation of the protocol.
//!
//! The generator of messages also writes [`schemas`]: what each version consists of, as data. From it, [`maker`]
//! makes frames by the protocol's rules without touching the generated codec, which must then read every frame and
//! write the same bytes again. [`kafka`] compares with bytes that Apache Kafka wrote.

mod kafka;
mod maker;
mod plausible;
mod schema;
mod schemas;

use bytes::Bytes;
use proptest::prelude::*;
use tidings_wire::{DecodeError, Decoder, Encoder, Message};

use maker::Maker;
use plausible::Plausible;
use schema::{Field, Kind, Schema};
use schemas::SCHEMAS;

/// Whatever decodes can be encoded, and decodes to the same value again.
fn recode<M: Message + PartialEq + std::fmt::Debug>(
    frame: Bytes,
    version: i16,
) -> Result<Bytes, DecodeError> {
    let mut d = Decoder::new(frame);
    let message = M::decode(&mut d, version)?;
    d.finish()?;
    let mut e = Encoder::new();
    message.encode(&mut e, version).expect("a decoded message has a byte form");
    let len = e.len();
    let bytes = e.into_bytes().expect("a decoded message has its records in memory");
    assert_eq!(bytes.len(), len);
    let mut d = Decoder::new(bytes.clone());
    assert_eq!(M::decode(&mut d, version).expect("an encoded message can be decoded"), message);
    Ok(bytes)
}

/// Calls `check` with a frame of every message at every version.
fn each_frame(seed: u64, mut check: impl FnMut(&Schema, i16, Vec<u8>)) {
    for (index, schema) in SCHEMAS.iter().enumerate() {
        for version in schema.versions.0..=schema.versions.1 {
            let salt = (index as u64) << 32 | u64::from(version.unsigned_abs());
            let mut maker =
                Maker::new(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15), version, schema.flexible);
            maker.fields(schema.fields);
            check(schema, version, maker.finish());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_written_as_they_were_read(seed in any::<u64>()) {
        each_frame(seed, |schema, version, frame| {
            let found = (schema.recode)(Bytes::from(frame.clone()), version);
            assert_eq!(found.as_deref(), Ok(&frame[..]), "{} version {version}, seed {seed}", schema.name);
        });
    }

    #[test]
    fn damaged_frames_never_panic(seed in any::<u64>(), damage in any::<u64>()) {
        each_frame(seed, |schema, version, mut frame| {
            let mut random = maker::Random::new(damage ^ frame.len() as u64);
            for _ in 0..=random.below(3) {
                let at = random.below(frame.len() as u64 + 1) as usize;
                if let Some(byte) = frame.get_mut(at) {
                    *byte = random.interesting_byte();
                }
            }
            // What still decodes must reach a fixed point in one step.
            if let Ok(again) = (schema.recode)(Bytes::from(frame), version) {
                assert_eq!((schema.recode)(again.clone(), version), Ok(again), "{} {version}", schema.name);
            }
        });
    }

    #[test]
    fn what_decodes_is_written_and_read_again(seed in any::<u64>()) {
        let mut random = maker::Random::new(seed);
        for schema in SCHEMAS {
            for version in schema.versions.0..=schema.versions.1 {
                let frame = Plausible::message(schema, version, &[], &mut |end| random.below(end));
                let once = (schema.recode)(Bytes::from(frame), version);
                let Ok(once) = once else { panic!("{} {version}, seed {seed}: {once:?}", schema.name) };
                assert_eq!((schema.recode)(once.clone(), version), Ok(once), "{} {version}, seed {seed}", schema.name);
            }
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let noise = Bytes::from(noise);
        for schema in SCHEMAS {
            for version in schema.versions.0..=schema.versions.1 {
                let _ = (schema.recode)(noise.clone(), version);
            }
        }
    }
}

#[test]
fn frames_cut_anywhere_are_refused() {
    each_frame(7, |schema, version, frame| {
        let frame = Bytes::from(frame);
        for end in 0..frame.len() {
            let found = (schema.recode)(frame.slice(..end), version);
            assert!(found.is_err(), "{} version {version} cut at {end} of {}", schema.name, frame.len());
        }
    });
}

#[test]
fn bytes_after_the_end_are_refused() {
    each_frame(8, |schema, version, mut frame| {
        let position = frame.len();
        frame.push(0);
        let found = (schema.recode)(Bytes::from(frame), version);
        assert_eq!(
            found,
            Err(DecodeError::TrailingBytes { position, remaining: 1 }),
            "{} {version}",
            schema.name
        );
    });
}

#[test]
fn versions_out_of_range_are_refused() {
    for schema in SCHEMAS {
        let (min, max) = schema.versions;
        for version in [i16::MIN, min - 1, max + 1, i16::MAX] {
            let found = (schema.recode)(Bytes::new(), version);
            assert_eq!(
                found,
                Err(DecodeError::UnsupportedVersion { message: schema.name, version, min, max })
            );
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_frames() {
    let frames = |seed| {
        let mut all = Vec::new();
        each_frame(seed, |_, _, frame| all.extend(frame));
        all
    };
    assert_eq!(frames(3), frames(3));
    assert_ne!(frames(3), frames(4));
}
