//! Disks that are almost full, full, and damaged: what is refused, what goes on, and what an operator does about it.
//!
//! The volumes are tmpfs of a few megabytes. Mounting needs root; without it these tests fail, and say so.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use tempfile::TempDir;
use tidings_tests::{Kafka, LONG, Launch, Tidings, until};

use crate::support::until_ready;

const MIB: u64 = 1 << 20;

/// A tmpfs; unmounted when dropped.
pub struct Volume {
    folder: TempDir,
}

impl Volume {
    pub fn mount(megabytes: u64) -> Volume {
        assert!(
            rustix::process::geteuid().is_root(),
            "mounting a small volume needs root: run this test as root"
        );
        let folder = tempfile::tempdir().expect("make a directory");
        let options = format!("size={megabytes}m,mode=755");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(mounted.expect("run mount").success(), "mounting a tmpfs failed");
        Volume { folder }
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Leaves so many bytes free.
    pub fn fill_up_to(&self, free_bytes: u64) {
        let found = rustix::fs::statvfs(self.folder.path()).expect("ask for the free space");
        let size = (found.f_bavail * found.f_frsize).saturating_sub(free_bytes);
        let file = File::create(self.filler()).expect("create a file");
        file.write_all_at(&vec![0; usize::try_from(size).expect("a small volume")], 0)
            .expect("fill the volume");
    }

    /// What takes up its room.
    pub fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

/// Keeps the values that were acknowledged, and the errors.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<(Vec<String>, Vec<KafkaError>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut deliveries = self.0.lock().expect("no panic in a callback");
        match result {
            Ok(message) => {
                let value = message.payload().expect("a value");
                deliveries.0.push(String::from_utf8_lossy(value).trim_end_matches('.').to_owned());
            }
            Err((error, _)) => deliveries.1.push(error.clone()),
        }
    }
}

fn producer(kafka: &Kafka, retries: &str) -> (ThreadedProducer<Deliveries>, Deliveries) {
    let deliveries = Deliveries::default();
    let mut config: ClientConfig = kafka.config();
    config.set("retries", retries).set("linger.ms", "0");
    (config.create_with_context(deliveries.clone()).expect("make a producer"), deliveries)
}

fn send(producer: &ThreadedProducer<Deliveries>, topic: &str, value: &str, bytes: usize) {
    let value = format!("{value}{}", ".".repeat(bytes - value.len()));
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).payload(value.as_bytes()).partition(0);
    producer.send(record).map_err(|(error, _)| error).expect("queue a record");
    producer.flush(LONG).expect("have it answered");
}

fn acknowledged(deliveries: &Deliveries) -> Vec<String> {
    deliveries.0.lock().expect("no panic in a callback").0.clone()
}

fn values(kafka: &Kafka, topic: &str) -> Vec<String> {
    kafka.read_all(topic).iter().map(|record| record.value_text().trim_end_matches('.').to_owned()).collect()
}

#[test]
fn an_almost_full_disk_refuses_produces_only_and_resumes_by_itself() {
    let volume = Volume::mount(64);
    let start = || Launch::up(&volume.data_dir()).start();
    let tidings = start();
    let (kafka, http) = (tidings.kafka(), tidings.http());
    // What it says later is about the disk only.
    until_ready(&http);
    kafka.create_topic("orders", 1);
    let (sender, deliveries) = producer(&kafka, "0");
    for index in 0..5 {
        send(&sender, "orders", &index.to_string(), 100);
    }
    assert_eq!(acknowledged(&deliveries).len(), 5);
    assert_eq!(http.metric("tidings_broker_low_space"), Some(0.0));
    // The default is a twentieth of the volume: 3.2 MiB.
    volume.fill_up_to(2 * MIB);
    until("the broker has noticed", || (http.get("/readyz").status == 503).then_some(()));
    assert!(http.get("/readyz").text().contains("log.min.free.bytes"), "{}", http.get("/readyz").text());
    assert_eq!(http.metric("tidings_broker_low_space"), Some(1.0));
    // It is told a moment after it counts.
    until("it is told", || tidings.logged().contains("nothing is deleted to make room").then_some(()));
    send(&sender, "orders", "refused", 100);
    let refused = deliveries.0.lock().expect("no panic in a callback").1.pop().expect("refused");
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::KafkaStorageError), "{refused}");
    // Reads, and a new group's commits, go on.
    assert_eq!(values(&kafka, "orders"), ["0", "1", "2", "3", "4"]);
    let reader = kafka.reader("late");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("orders", 0, Offset::Offset(3)).expect("an offset");
    reader.commit(&offsets, CommitMode::Sync).expect("commit");
    assert_eq!(kafka.committed("late", "orders"), [3]);
    // A client that goes on trying gets its record in once there is space, without a restart.
    let (patient, later) = producer(&kafka, "2147483647");
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("orders").payload(&b"5"[..]).partition(0);
    patient.send(record).map_err(|(error, _)| error).expect("queue a record");
    fs::remove_file(volume.filler()).expect("make room");
    until("the record is in", || (acknowledged(&later) == ["5"]).then_some(()));
    until("it is ready again", || http.is_ready().then_some(()));
    tidings.kill_now();
    let tidings = start();
    assert_eq!(values(&tidings.kafka(), "orders"), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(tidings.kafka().committed("late", "orders"), [3]);
}

#[test]
fn a_full_disk_never_acknowledges_what_it_did_not_take() {
    let volume = Volume::mount(48);
    let start = || Launch::broker(&volume.data_dir()).arguments(["--set", "log.min.free.bytes=0"]).start();
    let tidings = start();
    let kafka = tidings.kafka();
    kafka.create_topic("orders", 1);
    let (sender, deliveries) = producer(&kafka, "0");
    volume.fill_up_to(MIB);
    for index in 0..40 {
        send(&sender, "orders", &format!("full-{index}"), 100_000);
    }
    let refused = deliveries.0.lock().expect("no panic in a callback").1.len();
    assert!(refused > 0, "the volume was not full");
    fs::remove_file(volume.filler()).expect("make room");
    send(&sender, "orders", "after", 100_000);
    let expected = acknowledged(&deliveries);
    assert_eq!(expected.len() + refused, 41);
    assert_eq!(expected.last().map(String::as_str), Some("after"), "space coming back is enough");
    assert_eq!(values(&kafka, "orders"), expected);
    tidings.kill_now();
    assert_eq!(values(&start().kafka(), "orders"), expected);
}

fn run_log(command: &[&str], data_dir: &Path) -> (i32, String, String) {
    let launch =
        Launch::command("log").arguments(command.iter().copied()).argument("--data-dir").argument(data_dir);
    let ended = launch.run(Duration::from_secs(60));
    (ended.status.code().unwrap_or(-1), ended.stdout, ended.stderr)
}

fn broker_with_batches(data_dir: &Path) -> Tidings {
    let tidings = Launch::broker(data_dir).start();
    let kafka = tidings.kafka();
    kafka.create_topic("orders", 1);
    let (sender, deliveries) = producer(&kafka, "5");
    for index in 0..10 {
        send(&sender, "orders", &index.to_string(), 500);
    }
    assert_eq!(acknowledged(&deliveries).len(), 10);
    tidings
}

/// A damaged log stops the start; its message names the commands; each of them leads to a broker that starts and to
/// clients that read what is left.
#[test]
fn a_damaged_log_is_checked_and_repaired_from_the_command_line() {
    for remedy in [&["--drop-damaged"][..], &["--truncate-at", "5"]] {
        let directory = tempfile::tempdir().expect("make a directory");
        let data_dir = directory.path().join("data");
        let tidings = broker_with_batches(&data_dir);
        let (code, _, stderr) = run_log(&["check"], &data_dir);
        assert_eq!(code, 1, "{stderr}");
        let holder = format!("is in use by another process (pid {})", tidings.pid());
        assert!(stderr.contains(&holder) && stderr.contains("--read-only"), "{stderr}");
        assert_eq!(run_log(&["check", "--read-only"], &data_dir).0, 0);
        tidings.kill_now();
        let segment = data_dir.join("orders-0/00000000000000000000.log");
        let size = fs::metadata(&segment).expect("a segment").len() / 10;
        File::options()
            .write(true)
            .open(&segment)
            .and_then(|file| file.write_all_at(b"damage", 5 * size + 100))
            .expect("hurt it");

        let ended = Launch::broker(&data_dir).run(Duration::from_secs(60));
        assert_eq!(ended.status.code(), Some(1));
        let commands = [
            format!("tidings log check --data-dir {} orders-0", data_dir.display()),
            format!("tidings log repair --data-dir {} orders-0 --drop-damaged", data_dir.display()),
            format!("tidings log repair --data-dir {} orders-0 --truncate-at 5", data_dir.display()),
        ];
        assert!(commands.iter().all(|command| ended.stderr.contains(command)), "{}", ended.stderr);

        let (code, stdout, _) = run_log(&["check", "--json"], &data_dir);
        assert_eq!(code, 1);
        let found: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        let partitions = found["partitions"].as_array().expect("a list");
        let orders =
            partitions.iter().find(|found| found["topic_partition"] == "orders-0").expect("orders-0");
        let damage = &orders["damages"][0];
        assert_eq!(
            (&damage["first_offset"], &damage["position"]),
            (&5.into(), &(5 * size).into()),
            "{stdout}"
        );
        assert_eq!(damage["valid_batches_behind"], 4);

        let repair = [&["repair", "orders-0"], remedy].concat();
        let (code, stdout, _) = run_log(&repair, &data_dir);
        assert!(code == 0 && stdout.contains("add --yes to do it"), "{stdout}");
        assert_eq!(run_log(&["check"], &data_dir).0, 1, "nothing was done yet");
        let (code, stdout, stderr) = run_log(&[&repair[..], &["--yes"]].concat(), &data_dir);
        assert!(code == 0 && stdout.contains(".cut"), "{stdout}{stderr}");
        assert_eq!(run_log(&["check"], &data_dir).0, 0);

        let tidings = Launch::broker(&data_dir).start();
        let (sender, deliveries) = producer(&tidings.kafka(), "5");
        send(&sender, "orders", "next", 500);
        assert_eq!(acknowledged(&deliveries), ["next"]);
        let (lost, next) = if remedy == ["--drop-damaged"] { (5..6, 10) } else { (5..10, 5) };
        let kept =
            (0..10).filter(|offset| !lost.contains(offset)).map(|offset: i64| (offset, offset.to_string()));
        let expected: Vec<(i64, String)> = kept.chain([(next, "next".to_owned())]).collect();
        assert_eq!(read_until(&tidings.kafka(), "orders", expected.len()), expected);
    }
}

/// Offsets and values of so many records, as a client steps over holes to them.
fn read_until(kafka: &Kafka, topic: &str, count: usize) -> Vec<(i64, String)> {
    let reader = kafka.reader("reader");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("assign a partition");
    reader.assign(&assignment).expect("assign a partition");
    let mut found = Vec::new();
    until("the records are read", || {
        if let Some(message) = reader.poll(Duration::from_millis(50)) {
            let message = message.expect("read a record");
            let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
            found.push((message.offset(), value.trim_end_matches('.').to_owned()));
        }
        (found.len() >= count).then_some(())
    });
    found
}
