//! Compaction against the simplest model there is: what the last record of each key says. A reader must find the
//! same before and after, whatever was cleaned, cut off or crashed in between.

mod lag;
mod world;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tidings_log::batch::{BatchBuilder, Compression};
use tidings_log::testing::{Captured, Loss, Random, SimDisk};
use tidings_log::{AppendError, Chores, CleanupPolicy, Disk, LogConfig, Origin, UpTo};
use tidings_model::ErrorCode;

use crate::support::{NOW_MS, append, append_durably, batch, create, log, options, partition, tags};
use world::{DATA, View, World, batches, cleaning, compacted, keyed, open_sim, view};

/// The seeds of one test; `TIDINGS_COMPACTION_SEED` runs one alone.
fn seeds(count: u64) -> std::ops::RangeInclusive<u64> {
    let one = std::env::var("TIDINGS_COMPACTION_SEED").ok().and_then(|seed| seed.parse().ok());
    one.map_or(1..=count, |seed| seed..=seed)
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 400, ..compacted() });
    for round in 0..6 {
        for key in ["a", "b", "c"] {
            append_durably(&orders, keyed(key, Some(&format!("{key}{round}"))));
        }
    }
    append_durably(&orders, batch("active", 1, 300));
    data_dir.checkpoint().expect("checkpoint");
    let slice = orders.read(0, 10_000, UpTo::HighWatermark, true).expect("read").slice;
    let before = slice.read().expect("read");
    let report = data_dir.keep(NOW_MS, cleaning());
    assert!(report.cleaned_passes == 1 && report.cleaned_written_bytes < report.cleaned_read_bytes / 2);
    let kept: Vec<_> = batches(&orders).iter().flat_map(world::records).collect();
    let kept: Vec<_> = kept
        .iter()
        .map(|record| {
            (record.offset, String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into_owned())
        })
        .filter(|(offset, _)| *offset < 18)
        .collect();
    assert_eq!(kept, [(15, "a5".to_owned()), (16, "b5".to_owned()), (17, "c5".to_owned())]);
    assert_eq!((orders.log_start_offset(), orders.log_end_offset()), (0, 19));
    assert_eq!(slice.read().expect("the old file is open"), before);
    // Nothing is dirty any more.
    assert_eq!(data_dir.keep(NOW_MS, cleaning()).cleaned_passes, 0);
    assert!(disk.files(Path::new(DATA)).iter().all(|path| {
        let name = path.to_string_lossy();
        !name.ends_with(".cleaned") && !name.ends_with(".swap")
    }));
}

#[test]
fn keys_that_do_not_fit_take_more_passes() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1000);
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 600, ..compacted() });
    for round in 0..3 {
        for key in 0..60 {
            append_durably(&orders, keyed(&format!("key-{key}"), Some(&format!("{round}"))));
        }
    }
    append_durably(&orders, batch("active", 1, 500));
    data_dir.checkpoint().expect("checkpoint");
    let expected = view(&orders);
    let report = data_dir.keep(NOW_MS, cleaning());
    assert!(report.cleaned_passes > 3, "{report:?}");
    assert_eq!(view(&orders), expected);
    let records = batches(&orders).iter().map(|batch| batch.header.record_count).sum::<i32>();
    assert!(records <= 60 + 5, "{records} records of 60 keys");
}

#[test]
fn records_without_a_key_are_refused_in_every_codec() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let orders = create(&data_dir, 0, compacted());
    let keyless = BatchBuilder::new()
        .record(NOW_MS, Some(b"a"), Some(b"1"), &[])
        .record(NOW_MS, None, Some(b"2"), &[])
        .build();
    for codec in [Compression::None, Compression::Zstd, Compression::Snappy] {
        let refused = orders.append(world::packed(&keyless, codec), options()).expect_err("no key");
        assert_eq!(refused.error_code(), ErrorCode::InvalidRecord, "{refused}");
    }
    let broken = world::packed_as(&keyless, Compression::Zstd, b"nonsense");
    let refused = orders.append(broken, options()).expect_err("not zstd");
    assert!(
        matches!(refused, AppendError::Invalid { .. }) && refused.error_code() == ErrorCode::InvalidRecord
    );
    orders.set_config(LogConfig { cleanup: CleanupPolicy::DELETE, ..compacted() });
    append_durably(&orders, keyless);
}

#[test]
fn records_are_stored_in_the_codec_that_the_topic_wants() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (index, wanted) in codecs.into_iter().enumerate() {
        let config = LogConfig { compression: Some(wanted), ..LogConfig::default() };
        let orders = create(&data_dir, index as i32, config);
        for produced in codecs {
            append_durably(&orders, world::packed(&batch("b", 20, 50), produced));
        }
        let stored = batches(&orders);
        assert!(stored.iter().all(|batch| batch.header.compression() == Ok(wanted)), "{wanted:?}");
        let records: Vec<_> = stored.iter().flat_map(world::records).collect();
        assert_eq!(records.len(), 100);
        assert!(records.iter().enumerate().all(|(offset, record)| record.offset == offset as i64));
        // Too large only once it is unpacked, as in Kafka.
        orders.set_config(LogConfig { max_message_bytes: 2000, ..config });
        let large = world::packed(&batch("b", 1, 5000), Compression::Zstd);
        assert_eq!(orders.append(large, options()).is_err(), wanted == Compression::None, "{wanted:?}");
    }
}

#[test]
fn random_histories_look_the_same_before_and_after() {
    let mut shrunk = 0;
    for seed in seeds(120) {
        let mut random = Random::new(seed);
        let mut world = World::new(seed, &mut random);
        for _ in 0..6 {
            (0..25).for_each(|_| world.step(&mut random));
            let before = view(&world.orders());
            let end_offset = world.orders().log_end_offset();
            let size_bytes = world.orders().size_bytes();
            world.clean(&mut random);
            assert_eq!(view(&world.orders()), before, "seed {seed}");
            assert_eq!(world.orders().log_end_offset(), end_offset, "seed {seed}");
            shrunk += u64::from(world.orders().size_bytes() < size_bytes);
            if random.chance(2) {
                world.restart(if random.chance(2) { Loss::Nothing } else { Loss::Unsynced });
                assert_eq!(view(&world.orders()), before, "seed {seed}: after a restart");
            }
            world.check_sequences(&mut random);
        }
    }
    assert!(shrunk > 100, "{shrunk} cleanings removed something");
}

/// A history with cleanings, cut off before some operation; what was there before the last cleaning.
fn cut_off(seed: u64) -> Option<(Captured, HashMap<u64, View>)> {
    let mut random = Random::new(seed);
    let mut world = World::new(seed, &mut random);
    // Segments that were cleaned before are small, so that several become one.
    for _ in 0..2 {
        (0..30).for_each(|_| world.step(&mut random));
        world.clean(&mut random);
    }
    (0..20).for_each(|_| world.step(&mut random));
    let mut views = HashMap::new();
    views.insert(0, view(&world.orders()));
    let note = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let at = world.disk.operations_count() + random.below(120) as u64;
    world.disk.capture_at(at, Loss::Random(seed), note);
    world.clean(&mut random);
    // Everything was durable before, so the view is the same whenever the power fails.
    world.disk.captured().map(|captured| (captured, views))
}

fn is_same_after(seed: u64, captured: &Captured, views: &HashMap<u64, View>) -> bool {
    let data_dir = open_sim(&captured.disk, 1 << 20);
    let orders = log(&data_dir, 0);
    orders.set_config(compacted());
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| view(&orders)));
    if found.ok().as_ref() != Some(&views[&0]) {
        return false;
    }
    // And the log goes on: it can be appended to, cleaned and opened once more.
    let next = orders.log_end_offset();
    assert_eq!(append_durably(&orders, keyed("next", Some("x"))), next, "seed {seed}");
    data_dir.keep(NOW_MS, Chores::ALL);
    let expected = view(&orders);
    drop((data_dir, orders));
    view(&log(&open_sim(&captured.disk.crash(Loss::Unsynced), 1 << 20), 0)) == expected
}

#[test]
fn power_cuts_while_cleaning_lose_no_key_and_bring_none_back() {
    let mut crashed = 0;
    for seed in seeds(300) {
        let Some((captured, views)) = cut_off(seed) else { continue };
        assert!(is_same_after(seed, &captured, &views), "seed {seed}: the keys are not what they were");
        crashed += 1;
    }
    assert!(crashed > 150 || seeds(1).start() != &1, "{crashed} power cuts");
    println!("{crashed} power cuts while cleaning");
}

#[test]
fn without_the_swap_files_the_same_test_sees_losses() {
    let harmed = |seed| {
        let (captured, views) = cut_off(seed)?;
        let folder = Path::new(DATA).join("orders-0");
        let swaps = captured.disk.files(&folder);
        for swap in swaps.iter().filter(|path| path.to_string_lossy().ends_with(".swap")) {
            captured.disk.remove_file(swap).expect("remove");
        }
        let check = std::panic::AssertUnwindSafe(|| is_same_after(seed, &captured, &views));
        let opened = std::panic::catch_unwind(check);
        Some(!opened.unwrap_or(false))
    };
    // Which of them are harmed depends on the threads, too; the first one ends it.
    assert!((1..=20_000).filter_map(harmed).any(|harmed| harmed), "the other test proves nothing");
}

#[test]
fn a_damaged_batch_stops_the_cleaner_and_is_not_written_again() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 400, ..compacted() });
    for round in 0..20 {
        append_durably(&orders, keyed("a", Some(&format!("{round}"))));
    }
    data_dir.checkpoint().expect("checkpoint");
    let file = Path::new(DATA).join("orders-0/00000000000000000000.log");
    disk.corrupt(&file, |bytes| *bytes.last_mut().expect("bytes") ^= 1).expect("corrupt");
    let before = orders.size_bytes();
    assert_eq!(data_dir.keep(NOW_MS, cleaning()).cleaned_passes, 0);
    assert_eq!((orders.size_bytes(), data_dir.keep(NOW_MS, cleaning()).cleaned_passes), (before, 0));
    append(&orders, keyed("a", Some("x"))).commit.wait_blocking().expect("the log goes on");
}

#[test]
fn a_compacted_log_is_read_whole_when_its_checkpoints_are_gone() {
    for seed in seeds(20) {
        let mut random = Random::new(seed);
        let mut world = World::new(seed, &mut random);
        (0..60).for_each(|_| world.step(&mut random));
        world.clean(&mut random);
        let expected = view(&world.orders());
        let disk = world.disk.crash(Loss::Nothing);
        for name in ["recovery-point-offset-checkpoint", "replication-offset-checkpoint"] {
            let _ = disk.remove_file(&Path::new(DATA).join(name));
        }
        let data_dir = open_sim(&disk, 1 << 20);
        assert_eq!(view(&log(&data_dir, 0)), expected, "seed {seed}");
    }
}

#[test]
fn both_policies_work_together() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let cleanup = CleanupPolicy { delete: true, compact: true };
    let config = LogConfig { cleanup, segment_bytes: 400, retention_ms: 1000, ..compacted() };
    let orders = create(&data_dir, 0, config);
    for round in 0..12 {
        let bytes = BatchBuilder::new()
            .record(NOW_MS + round * 100, Some(b"a"), Some(format!("{round:0100}").as_bytes()), &[])
            .build();
        append_durably(&orders, bytes);
    }
    data_dir.checkpoint().expect("checkpoint");
    data_dir.keep(NOW_MS, cleaning());
    let start = orders.log_start_offset();
    assert_eq!(start, 0, "cleaning moves no start");
    data_dir.keep(NOW_MS + 1550, Chores::ALL);
    assert!(orders.log_start_offset() > 0);
    assert!(data_dir.delete_records(&[(partition(0), None)], NOW_MS).remove(0).is_ok());
    assert!(tags(&orders, UpTo::HighWatermark).is_empty());
    let coordinator = tidings_log::AppendOptions { origin: Origin::Coordinator, ..options() };
    orders.append(keyed("a", None), coordinator).expect("append").commit.wait_blocking().expect("commit");
}
