//! The store is down, lost or corrupt: the writer backs off and keeps its place; nothing is lost, nothing becomes a dead letter.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings_tests::{Http, LONG, Launch, Tidings, kept_address, until};

use crate::backup::{fails, path, succeeds};
use crate::support::{
    ACTIVITIES, StoreDown, WRITER, activity, damage_store, stored_ids, until_ready, until_stored,
};

/// Processor time the program has used, in the kernel's ticks of 10 ms.
fn processor_ticks(tidings: &Tidings) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", tidings.pid())).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn batch(prefix: &str) -> Value {
    (0..200).map(|number| activity("acme", &format!("{prefix}-{number}"), number)).collect()
}

/// What the writer has done with.
fn committed(tidings: &Tidings) -> i64 {
    let offsets = tidings.kafka().committed(WRITER, "activities");
    offsets.iter().filter(|offset| **offset > 0).sum()
}

/// A platform whose 200 activities are stored, and committed, which takes a second or so.
#[track_caller]
fn with_a_batch(data_dir: &Path) -> Tidings {
    let tidings = Launch::up(data_dir).start();
    tidings.http().post(ACTIVITIES, &batch("before")).expect(200);
    until_stored(&tidings.http(), "acme", 200);
    until("it is committed", || (committed(&tidings) == 200).then_some(()));
    tidings
}

#[test]
fn while_the_store_is_down_nothing_is_lost_and_nothing_spins() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = with_a_batch(directory.path());
    let http = tidings.http();

    let down = StoreDown::begin(directory.path());
    http.post(ACTIVITIES, &batch("during")).expect(200);
    // Watch it wait for two seconds.
    let (ticks, since) = (processor_ticks(&tidings), Instant::now());
    until("two seconds have passed", || (since.elapsed() > Duration::from_secs(2)).then_some(()));
    let used = processor_ticks(&tidings) - ticks;
    // They may have become more.
    let waited = since.elapsed();
    assert!(
        u128::from(used) < waited.as_millis() / 40,
        "used {used} ticks of 10 ms in {waited:?} of waiting"
    );
    assert_eq!(stored_ids(&http, "acme").len(), 200);
    assert_eq!(committed(&tidings), 200, "an offset is committed that is not stored");

    down.end();
    let stored = until_stored(&http, "acme", 400);
    assert!(stored.values().all(|count| *count == 1));
    assert_eq!(tidings.kafka().read_all("activities.dlq").len(), 0);
}

#[test]
fn a_stop_while_the_store_is_down_loses_nothing_either() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let down = StoreDown::begin(directory.path());
    tidings.http().post(ACTIVITIES, &batch("during")).expect(200);
    let ended = tidings.terminate(LONG);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    down.end();
    let again = Launch::up(directory.path()).start();
    assert_eq!(until_stored(&again.http(), "acme", 200).len(), 200);
}

fn remove_store(data_dir: &Path) {
    std::fs::remove_file(data_dir.join("activities.db")).unwrap();
    for beside in ["activities.db-wal", "activities.db-shm"] {
        // They are there or not.
        let _ = std::fs::remove_file(data_dir.join(beside));
    }
}

/// Waits until nobody is sent to a platform any more for this fault of its store.
#[track_caller]
fn until_told(http: &Http, why: &str) {
    until("the fault is told", || {
        let readiness = http.get("/readyz");
        (readiness.status == 503 && readiness.text().contains(why)).then_some(())
    });
}

/// What comes in is on the topic, and waits there; the log has told the fault once.
#[track_caller]
fn takes_nothing_and_ends(tidings: Tidings, why: &str) {
    tidings.http().post(ACTIVITIES, &batch("during")).expect(200);
    until("the writer has tried", || {
        tidings.logged().contains("records kept after a transient failure").then_some(())
    });
    assert_eq!(committed(&tidings), 200, "an offset is committed that is not stored");
    let ended = tidings.terminate(LONG);
    assert!(ended.status.success(), "{}", ended.stderr);
    let is_told = |line: &&str| line.contains("ERROR") && line.contains("the activity store cannot be used");
    let told: Vec<&str> = ended.stderr.lines().filter(is_told).collect();
    assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
}

/// All went into a file without a name, its offsets were committed, and all was well until the process ended.
#[test]
fn a_store_whose_file_is_removed_takes_nothing_until_a_restart() {
    const WHY: &str = "activities.db: was removed";
    let (directory, scene) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tidings = with_a_batch(directory.path());
    until_ready(&tidings.http());
    remove_store(directory.path());
    until_told(&tidings.http(), WHY);
    fails(&[path("create"), &scene.path().join("backup"), path("--data-dir"), directory.path()], WHY);
    takes_nothing_and_ends(tidings, WHY);
    let tidings = Launch::up(directory.path()).start();
    assert!(until_stored(&tidings.http(), "acme", 400).values().all(|count| *count == 1));
}

/// What came after that was in neither file, and its offsets were committed: it was never stored.
#[test]
fn a_store_whose_file_is_replaced_takes_nothing_until_a_restart() {
    const WHY: &str = "activities.db: was removed, moved or replaced";
    let directory = tempfile::tempdir().unwrap();
    assert!(with_a_batch(directory.path()).terminate(LONG).status.success());
    let [store, copy] = ["activities.db", "copy"].map(|name| directory.path().join(name));
    std::fs::copy(&store, &copy).unwrap();
    let tidings = Launch::up(directory.path()).start();
    until_ready(&tidings.http());
    std::fs::rename(&copy, &store).unwrap();
    until_told(&tidings.http(), WHY);
    takes_nothing_and_ends(tidings, WHY);
    let tidings = Launch::up(directory.path()).start();
    assert!(until_stored(&tidings.http(), "acme", 400).values().all(|count| *count == 1));
}

/// Questions failed, and the platform called itself ready.
#[test]
fn a_corrupt_store_is_told_and_takes_nothing() {
    const WHY: &str = "activities.db: is corrupt";
    let directory = tempfile::tempdir().unwrap();
    assert!(with_a_batch(directory.path()).terminate(LONG).status.success());
    damage_store(directory.path(), "activity_by_time");
    let tidings = Launch::up(directory.path()).start();
    until_ready(&tidings.http());
    tidings.http().get(&format!("{ACTIVITIES}?tenant=acme")).expect(503);
    until_told(&tidings.http(), WHY);
    takes_nothing_and_ends(tidings, WHY);
    // What the hint says.
    remove_store(directory.path());
    let tidings = Launch::up(directory.path()).start();
    assert!(until_stored(&tidings.http(), "acme", 400).values().all(|count| *count == 1));
}

/// The group of the writer was at the end of the topic, so a new store in the place of a lost one stayed empty, and nobody was told.
#[test]
fn a_store_that_was_lost_is_filled_from_the_topic() {
    const IS_NEW: &str = "the activity store is new or restored, but its group has read the topic before";
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    tidings.http().post(ACTIVITIES, &batch("before")).expect(200);
    until_stored(&tidings.http(), "acme", 200);
    let ended = tidings.terminate(LONG);
    assert!(ended.status.success() && !ended.stderr.contains(IS_NEW), "{}", ended.stderr);
    remove_store(directory.path());
    let tidings = Launch::up(directory.path()).start();
    let http = tidings.http();
    until_stored(&http, "acme", 200);
    let logged = until("it is told that it is filled", || {
        Some(tidings.logged())
            .filter(|logged| logged.contains("the new activity store has what the topic held"))
    });
    let warning = logged.lines().find(|line| line.contains(IS_NEW)).expect("a warning");
    assert!(warning.contains("WARN") && warning.contains("records=200"), "{warning}");
    http.post(ACTIVITIES, &batch("after")).expect(200);
    let stored = until_stored(&http, "acme", 400);
    assert!(stored.values().all(|count| *count == 1));
    tidings.terminate(LONG);
    let again = Launch::up(directory.path()).start();
    assert_eq!(until_stored(&again.http(), "acme", 400).len(), 400);
    assert!(!again.logged().contains(IS_NEW), "it is new once");
}

#[test]
fn a_second_platform_on_the_same_store_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let first = Launch::up(directory.path()).start();
    let ended = Launch::up_on(&first.bootstrap(), directory.path()).run(LONG);
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("a data directory of its own"), "{}", ended.stderr);
}

#[test]
fn the_services_run_on_a_cluster_that_is_not_theirs() {
    let (engine, services) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Launch::broker(engine.path()).at(&kept_address()).start();
    let platform = Launch::up_on(&broker.bootstrap(), services.path()).start();
    assert!(platform.ready()["kafka"].is_null());
    platform.http().post(ACTIVITIES, &batch("remote")).expect(200);
    assert_eq!(until_stored(&platform.http(), "acme", 200).len(), 200);

    // The cluster goes away and comes back; what is sent meanwhile is refused, not lost in silence.
    let address = broker.bootstrap();
    broker.kill_now();
    let broker = Launch::broker(engine.path()).at(&address).start();
    until("activities are accepted again", || {
        let answer = platform.http().post(ACTIVITIES, &activity("acme", "after", 1));
        (answer.status == 200).then_some(())
    });
    assert_eq!(until_stored(&platform.http(), "acme", 201).len(), 201);
    drop(broker);
}

/// The cluster had gone on, and so had the offsets of the writer: what had come since the backup was never stored.
#[test]
fn a_store_restored_beside_its_cluster_gets_what_it_has_missed() {
    let scene = tempfile::tempdir().unwrap();
    let [data_dir, backup, restored] = ["data", "backup", "restored"].map(|name| scene.path().join(name));
    let broker = Launch::broker(&scene.path().join("broker")).start();
    let tidings = Launch::up_on(&broker.bootstrap(), &data_dir).start();
    let http = tidings.http();
    until("activities are taken", || (http.post(ACTIVITIES, &batch("before")).status == 200).then_some(()));
    until_stored(&http, "acme", 200);
    succeeds(&[Path::new("create"), &backup, Path::new("--data-dir"), &data_dir]);
    http.post(ACTIVITIES, &batch("since")).expect(200);
    until_stored(&http, "acme", 400);
    assert!(tidings.terminate(LONG).status.success());
    succeeds(&[Path::new("restore"), &backup, Path::new("--data-dir"), &restored]);
    let tidings = Launch::up_on(&broker.bootstrap(), &restored).start();
    assert!(until_stored(&tidings.http(), "acme", 400).values().all(|count| *count == 1));
}
