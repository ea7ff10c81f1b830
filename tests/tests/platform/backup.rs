//! Backups of a platform under load: what was acknowledged before is in them, and nothing in them is ahead of anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tidings_tests::{Ended, Http, Kafka, LONG, Launch, S3Server, Tidings, until, until_within};

use crate::disks::Volume;
use crate::support::{ACTIVITIES, WRITER, activity, damage_store, stored_ids, until_ready, until_stored};
use crate::transactions::{PARTITIONS, producer, seen};
use crate::under_load::EndOfLoad;

const KEYS: usize = 50;
/// Of a command that reads, checks and copies what a load has left.
const LIMIT: Duration = Duration::from_secs(300);

fn launch(data_dir: &Path) -> Launch {
    let settings = [
        "log.segment.bytes=1048576",
        "log.cleaner.backoff.ms=100",
        "log.cleaner.min.cleanable.ratio=0.01",
        "log.retention.check.interval.ms=100",
    ];
    Launch::up(data_dir).arguments(settings.iter().flat_map(|setting| ["--set", *setting]))
}

pub fn backup(arguments: &[&Path]) -> Ended {
    backup_command(arguments).run(LIMIT)
}

/// With a bucket, if one is named.
pub fn backup_command(arguments: &[&Path]) -> Launch {
    let launch = arguments.iter().fold(Launch::command("backup"), |launch, word| launch.argument(word));
    if arguments.iter().any(|word| word.starts_with("s3:")) {
        S3Server::shared().tell(launch)
    } else {
        launch
    }
}

#[track_caller]
pub fn succeeds(arguments: &[&Path]) -> String {
    let ended = backup(arguments);
    assert!(ended.status.success(), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    ended.stdout
}

#[track_caller]
pub fn fails(arguments: &[&Path], why: &str) {
    let ended = backup(arguments);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!ended.status.success() && said.contains(why), "{arguments:?}: {said}");
}

pub fn path(text: &str) -> &Path {
    Path::new(text)
}

/// What the load was told.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    activities: Mutex<BTreeSet<String>>,
    /// Orders that are billed: a record in each partition of `payments`, and the offset, in one transaction.
    billed: AtomicUsize,
    /// Rounds of writing every key of `table`.
    rounds: AtomicUsize,
}

/// What was acknowledged at some moment.
struct Acknowledged {
    activities: BTreeSet<String>,
    billed: usize,
    rounds: usize,
}

impl Load {
    fn acknowledged(&self) -> Acknowledged {
        Acknowledged {
            activities: self.activities.lock().unwrap().clone(),
            billed: self.billed.load(Relaxed),
            rounds: self.rounds.load(Relaxed),
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    fn post(&self, http: &Http) {
        for number in (0..).take_while(|_| !self.is_done()) {
            let ids: Vec<String> = (0..5).map(|at| format!("{number}-{at}")).collect();
            let batch = ids.iter().map(|id| activity("acme", id, number)).collect();
            http.post(ACTIVITIES, &Value::Array(batch)).expect(200);
            self.activities.lock().unwrap().extend(ids);
        }
    }

    fn bill(&self, kafka: &Kafka) {
        let plain: BaseProducer = kafka.config().set("linger.ms", "0").create().unwrap();
        let transactional = producer(kafka, "biller").unwrap();
        let billing = kafka.reader("billing");
        for number in (0..).take_while(|_| !self.is_done()) {
            plain
                .send(BaseRecord::<(), str>::to("orders").payload("an order").partition(0))
                .map_err(|(error, _)| error)
                .unwrap();
            plain.flush(LONG).unwrap();
            bill_one(&billing, &transactional, number);
            self.billed.store(number + 1, Relaxed);
        }
    }

    fn write_table(&self, kafka: &Kafka) {
        let producer: BaseProducer = kafka.config().set("linger.ms", "0").create().unwrap();
        let padding = "x".repeat(5000);
        for round in (0..).take_while(|_| !self.is_done()) {
            for key in 0..KEYS {
                let value = format!("{round} {padding}");
                let key = key.to_string();
                for topic in ["table", "short"] {
                    let record = BaseRecord::to(topic).key(&key).payload(&value).partition(0);
                    producer.send(record).map_err(|(error, _)| error).unwrap();
                }
            }
            producer.flush(LONG).unwrap();
            self.rounds.store(round + 1, Relaxed);
        }
    }
}

fn bill_one(consumer: &BaseConsumer, producer: &BaseProducer, number: usize) {
    producer.begin_transaction().unwrap();
    for partition in 0..PARTITIONS {
        let order = format!("order-{number}");
        let record = BaseRecord::<(), str>::to("payments").payload(&order).partition(partition);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("orders", 0, Offset::Offset(number as i64 + 1)).unwrap();
    let metadata = consumer.group_metadata().expect("a consumer with a group");
    producer.send_offsets_to_transaction(&offsets, &metadata, LONG).unwrap();
    producer.flush(LONG).unwrap();
    producer.commit_transaction(LONG).unwrap();
}

/// The last round of each key, and the first offset.
fn table(kafka: &Kafka, topic: &str) -> (BTreeMap<String, usize>, i64) {
    let records = kafka.read_all(topic);
    let first = records.first().map_or(0, |record| record.offset);
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap()).unwrap();
    let round = |value: String| value.split(' ').next().unwrap().parse().unwrap();
    (records.iter().map(|record| (text(&record.key), round(text(&record.value)))).collect(), first)
}

/// Starts a platform on a restored directory and holds it against what was acknowledged before the backup.
fn check_restored(data_dir: &Path, acknowledged: &Acknowledged) {
    let tidings = launch(data_dir).start();
    let (http, kafka) = (tidings.http(), tidings.kafka());
    // Fences what was under way at the instant, and waits until it is decided.
    let biller = producer(&kafka, "biller").unwrap();
    let payments = seen(&kafka, "payments", "read_committed");
    let torn: Vec<_> = payments.iter().filter(|(_, partitions)| **partitions != [0, 1, 2]).collect();
    assert!(torn.is_empty(), "torn transactions: {torn:?}");
    let billed = kafka.committed("billing", "orders")[0].max(0);
    assert_eq!(billed, payments.len() as i64, "offsets and payments of the same transactions");
    assert!(payments.len() >= acknowledged.billed, "{} of {}", payments.len(), acknowledged.billed);
    assert!(kafka.watermarks("orders", 0).1 >= billed, "an offset is ahead of its topic");

    for topic in ["table", "short"] {
        let (rounds, first) = table(&kafka, topic);
        assert!(topic == "table" || first > 0, "retention had removed something");
        let old: Vec<_> = rounds.iter().filter(|(_, round)| **round + 1 < acknowledged.rounds).collect();
        assert_eq!(
            (rounds.len(), old.len()),
            (KEYS, 0),
            "{topic}: {old:?}, acknowledged {}",
            acknowledged.rounds
        );
    }

    let on_topic: BTreeSet<String> =
        kafka.read_all("activities").iter().filter_map(|record| record.header("ce_id")).collect();
    assert!(on_topic.is_superset(&acknowledged.activities), "accepted and not on the topic");
    let stored = until("the writer has come to the topic's end", || {
        let stored = stored_ids(&http, "acme");
        on_topic.iter().all(|id| stored.contains_key(id)).then_some(stored)
    });
    assert!(stored.values().all(|count| *count == 1));
    // The store may be ahead of nothing: what it has is on the topic.
    assert_eq!(stored.len(), on_topic.len());
    bill_one(&kafka.reader("billing"), &biller, payments.len());
    assert_eq!(kafka.committed("billing", "orders")[0], billed + 1);
    println!(
        "restored: {} activities ({} acknowledged before), {} transactions ({})",
        stored.len(),
        acknowledged.activities.len(),
        payments.len(),
        acknowledged.billed
    );
}

fn create_topic(tidings: &Tidings, name: &str, configs: &[&str]) {
    let launch = Launch::command("topic").arguments(["create", name, "--partitions", "1"]);
    let launch = configs.iter().fold(launch, |launch, config| launch.arguments(["--config", *config]));
    let ended = launch.arguments(["--bootstrap", &tidings.bootstrap()]).run(LONG);
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[test]
fn backups_under_load_have_what_was_acknowledged_and_nothing_ahead_of_it() {
    let scene = tempfile::tempdir().unwrap();
    let data_dir = scene.path().join("data");
    let tidings = launch(&data_dir).start();
    let kafka = tidings.kafka();
    kafka.create_topic("payments", PARTITIONS);
    create_topic(&tidings, "orders", &[]);
    create_topic(&tidings, "table", &["cleanup.policy=compact"]);
    create_topic(&tidings, "short", &["retention.bytes=2097152"]);
    let load = Load::default();
    let s3 = S3Server::shared();
    let mut backups: Vec<(PathBuf, Acknowledged)> = Vec::new();
    std::thread::scope(|scope| {
        let _end = EndOfLoad(&load.done);
        scope.spawn(|| load.post(&tidings.http()));
        scope.spawn(|| load.bill(&kafka));
        scope.spawn(|| load.write_table(&kafka));
        for number in 0..3 {
            let (billed, rounds) = (load.billed.load(Relaxed) + 10, load.rounds.load(Relaxed) + 6);
            until("the load goes on", || {
                let enough = load.billed.load(Relaxed) >= billed && load.rounds.load(Relaxed) >= rounds;
                enough.then_some(())
            });
            if number == 0 {
                until("segments are cleaned and removed", || {
                    let logged = tidings.logged();
                    (logged.contains("compacted logs") && logged.contains("removed old segments"))
                        .then_some(())
                });
            }
            let target = match number {
                2 => PathBuf::from(format!("s3://{}/daily/2", s3.bucket())),
                _ => scene.path().join(format!("backup-{number}")),
            };
            let (backup, acknowledged) = (target, load.acknowledged());
            succeeds(&[path("create"), &backup, path("--data-dir"), &data_dir]);
            backups.push((backup, acknowledged));
        }
    });
    until_no_snapshot(&data_dir);
    tidings.kill_now();
    for (number, (backup, acknowledged)) in backups.iter().enumerate() {
        assert!(succeeds(&[path("verify"), backup]).contains("whole"));
        let restored = scene.path().join(format!("restored-{number}"));
        succeeds(&[path("restore"), backup, path("--data-dir"), &restored]);
        check_restored(&restored, acknowledged);
    }
}

#[test]
fn what_is_no_whole_backup_is_refused() {
    let scene = tempfile::tempdir().unwrap();
    let (data_dir, whole) = (scene.path().join("data"), scene.path().join("whole"));
    let create = |target: &Path| backup(&[path("create"), target, path("--data-dir"), &data_dir]);
    let ended = create(&whole);
    assert!(!ended.status.success() && ended.stderr.contains("no server runs on"), "{}", ended.stderr);
    let tidings = launch(&data_dir).start();
    let batch = (0..500).map(|number| activity("acme", &format!("{number}"), number)).collect();
    tidings.http().post(ACTIVITIES, &Value::Array(batch)).expect(200);
    until_stored(&tidings.http(), "acme", 500);
    assert!(create(&whole).status.success());
    fails(&[path("create"), &whole, path("--data-dir"), &data_dir], "is not empty");
    fails(&[path("restore"), &whole, path("--data-dir"), &data_dir], "is not empty");
    // The socket is nobody else's, and what is not understood is answered.
    let socket = data_dir.join("control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&socket).unwrap();
    std::io::Write::write_all(&mut stream, b"{\"command\":\"nonsense\"}\n").unwrap();
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut answer).unwrap();
    assert!(answer.contains("refused") && answer.contains("nonsense"), "{answer}");
    drop(stream);
    assert!(create(&scene.path().join("another")).status.success(), "it goes on after that");
    drop(tidings);

    let manifest: Value =
        serde_json::from_slice(&std::fs::read(whole.join("manifest.json")).unwrap()).unwrap();
    let files: Vec<PathBuf> = manifest["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|file| file["bytes"].as_u64() > Some(0))
        .map(|file| whole.join("data").join(file["path"].as_str().unwrap()))
        .collect();
    assert!(files.iter().any(|file| file.ends_with("activities.db")), "{files:?}");
    let target = scene.path().join("target");
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for damaged in [&flipped, &bytes[1..].to_vec(), &Vec::new()] {
            std::fs::write(file, damaged).unwrap();
            fails(&[path("verify"), &whole], "found");
            let ended = backup(&[path("restore"), &whole, path("--data-dir"), &target]);
            assert!(!ended.status.success() && !target.exists(), "{}: {}", file.display(), ended.stdout);
        }
        std::fs::write(file, bytes).unwrap();
    }
    std::fs::write(whole.join("data/surplus"), "x").unwrap();
    fails(&[path("verify"), &whole], "surplus: is not in the manifest");
    std::fs::remove_file(whole.join("data/surplus")).unwrap();
    assert!(succeeds(&[path("verify"), &whole]).contains("whole"));
    // A path that leads out.
    let text = std::fs::read_to_string(whole.join("manifest.json")).unwrap();
    std::fs::write(
        whole.join("manifest.json"),
        text.replace("\"meta.properties\"", "\"../meta.properties\""),
    )
    .unwrap();
    fails(&[path("restore"), &whole, path("--data-dir"), &target], "no path within");
    std::fs::write(whole.join("manifest.json"), text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    fails(&[path("verify"), &whole], "format 2, expected 1");
    std::fs::remove_file(whole.join("manifest.json")).unwrap();
    fails(&[path("verify"), &whole], "not finished");
    fails(&[path("restore"), &whole, path("--data-dir"), &target], "not finished");
}

/// A server with some activities, and a backup of it.
fn backed_up(scene: &Path) -> (Tidings, PathBuf, PathBuf) {
    let (data_dir, whole) = (scene.join("data"), scene.join("whole"));
    let tidings = Launch::up(&data_dir).start();
    let batch = (0..500).map(|number| activity("acme", &format!("{number}"), number)).collect();
    tidings.http().post(ACTIVITIES, &Value::Array(batch)).expect(200);
    until_stored(&tidings.http(), "acme", 500);
    succeeds(&[path("create"), &whole, path("--data-dir"), &data_dir]);
    (tidings, data_dir, whole)
}

/// Everything in a directory, and the directory.
fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inside = entries.flat_map(|path| if path.is_dir() { paths_in(&path) } else { vec![path] });
    inside.chain([folder.to_owned()]).collect()
}

#[track_caller]
fn check_private(folder: &Path) {
    let open: Vec<_> = paths_in(folder)
        .into_iter()
        .filter(|path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o077 != 0)
        .collect();
    assert!(open.is_empty(), "others may read {open:?}");
}

/// Directories of deployments exist: volumes of containers, links into `/var/lib/private`. Nobody else may read what is there.
#[test]
fn a_restore_fills_directories_that_exist() {
    let scene = tempfile::tempdir().unwrap();
    let (tidings, data_dir, whole) = backed_up(scene.path());
    check_private(&data_dir);
    check_private(&whole);
    drop(tidings);
    let restore = |target: &Path| succeeds(&[path("restore"), &whole, path("--data-dir"), target]);

    let new = scene.path().join("parent/new");
    restore(&new);
    check_private(&new);
    let volume = Volume::mount(64);
    std::fs::create_dir(volume.path().join("lost+found")).unwrap();
    // Whose server it is, to whom its files belong.
    const OWNER: u32 = 65534;
    std::os::unix::fs::chown(volume.path(), Some(OWNER), Some(OWNER)).unwrap();
    restore(volume.path());
    let files = paths_in(volume.path());
    let files: Vec<_> = files.iter().filter(|path| !path.ends_with("lost+found")).collect();
    assert!(files.len() > 10 && files.iter().all(|path| path.metadata().unwrap().uid() == OWNER));
    let (private, link) = (scene.path().join("private"), scene.path().join("link"));
    std::fs::create_dir(&private).unwrap();
    symlink(&private, &link).unwrap();
    restore(&link);
    for target in [volume.path(), &link] {
        let tidings = Launch::up(target).start();
        assert_eq!(until_stored(&tidings.http(), "acme", 500).len(), 500);
    }
    fails(&[path("restore"), &whole, path("--data-dir"), &link], "is not empty");

    // It is the instance of before: as another one its writer would wait for the place that it had itself.
    let instance = |folder: &Path| std::fs::read_to_string(folder.join("activities.instance")).unwrap();
    assert_eq!(instance(&new), instance(&data_dir));
    let tidings = Launch::up(&new).start();
    let http = tidings.http();
    http.post(ACTIVITIES, &activity("acme", "after", 500)).expect(200);
    let is_stored = || (stored_ids(&http, "acme").len() == 501).then_some(());
    until_within(LIMIT, "what comes after a restore is stored", is_stored);
}

/// A server on half a data directory would take it for a whole one that has lost something.
#[test]
fn no_server_starts_on_half_a_restore() {
    let scene = tempfile::tempdir().unwrap();
    let (tidings, _, whole) = backed_up(scene.path());
    drop(tidings);
    let target = scene.path().join("target");
    std::fs::create_dir(&target).unwrap();
    // The store is the last but a few; reading it comes to no end.
    let (store, aside) = (whole.join("data/activities.db"), scene.path().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    assert!(Command::new("mkfifo").arg(&store).status().unwrap().success());
    let arguments: [&Path; 4] = [path("restore"), &whole, path("--data-dir"), &target];
    let restoring = arguments.iter().fold(Launch::command("backup"), |launch, word| launch.argument(word));
    let restoring = restoring.spawn();
    until("most is restored", || target.join("__consumer_offsets-0").exists().then_some(()));
    restoring.kill_now();
    for command in [Launch::up(&target), Launch::broker(&target)] {
        let ended = command.run(LONG);
        assert!(!ended.status.success() && ended.stderr.contains("is half restored"), "{}", ended.stderr);
    }
    std::fs::remove_file(&store).unwrap();
    std::fs::rename(&aside, &store).unwrap();
    succeeds(&arguments);
    assert_eq!(stored_ids(&Launch::up(&target).start().http(), "acme").len(), 500);
}

/// A backup that is begun and does not go on.
fn hold_snapshot(data_dir: &Path) -> UnixStream {
    let mut holding = UnixStream::connect(data_dir.join("control.sock")).unwrap();
    std::io::Write::write_all(&mut holding, b"{\"command\":\"snapshot\"}\n").unwrap();
    assert_eq!(holding.read(&mut [0]).unwrap(), 1);
    holding
}

/// Ends it, and waits for that longer than the next one would.
fn let_go(holding: UnixStream, data_dir: &Path) {
    drop(holding);
    until_no_snapshot(data_dir);
}

/// The server removes what it has made for a client when it notices that the client is gone.
#[track_caller]
fn until_no_snapshot(data_dir: &Path) {
    until("nothing is left of the snapshot", || (!data_dir.join(".snapshot").exists()).then_some(()));
}

/// Who says nothing, and who never ends, holds up nobody for long.
#[test]
fn a_silent_client_holds_up_no_backup() {
    let scene = tempfile::tempdir().unwrap();
    let (tidings, data_dir, _) = backed_up(scene.path());
    let mut silent = UnixStream::connect(data_dir.join("control.sock")).unwrap();
    succeeds(&[path("create"), &scene.path().join("beside"), path("--data-dir"), &data_dir]);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "it is not waited for");

    let holding = hold_snapshot(&data_dir);
    let second = scene.path().join("second");
    fails(&[path("create"), &second, path("--data-dir"), &data_dir], "another backup is being made");
    let_go(holding, &data_dir);
    succeeds(&[path("create"), &second, path("--data-dir"), &data_dir]);
    assert!(tidings.http().is_ready());
}

/// When clients had taken all descriptors for a moment, nobody listened at the control socket any more, and the backup under
/// way was lost. Later ones said that no server runs, and that its directory can be copied.
#[test]
fn a_server_that_was_short_of_descriptors_makes_backups() {
    let scene = tempfile::tempdir().unwrap();
    let (tidings, data_dir, _) = backed_up(scene.path());
    let target = scene.path().join("target");
    let arguments: [&Path; 4] = [path("create"), &target, path("--data-dir"), &data_dir];
    let holding = hold_snapshot(&data_dir);
    let pid = Pid::from_raw(tidings.pid().try_into().unwrap());
    // The child has our own upper limit.
    let limit = Rlimit { current: Some(4), ..getrlimit(Resource::Nofile) };
    let before = prlimit(pid, Resource::Nofile, limit).unwrap();
    let waiting = backup_command(&arguments).spawn();
    until("it is not accepted", || {
        tidings.logged().contains("the control socket cannot accept connections").then_some(())
    });
    prlimit(pid, Resource::Nofile, before).unwrap();
    let ended = waiting.wait(LONG);
    assert!(ended.stderr.contains("another backup is being made"), "{}", ended.stderr);
    let_go(holding, &data_dir);
    succeeds(&arguments);
}

/// It was copied as it was, with status 0, and only `verify` said so.
#[test]
fn a_corrupt_store_is_not_backed_up() {
    let scene = tempfile::tempdir().unwrap();
    let (tidings, data_dir, _) = backed_up(scene.path());
    assert!(tidings.terminate(LONG).status.success());
    damage_store(&data_dir, "link");
    let tidings = Launch::up(&data_dir).start();
    until_ready(&tidings.http());
    let target = scene.path().join("target");
    let arguments: [&Path; 4] = [path("create"), &target, path("--data-dir"), &data_dir];
    fails(&arguments, "activities.db is corrupt, and no backup was made");
    fails(&arguments, "hint: stop the server and look whether the disk can be read");
    assert!(!target.exists() && tidings.http().is_ready(), "nobody has asked for what is damaged");
    tidings.http().get(&format!("{ACTIVITIES}?tenant=acme&actor=u-1")).expect(503);
    fails(&arguments, "activities.db: is corrupt");
}

/// A copy of a directory in use is no backup.
#[test]
fn a_server_that_nobody_can_ask_is_not_taken_for_a_stopped_one() {
    let scene = tempfile::tempdir().unwrap();
    let (tidings, data_dir, _) = backed_up(scene.path());
    std::fs::remove_file(data_dir.join("control.sock")).unwrap();
    let create = || backup(&[path("create"), &scene.path().join("target"), path("--data-dir"), &data_dir]);
    let said = create().stderr;
    assert!(said.contains("a server runs on") && said.contains("Do not copy the directory"), "{said}");
    drop(tidings);
    let said = create().stderr;
    assert!(said.contains("no server runs on") && said.contains("can be copied as it is"), "{said}");
}

/// The copy of the store must not make the broker refuse produces.
#[test]
fn a_backup_leaves_the_broker_its_room() {
    const MIN_FREE_BYTES: u64 = 8 << 20;
    let volume = Volume::mount(48);
    let scene = tempfile::tempdir().unwrap();
    let data_dir = volume.data_dir();
    let setting = format!("log.min.free.bytes={MIN_FREE_BYTES}");
    let tidings = Launch::up(&data_dir).arguments(["--set", &setting]).start();
    let batch = (0..3000).map(|number| activity("acme", &format!("{number}"), number)).collect();
    tidings.http().post(ACTIVITIES, &Value::Array(batch)).expect(200);
    until_stored(&tidings.http(), "acme", 3000);
    // Nothing of the store grows behind that.
    until("the writer has done with them", || {
        tidings.kafka().committed(WRITER, "activities").contains(&3000).then_some(())
    });
    let length = |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |found| found.len());
    let store_bytes = length("activities.db") + length("activities.db-wal");
    // On its own disk it has no room for the store twice; elsewhere not even once.
    let (beside, elsewhere) = (volume.path().join("backup"), scene.path().join("backup"));
    volume.fill_up_to(MIN_FREE_BYTES + store_bytes / 2);
    let create = |target: &Path| backup(&[path("create"), target, path("--data-dir"), &data_dir]);
    for target in [&beside, &elsewhere] {
        let ended = create(target);
        assert!(!ended.status.success() && ended.stderr.contains("must stay so"), "{}", ended.stderr);
        until_no_snapshot(&data_dir);
    }
    std::fs::remove_file(volume.filler()).unwrap();
    volume.fill_up_to(MIN_FREE_BYTES + store_bytes + (64 << 10));
    let ended = create(&beside);
    assert!(!ended.status.success() && ended.stderr.contains("the backup has"), "{}", ended.stderr);
    until_no_snapshot(&data_dir);
    assert!(create(&elsewhere).status.success());
    assert!(tidings.http().is_ready());
}
