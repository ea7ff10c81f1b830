//! The routes in process: everything that is answered without a cluster, and the refusal where it is needed.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tidings::breaker::BreakerOptions;
use tidings::{Cluster, ResilientOptions, ResilientProducer};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::erasure::ErasureRequest;
use crate::fallback::{Fallback, Keeper};
use crate::limits::{EXPORT_PAGE_ITEMS, MAX_EXPORTS};
use crate::live::StoredBell;
use crate::metrics::ActivityMetrics;
use crate::retention::Retention;
use crate::sqlite::SqliteStore;
use crate::testing::activity;
use crate::timestamp::Timestamp;

struct Served {
    router: Router,
    store: Arc<SqliteStore>,
    topics: watch::Sender<Topics>,
    stored: StoredBell,
    live: Live,
    folder: tempfile::TempDir,
}

impl Served {
    /// Nothing listens on port 1.
    fn without_cluster() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("activities.db")).unwrap());
        let (topics, found) = watch::channel(Topics::Pending(Some("nobody answers".to_owned())));
        let options = ResilientOptions { timeout: Duration::from_millis(50), ..ResilientOptions::default() };
        let producer = ResilientProducer::new(&Cluster::new("127.0.0.1:1"), options).unwrap();
        let metrics = ActivityMetrics::default();
        let stored = StoredBell::default();
        let keeper = Keeper {
            store: Arc::clone(&store) as Arc<dyn Store>,
            breaker: BreakerOptions::default(),
            spool: None,
            wake: Arc::default(),
            stored: stored.clone(),
            metrics: metrics.clone(),
        };
        let fallback = Fallback::start(keeper).unwrap();
        let dyn_store = Arc::clone(&store) as Arc<dyn Store>;
        let housekeeper =
            Housekeeper::start(Arc::clone(&dyn_store), Retention::default(), metrics.clone()).unwrap();
        let ingest = Ingest::new(producer, "activities".into(), found, fallback, metrics);
        let live = Live::with_heartbeat(Arc::clone(&dyn_store), stored.clone(), Duration::from_millis(20));
        let router = router(ingest, dyn_store, live.clone(), housekeeper, folder.path().to_owned());
        Self { router, store, topics, stored, live, folder }
    }

    /// Another connection holds the store's only place for a writer.
    fn store_down(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.folder.path().join("activities.db")).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let header =
            |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let kind = header(header::CONTENT_TYPE);
        assert_eq!(status == StatusCode::SERVICE_UNAVAILABLE, !header(header::RETRY_AFTER).is_empty());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let json = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut values: Vec<Value> = json.map(|line| serde_json::from_slice(line).unwrap()).collect();
        (status, kind, if values.len() == 1 { values.remove(0) } else { values.into() })
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, kind, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(kind == "application/json", status == StatusCode::OK, "{path}: {kind}");
        (status, body)
    }

    async fn post_under(&self, key: &str, kind: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post("/api/v1/activities")
            .header(header::CONTENT_TYPE, kind)
            .header("Idempotency-Key", key)
            .body(body.into());
        let response = self.router.clone().oneshot(request.unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let values = serde_json::Deserializer::from_slice(&body).into_iter::<Value>();
        let mut values: Vec<Value> = values.map(Result::unwrap).collect();
        (status, if values.len() == 1 { values.remove(0) } else { values.into() })
    }

    async fn post(&self, kind: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request =
            Request::post("/api/v1/activities").header(header::CONTENT_TYPE, kind).body(body.into());
        let (status, _, body) = self.send(request.unwrap()).await;
        (status, body)
    }
}

#[tokio::test]
async fn refuses_bad_bodies_before_it_needs_a_cluster() {
    let served = Served::without_cluster();
    for (kind, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "", 400),
        ("application/json", "7", 422),
        ("application/json", r#"{"tenant":"t"}"#, 422),
        ("application/json", r#"[{"tenant":"t","action":"a"},{"tenant":""}]"#, 422),
        ("text/plain", r#"{"tenant":"t","action":"a"}"#, 415),
    ] {
        let (found, problem) = served.post(kind, body).await;
        assert_eq!(found, status, "{body}");
        assert_eq!(problem["status"], status, "{problem}");
    }
    let (status, problem) =
        served.post("application/json", vec![b' '; crate::limits::MAX_BODY_BYTES + 1]).await;
    assert_eq!(status, 413, "{problem}");
    let (_, problem) = served.post("application/json", r#"[{"tenant":"t","action":"a"},{"tenant":7}]"#).await;
    assert_eq!(
        problem["errors"],
        json!([
            {"field": "tenant", "index": 1, "detail": "expected a string, found a number"},
            {"field": "action", "index": 1, "detail": "is missing"},
        ])
    );
    let request = Request::post("/api/v1/activities?tenant=t").body(Body::empty()).unwrap();
    assert_eq!(served.send(request).await.0, 400);
    let request = Request::delete("/api/v1/activities").body(Body::empty()).unwrap();
    assert_eq!(served.send(request).await.0, 405);
}

#[tokio::test]
async fn without_a_cluster_the_store_takes_it_and_without_that_nothing_does() {
    let served = Served::without_cluster();
    let body = r#"{"id":"1","tenant":"t","action":"a"}"#;
    for topics in [Topics::Pending(Some("nobody answers".to_owned())), Topics::Ready] {
        served.topics.send_replace(topics);
        let (status, answer) = served.post("application/json", body).await;
        assert_eq!((status.as_u16(), answer), (200, json!({"results": [{"id": "1", "via": "fallback"}]})));
        let (_, answer) = served.post("application/x-ndjson", body).await;
        assert_eq!(answer, json!({"line": 1, "id": "1", "via": "fallback"}));
    }
    assert_eq!((served.store.count(None).unwrap(), served.store.unpublished_count().unwrap()), (1, 1));
    let _down = served.store_down();
    let (status, problem) = served.post("application/json", body).await;
    assert_eq!(status, 503);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("not acknowledged: activities: "), "{detail}");
    assert!(detail.contains("the store is down or hangs"), "{detail}");
    // By and by both are left alone, and callers are told for how long.
    let mut longest = 1;
    while longest < 20 {
        let request = Request::post("/api/v1/activities").header(header::CONTENT_TYPE, "application/json");
        let response = served.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), 503);
        let seconds = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
        longest = seconds;
    }
}

#[tokio::test]
async fn answers_each_line_of_a_stream() {
    let served = Served::without_cluster();
    served.topics.send_replace(Topics::Ready);
    let _down = served.store_down();
    let lines = ["{\"tenant\":\"t\",\"action\":\"a\"}", "", "nonsense", "{\"tenant\":\"t\"}"].join("\n");
    let (status, results) = served.post("application/x-ndjson", lines).await;
    assert_eq!(status, 200, "the answer has begun before anything is known");
    let found: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["line"].as_u64().unwrap(), result["error"]["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, [(1, 503), (3, 400), (4, 422)]);
    assert_eq!(
        results[2]["error"]["errors"],
        json!([{"field": "action", "line": 4, "detail": "is missing"}])
    );
}

/// Lines that are refused wait for nothing, and a stream of them kept a worker for itself.
#[tokio::test]
async fn a_stream_of_refused_lines_leaves_others_their_turn() {
    const CHUNKS: usize = 40;
    let served = Served::without_cluster();
    let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&turns);
    tokio::spawn(async move {
        loop {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let lines = "x\n".repeat(CHUNKS * crate::limits::NDJSON_CHUNK_LINES);
    let (_, results) = served.post("application/x-ndjson", lines).await;
    assert_eq!(results.as_array().unwrap().len(), CHUNKS * crate::limits::NDJSON_CHUNK_LINES);
    let turns = turns.load(std::sync::atomic::Ordering::Relaxed);
    assert!(turns >= CHUNKS, "{turns}");
}

#[tokio::test]
async fn lists_pages_and_finds_one() {
    let served = Served::without_cluster();
    let batch: Vec<_> = (0..7)
        .map(|at| {
            let time = format!("2013-01-01T00:00:0{at}Z");
            activity(&format!(r#"{{"id":"a/{at}","tenant":"t","action":"x.y","occurred_at":"{time}"}}"#))
        })
        .collect();
    served.store.insert_batch(&batch).unwrap();
    let mut seen = Vec::new();
    let mut path = "/api/v1/activities?tenant=t&limit=3&action=x.*".to_owned();
    loop {
        let (status, page) = served.get(&path).await;
        assert_eq!(status, 200);
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/activities?tenant=t&limit=3&action=x.*&cursor={cursor}");
    }
    assert_eq!(seen, ["a/6", "a/5", "a/4", "a/3", "a/2", "a/1", "a/0"]);
    let (status, found) = served.get("/api/v1/activities/a%2F3?tenant=t").await;
    assert_eq!((status.as_u16(), &found["occurred_at"]), (200, &json!("2013-01-01T00:00:03Z")));
    for (path, status) in [
        ("/api/v1/activities/a%2F3?tenant=other", 404),
        ("/api/v1/activities/a%2F3", 400),
        ("/api/v1/activities/a%2F3?tenant=t&x=1", 400),
        ("/api/v1/activities/%ff?tenant=t", 400),
        ("/api/v1/activities", 400),
        ("/api/v1/activities?tenant=t&cursor=x", 400),
        ("/api/v1/activities?tenant=other&cursor=x", 400),
    ] {
        let (found, problem) = served.get(path).await;
        assert_eq!(found, status, "{path}");
        assert_eq!(problem["status"], status, "{path}");
    }
}

#[tokio::test]
async fn a_repeated_key_is_answered_as_the_first_and_stores_nothing_more() {
    const JSON: &str = "application/json";
    let served = Served::without_cluster();
    let body =
        r#"[{"tenant":"t","action":"a"},{"id":"own","tenant":"t","action":"b"},{"tenant":"u","action":"c"}]"#;
    let (status, first) = served.post_under("k1", JSON, body).await;
    assert_eq!(status, 200, "{first}");
    let ids: Vec<_> = (0..3).map(|at| first["results"][at]["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ids[1].as_str(), &ids[0][14..15], &ids[2][14..15]), ("own", "5", "5"));
    // The store would refuse a second write; a repeated request needs none.
    let down = served.store_down();
    assert_eq!(served.post_under("\"k1\"", JSON, body).await, (StatusCode::OK, first.clone()));
    drop(down);
    for (key, body, expected) in [
        ("k1", r#"{"tenant":"t","action":"a"}"#, 422),
        ("k1", r#"{"tenant":"u","action":"a"}"#, 422),
        ("k1", r#"{"tenant":"v","action":"a"}"#, 200),
        ("k2", r#"{"tenant":"t","action":"a"}"#, 200),
        ("k 3", r#"{"tenant":"t","action":"a"}"#, 400),
        ("", r#"{"tenant":"t","action":"a"}"#, 400),
    ] {
        let (status, answer) = served.post_under(key, JSON, body).await;
        assert_eq!(status, expected, "{key} {body}: {answer}");
        if status == 422 {
            assert_eq!(answer["type"], "urn:tidings:problem:idempotency-key-reused");
        }
    }
    assert_eq!(served.store.count(None).unwrap(), 5);
    // What was not accepted is not remembered, and may be sent again.
    let down = served.store_down();
    let body = r#"{"tenant":"t","action":"later"}"#;
    assert_eq!(served.post_under("k4", JSON, body).await.0, 503);
    drop(down);
    assert_eq!(served.post_under("k4", JSON, body).await.0, 200);
    assert_eq!(served.store.count(None).unwrap(), 6);
}

#[tokio::test]
async fn a_repeated_stream_is_compared_line_by_line() {
    const NDJSON: &str = "application/x-ndjson";
    let served = Served::without_cluster();
    let lines =
        ["{\"tenant\":\"t\",\"action\":\"a\"}", "", "nonsense", "{\"tenant\":\"u\",\"action\":\"b\"}"];
    let (status, first) = served.post_under("k", NDJSON, lines.join("\n")).await;
    assert_eq!((status.as_u16(), first[1]["error"]["status"].as_u64()), (200, Some(400)), "{first}");
    let down = served.store_down();
    assert_eq!(served.post_under("k", NDJSON, lines.join("\n")).await.1, first);
    drop(down);
    let other = ["{\"tenant\":\"t\",\"action\":\"other\"}", "", "", lines[3], lines[0]];
    let (_, again) = served.post_under("k", NDJSON, other.join("\n")).await;
    assert_eq!(again[0]["error"]["type"], "urn:tidings:problem:idempotency-key-reused");
    assert_eq!((&again[1], again[2]["line"].as_u64()), (&first[2], Some(5)));
    assert_eq!(served.store.count(None).unwrap(), 3);
}

#[tokio::test]
async fn a_key_is_taken_while_its_request_runs_and_free_when_its_caller_goes() {
    let served = Served::without_cluster();
    let running = |key: &str| {
        let (sender, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
        let body =
            futures_util::stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body)));
        let request = Request::post("/api/v1/activities")
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header("Idempotency-Key", key)
            .body(Body::from_stream(body));
        (sender, served.router.clone().oneshot(request.unwrap()))
    };
    let (first_body, first) = running("k");
    let first = first.await.unwrap();
    assert_eq!(first.status(), 200);
    let (_other_body, second) = running("k");
    let second = second.await.unwrap();
    assert_eq!(second.status(), 409);
    assert_eq!(second.headers()[header::RETRY_AFTER], "1");
    drop(first_body);
    to_bytes(first.into_body(), 100).await.unwrap();
    let (_third_body, third) = running("k");
    assert_eq!(third.await.unwrap().status(), 200);
}

/// A stream that had been read had given its place back, however much of its answer was waiting in a file.
#[tokio::test]
async fn a_stream_keeps_its_place_until_its_answer_is_read() {
    let served = Served::without_cluster();
    let post = || {
        let request =
            Request::post("/api/v1/activities").header(header::CONTENT_TYPE, "application/x-ndjson");
        served.router.clone().oneshot(request.body(Body::from("x\n".repeat(3000))).unwrap())
    };
    let mut unread = Vec::new();
    for _ in 0..crate::limits::MAX_NDJSON_STREAMS {
        let response = post().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut pieces = response.into_body().into_data_stream();
        pieces.next().await.unwrap().unwrap();
        unread.push(pieces);
    }
    // However far the streams have been read meanwhile.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(post().await.unwrap().status(), 503);
    let mut pieces = unread.pop().unwrap();
    while let Some(piece) = pieces.next().await {
        piece.unwrap();
    }
    drop(pieces);
    assert_eq!(post().await.unwrap().status(), 200);
}

/// A few connections that send a head, or a little more, and then nothing: they held the room of whole bodies, and all others
/// waited for half a minute.
#[tokio::test]
async fn senders_that_stop_hold_up_nobody() {
    let served = Served::without_cluster();
    let idle = |length: Option<usize>| {
        let request = Request::post("/api/v1/activities").header(header::CONTENT_TYPE, "application/json");
        let request = match length {
            Some(length) => request.header(header::CONTENT_LENGTH, length),
            None => request,
        };
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("{")]);
        let body = first.chain(futures_util::stream::pending());
        let router = served.router.clone();
        tokio::spawn(router.oneshot(request.body(Body::from_stream(body)).unwrap()))
    };
    let mut waiting: Vec<_> = (0..8).map(|_| idle(None)).collect();
    waiting.extend((0..200).map(|_| idle(Some(65_536))));
    tokio::task::yield_now().await;
    let whole = r#"{"id":"1","tenant":"t","action":"a"}"#;
    let chunked = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(whole)]));
    for body in [Body::from(whole), chunked] {
        let posted = served.post("application/json", body);
        let (status, answer) = tokio::time::timeout(Duration::from_secs(10), posted).await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

fn numbered(tenant: &str, numbers: std::ops::Range<usize>) -> Vec<crate::activity::Activity<'static>> {
    let one = |at: usize| {
        let time = format!("2013-01-01T{:02}:{:02}:{:02}Z", at / 3600, at / 60 % 60, at % 60);
        activity(&format!(r#"{{"id":"{at}","tenant":"{tenant}","action":"x.y","occurred_at":"{time}"}}"#))
    };
    numbers.map(one).collect()
}

#[tokio::test]
async fn exports_everything_that_a_question_finds() {
    let served = Served::without_cluster();
    served.store.insert_batch(&numbered("t", 0..EXPORT_PAGE_ITEMS * 2 + 50)).unwrap();
    served.store.insert_batch(&numbered("other", 0..10)).unwrap();
    let formula =
        r#"{"id":"f","tenant":"t","action":"=1+1","actor":{"id":"@x"},"occurred_at":"2014-01-01T00:00:00Z"}"#;
    served.store.insert_batch(&[activity(formula)]).unwrap();
    let get = async |query: &str| {
        let request = Request::get(format!("/api/v1/activities/export?{query}")).body(Body::empty()).unwrap();
        let response = served.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    };
    let (status, headers, csv) = get("tenant=t&format=csv").await;
    assert_eq!(
        (status.as_u16(), &headers[header::CONTENT_TYPE]),
        (200, &"text/csv; charset=utf-8; header=present".parse().unwrap())
    );
    assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename=\"activities.csv\"");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 1 + EXPORT_PAGE_ITEMS * 2 + 50);
    assert!(lines[0].starts_with("id,tenant,occurred_at,"), "{}", lines[0]);
    assert!(
        lines[1].starts_with("f,t,2014-01-01T00:00:00Z,") && lines[1].contains("\"'=1+1\",,\"'@x\","),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with("449,t,") && lines[451].starts_with("0,t,"), "{} {}", lines[2], lines[451]);
    let (_, headers, ndjson) =
        get("tenant=t&format=ndjson&action=x.*&from=2013-01-01T00:00:02Z&to=2013-01-01T00:00:05Z").await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-ndjson");
    let ids: Vec<Value> =
        ndjson.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].take()).collect();
    assert_eq!(ids, ["4", "3", "2"]);
    assert_eq!(get("tenant=nobody&format=ndjson").await.2, "");
    for (query, field) in [
        ("tenant=t", "format"),
        ("tenant=t&format=xml", "format"),
        ("format=csv", "tenant"),
        ("tenant=t&format=csv&limit=5", "limit"),
        ("tenant=t&format=csv&from=x", "from"),
    ] {
        let (status, _, problem) = get(query).await;
        assert_eq!(status, 400, "{query}");
        let problem: Value = serde_json::from_str(&problem).unwrap();
        assert_eq!(problem["errors"][0]["field"], field, "{query}");
    }
    // An activity with this id is found where the path says it differently.
    served.store.insert_batch(&[activity(r#"{"id":"export","tenant":"t","action":"a"}"#)]).unwrap();
    assert_eq!(served.get("/api/v1/activities/%65xport?tenant=t").await.1["id"], "export");
}

#[tokio::test]
async fn an_export_that_fails_in_the_middle_breaks_off_and_one_that_nobody_reads_ends() {
    let served = Served::without_cluster();
    served.store.insert_batch(&numbered("t", 0..EXPORT_PAGE_ITEMS * 4)).unwrap();
    let export = || {
        let request =
            Request::get("/api/v1/activities/export?tenant=t&format=ndjson").body(Body::empty()).unwrap();
        served.router.clone().oneshot(request)
    };
    let mut unread = Vec::new();
    for _ in 0..MAX_EXPORTS {
        unread.push(export().await.unwrap());
    }
    let refused = export().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    drop(unread);
    let damage = rusqlite::Connection::open(served.folder.path().join("activities.db")).unwrap();
    damage.busy_timeout(Duration::from_secs(5)).unwrap();
    damage.execute("UPDATE activity SET metadata = 'no JSON' WHERE seq = 5", ()).unwrap();
    let response = loop {
        let response = export().await.unwrap();
        if response.status() == 200 {
            break response;
        }
        tokio::task::yield_now().await;
    };
    let mut pieces = response.into_body().into_data_stream();
    let mut read = 0;
    let ended = loop {
        match pieces.next().await {
            Some(Ok(piece)) => read += piece.iter().filter(|byte| **byte == b'\n').count(),
            other => break other,
        }
    };
    assert_eq!(read, EXPORT_PAGE_ITEMS * 3, "what came before the damage");
    assert!(matches!(ended, Some(Err(_))), "it does not just end");
}

#[tokio::test]
async fn a_path_that_is_no_text_is_a_problem() {
    let served = Served::without_cluster();
    for path in ["activities/%ff?tenant=t", "erasures/%ff?tenant=t"] {
        let request = Request::get(format!("/api/v1/{path}")).body(Body::empty()).unwrap();
        let (status, kind, problem) = served.send(request).await;
        assert_eq!((status.as_u16(), kind.as_str()), (400, "application/problem+json"), "{path}: {problem}");
    }
}

/// A tenant's list ended at the 500th, without a word.
#[tokio::test]
async fn all_erasures_are_listed_page_by_page() {
    let served = Served::without_cluster();
    let mut expected = Vec::new();
    for number in 0..501 {
        let request = ErasureRequest {
            id: format!("{number:03}"),
            tenant: "t".to_owned(),
            actor: number.to_string(),
            requested_by: "x".to_owned(),
            requested_at: Timestamp::from_micros(number / 7).unwrap(),
        };
        served.store.begin_erasure(&request).unwrap();
        expected.insert(0, request.id);
    }
    for (limit, pages) in [("", 11), ("&limit=500", 2), ("&limit=167", 3)] {
        let (mut found, mut count, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let path = format!("/api/v1/erasures?tenant=t{limit}{cursor}");
            let (status, page) = served.get(&path).await;
            assert_eq!(status, 200, "{page}");
            let ids = page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap());
            found.extend(ids.map(str::to_owned));
            count += 1;
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!((found, count), (expected.clone(), pages), "{limit}");
        if limit.is_empty() {
            assert_eq!(served.get(&format!("/api/v1/erasures?tenant=u{cursor}")).await.0, 400);
        }
    }
    for (query, fields) in [("limit=0", &["tenant", "limit"][..]), ("tenant=t&cursor=AAAA", &["cursor"])] {
        let (status, problem) = served.get(&format!("/api/v1/erasures?{query}")).await;
        let errors = problem["errors"].as_array().unwrap();
        let found: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!((status.as_u16(), &found[..]), (400, fields), "{problem}");
    }
}

/// A control character matches nothing that is stored; PostgreSQL takes no NUL in a text, as if it were down.
#[tokio::test]
async fn a_question_with_a_control_character_is_refused() {
    let served = Served::without_cluster();
    for (path, field) in [
        ("activities?tenant=a%00", "tenant"),
        ("activities?tenant=t&actor=%00", "actor"),
        ("activities?tenant=t&target=%00", "target"),
        ("activities?tenant=t&action=a%00b", "action"),
        ("activities?tenant=t&action=a%00*", "action"),
        ("activities/export?tenant=%00&format=csv", "tenant"),
        ("activities/live?tenant=%00", "tenant"),
        ("activities/%00?tenant=t", "id"),
        ("activities/x?tenant=%0a", "tenant"),
        ("erasures?tenant=%00", "tenant"),
        ("erasures/%00?tenant=t", "id"),
    ] {
        let request = Request::get(format!("/api/v1/{path}")).body(Body::empty()).unwrap();
        let (status, _, problem) = served.send(request).await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(problem["errors"][0]["field"], field, "{path}: {problem}");
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("control character"), "{detail}");
    }
    let note = r#"{"id":"1","tenant":"t","action":"a","metadata":{"note":"two\nlines"}}"#;
    served.store.insert_batch(&[activity(note)]).unwrap();
    assert_eq!(served.get("/api/v1/activities?tenant=t&q=two%0aL").await.1["items"][0]["id"], "1");
}

/// The events of a live tail, as they come.
struct Tail {
    pieces: axum::body::BodyDataStream,
    text: String,
    /// The last token.
    token: String,
}

impl Tail {
    async fn open(served: &Served, query: &str, token: Option<&str>) -> Result<Self, (StatusCode, Value)> {
        let mut request = Request::get(format!("/api/v1/activities/live?{query}"));
        if let Some(token) = token {
            request = request.header("Last-Event-ID", token);
        }
        let response = served.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        if status != 200 {
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            return Err((status, serde_json::from_slice(&body).unwrap()));
        }
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let pieces = response.into_body().into_data_stream();
        let mut tail = Self { pieces, text: String::new(), token: String::new() };
        let first = tail.block().await.unwrap();
        assert!(first.starts_with("retry: 1000\nid: "), "{first}");
        Ok(tail)
    }

    /// The next block of lines; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        while !self.text.contains("\n\n") {
            let piece = self.pieces.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        let (block, rest) =
            self.text.split_once("\n\n").map(|(block, rest)| (block.to_owned(), rest.to_owned())).unwrap();
        self.text = rest;
        let token = block.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        self.token = token.to_owned();
        Some(block)
    }

    /// The ids of the next events, heartbeats aside.
    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let block = self.block().await.expect("the tail goes on");
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                let activity: Value = serde_json::from_str(data).unwrap();
                ids.push(activity["id"].as_str().unwrap().to_owned());
            }
        }
        ids
    }
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_tail_tells_what_arrives_and_resumes_where_it_was() {
    let served = Served::without_cluster();
    served.store.insert_batch(&numbered("t", 0..10)).unwrap();
    let mut tail = Tail::open(&served, "tenant=t", None).await.unwrap();
    let mut filtered = Tail::open(&served, "tenant=t&q=17&action=x.*", None).await.unwrap();
    let mut other = Tail::open(&served, "tenant=other", None).await.unwrap();
    // Nobody rings for these: the slow look finds them.
    served.store.insert_batch(&numbered("t", 10..20)).unwrap();
    assert_eq!(tail.ids(10).await, texts(10..20), "what was there before is not told");
    assert_eq!(filtered.ids(1).await, ["17"]);
    let token = tail.token.clone();
    drop(tail);
    served.store.insert_batch(&numbered("other", 100..101)).unwrap();
    served.store.insert_unpublished(&numbered("t", 15..30)).unwrap();
    served.stored.ring();
    assert_eq!(other.ids(1).await, ["100"], "another tenant sees its own only");
    let mut tail = Tail::open(&served, "tenant=t", Some(&token)).await.unwrap();
    assert_eq!(tail.ids(10).await, texts(20..30));
    let mut tail = Tail::open(&served, &format!("tenant=t&last_event_id={token}"), None).await.unwrap();
    assert_eq!(tail.ids(10).await, texts(20..30));
    // The header is newer than the address.
    let newest = tail.token.clone();
    let mut tail =
        Tail::open(&served, &format!("tenant=t&last_event_id={token}"), Some(&newest)).await.unwrap();
    let heartbeat = tail.block().await.unwrap();
    assert!(heartbeat.starts_with(": ") && !heartbeat.contains("data"), "{heartbeat}");
    served.store.insert_batch(&numbered("t", 40..41)).unwrap();
    served.stored.ring();
    assert_eq!(tail.ids(1).await, ["40"]);
    // A heartbeat's token is behind what was not for this reader.
    served.store.insert_batch(&numbered("t", 41..42)).unwrap();
    other.block().await.unwrap();
    Tail::open(&served, "tenant=other", Some(&other.token)).await.unwrap();

    served.live.end();
    while tail.block().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_the_live_tail_misses_nothing() {
    let served = Served::without_cluster();
    let mut slow = Tail::open(&served, "tenant=t", None).await.unwrap();
    let mut quick = Tail::open(&served, "tenant=t", None).await.unwrap();
    let mut at = 0;
    // More pieces than are kept.
    for _ in 0..crate::limits::LIVE_BATCHES * 3 {
        served.store.insert_batch(&numbered("t", at..at + 50)).unwrap();
        served.stored.ring();
        assert_eq!(quick.ids(50).await, texts(at..at + 50));
        at += 50;
    }
    assert_eq!(slow.ids(at).await, texts(0..at));
}

#[tokio::test]
async fn the_live_tail_refuses_what_it_has_not_given_out_and_too_many() {
    let served = Served::without_cluster();
    served.store.insert_batch(&numbered("t", 0..3)).unwrap();
    let token = Tail::open(&served, "tenant=t", None).await.unwrap().token;
    let cursor =
        served.get("/api/v1/activities?tenant=t&limit=1").await.1["next_cursor"].as_str().unwrap().to_owned();
    let long = "A".repeat(5000);
    for (query, token, field) in [
        ("tenant=other", token.as_str(), "Last-Event-ID"),
        ("tenant=t&action=a", &token, "Last-Event-ID"),
        ("tenant=t", &cursor, "Last-Event-ID"),
        ("tenant=t", "0", "Last-Event-ID"),
        ("tenant=t", &long, "Last-Event-ID"),
        ("tenant=t", "\u{e9}", "Last-Event-ID"),
        ("tenant=t&last_event_id=1", "", "last_event_id"),
        ("tenant=t&limit=3", "", "limit"),
        ("", "", "tenant"),
    ] {
        let (status, problem) = Tail::open(&served, query, Some(token)).await.err().unwrap();
        assert_eq!(
            (status.as_u16(), &problem["errors"][0]["field"]),
            (400, &json!(field)),
            "{query} {token}"
        );
        assert!(!problem.to_string().contains("other\""), "{problem}");
    }
    let mut all = Vec::new();
    for _ in 0..crate::limits::MAX_LISTENERS {
        all.push(Tail::open(&served, "tenant=t", None).await.unwrap());
    }
    assert_eq!(Tail::open(&served, "tenant=t", None).await.err().unwrap().0, 503);
}
