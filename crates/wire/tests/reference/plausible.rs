//! Messages by the protocol's rules with values that mean something: names that a broker may know, numbers at the ends of
//! their range, record batches. Whoever uses it brings the choices.
//!
//! Also the start of requests in the broker's tests, which include this file by its path.

use super::{Field, Kind, Schema};

/// Names that a broker under test has topics and groups of, and some that it refuses.
const NAMES: &[&str] = &[
    "t",
    "t2",
    "g",
    "consumer",
    "range",
    "m",
    "",
    "__consumer_offsets",
    "__transaction_state",
    "no.such",
    "a/b",
    "cleanup.policy",
    "compact",
    "retention.ms",
    "-1",
    "1",
    "猫",
];

/// Elements of an array, at most.
const MAX_ELEMENTS: u64 = 4;

/// Makes one message. `choose` answers a number below the one it is given.
pub struct Plausible<'a> {
    choose: &'a mut dyn FnMut(u64) -> u64,
    batches: &'a [&'a [u8]],
    version: i16,
    flexible: bool,
    frame: Vec<u8>,
}

fn contains(range: (i16, i16), version: i16) -> bool {
    range.0 <= version && version <= range.1
}

impl<'a> Plausible<'a> {
    /// The message's bytes at a version, without any header. `batches` are record batches to use as they are.
    pub fn message(
        schema: &Schema,
        version: i16,
        batches: &'a [&'a [u8]],
        choose: &'a mut dyn FnMut(u64) -> u64,
    ) -> Vec<u8> {
        let flexible = contains(schema.flexible, version);
        let mut maker = Plausible { choose, batches, version, flexible, frame: Vec::new() };
        maker.fields(schema.fields);
        maker.frame
    }

    fn one_in(&mut self, count: u64) -> bool {
        (self.choose)(count) == 0
    }

    fn fields(&mut self, fields: &[Field]) {
        let present = || fields.iter().filter(|field| contains(field.versions, self.version));
        let untagged: Vec<&Field> = present().filter(|field| field.tag.is_none()).collect();
        let mut tagged: Vec<(u32, &Field)> =
            present().filter_map(|field| field.tag.map(|tag| (tag, field))).collect();
        for field in untagged {
            self.value(&field.kind, contains(field.nullable, self.version));
        }
        if !self.flexible {
            return;
        }
        tagged.retain(|_| self.one_in(3));
        tagged.sort_by_key(|(tag, _)| *tag);
        self.varint(tagged.len() as u32);
        for (tag, field) in tagged {
            self.varint(tag);
            let outer = std::mem::take(&mut self.frame);
            self.tagged_value(&field.kind, contains(field.nullable, self.version));
            let value = std::mem::replace(&mut self.frame, outer);
            self.varint(value.len() as u32);
            self.frame.extend(value);
        }
    }

    /// In a tag Kafka marks the absence of a struct by the varint 0, elsewhere by the byte -1.
    fn tagged_value(&mut self, kind: &Kind, nullable: bool) {
        match kind {
            Kind::Struct(_) if nullable && self.one_in(4) => self.varint(0),
            Kind::Struct(fields) if nullable => {
                self.varint(1);
                self.fields(fields);
            }
            kind => self.value(kind, nullable),
        }
    }

    fn value(&mut self, kind: &Kind, nullable: bool) {
        let null = nullable && self.one_in(4);
        match kind {
            Kind::Bool => {
                let value = (self.choose)(2) as u8;
                self.frame.push(value);
            }
            Kind::Fixed(size) => self.number(*size),
            Kind::String if null && !self.flexible => self.frame.extend((-1i16).to_be_bytes()),
            Kind::String => {
                let text = NAMES[(self.choose)(NAMES.len() as u64) as usize];
                if self.flexible {
                    self.varint(if null { 0 } else { text.len() as u32 + 1 });
                } else {
                    self.frame.extend((text.len() as u16).to_be_bytes());
                }
                if !null {
                    self.frame.extend(text.as_bytes());
                }
            }
            Kind::Bytes => {
                let bytes = self.bytes();
                if self.length(bytes.len(), null) {
                    self.frame.extend(bytes);
                }
            }
            Kind::Array(element) => {
                let count = (self.choose)(MAX_ELEMENTS + 1) as usize;
                if self.length(count, null) {
                    (0..count).for_each(|_| self.value(element, false));
                }
            }
            Kind::Struct(_) if null => self.frame.push(0xff),
            Kind::Struct(fields) => {
                if nullable {
                    self.frame.push(1);
                }
                self.fields(fields);
            }
        }
    }

    /// Small numbers mostly, the ends of the range, or anything.
    fn number(&mut self, size: usize) {
        let mut bytes = vec![0; size];
        match (self.choose)(10) {
            0..=3 => bytes[size - 1] = (self.choose)(4) as u8,
            4 => bytes.fill(0xff),
            5 => {
                bytes.fill(0xff);
                bytes[0] = 0x7f;
            }
            6 => bytes[0] = 0x80,
            7 => bytes[size - 1] = (self.choose)(256) as u8,
            _ => bytes.iter_mut().for_each(|byte| *byte = (self.choose)(256) as u8),
        }
        self.frame.extend(bytes);
    }

    /// A record batch, mostly as it is, or anything.
    fn bytes(&mut self) -> Vec<u8> {
        if self.batches.is_empty() || self.one_in(3) {
            let count = (self.choose)(40);
            return (0..count).map(|_| (self.choose)(256) as u8).collect();
        }
        let mut bytes = self.batches[(self.choose)(self.batches.len() as u64) as usize].to_vec();
        if self.one_in(3) {
            let at = (self.choose)(bytes.len() as u64) as usize;
            bytes[at] = (self.choose)(256) as u8;
        }
        bytes
    }

    /// Writes the length of bytes or an array, or null; tells whether a value follows.
    fn length(&mut self, count: usize, null: bool) -> bool {
        match (self.flexible, null) {
            (true, true) => self.varint(0),
            (true, false) => self.varint(count as u32 + 1),
            (false, true) => self.frame.extend((-1i32).to_be_bytes()),
            (false, false) => self.frame.extend((count as u32).to_be_bytes()),
        }
        !null
    }

    fn varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.frame.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.frame.push(value as u8);
    }
}
