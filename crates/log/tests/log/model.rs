//! Random histories against the simplest model there is: a list of records.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tidings_log::batch::Batches;
use tidings_log::testing::{Loss, SimDisk};
use tidings_log::{DataDir, DataDirOptions, LogConfig, UpTo};

use crate::support::{append_durably, batch, create, log, open_on};

#[derive(Debug, Clone)]
enum Step {
    Append { count: usize, len: usize },
    Read { from: usize, max_bytes: usize },
    Checkpoint,
    Close,
    Kill,
    PowerCut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (1usize..6, 0usize..600).prop_map(|(count, len)| Step::Append { count, len }),
        8 => (0usize..400, 0usize..5000).prop_map(|(from, max_bytes)| Step::Read { from, max_bytes }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    disk: SimDisk,
    data_dir: Arc<DataDir>,
    expected: Vec<String>,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new();
        let data_dir = Self::open(&disk);
        create(&data_dir, 0, Self::config());
        Self { disk, data_dir, expected: Vec::new() }
    }

    fn config() -> LogConfig {
        LogConfig { segment_bytes: 6000, index_interval_bytes: 200, ..LogConfig::default() }
    }

    fn open(disk: &SimDisk) -> Arc<DataDir> {
        let options = DataDirOptions { max_open_files: 1, ..DataDirOptions::default() };
        let (data_dir, report) = open_on(Arc::new(disk.clone()), Path::new("/data"), options);
        assert!(report.cuts.is_empty(), "everything was acknowledged");
        data_dir
    }

    fn restart(&mut self, loss: Loss) {
        self.disk = self.disk.crash(loss);
        self.data_dir = Self::open(&self.disk);
        log(&self.data_dir, 0).set_config(Self::config());
    }

    fn step(&mut self, step: &Step) {
        let orders = log(&self.data_dir, 0);
        match *step {
            Step::Append { count, len } => {
                let tag = format!("b{}", self.expected.len());
                let base_offset = append_durably(&orders, batch(&tag, count, len));
                assert_eq!(base_offset, self.expected.len() as i64);
                self.expected.extend((0..count).map(|index| format!("{tag}/{index}/")));
            }
            Step::Read { from, max_bytes } => self.read(from, max_bytes),
            Step::Checkpoint => self.data_dir.checkpoint().expect("checkpoint"),
            Step::Close => {
                self.data_dir.close().expect("close");
                self.restart(Loss::Unsynced);
            }
            Step::Kill => self.restart(Loss::Nothing),
            Step::PowerCut => self.restart(Loss::Unsynced),
        }
    }

    fn read(&self, from: usize, max_bytes: usize) {
        let orders = log(&self.data_dir, 0);
        let from = from % (self.expected.len() + 1);
        let fetched = orders.read(from as i64, max_bytes, UpTo::HighWatermark, true).expect("read");
        assert_eq!(fetched.high_watermark, self.expected.len() as i64);
        let bytes = fetched.slice.read().expect("read the slice");
        let batches: Vec<_> = Batches::new(bytes).map(|batch| batch.expect("whole")).collect();
        assert!(batches.len() <= 1 || fetched.slice.len <= max_bytes);
        assert_eq!(batches.is_empty(), from == self.expected.len());
        let mut next = None;
        for record in batches.iter().flat_map(|batch| batch.records().expect("plain")) {
            let record = record.expect("valid");
            assert!(next.is_none_or(|next| next == record.offset));
            next = Some(record.offset + 1);
            let value = String::from_utf8_lossy(&record.value.expect("a value")).into_owned();
            assert_eq!(value.trim_end_matches('.'), self.expected[record.offset as usize]);
        }
        assert!(next.is_none_or(|next| next > from as i64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_behaves_like_a_list(steps in steps()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        (0..5).for_each(|from| world.read(from * 37, 2000));
    }
}
