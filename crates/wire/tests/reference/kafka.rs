//! Bytes that Apache Kafka wrote, for every message at every version: see fixtures/README.md.

use std::fmt::Write;

use bytes::Bytes;

use super::{SCHEMAS, each_frame};

const FIXTURES: &str = include_str!("../fixtures/kafka.txt");

fn from_hex(text: &str) -> Bytes {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("a fixture is hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}

#[test]
fn kafkas_bytes_are_written_as_they_were_read() {
    let mut versions = 0;
    for line in FIXTURES.lines() {
        let mut words = line.split(' ');
        let (name, version, hex) = (words.next(), words.next(), words.next().unwrap_or_default());
        let schema =
            SCHEMAS.iter().find(|schema| Some(schema.name) == name).expect("a fixture's message exists");
        let version: i16 = version.and_then(|text| text.parse().ok()).expect("a fixture has a version");
        let bytes = from_hex(hex);
        assert_eq!((schema.recode)(bytes.clone(), version), Ok(bytes), "{} version {version}", schema.name);
        versions += 1;
    }
    let all: i32 = SCHEMAS.iter().map(|schema| i32::from(schema.versions.1 - schema.versions.0) + 1).sum();
    assert_eq!(versions, all, "every version of every message has a fixture");
}

/// Prints frames for Kafka to read and write again; how is in fixtures/README.md.
#[test]
#[ignore = "makes input for Apache Kafka, and checks nothing"]
fn print_frames_for_kafka() {
    each_frame(20, |schema, version, frame| {
        let hex = frame.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes any text");
            hex
        });
        println!("{} {version} {hex}", schema.name);
    });
}
