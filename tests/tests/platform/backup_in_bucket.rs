//! Backups in an S3 bucket: what is not whole is told, and never taken for a backup.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tempfile::TempDir;
use tidings_tests::{LONG, Launch, S3_SECRET, S3Server, Tidings, until};

use crate::backup::{backup, backup_command, fails, path, succeeds};
use crate::support::{ACTIVITIES, activity, stored_ids, until_stored};

/// Records in the topic `large`, whose one segment is uploaded in parts.
const LARGE_RECORDS: usize = 20;
const LARGE_RECORD_BYTES: usize = 1_000_000;
const LARGE_FILE: &str = "data/large-0/00000000000000000000.log";

/// A platform with activities and a long segment.
struct Scene {
    tidings: Tidings,
    s3: Arc<S3Server>,
    /// The bucket, and the backup in it.
    bucket: String,
    address: PathBuf,
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tidings = Launch::up(&directory.path().join("data")).start();
        let batch = (0..500).map(|number| activity("acme", &format!("{number}"), number)).collect();
        tidings.http().post(ACTIVITIES, &Value::Array(batch)).expect(200);
        until_stored(&tidings.http(), "acme", 500);
        let kafka = tidings.kafka();
        kafka.create_topic("large", 1);
        let producer: BaseProducer = kafka.config().set("message.max.bytes", "1100000").create().unwrap();
        for number in 0..LARGE_RECORDS {
            let value = vec![number as u8; LARGE_RECORD_BYTES];
            let record = BaseRecord::<(), [u8]>::to("large").payload(&value).partition(0);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LONG).unwrap();
        let s3 = S3Server::shared();
        let bucket = s3.bucket();
        let address = PathBuf::from(format!("s3://{bucket}/tidings/monday"));
        Self { tidings, s3, bucket, address, directory }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where nothing is restored to.
    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    /// An object of the backup as the server keeps it.
    fn object(&self, name: &str) -> PathBuf {
        self.s3.folder(&self.bucket).join("tidings/monday").join(name)
    }

    #[track_caller]
    fn create(&self) {
        succeeds(&[path("create"), &self.address, path("--data-dir"), &self.data_dir()]);
    }

    /// Neither check nor restore takes it for whole, and the restore leaves nothing.
    #[track_caller]
    fn refused(&self, verify_why: &str, restore_why: &str) {
        fails(&[path("verify"), &self.address], verify_why);
        fails(&[path("restore"), &self.address, path("--data-dir"), &self.target()], restore_why);
        assert!(!self.target().exists());
    }
}

#[test]
fn what_is_damaged_or_missing_is_told_and_not_restored() {
    let scene = Scene::new();
    scene.create();
    assert!(scene.object(LARGE_FILE).metadata().unwrap().len() > (LARGE_RECORDS * LARGE_RECORD_BYTES) as u64);
    assert!(succeeds(&[path("verify"), &scene.address]).contains("whole"));
    fails(&[path("create"), &scene.address, path("--data-dir"), &scene.data_dir()], "is not empty");
    let above = scene.address.parent().unwrap();
    fails(&[path("create"), above, path("--data-dir"), &scene.data_dir()], "is not empty");

    for name in [LARGE_FILE, "data/activities.db"] {
        let object = scene.object(name);
        let file = name.strip_prefix("data/").unwrap();
        let whole = std::fs::read(&object).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        std::fs::write(&object, flipped).unwrap();
        scene.refused("1 fault found", &format!("{file}: checksum "));
        std::fs::write(&object, &whole[..whole.len() - 1]).unwrap();
        let lengths = format!("{} bytes, expected {}", whole.len() - 1, whole.len());
        scene.refused(&format!("{file}: {lengths}"), &format!("{name}: {lengths}"));
        std::fs::write(&object, b"").unwrap();
        scene.refused(&format!("{file}: 0 bytes"), &format!("{name}: 0 bytes"));
        std::fs::remove_file(&object).unwrap();
        scene.refused(&format!("{file}: is missing"), &format!("{name}: the object is missing"));
        std::fs::write(&object, whole).unwrap();
    }
    let surplus = scene.object("data/surplus");
    std::fs::write(&surplus, "x").unwrap();
    fails(&[path("verify"), &scene.address], "surplus: is not in the manifest");
    std::fs::remove_file(surplus).unwrap();

    succeeds(&[path("restore"), &scene.address, path("--data-dir"), &scene.target()]);
    let restored = Launch::up(&scene.target()).start();
    assert_eq!(stored_ids(&restored.http(), "acme").len(), 500);
    assert_eq!(restored.kafka().read_all("large").len(), LARGE_RECORDS);
    drop(restored);
    std::fs::remove_dir_all(scene.target()).unwrap();
    let manifest = scene.object("manifest.json");
    std::fs::write(&manifest, &std::fs::read(&manifest).unwrap()[1..]).unwrap();
    scene.refused("manifest.json is damaged", "manifest.json is damaged");
    std::fs::remove_file(manifest).unwrap();
    scene.refused("not finished", "not finished");
    assert!(scene.tidings.http().is_ready());
}

#[test]
fn what_cannot_be_reached_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let s3 = S3Server::shared();
    let address = PathBuf::from(format!("s3://{}/monday", s3.bucket()));
    let target: &Path = &directory.path().join("target");
    let check = |address: &Path, name: &str, value: &str, expect: &str, hint: &str| {
        for command in
            [&[path("verify"), address][..], &[path("restore"), address, path("--data-dir"), target]]
        {
            let ended = backup_command(command).environment(name, value).run(LONG);
            assert_eq!(ended.status.code(), Some(1));
            let error = ended.stderr.lines().next().unwrap_or_default();
            assert!(error.contains(address.to_str().unwrap()) && error.contains(expect), "{}", ended.stderr);
            assert!(ended.stderr.contains(&format!("hint: {hint}")), "{}", ended.stderr);
            assert!(!ended.stderr.contains(S3_SECRET) && !target.exists());
        }
    };
    let secret = "AWS_SECRET_ACCESS_KEY";
    check(
        &address,
        secret,
        "wrong",
        "the credentials are wrong (SignatureDoesNotMatch)",
        "correct AWS_ACCESS",
    );
    check(path("s3://nowhere/a"), "AWS_REGION", "us-east-1", "the bucket does not exist", "make the bucket");
    check(&address, "AWS_ALLOW_HTTP", "false", "is not encrypted", "use https://");
    check(
        &address,
        "AWS_ENDPOINT_URL",
        "http://127.0.0.1:9",
        "the server does not answer",
        "correct AWS_END",
    );
    let ended = backup(&[path("verify"), path("/nowhere"), path("--endpoint"), path("http://127.0.0.1:9")]);
    assert!(ended.stderr.contains("--endpoint is for a backup in a bucket"), "{}", ended.stderr);
}

/// Lets so many bytes through to a server, and then no more.
struct Narrow {
    endpoint: String,
    passed: Arc<AtomicUsize>,
}

impl Narrow {
    fn before(server: &S3Server, limit: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let address = server.endpoint().trim_start_matches("http://").to_owned();
        let passed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passed);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&address).unwrap());
                let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || pass(client, forth, &counted, limit));
                std::thread::spawn(move || pass(server, back, &AtomicUsize::new(0), usize::MAX));
            }
        });
        Self { endpoint, passed }
    }
}

/// What is above the limit vanishes, and is not answered.
fn pass(mut from: TcpStream, mut to: TcpStream, passed: &AtomicUsize, limit: usize) {
    let mut buffer = [0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let is_through = passed.fetch_add(read, Relaxed) < limit;
        if is_through && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_backup_that_is_killed_midway_is_none() {
    let scene = Scene::new();
    let narrow = Narrow::before(&scene.s3, 12_000_000);
    let data_dir = scene.data_dir();
    let arguments: [&Path; 4] = [path("create"), &scene.address, path("--data-dir"), &data_dir];
    let creating = backup_command(&arguments).arguments(["--endpoint", &narrow.endpoint]).spawn();
    until("it is in the middle of the long segment", || {
        (narrow.passed.load(Relaxed) >= 12_000_000).then_some(())
    });
    assert!(scene.data_dir().join(".snapshot").exists());
    creating.kill_now();
    until("the server has removed the snapshot", || {
        (!scene.data_dir().join(".snapshot").exists()).then_some(())
    });
    assert!(!scene.object(LARGE_FILE).exists(), "half an object is none");
    scene.refused("not finished", "not finished");
    // Another name is free.
    let next = scene.address.with_file_name("tuesday");
    succeeds(&[path("create"), &next, path("--data-dir"), &scene.data_dir()]);
    assert!(succeeds(&[path("verify"), &next]).contains("whole"));
}
