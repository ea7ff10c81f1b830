//! `tidings log check`: a table of all logs, then every damage with the choice it leaves.

use serde_json::{Value, json};
use tidings_log::offline::{Access, Damage, OfflineDataDir, PartitionCheck, SideFault};

use super::{LogCommandError, check_all, chosen, open, repair_command};
use crate::args::LogCheckArgs;
use crate::output::{print, print_json, print_table, table, thousands};

/// Runs the command; an error if data is lost.
pub fn run(args: &LogCheckArgs) -> anyhow::Result<()> {
    let access = if args.read_only { Access::ReadOnly } else { Access::Locked };
    let dir = open(&args.data_dir.data_dir, access)?;
    let checks = check_all(&dir, &chosen(&dir, &args.partitions)?)?;
    if args.json {
        let partitions: Vec<Value> = checks.iter().map(partition_json).collect();
        let faults: Vec<Value> = dir.faults().iter().map(fault_json).collect();
        print_json(&json!({ "partitions": partitions, "rebuilt_files": faults }))?;
    } else {
        print_checks(&checks)?;
        print(&findings(&dir, &checks))?;
    }
    let count = checks.iter().map(|check| check.damages.len()).sum();
    let Some(first) = checks.iter().find(|check| !check.is_whole()) else { return Ok(()) };
    Err(LogCommandError::Damaged { count, repair: choice(&dir, first, &first.damages[0]) }.into())
}

fn print_checks(checks: &[PartitionCheck]) -> anyhow::Result<()> {
    let mut rows = table(["PARTITION", "SEGMENTS", "BYTES", "BATCHES", "RECORDS", "OFFSETS", "STATE"]);
    for check in checks {
        rows.add_row([
            check.topic_partition.to_string(),
            check.segments_count.to_string(),
            thousands(check.bytes),
            thousands(check.batches_count),
            thousands(check.records_count),
            format!("{}..{}", check.log_start_offset, check.log_end_offset),
            state(check),
        ]);
    }
    print_table(&rows)
}

fn state(check: &PartitionCheck) -> String {
    match (check.damages.len(), &check.torn_tail) {
        (0, None) => "whole".to_owned(),
        (0, Some(_)) => "whole, torn tail".to_owned(),
        (count, _) => format!("DAMAGED in {count} {}", if count == 1 { "place" } else { "places" }),
    }
}

fn findings(dir: &OfflineDataDir, checks: &[PartitionCheck]) -> String {
    let mut text = String::new();
    for check in checks {
        for damage in &check.damages {
            text.push_str(&format!("\n{}\n", damage_text(check, damage)));
            text.push_str(&format!("  choice: {}\n", choice(dir, check, damage)));
        }
        if let Some(torn) = &check.torn_tail {
            let (file, position, bytes) = (torn.file.display(), torn.position, thousands(torn.bytes));
            let later = match torn.later_segments_count {
                0 => String::new(),
                count => format!(", and {count} later segments"),
            };
            text.push_str(&format!(
                "\n{}: {file}: {bytes} bytes from byte {position} on{later} look like a write that a crash has torn; the next start cuts them\n",
                check.topic_partition
            ));
        }
    }
    let faults = || dir.faults().iter().chain(checks.iter().flat_map(|check| &check.side_faults));
    if faults().next().is_some() {
        text.push_str(
            "\nBeside the logs; what is needed is made again from them by the next start, or later:\n",
        );
    }
    for fault in faults() {
        text.push_str(&format!("  {}: {}\n", fault.file.display(), fault.what));
    }
    text
}

fn damage_text(check: &PartitionCheck, damage: &Damage) -> String {
    let Damage { file, position, bytes, first_offset, next_offset, .. } = damage;
    format!(
        "{}: {}, byte {position}: {}\n  lost: offsets {first_offset} to {}, {} bytes\n  behind it: {} valid batches, {} bytes",
        check.topic_partition,
        file.display(),
        damage.what,
        next_offset - 1,
        thousands(*bytes),
        thousands(damage.valid_batches_behind),
        thousands(damage.valid_bytes_behind),
    )
}

fn choice(dir: &OfflineDataDir, check: &PartitionCheck, damage: &Damage) -> String {
    let repair = repair_command(dir, &check.topic_partition);
    if damage.is_before_log() {
        return format!(
            "restore the folder from a copy; or `{repair} --drop-damaged` writes down that the log begins at offset {}, as it \
             does where retention removed what was before on a full disk",
            damage.next_offset
        );
    }
    format!(
        "restore the folder from a copy; or `{repair} --drop-damaged` keeps what is valid behind it; or \
         `{repair} --truncate-at {}` ends the log there",
        check.first_damaged_offset().unwrap_or(damage.first_offset)
    )
}

fn partition_json(check: &PartitionCheck) -> Value {
    let torn = check.torn_tail.as_ref().map(|torn| {
        json!({
            "file": torn.file, "position": torn.position, "bytes": torn.bytes,
            "later_segments": torn.later_segments_count,
        })
    });
    json!({
        "topic_partition": check.topic_partition.to_string(),
        "whole": check.is_whole(),
        "log_start_offset": check.log_start_offset,
        "log_end_offset": check.log_end_offset,
        "recovery_point": check.recovery_point,
        "segments": check.segments_count,
        "bytes": check.bytes,
        "batches": check.batches_count,
        "records": check.records_count,
        "damages": check.damages.iter().map(damage_json).collect::<Vec<_>>(),
        "torn_tail": torn,
        "rebuilt_files": check.side_faults.iter().map(fault_json).collect::<Vec<_>>(),
    })
}

fn damage_json(damage: &Damage) -> Value {
    json!({
        "file": damage.file,
        "position": damage.position,
        "bytes": damage.bytes,
        "first_offset": damage.first_offset,
        "next_offset": damage.next_offset,
        "valid_batches_behind": damage.valid_batches_behind,
        "valid_bytes_behind": damage.valid_bytes_behind,
        "what": damage.what,
    })
}

fn fault_json(fault: &SideFault) -> Value {
    json!({ "file": fault.file, "what": fault.what })
}
