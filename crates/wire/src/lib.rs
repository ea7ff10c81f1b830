//! Kafka's messages, generated; bounded decoding of untrusted bytes; no I/O.
