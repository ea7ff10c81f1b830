//! Positions that a consumer has given up, because the cluster did not have the offset that was asked for.
//!
//! librdkafka goes on where `auto.offset.reset` says then, and tells of it in its log only, as a warning: neither an error nor a
//! record says so, and the offsets of the records that come next do not either.

/// The facility under which librdkafka logs it.
const FACILITY: &str = "OFFSET";
/// What stands between the partition and the offset.
const RESET: &str = ": offset reset (at offset ";

/// A position that a consumer has given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The offset that was asked for: everything before it was fetched.
    pub(crate) offset: i64,
}

impl Reset {
    /// What a line of the log tells, if it is of a reset. Partitions without a commit, which have no offset, are none.
    pub(crate) fn of_line(facility: &str, line: &str) -> Option<Self> {
        let (place, rest) = line.split_once(RESET).filter(|_| facility == FACILITY)?;
        // The thread stands before the topic.
        let place = place.rsplit_once(": ").map_or(place, |(_, place)| place);
        let (topic, partition) = place.strip_suffix(']')?.rsplit_once(" [")?;
        let offset = rest.split_once(' ')?.0.parse().ok()?;
        Some(Self { topic: topic.to_owned(), partition: partition.parse().ok()?, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(facility: &str, line: &str, expect: Option<(&str, i32, i64)>) {
        let expect =
            expect.map(|(topic, partition, offset)| Reset { topic: topic.into(), partition, offset });
        assert_eq!(Reset::of_line(facility, line), expect, "{line}");
    }

    #[test]
    fn lines_of_librdkafka_are_understood() {
        let out_of_range = "offset reset (at offset 10 (leader epoch 0), broker 1) to offset BEGINNING (leader epoch -1): \
                            fetch failed due to requested offset not available on the broker: Broker: Offset out of range";
        let found = Some(("eu.orders-1", 12, 10));
        check("OFFSET", &format!("[thrd:main]: eu.orders-1 [12]: {out_of_range}"), found);
        check("OFFSET", &format!("eu.orders-1 [12]: {out_of_range}"), found);
        check("FETCH", &format!("[thrd:main]: eu.orders-1 [12]: {out_of_range}"), None);
        let cached = "offset reset (at offset 7 (leader epoch -1), broker 1) to cached BEGINNING offset offset 9 \
                      (leader epoch -1): fetch failed: Broker: Offset out of range";
        check("OFFSET", &format!("[thrd:main]: orders [0]: {cached}"), Some(("orders", 0, 7)));
        let without_commit = "offset reset (at offset INVALID (leader epoch -1), broker -1) to offset BEGINNING (leader \
                              epoch -1): no previously committed offset available: Local: No offset stored";
        check("OFFSET", &format!("[thrd:main]: orders [0]: {without_commit}"), None);
        check("OFFSET", "[thrd:main]: orders [0]: offset reset (at", None);
        check("OFFSET", "", None);
    }
}
