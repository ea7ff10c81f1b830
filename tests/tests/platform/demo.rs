//! The demo stores every event exactly once: run twice, and killed in the middle and run again.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidings_tests::{Ended, Launch, until};

/// The demo's own limit is for a release build on a machine that does nothing else.
const OWN_LIMIT: &str = "600";
const LIMIT: Duration = Duration::from_secs(700);

fn demo(data_dir: &Path) -> Launch {
    let addresses = ["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    Launch::command("demo")
        .arguments(["--exit", "--json", "--time-limit", OWN_LIMIT])
        .arguments(addresses)
        .argument("--data-dir")
        .argument(data_dir)
}

/// The summary, if the demo ended well.
#[track_caller]
fn summary(ended: &Ended) -> Value {
    assert!(ended.status.success(), "{:?}\n{}{}", ended.status, ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {}", ended.stdout))
}

/// Bytes in the segments of the activities' topic.
fn topic_bytes(data_dir: &Path) -> u64 {
    let mut bytes = 0;
    for partition in 0..3 {
        let Ok(entries) = std::fs::read_dir(data_dir.join(format!("activities-{partition}"))) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("list a partition").path()) {
            if path.extension().is_some_and(|extension| extension == "log") {
                bytes += std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            }
        }
    }
    bytes
}

#[test]
fn playing_it_twice_stores_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let first = summary(&demo(directory.path()).run(LIMIT));
    assert_eq!(first["exactly_once"], true, "{first}");
    assert_eq!(first["stored"], first["events"]);
    assert_eq!(first["accepted"], first["events"]);
    assert_eq!(
        (&first["duplicates"], &first["dead_letters"], &first["lag"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(first["events"].as_u64().unwrap() > 30_000);

    let second = summary(&demo(directory.path()).run(LIMIT));
    assert_eq!(second["exactly_once"], true, "{second}");
    assert_eq!((&second["stored"], &second["duplicates"]), (&first["events"], &first["events"]));
    assert_eq!(second["dead_letters"], 0);
}

#[test]
fn killed_in_the_middle_and_run_again_it_stores_every_event_once() {
    let directory = tempfile::tempdir().unwrap();
    // Twice: the second kill finds a directory that had to be recovered.
    for megabytes in [1, 4] {
        // At a pace that leaves the middle some seconds, in which nobody may look.
        let mut running = demo(directory.path()).arguments(["--rate", "4000"]).spawn();
        until("the demo is in the middle", || {
            assert!(running.is_running(), "the demo ended early:\n{}", running.logged());
            (topic_bytes(directory.path()) > megabytes << 20).then_some(())
        });
        running.kill_now();
    }
    let end = summary(&demo(directory.path()).run(LIMIT));
    assert_eq!(end["exactly_once"], true, "{end}");
    assert_eq!(end["stored"], end["events"]);
    assert_eq!(end["dead_letters"], 0);
    let duplicates = end["duplicates"].as_u64().unwrap();
    assert!(duplicates > 0 && duplicates < end["events"].as_u64().unwrap(), "{end}");
}

/// It told how far its consumer was behind what had been sent, which at a slow pace is nothing.
#[test]
fn a_demo_out_of_time_says_how_far_it_came() {
    let directory = tempfile::tempdir().unwrap();
    let ended = Launch::command("demo")
        .arguments(["--exit", "--json", "--rate", "100", "--time-limit", "2"])
        .arguments(["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
        .argument(directory.path())
        .run(LIMIT);
    assert!(!ended.status.success());
    let told = ended.stderr.lines().find_map(|line| line.strip_prefix("error: the time limit is over: "));
    let told = told.unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(told.contains(" of 36,534 events played, ") && told.ends_with(" stored"), "{told}");
}
