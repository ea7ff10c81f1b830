//! Record batches, segments, indexes, recovery: the durable log.
