//! The help of every command, as a person reads it, against the files beside this one. After a change that was meant:
//! `TIDINGS_UPDATE=1 cargo test -p tidings-cli help`, and read the difference.

use std::path::Path;

use crate::support::Scratch;

#[track_caller]
fn check(name: &str, arguments: &[&str]) {
    let ended = Scratch::new().run(arguments, &["--help"]);
    assert!(ended.status.success());
    let help = String::from_utf8(ended.stdout).unwrap();
    let found: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/commands/help/{name}.txt"));
    if std::env::var_os("TIDINGS_UPDATE").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&file).unwrap(), "{}", file.display());
}

#[test]
fn help_is_as_it_was() {
    check("tidings", &[]);
    check("up", &["up"]);
    check("broker", &["broker"]);
    check("demo", &["demo"]);
    check("activity", &["activity"]);
    check("activity-send", &["activity", "send"]);
    check("activity-list", &["activity", "list"]);
    check("activity-tail", &["activity", "tail"]);
    check("dlq", &["dlq"]);
    check("dlq-redrive", &["dlq", "redrive"]);
    check("dlq-queues", &["dlq", "queues"]);
    check("claim-check", &["claim-check"]);
    check("claim-check-collect", &["claim-check", "collect"]);
    check("topic", &["topic"]);
    check("topic-create", &["topic", "create"]);
    check("group", &["group"]);
    check("backup", &["backup"]);
    check("backup-create", &["backup", "create"]);
    check("backup-restore", &["backup", "restore"]);
    check("log", &["log"]);
    check("log-check", &["log", "check"]);
    check("log-repair", &["log", "repair"]);
    check("log-dump", &["log", "dump"]);
}
