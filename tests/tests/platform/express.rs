//! The Express middleware (`packages/express`) in an application that serves requests, beside a platform that dies.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidings_tests::{Http, LONG, Launch, installed, until, until_within};

use crate::support::{check_recorded, until_stored};

/// The package's own example; dropping it kills it.
struct Shop {
    process: Child,
    http: Http,
}

impl Shop {
    fn open(platform: &str) -> Self {
        let mut process = Command::new("node")
            .current_dir(installed("express"))
            .args(["example/orders.mjs", "0", &format!("http://{platform}")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start node");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("read a line");
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
        Self { http: Http::new(address), process }
    }

    fn ask(&self, method: &str, path: &str) -> u16 {
        let headers = [("x-tenant", "acme"), ("x-user", "ada"), ("user-agent", "till")];
        self.http.request(method, path, &headers, b"").status
    }

    fn counts(&self) -> Value {
        self.http.get("/counts").expect(200)
    }

    /// Ends it as an operator would; it must have got rid of all that it had.
    fn close(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid")).expect("a pid");
        kill_process(pid, Signal::TERM).expect("end the shop");
        let status = until_within(LONG, "the shop has closed", || self.process.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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

/// Requests are answered while the platform is down; afterwards everything is there, once.
#[test]
fn a_platform_that_dies_costs_no_activity() {
    const ORDERS: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
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
