//! The nouns every engine crate shares: offsets, topic-partitions and Kafka's error codes.
