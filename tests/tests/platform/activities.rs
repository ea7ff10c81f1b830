//! From HTTP to the query: what is accepted is in the topic and in the store, once, and is found again.

use serde_json::{Value, json};
use tidings_tests::{Http, Launch, kept_address, until};

use crate::site::Site;
use crate::support::{ACTIVITIES, activity, ids, stored_ids, until_ready, until_stored};

#[test]
fn an_activity_goes_from_http_through_the_topic_to_the_query() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();

    let sent = activity("acme", "one", 1);
    let answer = http.post(ACTIVITIES, &sent).expect(200);
    assert_eq!(answer, json!({"results": [{"id": "one", "via": "stream"}]}));
    until_stored(&http, "acme", 1);

    let found = http.get(&format!("{ACTIVITIES}/one?tenant=acme")).expect(200);
    for (field, value) in sent.as_object().unwrap() {
        if field != "occurred_at" {
            assert_eq!(&found[field], value, "{field}");
        }
    }
    assert!(found["occurred_at"].as_str().unwrap().starts_with("2026-01-01T00:01:00"));
    assert!(found["received_at"].is_string());
    assert_eq!(http.get(&format!("{ACTIVITIES}/one?tenant=other")).status, 404);
    assert_eq!(http.get(&format!("{ACTIVITIES}/two?tenant=acme")).status, 404);

    let records = tidings.kafka().read_all(site.topic());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key.as_deref(), Some(b"acme".as_slice()));
    let event: Value = serde_json::from_slice(records[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((&event["specversion"], &event["id"]), (&json!("1.0"), &json!("one")));
    assert_eq!(records[0].header("ce_id").as_deref(), Some("one"));
    assert_eq!(records[0].header("ce_specversion").as_deref(), Some("1.0"));
    assert_eq!(tidings.kafka().partition_count(site.topic()), 3);
    assert_eq!(tidings.kafka().partition_count(&site.letters()), 1);
}

#[test]
fn what_the_topic_takes_no_record_of_is_too_large_and_nothing_else_waits_for_it() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    http.post(ACTIVITIES, &activity("acme", "before", 1)).expect(200);
    tidings.kafka().configure_topic(site.topic(), "max.message.bytes", "4000");
    let mut large = activity("acme", "large", 2);
    large["metadata"] = json!({"text": "x".repeat(8_000)});
    let problem = until("it is refused", || {
        let answer = http.post(ACTIVITIES, &large);
        (answer.status != 200).then_some(answer)
    });
    let problem = problem.expect(413);
    assert!(problem["detail"].as_str().unwrap().contains("max.message.bytes"), "{problem}");
    http.post(ACTIVITIES, &activity("acme", "after", 3)).expect(200);
    until("the rest is stored", || stored_ids(&http, "acme").contains_key("after").then_some(()));
}

#[test]
fn an_id_is_given_where_the_caller_gives_none() {
    let site = Site::new();
    let tidings = site.platform().start();
    let answer = tidings.http().post(ACTIVITIES, &json!({"tenant": "acme", "action": "a.b"})).expect(200);
    let id = answer["results"][0]["id"].as_str().unwrap();
    // A UUIDv7 has its version in the third group.
    assert_eq!((id.len(), id.split('-').nth(2).map(|group| &group[..1])), (36, Some("7")));
    assert_eq!(until_stored(&tidings.http(), "acme", 1).keys().next().map(String::as_str), Some(id));
}

#[test]
fn the_same_id_is_stored_once_and_the_first_write_wins() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let mut second = activity("acme", "same", 2);
    second["action"] = json!("invoice.changed");
    http.post(ACTIVITIES, &activity("acme", "same", 1)).expect(200);
    until_stored(&http, "acme", 1);
    http.post(ACTIVITIES, &json!([second, activity("acme", "last", 3), activity("acme", "last", 3)]))
        .expect(200);
    // Another tenant's activity of the same id is another activity.
    http.post(ACTIVITIES, &activity("other", "same", 1)).expect(200);

    let stored = until_stored(&http, "acme", 2);
    assert_eq!(stored.into_iter().collect::<Vec<_>>(), [("last".to_owned(), 1), ("same".to_owned(), 1)]);
    let found = http.get(&format!("{ACTIVITIES}/same?tenant=acme")).expect(200);
    assert_eq!(found["action"], "invoice.created");
    assert_eq!(until_stored(&http, "other", 1).len(), 1);
    assert_eq!(tidings.kafka().read_all(site.topic()).len(), 5);
}

#[test]
fn an_array_is_all_or_nothing() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let mut bad = activity("acme", "bad", 2);
    bad["actor"] = json!({"type": "user"});
    let refused = http.post(ACTIVITIES, &json!([activity("acme", "good", 1), bad]));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let problem = refused.expect(422);
    assert_eq!((&problem["status"], &problem["errors"][0]["index"]), (&json!(422), &json!(1)));
    assert!(problem["errors"][0]["field"].as_str().unwrap().starts_with("actor"), "{problem}");

    http.post(ACTIVITIES, &json!([activity("acme", "a", 1), activity("acme", "b", 2)])).expect(200);
    assert_eq!(until_stored(&http, "acme", 2).len(), 2);
    assert!(!stored_ids(&http, "acme").contains_key("good"));
    assert_eq!(tidings.kafka().read_all(site.topic()).len(), 2);
}

#[test]
fn a_stream_of_lines_is_answered_line_by_line() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let mut lines = String::new();
    for number in 0..3000 {
        lines += &format!("{}\n", activity("acme", &format!("n-{number}"), number));
    }
    lines += "{\"tenant\": \"acme\"}\n";
    lines += "not JSON\n";
    lines += &format!("{}", activity("acme", "the-last-without-line-end", 1));
    let answer = http.post_ndjson(ACTIVITIES, &lines);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.ndjson();
    assert_eq!(results.len(), 3003);
    assert_eq!((&results[2999]["id"], &results[2999]["via"]), (&json!("n-2999"), &json!("stream")));
    for (line, result) in [(3001, &results[3000]), (3002, &results[3001])] {
        assert!(result["id"].is_null(), "{result}");
        assert!(result.to_string().contains(&line.to_string()), "line {line}: {result}");
    }
    assert_eq!(results[3002]["id"], "the-last-without-line-end");
    let stored = until_stored(&http, "acme", 3001);
    assert_eq!(stored.len(), 3001);
    assert!(stored.values().all(|count| *count == 1));
}

#[test]
fn a_long_stream_needs_no_memory_even_if_nobody_reads_its_answers_yet() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    http.post(ACTIVITIES, &activity("other", "first", 0)).expect(200);
    let before = tidings.resident_bytes();
    let count = 80_000;
    let mut lines = String::new();
    for number in 0..count {
        let mut activity = activity("acme", &format!("n-{number}"), number);
        activity["metadata"]["note"] = json!("x".repeat(800));
        lines += &format!("{activity}\n");
    }
    assert!(lines.len() > 72 << 20);
    // This client sends everything before it reads anything.
    let results = http.post_ndjson(ACTIVITIES, &lines);
    let grown = tidings.resident_bytes().saturating_sub(before);
    let text = results.text();
    let (accepted, others): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.contains("\"via\":\"stream\""));
    assert_eq!((accepted.len(), others.first()), (count, None));
    assert!(grown < 48 << 20, "grew by {} MiB", grown >> 20);
}

#[test]
fn a_record_put_on_the_topic_by_any_client_is_stored() {
    let site = Site::new();
    let tidings = site.platform().start();
    let event = json!({
        "specversion": "1.0", "id": "from-kafka", "source": "/tenants/acme", "type": "tidings.activity.v1",
        "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json",
        "data": activity("acme", "from-kafka", 0),
    });
    tidings.kafka().produce(site.topic(), &[(Some(b"acme"), event.to_string().as_bytes())]);
    let stored = until_stored(&tidings.http(), "acme", 1);
    assert!(stored.contains_key("from-kafka"));
}

#[test]
fn the_list_is_filtered_ordered_and_paged_while_events_arrive() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let mut sent: Vec<Value> =
        (0..60).map(|minute| activity("acme", &format!("id-{minute:03}"), minute)).collect();
    for (minute, activity) in sent.iter_mut().enumerate() {
        if minute % 2 == 1 {
            activity["action"] = json!("user.signed-in");
            activity["actor"]["id"] = json!("u-2");
        }
    }
    sent[7]["metadata"] = json!({"note": "a needle in the haystack"});
    // Sent in another order than they happened in.
    sent.reverse();
    http.post(ACTIVITIES, &Value::Array(sent)).expect(200);
    until_stored(&http, "acme", 60);
    let list = |query: &str| http.get(&format!("{ACTIVITIES}?tenant=acme&{query}")).expect(200);

    let newest: Vec<String> = (0..60).rev().map(|minute| format!("id-{minute:03}")).collect();
    assert_eq!(ids(&list("limit=500")), newest);
    assert_eq!(ids(&list("")), newest[..50]);
    assert_eq!(ids(&list("action=invoice.*")).len(), 30);
    assert_eq!(ids(&list("action=user.signed-in&actor=u-2")).len(), 30);
    assert_eq!(ids(&list("action=user.signed-in&actor=u-1")).len(), 0);
    assert_eq!(ids(&list("target=invoice-id-007")), ["id-007"]);
    assert_eq!(ids(&list("q=needle")), ["id-007"]);
    let range = list("from=2026-01-01T00:10:00Z&to=2026-01-01T00:12:00Z");
    assert!(ids(&range).contains(&"id-011".to_owned()) && ids(&range).len() <= 3, "{range}");

    let mut paged = Vec::new();
    let mut page = list("limit=25");
    loop {
        paged.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        // Newer events come in between the pages and change nothing of what follows.
        let late = activity("acme", &format!("late-{}", paged.len()), 100 + paged.len());
        http.post(ACTIVITIES, &late).expect(200);
        let found = format!("{ACTIVITIES}/late-{}?tenant=acme", paged.len());
        until("the late activity is stored", || (http.get(&found).status == 200).then_some(()));
        page = list(&format!("limit=25&cursor={cursor}"));
    }
    assert_eq!(paged, newest);

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("from=yesterday", "from"),
        ("cursor=x", "cursor"),
        ("colour=red", "colour"),
    ] {
        let refused = http.get(&format!("{ACTIVITIES}?tenant=acme&{query}"));
        assert!((400..500).contains(&refused.status), "{query}: {}", refused.text());
        assert!(refused.text().contains(field), "{query}: {}", refused.text());
    }
    assert!((400..500).contains(&http.get(ACTIVITIES).status), "the tenant is required");
}

#[test]
fn metrics_tell_what_happened() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    http.post(ACTIVITIES, &json!([activity("acme", "a", 1), activity("acme", "b", 2)])).expect(200);
    until_stored(&http, "acme", 2);
    let produced = format!("kafka_messages_produced_total{{topic=\"{}\"}}", site.topic());
    let (lag, writer) = ("kafka_consumer_lag{", site.writer());
    until("the producer has counted", || (http.metric(&produced) == Some(2.0)).then_some(()));
    let page = http.get("/metrics").text();
    let lags: Vec<&str> =
        page.lines().filter(|line| line.starts_with(lag) && line.contains(&writer)).collect();
    assert!(
        lags.iter()
            .all(|line| line.contains(&format!("topic=\"{}", site.topic())) && line.contains("partition=")),
        "{lags:?}"
    );
    until("nothing is left to store", || {
        let page = http.get("/metrics").text();
        let mut lags = page.lines().filter(|line| line.starts_with(lag) && line.contains(&writer)).peekable();
        (lags.peek().is_some() && lags.all(|line| line.ends_with(" 0"))).then_some(())
    });
    let page = http.get("/metrics").text();
    let mut series = std::collections::HashSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.rsplit_once(' ').expect("a series and its value").0;
        assert!(series.insert(name), "Prometheus refuses a page that names a series twice: {name}");
    }
    assert_eq!(http.get("/healthz").status, 200);
    until_ready(&http);
}

/// The first answer is forgotten with the process; the ids that follow from the key are not.
#[test]
fn a_key_that_is_sent_again_after_a_kill_doubles_nothing() {
    let (engine, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Launch::broker(engine.path()).at(&kept_address()).start();
    let address = broker.bootstrap();
    let start = || Launch::up_on(&address, data.path()).start();
    let array = json!([{"tenant": "acme", "action": "a"}, {"tenant": "acme", "action": "b"}, {"tenant": "other", "action": "c"}]);
    let lines = "{\"tenant\":\"acme\",\"action\":\"d\"}\n\n{\"tenant\":\"acme\",\"action\":\"e\"}\n";
    let post = |http: &Http| {
        let under = |kind, body: &[u8]| {
            let headers = [("content-type", kind), ("idempotency-key", "\"8e03978e-40d5-43e8\"")];
            let answer = http.request("POST", ACTIVITIES, &headers, body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer
        };
        let array = under("application/json", array.to_string().as_bytes()).json();
        let results = array["results"].as_array().unwrap().clone();
        let lines = under("application/x-ndjson", lines.as_bytes()).ndjson();
        let answers = results.into_iter().chain(lines);
        answers.map(|answer| (answer["id"].clone(), answer["via"].clone())).collect::<Vec<_>>()
    };
    let ids = |answers: &[(Value, Value)]| answers.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();

    let platform = start();
    let first = post(&platform.http());
    assert_eq!(post(&platform.http()), first, "the second is answered as the first");
    platform.kill_now();
    // While the cluster is away the same goes into the store, and over the topic once more when it is back.
    broker.kill_now();
    let platform = start();
    assert_eq!(ids(&post(&platform.http())), ids(&first));
    platform.kill_now();
    let broker = Launch::broker(engine.path()).at(&address).start();
    let platform = start();
    let http = platform.http();
    assert_eq!(ids(&post(&http)), ids(&first));
    http.post(ACTIVITIES, &activity("acme", "the-last", 1)).expect(200);
    until("all that was sent is stored", || {
        let unpublished = http.metric("tidings_activity_unpublished")?;
        (unpublished == 0.0 && stored_ids(&http, "acme").contains_key("the-last")).then_some(())
    });
    let stored = stored_ids(&http, "acme");
    assert_eq!((stored.len(), stored.values().sum::<usize>()), (5, 5));
    assert_eq!(stored_ids(&http, "other").len(), 1);
    assert!(first.iter().all(|(_, via)| *via == json!("stream")), "{first:?}");
    assert!(broker.kafka().read_all("activities").len() > 6, "it did come over the topic again");
}
