//! Activities and questions about them that several modules ask.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidings_tests::{Http, LONG, Response, until, until_within};

/// The group that stores activities.
pub const WRITER: &str = "activity-writer";
/// How long it may take until the writer runs, or has stored what there is: a cluster may have to come back
/// first.
const WRITER_PATIENCE: Duration = Duration::from_secs(180);
/// The way in, and the list.
pub const ACTIVITIES: &str = "/api/v1/activities";

/// An activity of `tenant` with an id of the caller's, at a minute of January 2026.
pub fn activity(tenant: &str, id: &str, minute: usize) -> Value {
    let minute = minute % (31 * 1440);
    json!({
        "id": id,
        "tenant": tenant,
        "actor": {"type": "user", "id": "u-1", "name": "Ada"},
        "action": "invoice.created",
        "targets": [{"type": "invoice", "id": format!("invoice-{id}")}],
        "metadata": {"amount": minute},
        "occurred_at": format!("2026-01-{:02}T{:02}:{:02}:00Z", 1 + minute / 1440, minute / 60 % 24, minute % 60),
    })
}

/// How often each id of a tenant is stored, by paging through the list to its end.
#[track_caller]
pub fn stored_ids(http: &Http, tenant: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut cursor = None;
    loop {
        let mut path = format!("{ACTIVITIES}?tenant={tenant}&limit=500");
        if let Some(cursor) = &cursor {
            path += &format!("&cursor={cursor}");
        }
        let page = http.get(&path).expect(200);
        for item in page["items"].as_array().expect("a page has items") {
            *counts.entry(item["id"].as_str().expect("an item has an id").to_owned()).or_insert(0) += 1;
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return counts;
        }
    }
}

/// Waits until cluster and store have been reached.
#[track_caller]
pub fn until_ready(http: &Http) {
    until_within(WRITER_PATIENCE, "it is ready", || http.is_ready().then_some(()));
}

/// Waits until a tenant has `count` different activities in the store.
#[track_caller]
pub fn until_stored(http: &Http, tenant: &str, count: usize) -> BTreeMap<String, usize> {
    until_within(WRITER_PATIENCE, &format!("{count} activities of {tenant} are stored"), || {
        let stored = stored_ids(http, tenant);
        (stored.len() >= count).then_some(stored)
    })
}

/// What a recorder of a service's requests makes of an order that Ada paid with a secret in the query, and of one that
/// could not be deleted; answers the first.
#[track_caller]
pub fn check_recorded(http: &Http, [paid_action, deleted_action]: [&str; 2]) -> Value {
    until_stored(http, "acme", 2);
    let page = http.get(&format!("{ACTIVITIES}?tenant=acme")).expect(200);
    let [deleted, paid] = page["items"].as_array().expect("items").as_slice() else { panic!("{page}") };
    assert_eq!(paid["action"], paid_action);
    assert_eq!(paid["actor"], json!({"type": "user", "id": "ada"}));
    assert_eq!(paid["targets"], json!([{"type": "order", "id": "17"}]));
    assert_eq!(paid["context"]["user_agent"], "till");
    let metadata = &paid["metadata"];
    assert_eq!((&metadata["status"], &metadata["outcome"]), (&json!(200), &json!("success")));
    assert_eq!(metadata["query"], json!({"token": "[redacted]", "note": "hi"}));
    assert_eq!(metadata["path"], "/orders/17/pay");
    assert!(metadata["duration_ms"].is_number());
    assert!(!page.to_string().contains("s3cret"), "{page}");
    assert_eq!(deleted["action"], deleted_action);
    let metadata = &deleted["metadata"];
    assert_eq!((&metadata["status"], &metadata["outcome"]), (&json!(409), &json!("failure")));
    paid.clone()
}

/// What a client may write into its request so that the platform's rules refuse the record of it; `LONG` is some thousands of
/// characters.
pub const HOSTILE_HEADERS: [(&str, &str); 9] = [
    ("user-agent", "LONG"),
    ("user-agent", "a\tb"),
    ("user-agent", "a\u{85}b"),
    ("x-request-id", "LONG"),
    ("x-request-id", ""),
    ("x-correlation-id", "LONG"),
    ("x-correlation-id", ""),
    ("x-forwarded-for", "nowhere"),
    ("x-forwarded-for", "fe80::1%eth0"),
];

/// The ids of a page, in its order.
#[track_caller]
pub fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a page has items");
    items.iter().map(|item| item["id"].as_str().expect("an item has an id").to_owned()).collect()
}

/// The example of a package that records the requests of an HTTP service; dropping it kills it.
pub struct ExampleService {
    process: Child,
    pub http: Http,
}

impl ExampleService {
    /// Runs it, and waits until it says where it listens.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("start the example");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("read a line");
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
        Self { http: Http::new(address), process }
    }

    /// Ends it as an operator would; it must have got rid of all that it had.
    #[track_caller]
    pub fn close(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("end the example");
        let status = until("the example has ended", || self.process.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for ExampleService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Holds the store's only place for a writer, as a disk that does not answer would.
pub struct StoreDown(Connection);

impl StoreDown {
    #[track_caller]
    pub fn begin(data_dir: &Path) -> Self {
        let connection =
            Connection::open(find(data_dir, "activities.db").expect("the store has a file")).unwrap();
        // Others write without a pause.
        connection.busy_timeout(LONG).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }

    pub fn end(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// Makes nonsense of the first page of a table or an index of a store whose server is stopped.
#[track_caller]
pub fn damage_store(data_dir: &Path, name: &str) {
    let path = data_dir.join("activities.db");
    let store = Connection::open(&path).unwrap();
    let first_page = "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = ?1";
    let found = store.query_row(first_page, [name], |row| Ok((row.get(0)?, row.get(1)?)));
    let (page, page_bytes): (u32, u32) = found.unwrap();
    store.close().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xff; page_bytes as usize], u64::from((page - 1) * page_bytes)).unwrap();
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            find(&path, name)
        } else {
            path.file_name().is_some_and(|found| found == name).then_some(path)
        }
    })
}

/// How an activity was accepted.
#[track_caller]
pub fn via(answer: &Response) -> String {
    answer.expect(200)["results"][0]["via"].as_str().expect("an answer says how").to_owned()
}
