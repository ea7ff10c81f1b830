//! Every figure the benchmark can show, its unit, and what Tidings is meant to reach.
//!
//! Goals that are absolute were set on a quiet machine of two cores; those that are ratios compare medians of the same
//! run, and are the ones that count on another machine.

/// One kind of measurement.
pub struct Figure {
    /// Its name in the JSON results.
    pub id: &'static str,
    /// What a person reads.
    pub label: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// What Tidings is meant to reach.
    pub goals: &'static [Goal],
}

/// What a median is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// An absolute value: at most for costs, at least for rates.
    Value(f64),
    /// A factor of another peer's median of the same figure: at most for costs, at least for rates.
    TimesPeer(f64, &'static str),
    /// A factor of the median of a physical limit, given by its figure.
    TimesLimit(f64, &'static Figure),
}

use Goal::{TimesLimit, TimesPeer, Value};

const fn rate(id: &'static str, label: &'static str, unit: &'static str, goals: &'static [Goal]) -> Figure {
    Figure { id, label, unit, more_is_better: true, goals }
}

const fn cost(id: &'static str, label: &'static str, unit: &'static str, goals: &'static [Goal]) -> Figure {
    Figure { id, label, unit, more_is_better: false, goals }
}

// Physical limits.
pub static LOOPBACK: Figure = rate("limit_loopback", "loopback, bytes to a sink", "MB/s", &[]);
pub static LOOPBACK_SENDFILE: Figure =
    rate("limit_sendfile", "loopback, page cache by sendfile", "MB/s", &[]);
pub static SENDFILE_CPU: Figure = cost("limit_sendfile_cpu", "CPU of the sender by sendfile", "s/GB", &[]);
pub static PAGE_CACHE: Figure = rate("limit_page_cache", "write to the page cache", "MB/s", &[]);
pub static RECEIVE_CPU: Figure =
    cost("limit_receive_cpu", "CPU to receive, check CRC and write to the page cache", "s/GB", &[]);
pub static DISK: Figure = rate("limit_disk", "sequential write, fdatasync each 4 MB", "MB/s", &[]);
pub static SYNC_P50: Figure = cost("limit_sync_p50", "append 1 KiB and fdatasync, p50", "ms", &[]);
pub static SYNC_P99: Figure = cost("limit_sync_p99", "append 1 KiB and fdatasync, p99", "ms", &[]);
pub static SYNC_CPU: Figure = cost("limit_sync_cpu", "append 1 KiB, fdatasync and a pause, CPU", "us", &[]);

// Cold: each round starts a server.
pub static FIRST_ACK: Figure = cost("first_ack", "start to first acknowledgement", "s", &[Value(0.05)]);
pub static IDLE_MEMORY: Figure = cost("idle_memory", "idle memory", "MB", &[Value(20.0)]);
pub static PEAK_MEMORY: Figure =
    cost("peak_memory", "peak memory, produce and consume", "MB", &[Value(48.0)]);

// Warm: rounds share a server.
pub static PRODUCE_1K: Figure = rate(
    "produce_1k",
    "produce 1 KiB",
    "MB/s",
    &[TimesPeer(1.3, "kafka"), TimesPeer(0.95, "krabka"), TimesLimit(0.8, &DISK)],
);
pub static PRODUCE_1K_CPU: Figure =
    cost("produce_1k_cpu", "broker CPU, produce 1 KiB", "s/GB", &[Value(0.5)]);
pub static PRODUCE_100B: Figure =
    rate("produce_100b", "produce 100 B", "k records/s", &[TimesPeer(1.0, "kafka")]);
pub static PRODUCE_100B_CPU: Figure = cost("produce_100b_cpu", "broker CPU, produce 100 B", "s/GB", &[]);
pub static CONSUME_1K: Figure =
    rate("consume_1k", "consume 1 KiB after the first record", "MB/s", &[TimesPeer(1.3, "kafka")]);
pub static CONSUME_1K_CPU: Figure =
    cost("consume_1k_cpu", "broker CPU, consume 1 KiB", "s/GB", &[Value(0.2)]);
pub static FAN_OUT: Figure = rate("fan_out", "live fan-out to 3 groups, delivered", "MB/s", &[]);
pub static FAN_OUT_CPU: Figure = cost("fan_out_cpu", "broker CPU, fan-out, per GB delivered", "s/GB", &[]);
pub static LATENCY_200_P50: Figure = cost("latency_200_p50", "end to end at 200/s, p50", "ms", &[]);
pub static LATENCY_200_P99: Figure = cost("latency_200_p99", "end to end at 200/s, p99", "ms", &[]);
pub static LATENCY_2000_P50: Figure =
    cost("latency_2000_p50", "end to end at 2,000/s, p50", "ms", &[Value(0.6)]);
pub static LATENCY_2000_P99: Figure =
    cost("latency_2000_p99", "end to end at 2,000/s, p99", "ms", &[Value(1.2)]);
pub static LATENCY_2000_P999: Figure =
    cost("latency_2000_p999", "end to end at 2,000/s, p99.9", "ms", &[Value(3.0)]);
pub static REQUEST_CPU: Figure =
    cost("request_cpu", "broker CPU for 34,000 requests at 2,000/s", "s", &[Value(2.1)]);
pub static REQUEST_SWITCHES: Figure =
    cost("request_switches", "context switches per request at 2,000/s", "", &[]);
pub static LATENCY_8000_P50: Figure = cost("latency_8000_p50", "end to end at 8,000/s, p50", "ms", &[]);
pub static LATENCY_8000_P99: Figure = cost("latency_8000_p99", "end to end at 8,000/s, p99", "ms", &[]);
pub static PARTITIONS_1000: Figure =
    rate("partitions_1000", "produce 1 KiB over 1,000 partitions", "MB/s", &[]);
pub static PARTITIONS_FACTOR: Figure =
    cost("partitions_factor", "time over 1,000 partitions against 3", "x", &[Value(2.0)]);
pub static CONNECTION_MEMORY: Figure = cost("connection_memory", "memory per idle connection", "KB", &[]);
pub static CONNECTIONS_RATE: Figure =
    rate("connections_rate", "one-record requests beside the idle connections", "requests/s", &[]);
pub static CONNECTIONS_P99: Figure = cost("connections_p99", "the same, acknowledgement p99", "ms", &[]);
pub static CONNECTIONS_CPU: Figure = cost("connections_cpu", "the same, broker CPU per request", "us", &[]);

// The whole platform.
pub static READY: Figure = cost("ready", "platform: start to ready", "ms", &[Value(150.0)]);
pub static FIRST_ACK_UP: Figure =
    cost("first_ack_up", "platform: start to first acknowledgement at the Kafka port", "ms", &[Value(50.0)]);
pub static FIRST_ACTIVITY: Figure =
    cost("first_activity", "platform: ready to first activity acknowledged", "ms", &[Value(150.0)]);
pub static PLATFORM_IDLE: Figure = cost("platform_idle", "platform: idle memory", "MB", &[Value(40.0)]);
pub static ACTIVITIES: Figure =
    rate("activities", "activities stored, batches of 100", "events/s", &[Value(20_000.0)]);
pub static ACTIVITY_P50: Figure =
    cost("activity_p50", "activities: acknowledgement of a batch, p50", "ms", &[]);
pub static ACTIVITY_P99: Figure =
    cost("activity_p99", "activities: acknowledgement of a batch, p99", "ms", &[]);
pub static ACTIVITY_CPU: Figure =
    cost("activity_cpu", "activities: CPU of the platform per event", "us", &[]);
pub static ACTIVITY_PEAK: Figure = cost("activity_peak", "activities: peak memory", "MB", &[Value(128.0)]);

pub static SINGLE_ACTIVITIES: Figure =
    rate("single_activities", "single activities posted, 64 connections", "events/s", &[Value(5_000.0)]);
pub static SINGLE_ACTIVITY_P99: Figure =
    cost("single_activity_p99", "the same, acknowledgement p99", "ms", &[]);
pub static SINGLE_ACTIVITY_CPU: Figure =
    cost("single_activity_cpu", "the same, CPU of the platform per event", "us", &[]);
pub static PACED_ACTIVITY_P50: Figure =
    cost("paced_activity_p50", "single activities at 1,000/s, p50", "ms", &[]);
pub static PACED_ACTIVITY_P99: Figure =
    cost("paced_activity_p99", "single activities at 1,000/s, p99", "ms", &[Value(10.0)]);
pub static TRICKLE_CPU: Figure =
    cost("trickle_cpu", "3,000 activities a minute: CPU of the platform", "% of a core", &[Value(3.0)]);
pub static TRICKLE_CPU_AWAKE: Figure =
    cost("trickle_cpu_awake", "the same on cores that are kept awake", "% of a core", &[Value(3.0)]);
pub static TRICKLE_PEAK: Figure =
    cost("trickle_peak", "3,000 activities a minute: peak memory", "MB", &[Value(48.0)]);
pub static PRODUCED_CPU: Figure = cost(
    "produced_cpu",
    "3,000 activities a minute at the Kafka port: CPU of the platform",
    "% of a core",
    &[Value(3.0)],
);
pub static PRODUCED_PEAK: Figure =
    cost("produced_peak", "3,000 activities a minute at the Kafka port: peak memory", "MB", &[Value(48.0)]);
pub static STORED_QUERY_P50: Figure =
    cost("stored_query_p50", "a page of a tenant, of all that is stored, p50", "ms", &[]);
pub static STORED_QUERY_P99: Figure =
    cost("stored_query_p99", "a page of a tenant, of all that is stored, p99", "ms", &[Value(50.0)]);
pub static STORED_BYTES: Figure = cost("stored_bytes", "a stored activity on the disk", "bytes", &[]);

impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}
