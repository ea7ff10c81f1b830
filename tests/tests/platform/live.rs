//! The live tail from outside: what is accepted is told, in order and once, across kills and outages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidings_postgres_server::PostgresServer;
use tidings_tests::{Http, LONG, Launch};

use crate::site::Site;
use crate::support::{ACTIVITIES, activity, until_ready, until_stored};

/// One reader of the live tail.
pub struct Tail {
    stream: BufReader<TcpStream>,
    /// What came and is no whole block of lines yet.
    text: String,
    /// The last token.
    token: String,
}

impl Tail {
    /// Connects and reads the first token.
    #[track_caller]
    pub fn open(http: &Http, tenant: &str, token: Option<&str>) -> Self {
        let stream = TcpStream::connect(http.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let token = token.map_or(String::new(), |token| format!("last-event-id: {token}\r\n"));
        let head = format!(
            "GET {ACTIVITIES}/live?tenant={tenant} HTTP/1.1\r\nhost: {}\r\n{token}\r\n",
            http.address()
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let mut tail = Self { stream, text: String::new(), token: String::new() };
        tail.block().expect("a tail begins with a token");
        tail
    }

    /// The next block of lines; `None` at the end of the stream, however it comes.
    fn block(&mut self) -> Option<String> {
        while !self.text.contains("\n\n") {
            let mut size = String::new();
            self.stream.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).ok()?;
            self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("events are text"));
        }
        let (block, rest) = self.text.split_once("\n\n")?;
        let (block, rest) = (block.to_owned(), rest.to_owned());
        self.text = rest;
        self.token = block.lines().find_map(|line| line.strip_prefix("id: ")).expect("a token").to_owned();
        Some(block)
    }

    /// The ids of the next events.
    #[track_caller]
    pub fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        // Signs of life come all the time, whatever becomes of events.
        let deadline = Instant::now() + LONG;
        while ids.len() < count {
            assert!(Instant::now() < deadline, "after {ids:?} no more came within {LONG:?}");
            let block = self.block().expect("the tail goes on");
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                let activity: Value = serde_json::from_str(data).expect("an event is an activity");
                ids.push(activity["id"].as_str().unwrap().to_owned());
            }
        }
        ids
    }
}

fn post(http: &Http, tenant: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    let ids: Vec<String> = numbers.clone().map(|number| format!("{tenant}-{number:04}")).collect();
    let batch = ids.iter().zip(numbers).map(|(id, number)| activity(tenant, id, number));
    http.post(ACTIVITIES, &Value::Array(batch.collect())).expect(200);
    ids
}

#[test]
fn the_tail_goes_on_across_a_kill_and_ends_with_the_platform_in_sqlite() {
    the_tail_goes_on_across_a_kill_and_ends_with_the_platform("sqlite");
}

#[test]
fn the_tail_goes_on_across_a_kill_and_ends_with_the_platform_in_postgres() {
    let server = PostgresServer::shared();
    the_tail_goes_on_across_a_kill_and_ends_with_the_platform(&server.database());
}

fn the_tail_goes_on_across_a_kill_and_ends_with_the_platform(store: &str) {
    let site = Site::new();
    let launch = || site.platform().environment("TIDINGS_ACTIVITY_STORE", store);
    let tidings = launch().start();
    let http = tidings.http();
    until_ready(&http);
    post(&http, "acme", 0..10);
    until_stored(&http, "acme", 10);
    let mut tail = Tail::open(&http, "acme", None);
    let mut other = Tail::open(&http, "other", None);
    let sent = post(&http, "acme", 10..300);
    assert_eq!(tail.ids(290), sent);
    let others = post(&http, "other", 0..3);
    assert_eq!(other.ids(3), others);
    let sent = post(&http, "acme", 300..310);
    assert_eq!(tail.ids(5), sent[..5]);
    tidings.kill_now();
    // What the writer had not stored, or the connection not brought, comes behind the token.
    let tidings = launch().start();
    let http = tidings.http();
    until_ready(&http);
    let last = post(&http, "acme", 310..320);
    let mut tail = Tail::open(&http, "acme", Some(&tail.token));
    assert_eq!(tail.ids(15), [&sent[5..], &last[..]].concat());
    // A token of one tenant is no other's.
    let refused = http.request(
        "GET",
        &format!("{ACTIVITIES}/live?tenant=other"),
        &[("last-event-id", &tail.token)],
        b"",
    );
    refused.expect(400);
    // Readers hold up no shutdown, and see its end: nothing was given up for what had not finished.
    let ended = tidings.terminate(LONG);
    assert!(ended.status.success(), "{:?}\n{}", ended.status, ended.stderr);
    assert!(!ended.stderr.contains("before everything had finished"), "{}", ended.stderr);
    while tail.block().is_some() {}
}

/// What goes past the topic is told at once, and not a second time when it is published.
#[test]
fn the_tail_tells_what_the_fallback_took() {
    let (engine, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Launch::broker(engine.path()).start();
    let platform = Launch::up_on(&broker.bootstrap(), data.path())
        .environment("TIDINGS_ACTIVITY_ACK_TIMEOUT_MS", "300")
        .environment("TIDINGS_ACTIVITY_BREAKER_OPEN_MS", "500")
        .start();
    let http = platform.http();
    let mut tail = Tail::open(&http, "acme", None);
    let streamed = post(&http, "acme", 0..5);
    assert_eq!(tail.ids(5), streamed);
    broker.signal(Signal::STOP);
    let kept = post(&http, "acme", 5..10);
    assert_eq!(tail.ids(5), kept);
    broker.signal(Signal::CONT);
    tidings_tests::until("all is published", || {
        (http.metric("tidings_activity_unpublished")? == 0.0).then_some(())
    });
    let last = post(&http, "acme", 10..15);
    assert_eq!(tail.ids(5), last);
    let answer = http.post(ACTIVITIES, &json!({"tenant": "acme", "action": "a"})).expect(200);
    assert_eq!(tail.ids(1)[0], answer["results"][0]["id"]);
}
