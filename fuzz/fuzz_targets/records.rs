//! Records of `__consumer_offsets` as a replay reads them: any key with any value is taken, or refused with an error.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidings_coordinator::{GroupCoordinator, GroupSettings};
use tidings_fuzz::allocations::counted;
use tidings_fuzz::choices::Choices;
use tidings_fuzz::reference::plausible::Plausible;
use tidings_fuzz::reference::{SCHEMAS, Schema};

/// Keys of the offsets topic by type, with the values that belong to them.
const KINDS: &[(i16, &str, &str)] = &[
    (0, "OffsetCommitKey", "OffsetCommitValue"),
    (1, "OffsetCommitKey", "OffsetCommitValue"),
    (2, "GroupMetadataKey", "GroupMetadataValue"),
];

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let mut coordinator = GroupCoordinator::new(GroupSettings::default(), || [7; 16]);
    for _ in 0..1 + choices.below(6) {
        let (key, value) = record(&mut choices);
        let (key, value) = (Bytes::from(key), value.map(Bytes::from));
        let len = key.len() + value.as_ref().map_or(0, Bytes::len);
        let (_, allocated) = counted(|| coordinator.replay(&key, value.as_ref()));
        assert!(allocated <= 100 * len + 64 * 1024, "{allocated} bytes for {len}");
    }
    coordinator.on_loaded(0);
    let _ = coordinator.next_deadline_ms();
    let effects = coordinator.on_deadline(choices.below(1 << 40) as i64);
    coordinator.replay_all(&effects.records);
});

fn schema(name: &str) -> &'static Schema {
    SCHEMAS.iter().find(|schema| schema.name == name).expect("a message of this name")
}

fn record(choices: &mut Choices<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    if choices.below(4) == 0 {
        let key = some_bytes(choices, 64);
        return (key, Some(some_bytes(choices, 200)));
    }
    let (code, key_name, value_name) = KINDS[choices.below(KINDS.len())];
    let mut key = code.to_be_bytes().to_vec();
    key.extend(Plausible::message(schema(key_name), 0, &[], &mut |end| choices.below(end as usize) as u64));
    if choices.below(6) == 0 {
        return (key, None);
    }
    let schema = schema(value_name);
    let (oldest, newest) = schema.versions;
    let version = oldest + choices.below((newest - oldest) as usize + 1) as i16;
    let mut value = version.to_be_bytes().to_vec();
    value.extend(Plausible::message(schema, version, &[], &mut |end| choices.below(end as usize) as u64));
    for bytes in [&mut key, &mut value] {
        if choices.below(4) == 0 {
            let at = choices.below(bytes.len());
            bytes[at] = choices.below(256) as u8;
        }
    }
    (key, Some(value))
}

fn some_bytes(choices: &mut Choices<'_>, most: usize) -> Vec<u8> {
    (0..choices.below(most)).map(|_| choices.below(256) as u8).collect()
}
