//! What is bad goes to the failure inbox with its reason, and a person can see it, run it again or drop it.

use serde_json::{Value, json};
use tidings_tests::{Http, Record, until};

use crate::site::Site;
use crate::support::{ACTIVITIES, activity, until_stored};

/// The letters of the topic.
fn inbox(site: &Site) -> String {
    format!("/api/v1/dlq/{}", site.topic())
}

/// Waits until the inbox lists exactly `count` letters; answers the page.
#[track_caller]
fn until_listed(site: &Site, http: &Http, count: usize) -> Vec<Value> {
    until(&format!("{count} letters are listed"), || {
        let page = http.get(&inbox(site)).expect(200);
        let items = page["items"].as_array().expect("a page has items").clone();
        (items.len() == count).then_some(items)
    })
}

#[test]
fn bad_records_are_parked_untouched_and_the_good_ones_go_on() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let good = |id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "/tenants/acme", "type": "tidings.activity.v1", "data": activity("acme", id, 1)})
            .to_string()
    };
    let large = format!("{{\"padding\": \"{}\"}}", "x".repeat(200_000));
    tidings.kafka().produce(
        site.topic(),
        &[
            (Some(b"acme"), good("before").as_bytes()),
            (Some(b"acme"), b"not JSON \xff"),
            (None, b"{\"shape\": \"wrong\"}"),
            (Some(b"big"), large.as_bytes()),
            (Some(b"acme"), good("after").as_bytes()),
        ],
    );
    assert_eq!(until_stored(&http, "acme", 2).len(), 2);
    let listed = until_listed(&site, &http, 3);
    let text = Value::Array(listed.clone()).to_string();
    assert!(text.contains(&site.writer()), "{text}");

    let letters = tidings.kafka().read_all(&site.letters());
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[0].value.as_deref(), Some(b"not JSON \xff".as_slice()));
    assert_eq!(letters[0].key.as_deref(), Some(b"acme".as_slice()));
    assert_eq!(letters[0].headers[0], ("from".to_owned(), b"a test".to_vec()));
    assert_eq!(letters[1].key, None);
    assert_eq!(letters[2].value_text(), large);
    for (offset, letter) in ["1", "2", "3"].iter().zip(&letters) {
        assert_eq!(letter.header("tidings.dlq.topic").as_deref(), Some(site.topic()));
        assert_eq!(letter.header("tidings.dlq.partition").as_deref(), Some("0"));
        assert_eq!(letter.header("tidings.dlq.offset").as_deref(), Some(*offset));
        assert_eq!(letter.header("tidings.dlq.group").as_deref(), Some(&*site.writer()));
        assert!(letter.header("tidings.dlq.error").is_some_and(|error| !error.is_empty()));
    }
    let ids: Vec<&str> = listed.iter().filter_map(|letter| letter["id"].as_str()).collect();
    assert!(ids.contains(&"0-0") && ids.contains(&"0-1") && ids.contains(&"0-2"), "{ids:?}");
}

#[test]
fn letters_are_redriven_and_discarded_once() {
    let site = Site::new();
    let inbox = inbox(&site);
    let tidings = site.platform().start();
    let http = tidings.http();
    tidings.kafka().produce(site.topic(), &[(None, b"bad 0"), (None, b"bad 1"), (None, b"bad 2")]);
    until_listed(&site, &http, 3);

    // A dry run says what would happen and changes nothing.
    http.post(&format!("{inbox}/discard"), &json!({"all": true, "dry_run": true})).expect(200);
    assert_eq!(until_listed(&site, &http, 3).len(), 3);

    http.post(&format!("{inbox}/discard"), &json!({"ids": ["0-0"]})).expect(200);
    until_listed(&site, &http, 2);
    // What is redriven fails again, for it is still bad, and comes back as a letter that knows of its past.
    http.post(&format!("{inbox}/redrive"), &json!({"ids": ["0-1"]})).expect(200);
    let letters = until("the redriven record has failed again", || {
        let letters = tidings.kafka().read_all(&site.letters());
        (letters.len() == 4).then_some(letters)
    });
    let again = &letters[3];
    assert_eq!(again.value_text(), "bad 1");
    assert_eq!(again.headers[0], ("from".to_owned(), b"a test".to_vec()));
    assert_eq!(again.header("tidings.dlq.offset").as_deref(), Some("1"));
    assert_eq!(again.header("tidings.dlq.redrives").as_deref(), Some("1"));
    assert_eq!(again.header("tidings.dlq.attempts").as_deref(), Some("2"));
    until_listed(&site, &http, 2);
    http.post(&format!("{inbox}/discard"), &json!({"all": true})).expect(200);
    until_listed(&site, &http, 0);

    // At a pace, and which keys wait for each other: none here, for activities do not.
    tidings.kafka().produce(site.topic(), &[(None, b"bad 3"), (None, b"bad 4")]);
    until_listed(&site, &http, 2);
    let redriven =
        http.post(&format!("{inbox}/redrive"), &json!({"all": true, "max_per_second": 100})).expect(200);
    assert_eq!((&redriven["done"], &redriven["more"]), (&json!(2), &json!(false)), "{redriven}");
    assert_eq!(http.get(&format!("{inbox}/queues")).expect(200), json!({"items": []}));
    // A typing error does not read as all clear.
    assert_eq!(http.get(&format!("{inbox}-mistyped/queues")).status, 404);
    for (route, pace) in [("redrive", json!(0)), ("redrive", json!("fast")), ("discard", json!(5))] {
        let refused = http.post(&format!("{inbox}/{route}"), &json!({"all": true, "max_per_second": pace}));
        assert_eq!(refused.status, 422, "{route} {pace}: {}", refused.text());
        assert!(refused.text().contains(r#""field":"max_per_second""#), "{route} {pace}: {}", refused.text());
    }
    until_listed(&site, &http, 2);
    http.post(&format!("{inbox}/discard"), &json!({"all": true})).expect(200);

    // Decisions survive a restart. What is not committed yet would come again, and fail again.
    let writer = site.writer();
    for topic in [site.topic().to_owned(), format!("{}.{writer}.retry", site.topic())] {
        let records = tidings.kafka().read_all(&topic);
        until(&format!("{topic} is committed"), || {
            let committed = tidings.kafka().committed(&writer, &topic);
            let is_done = |record: &Record| committed[record.partition as usize] > record.offset;
            records.iter().all(is_done).then_some(())
        });
    }
    tidings.kill_now();
    let tidings = site.platform().start();
    until_listed(&site, &tidings.http(), 0);
    for bad in [json!({"ids": ["nonsense"]}), json!({"all": "yes"}), json!({}), json!([])] {
        let refused = tidings.http().post(&format!("{inbox}/redrive"), &bad);
        assert!((400..500).contains(&refused.status), "{bad}: {}", refused.text());
    }
}

#[test]
fn a_redrive_reaches_only_the_group_that_failed() {
    let site = Site::new();
    let inbox = inbox(&site);
    let tidings = site.platform().start();
    let http = tidings.http();
    http.post(ACTIVITIES, &activity("acme", "known", 1)).expect(200);
    tidings.kafka().produce(site.topic(), &[(Some(b"acme"), b"broken")]);
    until_listed(&site, &http, 1);
    http.post(&format!("{inbox}/redrive"), &json!({"all": true})).expect(200);
    let retried = until("the record is on the group's own topic", || {
        let records = tidings.kafka().read_all(&site.retries());
        (!records.is_empty()).then_some(records)
    });
    assert_eq!(retried[0].value_text(), "broken");
    assert_eq!(retried[0].key.as_deref(), Some(b"acme".as_slice()));
    // The source topic is as it was: no other group sees the record again.
    assert_eq!(tidings.kafka().read_all(site.topic()).len(), 2);
}
