//! `tidings log check`: a table of all logs, then every damage with the choice it leaves, and every folder that a topic misses.

use serde_json::{Value, json};
use tidings_broker::{BadFolder, OpenTopicsError, bad_folders};
use tidings_log::offline::{Access, Damage, OfflineDataDir, PartitionCheck, SideFault};

use tidings_model::TopicPartition;

use super::{LogCommandError, check_all, chosen, open, repair_command};
use crate::args::LogCheckArgs;
use crate::output::{print, print_json, print_table, table, thousands};

/// Runs the command; an error if data is lost.
pub fn run(args: &LogCheckArgs) -> anyhow::Result<()> {
    let access = if args.read_only { Access::ReadOnly } else { Access::Locked };
    let dir = open(&args.data_dir, access)?;
    let (bad, unknown) = match bad_folders(&dir) {
        Ok(bad) => (bad, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let is_asked =
        |bad: &BadFolder| args.partitions.is_empty() || args.partitions.contains(&bad.topic_partition);
    let bad: Vec<BadFolder> = bad.into_iter().filter(is_asked).collect();
    let checks = check_all(&dir, &with_folder(&dir, &args.partitions, &bad)?)?;
    if args.json {
        print_json(&all_json(&dir, &checks, &bad, unknown.as_ref()))?;
    } else {
        print_checks(&checks, &bad)?;
        print(&findings(&dir, &checks, &bad, unknown.as_ref()))?;
    }
    outcome(&dir, &checks, &bad, unknown)
}

/// The partitions asked for, without those that have no folder to check.
fn with_folder(
    dir: &OfflineDataDir,
    named: &[TopicPartition],
    bad: &[BadFolder],
) -> anyhow::Result<Vec<TopicPartition>> {
    let is_missing =
        |named: &TopicPartition| bad.iter().any(|bad| bad.is_missing() && bad.topic_partition == *named);
    let there: Vec<_> = named.iter().filter(|named| !is_missing(named)).cloned().collect();
    // None named means all.
    if there.is_empty() && !named.is_empty() { Ok(there) } else { chosen(dir, &there) }
}

fn outcome(
    dir: &OfflineDataDir,
    checks: &[PartitionCheck],
    bad: &[BadFolder],
    unknown: Option<OpenTopicsError>,
) -> anyhow::Result<()> {
    let count = bad.len() + checks.iter().map(|check| check.damages.len()).sum::<usize>();
    let damaged = checks.iter().find(|check| !check.is_whole());
    let choice = match (damaged, bad.first()) {
        (Some(first), _) => choice(dir, first, &first.damages[0]),
        (None, Some(bad)) => bad.why.to_string(),
        (None, None) => return unknown.map_or(Ok(()), |error| Err(LogCommandError::Topics(error).into())),
    };
    Err(LogCommandError::Damaged { count, choice }.into())
}

fn print_checks(checks: &[PartitionCheck], bad: &[BadFolder]) -> anyhow::Result<()> {
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
    for bad in bad.iter().filter(|bad| bad.is_missing()) {
        let mut row = vec![bad.topic_partition.to_string()];
        row.resize(6, "-".to_owned());
        row.push("MISSING".to_owned());
        rows.add_row(row);
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

fn findings(
    dir: &OfflineDataDir,
    checks: &[PartitionCheck],
    bad: &[BadFolder],
    unknown: Option<&OpenTopicsError>,
) -> String {
    let mut text = String::new();
    bad.iter().for_each(|bad| text.push_str(&format!("\n{}\n", bad.why)));
    if let Some(error) = unknown {
        text.push_str(&format!("\nwhich topics there should be can't be told: {error}\n"));
    }
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

fn all_json(
    dir: &OfflineDataDir,
    checks: &[PartitionCheck],
    bad: &[BadFolder],
    unknown: Option<&OpenTopicsError>,
) -> Value {
    let folder = |bad: &BadFolder| json!({ "topic_partition": bad.topic_partition.to_string(), "what": bad.why.to_string() });
    json!({
        "partitions": checks.iter().map(partition_json).collect::<Vec<_>>(),
        "bad_folders": bad.iter().map(folder).collect::<Vec<_>>(),
        "topics_unknown": unknown.map(ToString::to_string),
        "rebuilt_files": dir.faults().iter().map(fault_json).collect::<Vec<_>>(),
    })
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
