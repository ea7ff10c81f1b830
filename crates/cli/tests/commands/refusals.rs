//! What a person reads when a command cannot do what was asked: one line that says what is wrong, often a second that says
//! what to do, and a status other than 0.

use std::net::TcpListener;

use crate::support::{Scratch, check_refused};

#[test]
fn nobody_at_the_address() {
    let scratch = Scratch::new();
    let kafka = "no broker answers at 127.0.0.1:9: Connection refused (os error 111)";
    for command in [
        &["topic", "list"][..],
        &["topic", "create", "orders"],
        &["group", "describe", "billing"],
        &["dlq", "list", "orders"],
        &["activity", "tail"],
    ] {
        let ended = scratch.run(command, &["--bootstrap", "127.0.0.1:9"]);
        check_refused(&ended, &format!("error: {kafka}\n"));
    }
    let ended = scratch.run(&["activity", "list", "--tenant", "acme"], &["--http", "127.0.0.1:9"]);
    check_refused(
        &ended,
        "error: nothing answers at http://127.0.0.1:9: Connection refused (os error 111)\n\
         hint: start the platform with `tidings up`, or name its address with --http\n",
    );
}

/// The same variable tells a server of the container to listen on every interface, and a command there whom to ask.
#[test]
fn a_listener_on_every_interface_is_asked_through_loopback() {
    let scratch = Scratch::new();
    let mut command = scratch.command();
    command.args(["activity", "list", "--tenant", "acme"]).env("TIDINGS_HTTP", "0.0.0.0:9");
    check_refused(
        &command.output().unwrap(),
        "error: nothing answers at http://127.0.0.1:9: Connection refused (os error 111)\n\
         hint: start the platform with `tidings up`, or name its address with --http\n",
    );
}

#[test]
fn addresses_come_from_the_settings_unless_they_are_given() {
    let scratch = Scratch::new();
    scratch.write("tidings.toml", "bootstrap = \"127.0.0.1:9\"\nhttp = \"127.0.0.1:9\"\n");
    let nobody = |at: &str| format!("error: no broker answers at {at}: Connection refused (os error 111)\n");
    check_refused(&scratch.run(&["topic", "list"], &[]), &nobody("127.0.0.1:9"));
    check_refused(&scratch.run(&["topic", "list"], &["--bootstrap", "127.0.0.1:7"]), &nobody("127.0.0.1:7"));
    let mut command = scratch.command();
    command.args(["group", "list"]).env("TIDINGS_BOOTSTRAP", "127.0.0.1:5");
    check_refused(&command.output().unwrap(), &nobody("127.0.0.1:5"));
    let listed = scratch.run(&["activity", "list", "--tenant", "acme"], &[]);
    let listed = String::from_utf8(listed.stderr).unwrap();
    assert!(listed.starts_with("error: nothing answers at http://127.0.0.1:9: "), "{listed}");
    scratch.write("tidings.toml", "surprise = 1\n");
    let listed = scratch.run(&["activity", "list", "--tenant", "acme"], &["--http", "127.0.0.1:9"]);
    let listed = String::from_utf8(listed.stderr).unwrap();
    assert!(listed.starts_with("error: nothing answers at http://127.0.0.1:9: "), "{listed}");
}

#[test]
fn taken_ports_name_the_flag() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let hint = |flag| {
        format!(
            "hint: stop the program that uses the port, or name another port with {flag} (0 takes a free one)\n"
        )
    };
    for command in ["up", "demo"] {
        let ended = scratch.run(&[command], &["--kafka", "127.0.0.1:0", "--http", &address]);
        check_refused(
            &ended,
            &format!("error: http address {address} is taken by another program\n{}", hint("--http")),
        );
        let ended = scratch.run(&[command], &["--kafka", &address, "--http", "127.0.0.1:0"]);
        check_refused(
            &ended,
            &format!(
                "error: cannot listen on {address}: Address already in use (os error 98)\n{}",
                hint("--kafka")
            ),
        );
    }
}

#[test]
fn bad_settings_say_where_they_are() {
    let scratch = Scratch::new();
    let check = |toml: &str, arguments: &[&str], expect: &str| {
        scratch.write("tidings.toml", toml);
        check_refused(&scratch.run(&["broker"], arguments), &format!("error: {expect}\n"));
    };
    check("", &["--set", "num.partition=4"], "--set: unknown setting num.partition: found \"4\"");
    check(
        "[broker]\nnum.partitions = 0",
        &[],
        "tidings.toml: setting num.partitions: expected a whole number of at least 1, found \"0\"",
    );
    check(
        "[activity]\npartition = 1",
        &[],
        "tidings.toml: activity.partition: no such setting; there are topic, store, retention_days, retention_days_per_tenant, partitions, dlq_partitions, ack_timeout_ms, \
         breaker_failures, breaker_open_ms, spool_max_bytes",
    );
    check("kafka = [1]", &[], "tidings.toml: kafka: expected a string, found a list");
    check("", &["--config", "other.toml"], "no configuration file at other.toml");
    check(
        "",
        &["--kafka", "0.0.0.0:0"],
        "kafka: 0.0.0.0:0 can be reached from other machines, and nothing asks who is there: add --insecure to allow it",
    );
    check(
        "log = \"warning\"",
        &[],
        "log: expected off, error, warn, info, debug or trace, or a list as warn,tidings_broker=debug, found \"warning\"",
    );
    scratch.write("a-file", "");
    check("", &["--data-dir", "a-file"], "data_dir: expected a directory, found the file a-file");
    check("log = \"=,\"", &[], "log: \"=,\" is not a log filter: invalid filter directive");
}

/// Whoever waits for the file went on with the addresses of a server that was gone.
#[test]
fn a_failed_start_leaves_no_ready_file() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let check = |command: &str, arguments: &[&str], toml: &str| {
        scratch.write("tidings.toml", toml);
        scratch.write("ready.json", "{}");
        let ended = scratch.run(&[command], arguments);
        assert_eq!(ended.status.code(), Some(1), "{command} {arguments:?}");
        assert!(!scratch.path().join("ready.json").exists(), "{command} {arguments:?}");
    };
    for command in ["up", "broker"] {
        check(command, &["--ready-file", "ready.json"], "surprise = 1");
        check(command, &["--ready-file", "ready.json", "--kafka", &taken], "http = '127.0.0.1:0'");
        check(command, &["--set", "num.partition=4"], "ready_file = 'ready.json'");
    }
}

#[test]
fn bad_usage_is_status_2() {
    let scratch = Scratch::new();
    for arguments in [
        &["frobnicate"][..],
        &["up", "--set", "num.partitions"],
        &["up", "--bootstrap", "a:1", "--kafka", "127.0.0.1:1"],
        &["up", "--bootstrap", "foo:bar"],
        &["up", "--bootstrap", "a:1,127.0.0.1"],
        &["topic", "list", "--bootstrap", "127.0.0.1"],
        &["activity", "list"],
        &["activity", "send"],
        &["activity", "list", "--tenant", "a", "--limit", "501"],
        &["activity", "list", "--tenant", "a", "--http", "https://tidings.lan:8080"],
        &["dlq", "redrive", "orders"],
        &["dlq", "redrive", "orders", "0-1", "--all"],
        &["topic", "create", "orders", "--partitions", "0"],
        &["demo", "--rate", "0"],
        &["log", "repair", "orders-0"],
        &["log", "repair", "orders-0", "--drop-damaged", "--truncate-at", "7"],
        &["log", "check", "orders"],
    ] {
        let ended = scratch.run(arguments, &[]);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    }
}

#[test]
fn what_is_missing_is_told_with_every_choice() {
    let scratch = Scratch::new();
    let check = |arguments: &[&str], choice: &str| {
        let ended = scratch.run(arguments, &[]);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(ended.stderr).unwrap();
        let missing = stderr.lines().find(|line| line.starts_with("  "));
        assert_eq!(missing.map(str::trim), Some(choice), "{stderr}");
    };
    check(&["dlq", "redrive", "orders"], "<IDS|--all>...");
    check(&["dlq", "discard", "orders"], "<IDS|--all>...");
    check(&["claim-check", "collect", "scans"], "<--directory <DIR>|--bucket <ADDRESS>>");
    let ended = scratch.run(&["dlq", "redrive", "orders", "--all", "--max-per-second", "0"], &[]);
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(stderr.contains("expected a whole number from 1 to "), "{stderr}");
    for arguments in [
        &["--directory", ".", "--bucket", "s3://a/b"][..],
        &["--directory", ".", "--endpoint", "http://127.0.0.1:9"],
    ] {
        let ended = scratch.run(&["claim-check", "collect", "scans"], arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_letter_id_is_checked_before_anything_is_asked() {
    let scratch = Scratch::new();
    let ended = scratch.run(&["dlq", "show", "orders", "17"], &["--bootstrap", "127.0.0.1:9"]);
    check_refused(&ended, "error: letter id \"17\" is not of the form partition-offset, such as 0-42\n");
}

#[test]
fn log_commands_name_the_directory() {
    let scratch = Scratch::new();
    let ended = scratch.run(&["log", "check"], &["--data-dir", "nowhere"]);
    check_refused(
        &ended,
        "error: nowhere is no data directory: it has no meta.properties\nhint: name the directory with --data-dir\n",
    );
}

#[test]
fn the_data_directory_comes_from_the_settings_unless_it_is_given() {
    let scratch = Scratch::new();
    scratch.write("tidings.toml", "data_dir = \"of-the-file\"\n");
    scratch.write("other.toml", "data_dir = \"of-the-other\"\n");
    let hint = "hint: name the directory with --data-dir\n";
    let check = |arguments: &[&str], environment: &[(&str, &str)], data_dir: &str| {
        let mut log = scratch.command();
        log.args(["log", "check"]).args(arguments).envs(environment.iter().copied());
        let expected = format!("error: {data_dir} is no data directory: it has no meta.properties\n{hint}");
        check_refused(&log.output().unwrap(), &expected);
        let mut backup = scratch.command();
        backup.args(["backup", "create", "copy"]).args(arguments).envs(environment.iter().copied());
        let ended = String::from_utf8(backup.output().unwrap().stderr).unwrap();
        assert!(ended.starts_with(&format!("error: no server runs on {data_dir}\n")), "{ended}");
    };
    check(&[], &[], "of-the-file");
    check(&[], &[("TIDINGS_CONFIG", "other.toml")], "of-the-other");
    check(&["--config", "other.toml"], &[], "of-the-other");
    check(&[], &[("TIDINGS_DATA_DIR", "of-the-environment")], "of-the-environment");
    check(&["--data-dir", "of-the-flag"], &[("TIDINGS_DATA_DIR", "of-the-environment")], "of-the-flag");
    scratch.write("tidings.toml", "surprise = 1\n");
    check(&["--data-dir", "of-the-flag"], &[], "of-the-flag");
}

/// Whoever gives a server its own backup for a data directory gets neither.
#[test]
fn no_server_starts_in_a_backup() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path().join("copy/data")).unwrap();
    scratch.write("copy/manifest.json", "{}");
    for command in ["up", "broker", "demo"] {
        let ended = scratch.run(&[command], &["--data-dir", "copy"]);
        check_refused(
            &ended,
            "error: copy is a backup: make a data directory of it with `tidings backup restore copy --data-dir DIR`\n",
        );
    }
    assert_eq!(std::fs::read_dir(scratch.path().join("copy")).unwrap().count(), 2);
}

#[test]
fn what_is_no_segment_is_named() {
    let scratch = Scratch::new();
    let dump = |file: &str| scratch.run(&["log", "dump"], &[file]);
    check_refused(&dump("nofile"), "error: dump nofile: No such file or directory (os error 2)\n");
    check_refused(&dump("."), "error: dump .: Is a directory (os error 21)\n");
    scratch.write(
        "notes.txt",
        "This is a text, and not a single record batch is in it. It only has to be long enough.",
    );
    let ended = dump("notes.txt");
    let expected =
        "error: notes.txt has no valid record batch: expected a segment's .log file, or a .cut file\n";
    assert_eq!(String::from_utf8_lossy(&ended.stderr), expected);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.starts_with(b"DAMAGE position: 0"));
}
