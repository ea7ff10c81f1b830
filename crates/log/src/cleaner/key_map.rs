//! The last offset of each key of the dirty part.
//!
//! Owns the bound on memory. Invariants: keys are told apart by 128 bits of a hash that nobody outside can
//! predict, so that no two keys are taken for one, by chance or on purpose; an entry takes the same room
//! however long its key is. It grows with what is put in and is gone with the cleaning.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// What an entry takes while the map grows: the table doubles, and both copies are there then.
const ENTRY_BYTES: usize = 72;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyHash(u64, u64);

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// The key is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are hashed here");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Debug)]
pub(super) struct KeyMap {
    offsets: HashMap<KeyHash, i64, BuildHasherDefault<AsItIs>>,
    hashers: [RandomState; 2],
    max_keys: usize,
}

impl KeyMap {
    /// An empty map that grows to about `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        let max_keys = (max_bytes / ENTRY_BYTES).max(1);
        Self { offsets: HashMap::default(), hashers: [RandomState::new(), RandomState::new()], max_keys }
    }

    /// Whether so many more keys might not fit. An empty map takes any batch: a cleaning must get on.
    pub fn is_full_for(&self, count: usize) -> bool {
        !self.offsets.is_empty() && self.offsets.len() + count > self.max_keys
    }

    /// Notes that the key has a record at this offset; offsets ascend.
    pub fn put(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash(key);
        self.offsets.insert(hash, offset);
    }

    /// The key's last offset, if it has a record in the dirty part.
    pub fn last_offset(&self, key: &[u8]) -> Option<i64> {
        self.offsets.get(&self.hash(key)).copied()
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        let [first, second] = self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.build_hasher();
            hasher.write(key);
            hasher.finish()
        });
        KeyHash(first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_counts_and_the_map_fills_up() {
        let mut keys = KeyMap::new(10 * ENTRY_BYTES);
        assert!(!keys.is_full_for(1000), "a batch larger than the map goes in alone");
        for offset in 0..10 {
            assert!(!keys.is_full_for(1));
            keys.put(&[offset as u8], offset);
        }
        assert!(keys.is_full_for(1));
        keys.put(&[3], 77);
        assert_eq!((keys.last_offset(&[3]), keys.last_offset(&[4])), (Some(77), Some(4)));
        assert_eq!(keys.last_offset(b""), None);
    }
}
