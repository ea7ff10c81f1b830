//! Starting and stopping: the ready line and file, SIGTERM, and every way a start can be refused.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tidings_tests::{Ended, Http, LONG, Launch, until};

use crate::support::{ACTIVITIES, activity, stored_ids, until_stored};

/// What a stop may take: the five seconds that are promised, and as much again for a machine that does much
/// else.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The program refused to start: status other than 0, and one line that says all of `words`.
#[track_caller]
fn refused(ended: &Ended, words: &[&str]) {
    assert!(!ended.status.success(), "it started:\n{}{}", ended.stdout, ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "expected one line of error:\n{}", ended.stderr);
    for word in words {
        assert!(errors[0].contains(word), "no '{word}' in: {}", errors[0]);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn ready_is_said_by_a_line_and_a_file_and_nothing_else_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let ready = tidings.ready().clone();
    assert_eq!(ready["pid"], tidings.pid());
    let (kafka, http) =
        (ready["kafka"].as_str().unwrap().to_owned(), ready["http"].as_str().unwrap().to_owned());
    // The line follows the file.
    until("the line is printed", || tidings.logged().contains("ready ").then_some(()));
    // The ports answer; that the writer has joined its group is what /readyz adds.
    until("everything can do its work", || Http::new(&http).is_ready().then_some(()));
    let ended = tidings.terminate(STOP_LIMIT);
    assert!(ended.status.success(), "{:?}\n{}", ended.status, ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("ready")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.stdout);
    assert!(lines[0].contains(&kafka) && lines[0].contains(&http), "{}", lines[0]);
}

#[test]
fn a_broker_alone_has_no_http() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::broker(directory.path()).start();
    assert!(tidings.ready()["http"].is_null());
    assert!(tidings.ready()["kafka"].is_string());
    let ended = tidings.terminate(STOP_LIMIT);
    assert!(ended.status.success(), "{:?}\n{}", ended.status, ended.stderr);
}

#[test]
fn a_stop_under_load_is_clean_and_loses_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        let tidings = Launch::up(directory.path()).start();
        let http = tidings.http();
        let batch: Vec<_> = (0..500).map(|number| activity("acme", &format!("a-{number}"), number)).collect();
        http.post(ACTIVITIES, &batch.into()).expect(200);
        tidings.signal(signal);
        let ended = tidings.wait(STOP_LIMIT);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);

        let again = Launch::up(directory.path()).start();
        let stored = until_stored(&again.http(), "acme", 500);
        assert!(stored.values().all(|count| *count == 1));
    }
}

#[test]
fn idle_connections_do_not_hold_a_stop_up() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let address = tidings.ready()["http"].as_str().unwrap().to_owned();
    let _open: Vec<_> =
        [address, tidings.bootstrap()].map(|address| std::net::TcpStream::connect(address).unwrap()).into();
    let consumer = tidings.kafka().reader("waits");
    rdkafka::consumer::Consumer::subscribe(&consumer, &["activities"]).unwrap();
    let _ = consumer.poll(Duration::from_millis(200));
    let ended = tidings.terminate(STOP_LIMIT);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn a_second_program_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = Launch::up(directory.path()).start();
    let path = directory.path().to_string_lossy().into_owned();
    refused(&Launch::up(directory.path()).run(LONG), &[&path]);
    refused(&Launch::broker(directory.path()).run(LONG), &[&path]);
    until("the first is unharmed", || first.http().is_ready().then_some(()));
    first.kill_now();
    // A lock does not outlive its holder, however that ended.
    drop(Launch::broker(directory.path()).start());
}

#[test]
fn a_directory_of_another_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Launch::broker(directory.path()).start().kill_now();
    let properties = directory.path().join("meta.properties");
    let text = std::fs::read_to_string(&properties).unwrap();
    let other: String = text
        .lines()
        .map(
            |line| if line.starts_with("version=") { "version=99\n".to_owned() } else { format!("{line}\n") },
        )
        .collect();
    assert_ne!(text, other);
    std::fs::write(&properties, &other).unwrap();
    refused(&Launch::broker(directory.path()).run(LONG), &[&directory.path().to_string_lossy(), "99"]);
    // And nothing was changed by the attempt.
    assert_eq!(std::fs::read_to_string(&properties).unwrap(), other);
}

#[test]
fn a_store_of_a_newer_version_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("activities.db");
    Launch::up(directory.path()).start().terminate(LONG);
    let store = rusqlite::Connection::open(&path).unwrap();
    store.pragma_update(None, "user_version", 99).unwrap();
    store.close().unwrap();
    let ended = Launch::up(directory.path()).run(LONG);
    refused(&ended, &[&path.to_string_lossy(), "schema version 99", "expected 1 to "]);
    let hint = ended.stderr.lines().find(|line| line.starts_with("hint: "));
    assert!(hint.is_some_and(|hint| hint.contains("newer version of tidings")), "{}", ended.stderr);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    Launch::broker(&data).start().kill_now();
    let set_mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set_mode(directory.path(), 0o755);
    set_mode(&data, 0o555);
    let mut launch = Launch::broker(&data);
    if rustix::process::geteuid().is_root() {
        // Root may write whatever the mode says: be somebody else.
        launch = launch.as_user(65534);
    }
    let ended = launch.run(LONG);
    set_mode(&data, 0o755);
    refused(&ended, &[&data.to_string_lossy()]);
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    refused(&Launch::broker(&file).run(LONG), &[&file.to_string_lossy()]);
}

#[test]
fn a_taken_port_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&Launch::broker(directory.path()).at(&address).run(LONG), &[&address]);
    let http = Launch::command("up").arguments(["--kafka", "127.0.0.1:0", "--http", &address, "--data-dir"]);
    refused(&http.argument(directory.path()).run(LONG), &[&address]);
}

#[test]
fn bad_settings_are_named_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let broker = || Launch::broker(directory.path());
    refused(&broker().arguments(["--set", "num.partitions=many"]).run(LONG), &["num.partitions", "many"]);
    refused(&broker().arguments(["--set", "no.such.setting=1"]).run(LONG), &["no.such.setting"]);
    refused(&broker().environment("TIDINGS_NO_SUCH_KEY", "1").run(LONG), &["TIDINGS_NO_SUCH_KEY"]);
    let file = directory.path().join("tidings.toml");
    std::fs::write(&file, "kafka = \"127.0.0.1:0\"\nhttp = \n").unwrap();
    let with_file = || broker().argument("--config").argument(&file);
    refused(&with_file().run(LONG), &["tidings.toml", "line 2"]);
    std::fs::write(&file, "no_such_key = 1\n").unwrap();
    refused(&with_file().run(LONG), &["tidings.toml", "no_such_key"]);
}

#[test]
fn leaving_loopback_needs_saying_so() {
    let directory = tempfile::tempdir().unwrap();
    refused(&Launch::broker(directory.path()).at("0.0.0.0:0").run(LONG), &["0.0.0.0", "--insecure"]);
    drop(Launch::broker(directory.path()).at("0.0.0.0:0").argument("--insecure").start());
}

/// What can change at run time does, the rest is told, and what is wrong changes nothing.
#[test]
fn a_hangup_has_the_settings_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("settings.toml");
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    write("log = \"info\"\n");
    let launch = Launch::up(&directory.path().join("data")).argument("--config").argument(&config);
    let tidings = launch.start();
    let told = |what: &str| {
        let before = tidings.logged().len();
        tidings.signal(Signal::HUP);
        until(what, || tidings.logged()[before..].contains(what).then_some(()));
        tidings.logged()[before..].to_owned()
    };
    assert!(!tidings.logged().contains("DEBUG"), "{}", tidings.logged());
    write("log = \"debug\"\n");
    told("the settings were read again");
    tidings.kafka().create_topic("noted", 1);
    until("more is logged", || tidings.logged().contains("DEBUG").then_some(()));
    for (text, what) in [
        ("log = [", "settings.toml, line 1"),
        ("log = \"info\"\nsurprise = 1\n", "surprise: no such setting"),
        ("log = \"info\"\n[broker]\nnum.partitions = \"many\"\n", "num.partitions"),
        ("log = \"no=such=filter\"\n", "is not a log filter"),
        ("log = \"debgu\"\n", "log: expected off, error, warn, info, debug or trace"),
        ("log = \"info\"\nadvertised = \"nowhere\"\n", "advertised: expected HOST:PORT"),
    ] {
        write(text);
        let said = told("all stay as they were");
        assert!(said.contains(what), "{text}: {said}");
    }
    tidings
        .http()
        .post(ACTIVITIES, &json!({"tenant": "acme", "action": "a", "occurred_at": "2001-01-01T00:00:00Z"}))
        .expect(200);
    until_stored(&tidings.http(), "acme", 1);
    write("log = \"info\"\n[activity]\nretention_days = 30\n");
    let said = told("the settings were read again");
    assert!(!said.contains("wait for a restart"), "{said}");
    until("what is too old is gone", || stored_ids(&tidings.http(), "acme").is_empty().then_some(()));
    write(
        "log = \"info\"\nhost_names = [\"tidings.lan\"]\n[broker]\nnum.partitions = 4\n[activity]\npartitions = 9\n",
    );
    let said = told("wait for a restart");
    assert!(said.contains("host_names, activity, broker.num.partitions"), "{said}");
    assert_eq!(tidings.http().get("/healthz").status, 200);
    assert!(tidings.terminate(LONG).status.success());
}
