//! The Express middleware (`packages/express`) in an application that serves requests, beside a platform that dies.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidings_tests::{LONG, Launch, installed, kept_address, until};

use crate::support::{ACTIVITIES, ExampleService, HOSTILE_HEADERS, check_recorded, until_stored};

/// The package's own example.
struct Shop(ExampleService);

impl Shop {
    fn open(platform: &str) -> Self {
        let mut node = Command::new("node");
        node.current_dir(installed("express")).args([
            "example/orders.mjs",
            "0",
            &format!("http://{platform}"),
        ]);
        Self(ExampleService::start(node))
    }

    fn ask(&self, method: &str, path: &str) -> u16 {
        self.ask_with(method, path, &[("x-user", "ada"), ("user-agent", "till")])
    }

    fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let headers = [&[("x-tenant", "acme")], headers].concat();
        self.0.http.request(method, path, &headers, b"").status
    }

    /// What the shop says to a refund, which it grants only if there is a durable record of it.
    fn refund(&self, order: &str) -> (u16, Value) {
        let headers = [("x-tenant", "acme"), ("x-user", "ada")];
        let answer = self.0.http.request("POST", &format!("/orders/{order}/refund"), &headers, b"");
        (answer.status, answer.json())
    }

    fn counts(&self) -> Value {
        self.0.http.get("/counts").expect(200)
    }

    fn close(self) {
        self.0.close(Signal::TERM);
    }
}

#[test]
fn requests_become_activities() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let shop = Shop::open(tidings.http().address());
    assert_eq!(shop.ask("POST", "/orders/17/pay?token=s3cret&note=hi"), 200);
    assert_eq!(shop.ask("GET", "/orders/17"), 200);
    assert_eq!(shop.ask("DELETE", "/orders/17"), 409);
    shop.close();

    let paid = check_recorded(&tidings.http(), ["POST /orders/:order/pay", "DELETE /orders/:order"]);
    assert_eq!(paid["context"]["ip"], "127.0.0.1");
}

/// Whatever its client writes into a request, it is recorded: those that no route takes, too, and those that are refused
/// before there is a route.
#[test]
fn no_client_can_keep_itself_out_of_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let shop = Shop::open(tidings.http().address());
    assert_eq!(shop.ask_with("POST", "/orders/17/pay", &[]), 401);
    assert_eq!(shop.ask("POST", "/nowhere/*"), 404);
    assert_eq!(shop.ask("PUT", "/orders/17/files/a/b"), 200);
    let mut asked = 3;
    let long = "x".repeat(3000);
    for (name, value) in HOSTILE_HEADERS {
        let value = value.replace("LONG", &long);
        assert_eq!(shop.ask_with("POST", "/orders/17/pay", &[("x-user", "ada"), (name, &value)]), 200);
        asked += 1;
    }
    let path = format!("/orders/17/pay?{}", "%00".repeat(4000));
    assert_eq!(shop.ask("POST", &path), 200);
    asked += 1;
    let counts = until("the shop has sent everything", || {
        let counts = shop.counts();
        (counts["queued"] == 0).then_some(counts)
    });
    assert_eq!((&counts["sent"], &counts["refused"]), (&json!(asked), &json!(0)), "{counts}");
    until_stored(&tidings.http(), "acme", asked);
    let page = tidings.http().get(&format!("{ACTIVITIES}?tenant=acme&limit=500")).expect(200);
    let items = page["items"].as_array().expect("items");
    let unrouted: Vec<_> = items.iter().filter(|item| item["action"] == "POST (no route)").collect();
    let statuses: Vec<_> = unrouted.iter().map(|item| &item["metadata"]["status"]).collect();
    assert_eq!(statuses, [404, 401], "{page}");
    assert!(items.iter().any(|item| item["action"] == "PUT /orders/:order/files/:path"), "{page}");
}

/// The call on which a caller decides for itself: success is durable, and everything else is an answer in time.
#[test]
fn a_caller_is_told_whether_an_activity_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up_at(&kept_address(), directory.path()).start();
    let address = tidings.http().address().to_owned();
    let shop = Shop::open(&address);
    // Two seconds may be too short for a machine that does much else.
    let granted = |order: &str| {
        until("a refund is granted", || Some(shop.refund(order)).filter(|(status, _)| *status == 200)).1
    };
    assert_eq!(granted("1")["via"], "stream");
    tidings.signal(Signal::STOP);
    let begun = Instant::now();
    let (status, answer) = shop.refund("2");
    assert_eq!((status, &answer["error"]), (503, &json!("no answer in time")));
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    tidings.kill_now();
    let (status, answer) = shop.refund("3");
    assert!(
        status == 503 && answer["error"].as_str().is_some_and(|error| error.contains("ECONNREFUSED")),
        "{answer}"
    );
    let tidings = Launch::up_at(&address, directory.path()).start();
    granted("4");
    // What was acknowledged is there although the platform was killed. Of the second nobody knows; the third never left.
    let refunds = format!("{ACTIVITIES}?tenant=acme&action=order.refunded");
    let orders = until("the refunds are stored", || {
        let page = tidings.http().get(&refunds).expect(200);
        let items = page["items"].as_array().expect("items");
        let orders: BTreeSet<String> =
            items.iter().map(|item| item["targets"][0]["id"].as_str().expect("an id").to_owned()).collect();
        (orders.contains("1") && orders.contains("4")).then_some(orders)
    });
    assert!(!orders.contains("3"), "{orders:?}");
    shop.close();
}

/// Requests are answered while the platform is down; afterwards everything is there, once.
#[test]
fn a_platform_that_dies_costs_no_activity() {
    const ORDERS: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up_at(&kept_address(), directory.path()).start();
    let address = tidings.http().address().to_owned();
    let shop = Shop::open(&address);
    let pay = |numbers: std::ops::Range<usize>| {
        numbers.for_each(|number| assert_eq!(shop.ask("POST", &format!("/orders/{number}/pay")), 200));
    };
    pay(0..100);
    tidings.kill_now();
    pay(100..200);
    until("the shop has tried in vain", || (shop.counts()["retries"].as_u64() > Some(0)).then_some(()));
    let tidings = Launch::up_at(&address, directory.path()).start();
    pay(200..ORDERS);
    let counts = until("the shop has sent everything", || {
        let counts = shop.counts();
        (counts["queued"] == 0).then_some(counts)
    });
    assert_eq!((&counts["sent"], &counts["dropped"]), (&json!(ORDERS), &json!(0)), "{counts}");
    let stored = until_stored(&tidings.http(), "acme", ORDERS);
    assert_eq!(stored.len(), ORDERS);
    assert!(stored.values().all(|times| *times == 1));
    shop.close();
}

#[test]
fn the_package_passes_its_own_tests() {
    let output = Command::new("node")
        .current_dir(installed("express"))
        .args(["--test", "test/"])
        .output()
        .expect("start node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
