//! The help of every command, as a person reads it. After a change: `INSTA_UPDATE=always cargo test -p tidings-cli`.

mod support;

use support::Scratch;

#[track_caller]
fn check(name: &str, arguments: &[&str]) {
    let ended = Scratch::new().run(arguments, &["--help"]);
    assert!(ended.status.success());
    let help = String::from_utf8(ended.stdout).unwrap();
    // clap shows the variable's value, and pads with spaces.
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(name, lines.join("\n"));
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
    check("topic", &["topic"]);
    check("topic-create", &["topic", "create"]);
    check("group", &["group"]);
}
