//! `tidings log dump`: the batches of a segment, as Kafka's dump tool prints them.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tidings_log::RealDisk;
use tidings_log::batch::{Batch, BatchHeader, Compression, Record, TimestampType};
use tidings_log::offline::{SegmentItem, read_segment};

use crate::args::LogDumpArgs;
use crate::output::print;

/// Runs the command; damage is printed like everything else. A file with nothing else in it is an error: it may be no segment.
pub fn run(args: &LogDumpArgs) -> anyhow::Result<()> {
    let (mut has_batches, mut has_damage) = (false, false);
    let print_item = |item| match item {
        SegmentItem::Batch { position, batch } => {
            has_batches = true;
            print_batch(args, position, &batch)
        }
        SegmentItem::Damage { position, bytes, what } => {
            has_damage = true;
            print_damage(args, position, bytes, &what)
        }
    };
    let file = args.file.display();
    read_segment(&RealDisk, &args.file, print_item).with_context(|| format!("dump {file}"))?;
    if has_damage && !has_batches {
        bail!("{file} has no valid record batch: expected a segment's .log file, or a .cut file");
    }
    Ok(())
}

fn print_damage(args: &LogDumpArgs, position: u64, bytes: u64, what: &str) -> anyhow::Result<()> {
    if args.json {
        return print_line(&json!({ "damage": what, "position": position, "bytes": bytes }));
    }
    print(&format!("DAMAGE position: {position} size: {bytes} what: {what}\n"))
}

fn print_batch(args: &LogDumpArgs, position: u64, batch: &Batch) -> anyhow::Result<()> {
    let header = &batch.header;
    if args.json {
        print_line(&batch_json(position, header))?
    } else {
        print(&batch_text(position, header))?
    }
    if !args.records {
        return Ok(());
    }
    let Some(records) = batch.records() else {
        let codec = codec(header);
        return if args.json { Ok(()) } else { print(&format!("| records are compressed: {codec}\n")) };
    };
    for record in records {
        let record = record?;
        if args.json { print_line(&record_json(&record))? } else { print(&record_text(&record))? }
    }
    Ok(())
}

fn print_line(value: &Value) -> anyhow::Result<()> {
    print(&format!("{value}\n"))
}

fn codec(header: &BatchHeader) -> String {
    match header.compression() {
        Ok(Compression::None) => "none".to_owned(),
        Ok(Compression::Gzip) => "gzip".to_owned(),
        Ok(Compression::Snappy) => "snappy".to_owned(),
        Ok(Compression::Lz4) => "lz4".to_owned(),
        Ok(Compression::Zstd) => "zstd".to_owned(),
        Err(unknown) => format!("unknown ({unknown})"),
    }
}

fn timestamp_name(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// The fields and their order are those of Kafka's `DumpLogSegments`.
fn batch_text(position: u64, header: &BatchHeader) -> String {
    format!(
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} \
         partitionLeaderEpoch: {} isTransactional: {} isControl: {} position: {position} {}: {} size: {} magic: {} \
         compresscodec: {} crc: {} isvalid: true\n",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.leader_epoch,
        header.is_transactional(),
        header.is_control(),
        timestamp_name(header),
        header.max_timestamp,
        header.size_bytes(),
        header.magic,
        codec(header),
        header.crc,
    )
}

fn batch_json(position: u64, header: &BatchHeader) -> Value {
    json!({
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "count": header.record_count,
        "base_sequence": header.base_sequence,
        "last_sequence": header.last_sequence(),
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "leader_epoch": header.leader_epoch,
        "transactional": header.is_transactional(),
        "control": header.is_control(),
        "position": position,
        "timestamp_type": timestamp_name(header),
        "max_timestamp": header.max_timestamp,
        "bytes": header.size_bytes(),
        "compression": codec(header),
        "crc": header.crc,
    })
}

fn record_text(record: &Record) -> String {
    let text = |bytes: Option<&[u8]>| bytes.map_or("null".into(), lossy);
    let headers: Vec<String> =
        record.headers.iter().map(|(name, value)| format!("{}: {}", lossy(name), text(value))).collect();
    format!(
        "| offset: {} timestamp: {} key: {} value: {} headers: [{}]\n",
        record.offset,
        record.timestamp_ms,
        text(record.key.as_deref()),
        text(record.value.as_deref()),
        headers.join(", "),
    )
}

fn record_json(record: &Record) -> Value {
    let text = |bytes: Option<&[u8]>| bytes.map(lossy);
    let headers: Vec<Value> =
        record.headers.iter().map(|(name, value)| json!([lossy(name), text(value)])).collect();
    json!({
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": text(record.key.as_deref()),
        "value": text(record.value.as_deref()),
        "headers": headers,
    })
}

/// Bytes need not be text; what is none is shown as such.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
