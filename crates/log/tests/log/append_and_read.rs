//! The plain path on a real disk.

use tidings_log::{LogConfig, UpTo};

use crate::support::{append, append_durably, batch, create, log, open, tags};

#[test]
fn what_is_appended_is_read_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, report) = open(folder.path());
    assert!(!report.clean && report.logs_count == 0);
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 4096, ..LogConfig::default() });
    let mut expected = Vec::new();
    for index in 0..100 {
        let tag = format!("b{index}");
        let base_offset = append_durably(&orders, batch(&tag, 3, 100));
        assert_eq!(base_offset, index * 3);
        expected.extend((0..3).map(|record| format!("{tag}/{record}/")));
    }
    assert!(orders.segment_count() > 5);
    assert_eq!(orders.high_watermark(), 300);
    assert_eq!(tags(&orders, UpTo::HighWatermark), expected);
    data_dir.close().expect("close");
    drop((orders, data_dir));

    let (data_dir, report) = open(folder.path());
    assert!(report.clean);
    assert_eq!(report.checked_bytes, 0);
    let orders = log(&data_dir, 0);
    assert_eq!(orders.log_end_offset(), 300);
    assert_eq!(tags(&orders, UpTo::HighWatermark), expected);
    drop(append(&orders, batch("late", 1, 10)));
    drop((orders, data_dir));

    let (data_dir, report) = open(folder.path());
    assert!(!report.clean);
    expected.push("late/0/".to_owned());
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), expected);
}
