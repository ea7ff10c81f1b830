//! The value of a record: who sent it as which number, and bytes that only this record can have.
//!
//! Owns the text form. Invariants: two different records never have the same value, and a value that was changed
//! anywhere does not decode.

/// A record, by what its sender called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Its sender.
    pub producer: u32,
    /// Its sender's number for it, on its partition.
    pub number: u64,
}

/// A value that no sender of ours can have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl Record {
    /// The value: a head that says which record it is, and `len` bytes that follow from the head.
    pub fn value(self, partition: i32, len: usize) -> Vec<u8> {
        let mut value = format!("{}/{partition}/{}/{len}/", self.producer, self.number).into_bytes();
        let seed = self.seed(partition);
        value.extend((0..len).map(|at| filler(seed, at)));
        value
    }

    /// The record whose value this is.
    pub fn of(partition: i32, value: &[u8]) -> Result<Self, Unreadable> {
        Self::parse(partition, value).ok_or_else(|| {
            let head = &value[..value.len().min(40)];
            Unreadable(format!("{} bytes, beginning with {:?}", value.len(), String::from_utf8_lossy(head)))
        })
    }

    fn parse(partition: i32, value: &[u8]) -> Option<Self> {
        let mut rest = value;
        let mut numbers = [0u64; 4];
        for number in &mut numbers {
            let end = rest.iter().position(|byte| *byte == b'/')?;
            *number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
            rest = &rest[end + 1..];
        }
        let [producer, found_partition, number, len] = numbers;
        let record = Self { producer: u32::try_from(producer).ok()?, number };
        let seed = record.seed(partition);
        let whole = i32::try_from(found_partition) == Ok(partition)
            && u64::try_from(rest.len()) == Ok(len)
            && rest.iter().enumerate().all(|(at, byte)| *byte == filler(seed, at));
        whole.then_some(record)
    }

    fn seed(self, partition: i32) -> u64 {
        let mixed = u64::from(self.producer) << 40 ^ self.number << 8 ^ partition.unsigned_abs() as u64;
        mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

fn filler(seed: u64, at: usize) -> u8 {
    (seed.rotate_left(at as u32 % 64) as u8) ^ (at as u8)
}
