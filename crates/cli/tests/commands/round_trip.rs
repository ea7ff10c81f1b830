//! The client commands against the platform: what one command does, the next one sees.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::support::{Scratch, check_refused};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

/// A platform on free ports, and its addresses.
struct Platform {
    scratch: Scratch,
    child: Child,
    kafka: String,
    http: String,
}

impl Platform {
    fn start() -> Platform {
        let scratch = Scratch::new();
        let mut command: Command = scratch.command();
        command.args(["up", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file", "ready.json"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let child = command.spawn().unwrap();
        let file = scratch.path().join("ready.json");
        let ready = wait_for("the platform to be ready", || std::fs::read(&file).ok());
        let ready: Value = serde_json::from_slice(&ready).unwrap();
        let address = |name: &str| ready[name].as_str().unwrap().to_owned();
        Platform { kafka: address("kafka"), http: address("http"), scratch, child }
    }

    #[track_caller]
    fn kafka(&self, arguments: &[&str]) -> String {
        self.succeed(arguments, &["--bootstrap", &self.kafka])
    }

    #[track_caller]
    fn http(&self, arguments: &[&str]) -> String {
        self.succeed(arguments, &["--http", &self.http])
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str], address: &[&str]) -> String {
        let ended = self.scratch.run(arguments, address);
        let (stdout, stderr) = (String::from_utf8(ended.stdout), String::from_utf8(ended.stderr));
        assert!(ended.status.success(), "{arguments:?}: {stdout:?} {stderr:?}");
        stdout.unwrap()
    }

    /// Lists activities until there are so many.
    fn stored(&self, tenant: &str, count: usize) -> Vec<Value> {
        wait_for("the activities to be stored", || {
            let page = self.http(&["activity", "list", "--json", "--tenant", tenant]);
            let page: Value = serde_json::from_str(&page).unwrap();
            let items = page["items"].as_array().unwrap().clone();
            (items.len() == count).then_some(items)
        })
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

/// Asks again until there is an answer.
#[track_caller]
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_ready_file_is_there_while_the_platform_is() {
    let mut platform = Platform::start();
    let file = platform.scratch.path().join("ready.json");
    let second = platform.scratch.run(&["up"], &["--kafka", &platform.kafka, "--ready-file", "ready.json"]);
    assert!(!second.status.success() && file.exists(), "a second one took the first one's file");
    kill_process(Pid::from_child(&platform.child), Signal::TERM).unwrap();
    assert!(platform.child.wait().unwrap().success());
    assert!(!file.exists());
}

#[test]
fn topics_are_created_described_and_deleted() {
    let platform = Platform::start();
    let created =
        platform.kafka(&["topic", "create", "orders", "--partitions", "2", "--config", "retention.ms=60000"]);
    assert_eq!(created, "created orders with 2 partitions\n");
    let refused = platform
        .scratch
        .run(&["topic", "create", "other", "--config", "foo=bar"], &["--bootstrap", &platform.kafka]);
    check_refused(
        &refused,
        "error: cannot create topic other: InvalidConfig: unknown setting foo: found \"bar\"\n",
    );
    assert!(platform.kafka(&["topic", "list"]).contains("\norders "));
    assert_eq!(
        platform.kafka(&["topic", "describe", "orders"]),
        "topic orders\n  retention.ms = 60000\n\
         PARTITION  LEADER  START  END  OFFSETS\n\
         0          1       0      0    0\n\
         1          1       0      0    0\n"
    );
    assert_eq!(platform.kafka(&["topic", "delete", "orders"]), "deleted orders\n");
    let again = platform.scratch.run(&["topic", "delete", "orders"], &["--bootstrap", &platform.kafka]);
    check_refused(&again, "error: topic orders does not exist\n");
}

#[test]
fn an_internal_topic_stays() {
    let platform = Platform::start();
    let internal = "__consumer_offsets";
    // It is made for the first group.
    wait_for("the topic of groups", || {
        platform.kafka(&["topic", "list", "--internal"]).contains(internal).then_some(())
    });
    let refused = platform.scratch.run(&["topic", "delete", internal], &["--bootstrap", &platform.kafka]);
    check_refused(&refused, &format!("error: topic {internal} is internal and cannot be deleted\n"));
}

#[test]
fn a_login_where_there_is_none_is_told_so() {
    let platform = Platform::start();
    let login = "security_protocol = \"sasl_plaintext\"\nuser = \"ann\"\npassword = \"s3cret\"\n";
    platform.scratch.write("login.toml", &format!("[cluster]\n{login}"));
    let address = ["--bootstrap", &platform.kafka, "--cluster-config", "login.toml"];
    let refused = platform.scratch.run(&["topic", "list"], &address);
    let expected = format!(
        "error: cannot list topics: SASL mechanism refused by {}, which offers none\n\
         hint: log in without SASL (security_protocol plaintext or ssl), or use the port of a listener that has it\n",
        platform.kafka
    );
    check_refused(&refused, &expected);
}

#[test]
fn activities_are_sent_listed_and_followed() {
    let platform = Platform::start();
    let send = ["activity", "send", "--tenant", "acme", "--action", "invoice.paid", "--id", "one"];
    let details = ["--actor", "user:ada:Ada", "--target", "invoice:17", "--metadata", "{\"amount\": 5}"];
    assert_eq!(platform.http(&[&send[..], &details[..]].concat()), "accepted one\n");
    platform.scratch.write(
        "more.ndjson",
        "{\"tenant\": \"acme\", \"action\": \"invoice.sent\", \"id\": \"two\"}\n\
         {\"tenant\": \"acme\"}\n\
         {\"tenant\": \"acme\", \"action\": \"invoice.sent\", \"id\": \"three\"}\n",
    );
    let arguments = ["activity", "send", "--file", "more.ndjson"];
    let ended = platform.scratch.run(&arguments, &["--http", &platform.http]);
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "accepted 2\n");
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(stderr, "line 2: action: is missing\nerror: 1 of 3 lines were refused\n");

    let items = platform.stored("acme", 3);
    assert!(items.iter().any(|item| item["metadata"]["amount"] == 5), "{items:?}");
    let list = platform.http(&["activity", "list", "--tenant", "acme", "--action", "invoice.p*"]);
    assert!(list.contains("user:ada (Ada)") && list.contains("invoice:17"), "{list}");
    let tail = ["activity", "tail", "--from-beginning", "--max", "2", "--action", "invoice.sent"];
    let followed = platform.kafka(&tail);
    assert_eq!(
        followed.lines().filter(|line| line.contains("  acme  invoice.sent  ")).count(),
        2,
        "{followed}"
    );
}

#[test]
fn dead_letters_are_listed_shown_and_decided_about() {
    let platform = Platform::start();
    let cluster = tidings::Cluster::new(platform.kafka.as_str());
    let producer = tidings::Producer::new(&cluster, tidings::ProducerOptions::default()).unwrap();
    let bad = tidings::Record::new("activities").key("acme").value("not JSON").header("trace", "t-1");
    for sent in producer.send_batch_blocking(&[bad.clone(), bad], LIMIT) {
        sent.unwrap();
    }
    let listed = wait_for("the dead letters", || {
        let listed = platform.kafka(&["dlq", "list", "activities"]);
        (listed.lines().count() == 3).then_some(listed)
    });
    assert!(listed.contains("0-0") && listed.contains("the value is not JSON"), "{listed}");
    let shown = platform.kafka(&["dlq", "show", "activities", "0-1"]);
    for line in ["value     not JSON", "key       acme", "header    trace = t-1", "status    parked"] {
        assert!(shown.lines().any(|shown| shown == line), "no {line:?} in: {shown}");
    }
    let discard = ["dlq", "discard", "activities", "0-1"];
    let tried = platform.kafka(&[&discard[..], &["--dry-run"]].concat());
    assert_eq!(tried, "would be discarded 1, skipped 0\n");
    assert_eq!(platform.kafka(&discard), "discarded 1, skipped 0\n");
    assert_eq!(platform.kafka(&["dlq", "list", "activities"]).lines().count(), 2);
    // It fails again, and comes back as another letter.
    assert_eq!(platform.kafka(&["dlq", "redrive", "activities", "--all"]), "redriven 1, skipped 0\n");
    wait_for("the redriven record to fail again", || {
        let letters = platform.kafka(&["dlq", "list", "activities", "--all", "--json"]);
        let letters: Value = serde_json::from_str(&letters).unwrap();
        let items = letters["items"].as_array().unwrap().clone();
        (items.len() == 3 && items[2]["context"]["redrives"] == 1).then_some(())
    });
}

#[test]
fn keys_that_wait_are_shown_with_what_they_wait_for() {
    use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
    let platform = Platform::start();
    platform.kafka(&["topic", "create", "orders"]);
    let cluster = tidings::Cluster::new(platform.kafka.as_str());
    let producer = tidings::Producer::new(&cluster, tidings::ProducerOptions::default()).unwrap();
    let order = |number: usize| tidings::Record::new("orders").key("ann").value(number.to_string());
    for sent in producer.send_batch_blocking(&[order(0), order(1), order(2)], LIMIT) {
        sent.unwrap();
    }
    let options = ConsumerOptions::new("billing", ["orders"]).preserve_key_order();
    let reject = |_: &tidings::ReceivedRecord| Outcome::Reject(tidings::failure::Failure::new("no"));
    let consumer = Consumer::for_each(&cluster, producer, options, reject).unwrap();
    wait_for("all to be parked", || (consumer.state().rejected == 3).then_some(()));
    consumer.stop(LIMIT).unwrap();
    assert_eq!(
        platform.kafka(&["dlq", "queues", "orders"]),
        "KEY  GROUP    PARTITION  FIRST  STANDING  WAITING\nann  billing  0          0-0    failed    2\n"
    );
    let queues = platform.kafka(&["dlq", "queues", "orders", "--json"]);
    let queues: Value = serde_json::from_str(&queues).unwrap();
    assert_eq!((&queues[0]["key"], &queues[0]["waiting"]), (&Value::from("ann"), &Value::from(2)));
    for command in ["queues", "list"] {
        let mistyped = platform.scratch.run(&["dlq", command, "ordres"], &["--bootstrap", &platform.kafka]);
        check_refused(&mistyped, "error: topic ordres has no failure inbox: ordres.dlq does not exist\n");
    }
    let listed = platform.kafka(&["dlq", "list", "orders"]);
    assert!(listed.contains("parked, 2 wait") && listed.contains("behind 0-0"), "{listed}");
}

#[test]
fn payloads_whose_records_are_gone_are_collected() {
    let platform = Platform::start();
    platform.kafka(&["topic", "create", "scans"]);
    let folder = platform.scratch.path().join("payloads/scans");
    std::fs::create_dir_all(&folder).unwrap();
    // Made in 2023, as its name says, and no record refers to it.
    std::fs::write(folder.join("018bcfe5-6800-7000-8000-000000000001"), "large").unwrap();
    let collect = ["claim-check", "collect", "scans", "--directory", "payloads"];
    assert_eq!(platform.kafka(&collect), "scans: deleted 1, kept 0\n");
    assert!(folder.read_dir().unwrap().next().is_none());
    let missing = ["claim-check", "collect", "scans", "--directory", "paylods"];
    let refused = platform.scratch.run(&missing, &["--bootstrap", &platform.kafka]);
    check_refused(&refused, "error: paylods is no directory\n");
}

#[test]
fn groups_and_an_empty_inbox_are_shown() {
    let platform = Platform::start();
    platform.http(&["activity", "send", "--tenant", "acme", "--action", "a.b"]);
    platform.stored("acme", 1);
    let address = format!("http://{}", platform.http);
    platform.succeed(&["activity", "list", "--tenant", "acme"], &["--http", &address]);
    assert!(platform.kafka(&["group", "list"]).contains("activity-writer"));
    let described = wait_for("the offset to be committed", || {
        let described = platform.kafka(&["group", "describe", "activity-writer", "--json"]);
        let described: Value = serde_json::from_str(&described).unwrap();
        let offsets = described["offsets"].as_array().unwrap().clone();
        offsets.iter().any(|offset| offset["committed_offset"] == 1).then_some(described)
    });
    assert_eq!(described["members"].as_array().unwrap().len(), 1);
    let refused =
        platform.scratch.run(&["group", "delete", "activity-writer"], &["--bootstrap", &platform.kafka]);
    check_refused(
        &refused,
        "error: group activity-writer still has members\nhint: stop the group's members first; one that did not leave, \
         as static members never do, goes when its session times out, 45 s by default\n",
    );
    assert_eq!(platform.kafka(&["dlq", "list", "activities"]), "ID  STATUS  FROM  GROUP  PARKED  ERROR\n");
}

/// A check said nothing of a folder that was not there, without which no broker starts.
#[test]
fn a_check_names_the_folder_that_a_topic_misses() {
    let mut platform = Platform::start();
    platform.kafka(&["topic", "create", "orders", "--partitions", "2"]);
    platform.child.kill().unwrap();
    platform.child.wait().unwrap();
    let check = |arguments: &[&str]| platform.scratch.run(&["log", "check"], arguments);
    assert!(check(&[]).status.success());
    std::fs::remove_dir_all(platform.scratch.path().join("tidings-data/orders-1")).unwrap();
    let missing = "orders-1: the topic exists, but its folder ./tidings-data/orders-1 is missing; restore it from a backup, or \
                   delete the data directory to start empty";
    for arguments in [&[][..], &["orders-1"], &["orders-0", "orders-1"]] {
        let ended = check(arguments);
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(stderr, format!("error: 1 damaged place found\nhint: {missing}\n"), "{arguments:?}");
        assert_eq!(ended.status.code(), Some(1));
        let stdout = String::from_utf8(ended.stdout).unwrap();
        assert!(stdout.contains("MISSING\n") && stdout.ends_with(&format!("\n{missing}\n")), "{stdout}");
        assert_eq!(stdout.contains("orders-0"), arguments != ["orders-1"], "{stdout}");
    }
    assert!(check(&["orders-0"]).status.success());
    let json: Value = serde_json::from_slice(&check(&["--json", "orders-1"]).stdout).unwrap();
    assert_eq!(json["bad_folders"][0]["topic_partition"], "orders-1");
}
