//! The tower layer (`crates/tower`) in a service that answers requests, beside a platform that dies.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::MatchedPath;
use axum::http::StatusCode;
use axum::routing::{get, post};
use rustix::process::Signal;
use serde_json::json;
use tidings_tests::{Http, LONG, Launch, kept_address, until};
use tidings_tower::{Activity, ActivityLayer, Counts, Recorder, RecorderOptions, RequestHead};
use tokio::runtime::Runtime;

use crate::support::{ACTIVITIES, ExampleService, HOSTILE_HEADERS, check_recorded, until_stored};

/// The path of a request whose description panics.
const PANICS: &str = "/panics";
const LIMIT: Duration = LONG;

/// A service with the layer, on a runtime of its own.
struct Shop {
    runtime: Runtime,
    recorder: Recorder,
    http: Http,
}

impl Shop {
    fn open(platform: &str, options: RecorderOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let (recorder, address) = runtime.block_on(async {
            let recorder = Recorder::start(&format!("http://{platform}"), options).unwrap();
            let app = Router::new()
                .route("/orders/{order}/pay", post(|| async { "paid" }))
                .route("/files/{*path}", post(|| async { "stored" }))
                .route("/orders/{order}", get(|| async { "order" }).delete(|| async { StatusCode::CONFLICT }))
                .layer(ActivityLayer::new(recorder.clone(), describe));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address: SocketAddr = listener.local_addr().unwrap();
            tokio::spawn(async move { axum::serve(listener, app).await });
            (recorder, address)
        });
        Self { runtime, recorder, http: Http::new(&address.to_string()) }
    }

    fn ask(&self, method: &str, path: &str) -> u16 {
        self.ask_with(method, path, &[("user-agent", "till")])
    }

    fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let headers = [&[("x-user", "ada")], headers].concat();
        self.http.request(method, path, &headers, b"").status
    }

    fn close(&self, limit: Duration) -> (usize, Counts) {
        (self.runtime.block_on(self.recorder.close(limit)), self.recorder.counts())
    }
}

fn describe(request: RequestHead<'_>) -> Option<Activity> {
    if request.method == "GET" {
        return None;
    }
    assert_ne!(request.uri.path(), PANICS, "this one cannot be described");
    let route = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let user = request.headers.get("x-user")?.to_str().ok()?;
    Some(Activity::new("acme", &request.action(route)).actor("user", user).target("order", "17"))
}

#[test]
fn requests_become_activities() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let shop = Shop::open(tidings.http().address(), RecorderOptions::default());
    assert_eq!(shop.ask("POST", "/orders/17/pay?token=s3cret&note=hi"), 200);
    assert_eq!(shop.ask("GET", "/orders/17"), 200);
    assert_eq!(shop.ask("DELETE", "/orders/17"), 409);
    let (left, counts) = shop.close(LIMIT);
    assert_eq!((left, counts), (0, Counts { sent: 2, ..counts }));

    check_recorded(&tidings.http(), ["POST /orders/{order}/pay", "DELETE /orders/{order}"]);
}

#[test]
fn the_example_records_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    // Built with the tests, beside their own directory.
    let program = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples/orders");
    let mut command = Command::new(program);
    command.args(["0", &format!("http://{}", tidings.http().address())]);
    let shop = ExampleService::start(command);
    let headers = [("x-user", "ada")];
    assert_eq!(shop.http.request("POST", "/orders/17/pay?token=s3cret", &headers, b"").status, 200);
    shop.close(Signal::INT);
    until_stored(&tidings.http(), "acme", 1);
    let paid = &tidings.http().get(&format!("{ACTIVITIES}?tenant=acme")).expect(200)["items"][0];
    assert_eq!((&paid["action"], &paid["actor"]["id"]), (&json!("POST /orders/{order}/pay"), &json!("ada")));
    assert!(!paid.to_string().contains("s3cret"), "{paid}");
}

/// Whatever its client writes into a request, it is recorded: those that no route takes, too.
#[test]
fn no_client_can_keep_itself_out_of_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let shop = Shop::open(tidings.http().address(), RecorderOptions::default());
    assert_eq!(shop.ask("POST", "/nowhere/*"), 404);
    assert_eq!(shop.ask("POST", "/files/a/b"), 200);
    let long = "x".repeat(3000);
    for (name, value) in HOSTILE_HEADERS {
        assert_eq!(shop.ask_with("POST", "/orders/17/pay", &[(name, &value.replace("LONG", &long))]), 200);
    }
    assert_eq!(shop.ask("POST", &format!("/orders/17/pay?{}", "a=b&".repeat(8000))), 200);
    let query = format!("/orders/17/pay?a={}", "x".repeat(40_000));
    assert_eq!(shop.ask("POST", &query), 200);
    // Not recorded, and none the worse for it.
    assert_eq!(shop.ask("POST", PANICS), 404);
    let (left, counts) = shop.close(LIMIT);
    let asked = HOSTILE_HEADERS.len() + 4;
    // What was not answered in time was sent again.
    let Counts { retries, .. } = counts;
    assert_eq!((left, counts), (0, Counts { sent: asked as u64, dropped: 1, refused: 0, retries }));
    until_stored(&tidings.http(), "acme", asked);
    let page = tidings.http().get(&format!("{ACTIVITIES}?tenant=acme&limit=500")).expect(200);
    let actions: BTreeSet<_> =
        page["items"].as_array().unwrap().iter().map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        BTreeSet::from(["POST (no route)", "POST /files/{path}", "POST /orders/{order}/pay"])
    );
}

/// What stands in front of the platform, until it lets everything through.
async fn between(status: impl Fn(&[&str]) -> Option<u16> + Send + Sync + 'static) -> String {
    let status = Arc::new(status);
    let answer = move |body: String| {
        let status = status.clone();
        async move {
            let lines: Vec<&str> = body.lines().collect();
            match status(&lines) {
                Some(status) => (StatusCode::from_u16(status).unwrap(), "no".to_owned()),
                None => {
                    (StatusCode::OK, (1..=lines.len()).map(|at| format!("{{\"line\":{at}}}\n")).collect())
                }
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/api/v1/activities", post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// What is wrong with one activity costs that one, and what is wrong with the way there costs none.
#[test]
fn a_refusal_costs_no_other_activity() {
    let options = || RecorderOptions {
        max_retry_delay: Duration::from_millis(10),
        timeout: LIMIT,
        ..Default::default()
    };
    let counts_of = |url: String| async move {
        let recorder = Recorder::start(&url, options()).unwrap();
        for number in 0..20 {
            recorder.record(Activity::new("acme", &format!("a{number}")));
        }
        assert_eq!(recorder.close(LIMIT).await, 0);
        recorder.counts()
    };
    Runtime::new().unwrap().block_on(async {
        for status in [400, 413, 422] {
            let bad = |lines: &[&str]| lines.iter().any(|line| line.contains("\"a7\""));
            let url = between(move |lines| bad(lines).then_some(status)).await;
            assert_eq!(counts_of(url).await, Counts { sent: 19, refused: 1, ..Counts::default() });
        }
        for status in [401, 403, 404, 405, 502] {
            let tries = AtomicUsize::new(0);
            let url = between(move |_| (tries.fetch_add(1, Relaxed) < 2).then_some(status)).await;
            assert_eq!(counts_of(url).await, Counts { sent: 20, retries: 2, ..Counts::default() });
        }
    });
}

#[test]
fn the_end_comes_when_it_was_asked_for_whatever_the_platform_does() {
    Runtime::new().unwrap().block_on(async {
        // It takes connections and never answers.
        let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = RecorderOptions { timeout: 2 * LIMIT, ..Default::default() };
        let recorder = Recorder::start(&format!("http://{}", hung.local_addr().unwrap()), options).unwrap();
        recorder.record(Activity::new("acme", "a"));
        let _connection = hung.accept().await.unwrap();
        let begun = Instant::now();
        assert_eq!(recorder.close(Duration::from_millis(200)).await, 1);
        assert!(begun.elapsed() < LIMIT / 2, "{:?}", begun.elapsed());
    });
}

/// Requests are answered while the platform is down; afterwards everything is there, once.
#[test]
fn a_platform_that_dies_costs_no_activity() {
    const ORDERS: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up_at(&kept_address(), directory.path()).start();
    let address = tidings.http().address().to_owned();
    let shop = Shop::open(&address, RecorderOptions::default());
    let pay = |numbers: std::ops::Range<usize>| {
        numbers.for_each(|number| assert_eq!(shop.ask("POST", &format!("/orders/{number}/pay")), 200));
    };
    pay(0..100);
    tidings.kill_now();
    pay(100..200);
    until("the shop has tried in vain", || (shop.recorder.counts().retries > 0).then_some(()));
    let tidings = Launch::up_at(&address, directory.path()).start();
    pay(200..ORDERS);
    let (left, counts) = shop.close(LIMIT);
    assert_eq!((left, counts.sent, counts.dropped, counts.refused), (0, ORDERS as u64, 0, 0), "{counts:?}");
    let stored = until_stored(&tidings.http(), "acme", ORDERS);
    assert_eq!(stored.len(), ORDERS);
    assert!(stored.values().all(|times| *times == 1));
}

/// Without a platform memory stays bounded, requests are served, and what is lost is counted.
#[test]
fn a_full_queue_drops_and_counts() {
    const WAITING: usize = 8;
    let options = RecorderOptions { max_queued: WAITING, max_batch: 1, ..RecorderOptions::default() };
    // Nobody listens there.
    let shop = Shop::open("127.0.0.1:9", options);
    for number in 0..50 {
        assert_eq!(shop.ask("POST", &format!("/orders/{number}/pay")), 200);
    }
    let (left, counts) = shop.close(Duration::ZERO);
    assert_eq!(left as u64 + counts.dropped, 50, "{counts:?}");
    // One more is on its way.
    assert!((WAITING..=WAITING + 1).contains(&left), "{left} left, {counts:?}");
}

/// One in four successes is recorded, every failure is.
#[test]
fn successes_are_sampled_evenly() {
    use tower::{Layer, ServiceExt};
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let counts = runtime.block_on(async {
        let recorder =
            Recorder::start(&format!("http://{}", tidings.http().address()), RecorderOptions::default())
                .unwrap();
        let layer = ActivityLayer::new(recorder.clone(), |request| {
            Some(Activity::new("acme", &format!("{} {}", request.method, request.uri.path())))
        });
        let service = tower::service_fn(|request: axum::http::Request<()>| async move {
            let status = if request.uri().path() == "/bad" { 500 } else { 200 };
            Ok::<_, std::convert::Infallible>(
                axum::http::Response::builder().status(status).body(()).unwrap(),
            )
        });
        let service = layer.sample(0.25).layer(service);
        for path in ["/good", "/bad"] {
            for _ in 0..400 {
                let request = axum::http::Request::get(path).body(()).unwrap();
                service.clone().oneshot(request).await.unwrap();
            }
        }
        assert_eq!(recorder.close(LIMIT).await, 0);
        recorder.counts()
    });
    assert!((498..=502).contains(&counts.sent), "{counts:?}");
}
