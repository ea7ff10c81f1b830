//! The export: everything that a question finds as one file, in constant memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tidings_postgres_server::PostgresServer;
use tidings_tests::{Http, Tidings, until, until_within};

use crate::site::Site;
use crate::support::{ACTIVITIES, activity, until_ready};

/// How long storing what a test needs may take.
const FILL_LIMIT: Duration = Duration::from_secs(600);
/// What the platform may grow by while it exports, whatever the size of the export.
const MAX_GROWTH_BYTES: u64 = 24 << 20;

/// Stores `count` activities of about a kilobyte, with a needle at every thousandth.
fn fill(http: &Http, count: usize) {
    for from in (0..count).step_by(2000) {
        let batch = (from..count.min(from + 2000)).map(|number| {
            let mut activity = activity("acme", &format!("n-{number:06}"), number);
            let needle = if number % 1000 == 0 { "needle " } else { "" };
            activity["metadata"]["note"] = json!(format!("{needle}{}", "x".repeat(600)));
            activity
        });
        http.post(ACTIVITIES, &Value::Array(batch.collect())).expect(200);
    }
    until_within(FILL_LIMIT, "all are stored", || {
        let metrics = http.metric("tidings_activity_stored_total")?;
        (metrics >= count as f64).then_some(())
    });
}

fn export_in_constant_memory(store: &str, count: usize) {
    let site = Site::new();
    let tidings = site.platform().environment("TIDINGS_ACTIVITY_STORE", store).start();
    let http = tidings.http();
    until_ready(&http);
    fill(&http, count);
    // The store's caches are warm, whatever comes.
    http.get(&format!("{ACTIVITIES}?tenant=acme&limit=500&q=needle")).expect(200);
    for (format, first_lines) in [("csv", 1), ("ndjson", 0)] {
        let before = tidings.resident_bytes();
        let begun = std::time::Instant::now();
        let (lines, bytes, peak) = read_export(&tidings, &format!("tenant=acme&format={format}"));
        let took = begun.elapsed();
        let grown = peak.saturating_sub(before);
        println!(
            "{count} activities as {format}: {} MiB in {took:?}, resident before {} MiB, grown by at most {} KiB",
            bytes >> 20,
            before >> 20,
            grown >> 10
        );
        assert_eq!(lines, count + first_lines);
        assert!(grown < MAX_GROWTH_BYTES, "{format}: grew by {} MiB", grown >> 20);
    }
    let (lines, ..) = read_export(&tidings, "tenant=acme&format=ndjson&q=needle");
    assert_eq!(lines, count.div_ceil(1000));
}

#[test]
fn an_export_needs_no_memory_in_sqlite() {
    export_in_constant_memory("sqlite", 20_000);
}

#[test]
fn an_export_needs_no_memory_in_postgres() {
    let server = PostgresServer::shared();
    export_in_constant_memory(&server.database(), 20_000);
}

/// On demand: `cargo test --test platform -- --ignored export --nocapture`.
#[test]
#[ignore = "the long form: fills the store with 200,000 activities"]
fn a_long_export_needs_no_memory() {
    export_in_constant_memory("sqlite", 200_000);
}

/// Lines and bytes of an export that ends as it should, and the platform's largest memory while it is read.
fn read_export(tidings: &Tidings, query: &str) -> (usize, usize, u64) {
    let mut stream = open(&tidings.http(), query);
    let (mut bytes, mut peak) = (0, 0);
    let mut buffer = vec![0; 256 << 10];
    let mut end = Vec::new();
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        bytes += read;
        end.extend_from_slice(&buffer[..read]);
        end.drain(..end.len().saturating_sub(5));
        peak = peak.max(tidings.resident_bytes());
    }
    assert_eq!(end, b"0\r\n\r\n", "the transfer is whole");
    // The same again, decoded as a whole: the client's memory, not the platform's.
    let whole = tidings.http().get(&format!("{ACTIVITIES}/export?{query}"));
    (whole.text().lines().count(), bytes, peak)
}

fn open(http: &Http, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(http.address()).unwrap();
    let head = format!(
        "GET {ACTIVITIES}/export?{query} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        http.address()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Whoever cannot read to the end sees it, and the platform goes on.
#[test]
fn an_export_of_a_killed_platform_is_not_whole_and_a_reader_who_goes_costs_nothing() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    fill(&http, 12_000);
    // More than may be under way at once, each left after its first bytes.
    for _ in 0..12 {
        let mut first = [0; 100];
        let left = until("an export is let in", || {
            let mut stream = open(&http, "tenant=acme&format=csv");
            stream.read_exact(&mut first).unwrap();
            first.starts_with(b"HTTP/1.1 200").then_some(stream)
        });
        drop(left);
    }
    let mut stream = open(&http, "tenant=acme&format=csv");
    let mut bytes = vec![0; 1000];
    until("an export is let in", || {
        stream.read_exact(&mut bytes).unwrap();
        if !bytes.starts_with(b"HTTP/1.1 200") {
            stream = open(&http, "tenant=acme&format=csv");
            return None;
        }
        Some(())
    });
    tidings.kill_now();
    let _ = stream.read_to_end(&mut bytes);
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "what was cut does not look whole");
}
