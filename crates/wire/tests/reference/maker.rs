//! Random frames by the protocol's rules, made without the code under test.
//!
//! Frames are canonical: shortest varints, tags in order, tagged fields only where they differ from any default, so
//! that writing what was read must give the same bytes.

use super::{Field, Kind};

/// A small generator of random numbers (xorshift64*), so that a seed means the same frames everywhere.
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// A byte that is often one which means something as a length.
    pub fn interesting_byte(&mut self) -> u8 {
        match self.below(4) {
            0 => 0xff,
            1 => 0x7f,
            2 => 0,
            _ => self.below(256) as u8,
        }
    }
}

/// Makes one frame.
pub struct Maker {
    random: Random,
    version: i16,
    flexible: bool,
    /// Within a tagged field nothing may be empty or null: a default would not be written again.
    forced: bool,
    frame: Vec<u8>,
}

fn contains(range: (i16, i16), version: i16) -> bool {
    range.0 <= version && version <= range.1
}

impl Maker {
    /// A maker for a message whose flexible versions are `flexible`.
    pub fn new(seed: u64, version: i16, flexible: (i16, i16)) -> Self {
        let flexible = contains(flexible, version);
        Self { random: Random::new(seed), version, flexible, forced: false, frame: Vec::new() }
    }

    /// The frame.
    pub fn finish(self) -> Vec<u8> {
        self.frame
    }

    /// Fields in a row, and their tags.
    pub fn fields(&mut self, fields: &[Field]) {
        let present = || fields.iter().filter(|field| contains(field.versions, self.version));
        let untagged: Vec<&Field> = present().filter(|field| field.tag.is_none()).collect();
        let mut tagged: Vec<(u32, Option<&Field>)> =
            present().filter_map(|field| field.tag.map(|tag| (tag, Some(field)))).collect();
        for field in untagged {
            self.value(&field.kind, contains(field.nullable, self.version));
        }
        if !self.flexible {
            return;
        }
        tagged.retain(|_| self.random.below(2) == 0);
        if self.random.below(4) == 0 {
            tagged.push((100 + self.random.below(100_000) as u32, None));
        }
        tagged.sort_by_key(|(tag, _)| *tag);
        self.varint(tagged.len() as u32);
        for (tag, field) in tagged {
            self.varint(tag);
            let outer = std::mem::take(&mut self.frame);
            let forced = std::mem::replace(&mut self.forced, true);
            match field {
                Some(field) => self.value(&field.kind, contains(field.nullable, self.version)),
                None => self.some_bytes(8),
            }
            self.forced = forced;
            let value = std::mem::replace(&mut self.frame, outer);
            self.varint(value.len() as u32);
            self.frame.extend(value);
        }
    }

    fn value(&mut self, kind: &Kind, nullable: bool) {
        let null = nullable && !self.forced && self.random.below(4) == 0;
        let least = u64::from(self.forced);
        match kind {
            Kind::Bool => {
                let value = if self.forced { 1 } else { self.random.below(2) as u8 };
                self.frame.push(value);
            }
            Kind::Fixed(size) => {
                for index in 0..*size {
                    // No default has 0x55 as its lowest byte.
                    let last = index + 1 == *size;
                    let byte = if last && self.forced { 0x55 } else { self.random.interesting_byte() };
                    self.frame.push(byte);
                }
            }
            Kind::String if null && !self.flexible => self.frame.extend((-1i16).to_be_bytes()),
            Kind::String => {
                let text: String = (0..least + self.random.below(6)).map(|_| self.letter()).collect();
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
                // Now and then long enough to be spliced instead of copied.
                let limit = if self.random.below(16) == 0 { 3000 } else { 12 };
                let count = least + self.random.below(limit);
                if self.length(count, null) {
                    self.some_bytes(count);
                }
            }
            Kind::Array(element) => {
                let count = least + self.random.below(3);
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

    /// Writes the length of bytes or an array, or null; tells whether a value follows.
    fn length(&mut self, count: u64, null: bool) -> bool {
        match (self.flexible, null) {
            (true, true) => self.varint(0),
            (true, false) => self.varint(count as u32 + 1),
            (false, true) => self.frame.extend((-1i32).to_be_bytes()),
            (false, false) => self.frame.extend((count as u32).to_be_bytes()),
        }
        !null
    }

    fn some_bytes(&mut self, count: u64) {
        for _ in 0..count {
            let byte = self.random.interesting_byte();
            self.frame.push(byte);
        }
    }

    fn letter(&mut self) -> char {
        ['a', 'B', '7', '-', 'é', '猫', '🦀'][self.random.below(7) as usize]
    }

    fn varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.frame.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.frame.push(value as u8);
    }
}
