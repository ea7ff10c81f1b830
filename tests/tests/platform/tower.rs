//! The tower layer (`crates/tower`) in a service that answers requests, beside a platform that dies.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::MatchedPath;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tidings_tests::{Http, Launch, until};
use tidings_tower::{Activity, ActivityLayer, Counts, Recorder, RecorderOptions, RequestHead};
use tokio::runtime::Runtime;

use crate::support::{check_recorded, until_stored};

const LIMIT: Duration = Duration::from_secs(30);

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
        self.http.request(method, path, &[("x-user", "ada"), ("user-agent", "till")], b"").status
    }

    fn close(&self, limit: Duration) -> (usize, Counts) {
        (self.runtime.block_on(self.recorder.close(limit)), self.recorder.counts())
    }
}

fn describe(request: RequestHead<'_>) -> Option<Activity> {
    if request.method == "GET" {
        return None;
    }
    let route = request.extensions.get::<MatchedPath>()?.as_str();
    let user = request.headers.get("x-user")?.to_str().ok()?;
    Some(
        Activity::new("acme", &format!("{} {route}", request.method))
            .actor("user", user)
            .target("order", "17"),
    )
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

/// Requests are answered while the platform is down; afterwards everything is there, once.
#[test]
fn a_platform_that_dies_costs_no_activity() {
    const ORDERS: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
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
