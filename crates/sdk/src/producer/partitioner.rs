//! Which partition a record goes to.

use std::fmt;
use std::sync::Arc;

/// Chooses partitions. Called on the client's threads: quickly, and the same for a key each time, or its order is lost.
///
/// ```
/// use std::sync::Arc;
/// use tidings::ProducerOptions;
/// use tidings::producer::{Partitioner, partition_of_key};
///
/// /// One tenant has the first partition to itself; the others share the rest as Kafka would.
/// #[derive(Debug)]
/// struct BigTenantAlone;
///
/// impl Partitioner for BigTenantAlone {
///     fn partition(&self, _topic: &str, key: Option<&[u8]>, partitions_count: i32) -> i32 {
///         match key {
///             Some(b"acme") => 0,
///             key if partitions_count > 1 => 1 + partition_of_key(key.unwrap_or_default(), partitions_count - 1),
///             _ => 0,
///         }
///     }
/// }
///
/// let options = ProducerOptions { partitioner: Some(Arc::new(BigTenantAlone)), ..ProducerOptions::default() };
/// # drop(options);
/// ```
pub trait Partitioner: Send + Sync + fmt::Debug {
    /// The partition of a record with this key, from 0 to `partitions_count` - 1. What lies outside fails the record.
    fn partition(&self, topic: &str, key: Option<&[u8]>, partitions_count: i32) -> i32;
}

/// The partition that Kafka's Java clients, and this SDK by default, choose for a key: by its murmur2 hash.
///
/// ```
/// use tidings::producer::partition_of_key;
///
/// assert_eq!(partition_of_key(b"customer-7", 1), 0);
/// ```
///
/// # Panics
/// If there is no partition.
pub fn partition_of_key(key: &[u8], partitions_count: i32) -> i32 {
    // Without the sign, as in Kafka, which is not the same as the absolute value.
    (murmur2(key) & i32::MAX) % partitions_count
}

/// MurmurHash2 with 32 bits and Kafka's seed.
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let chunks = data.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

/// A partitioner as the client takes it.
#[derive(Clone)]
pub(super) struct Chosen(pub(super) Arc<dyn Partitioner>);

impl rdkafka::producer::Partitioner for Chosen {
    fn partition(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        partitions_count: i32,
        _: impl Fn(i32) -> bool,
    ) -> i32 {
        self.0.partition(topic, key, partitions_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs that Apache Kafka tests its own hash with (`UtilsTest.testMurmur2`).
    #[test]
    fn it_hashes_as_kafka_does() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }
}
