//! What every store must do: one suite, run against each implementation by its own tests.
//!
//! The suite knows stores through their trait only, and a naive model in memory tells it what a query must answer.
//! It uses tenants of its own, so that a store may be shared with other tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::activity::{Activity, Draft};
use crate::limits::ROWS_BETWEEN_LOOKS;
use crate::query::{ActionFilter, Filter, Matcher, Patience, Position, Query};
use crate::retention::Cutoffs;
use crate::store::{Arrival, Inserted, Store};
use crate::timestamp::Timestamp;

mod erasures;

/// Runs the whole suite. `open` opens the store, each time the same one; it is called again after a drop.
pub fn store_contract<S: Store>(open: impl Fn() -> S) {
    let store = open();
    assert!(!store.is_filled().unwrap(), "it is new");
    drop(store);
    let store = open();
    assert!(!store.is_filled().unwrap(), "and still is after a restart");
    store.mark_filled().unwrap();
    assert!(store.is_filled().unwrap());
    keeps_every_field(&store);
    first_write_wins(&store);
    tenants_are_apart(&store);
    pages_are_stable(&store);
    what_came_past_the_topic_is_marked(&store);
    arrivals_are_seen_once_and_in_order(&store);
    what_is_too_old_goes(&store);
    erasures::erased_actors_stay_away(&store);
    erasures::clocks_keep_nothing(&store);
    erasures::records_come_in_pages(&store);
    let model = Model::fill(&store);
    model.compare(&store, Model::QUERIES);
    model.compare_without_patience(&store);
    let (count, key) = (store.count(None).unwrap(), store.cursor_key().unwrap());
    drop(store);
    let store = open();
    assert_eq!(store.count(None).unwrap(), count, "reopened");
    assert!(store.cursor_key().unwrap() == key, "cursors outlive the process");
    assert!(store.is_filled().unwrap(), "it is not new any more");
    keeps_every_field(&store);
    model.compare(&store, Model::QUERIES_AGAIN);
}

/// An activity from its JSON, received at the epoch.
pub fn activity(json: &str) -> Activity<'static> {
    let draft: Draft<'_> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    draft.complete(Timestamp::from_micros(0).unwrap(), || "unnamed".to_owned()).into_owned()
}

fn keeps_every_field(store: &impl Store) {
    let full = activity(
        r#"{"id":"full","tenant":"fields","actor":{"type":"user","id":"u1","name":"Ann 'O\" \u00e9"},"action":"a.b",
            "targets":[{"type":"x","id":"1","name":"one"},{"id":"1"},{"type":"y","id":"1"},{"id":"2"}],
            "context":{"ip":"::1","user_agent":"curl","request_id":"r","correlation_id":"c"},
            "metadata":{"z":1.10,"a":12345678901234567890123,"text":"\u00e9"},
            "occurred_at":"1901-01-01T00:00:00.000001Z","received_at":"2013-01-01T00:00:00.999999Z"}"#,
    );
    let bare = activity(
        r#"{"id":"bare","tenant":"fields","action":"a","occurred_at":"9999-12-31T23:59:59.999999Z"}"#,
    );
    let empty =
        activity(r#"{"id":"empty","tenant":"fields","action":"a","targets":[],"context":{},"metadata":{}}"#);
    let all = [full, bare, empty];
    store.insert_batch(&all).unwrap();
    for expected in &all {
        assert_eq!(store.get("fields", &expected.id).unwrap().as_ref(), Some(expected));
    }
    assert_eq!(
        ids(store, &Query { filter: Filter::of_tenant("fields"), after: None, limit: 9 }),
        ["bare", "empty", "full"]
    );
    assert_eq!(store.insert_batch(&[]).unwrap(), []);
}

fn first_write_wins(store: &impl Store) {
    let with = |id: &str, action: &str| {
        activity(&format!(r#"{{"id":"{id}","tenant":"first","action":"{action}"}}"#))
    };
    let batch = [with("1", "first"), with("1", "second"), with("2", "first")];
    use Inserted::{Duplicate, Stored};
    assert_eq!(store.insert_batch(&batch).unwrap(), [Stored, Duplicate, Stored]);
    let batch = [with("2", "third"), with("3", "first"), with("1", "third")];
    assert_eq!(store.insert_batch(&batch).unwrap(), [Duplicate, Stored, Duplicate]);
    for id in ["1", "2", "3"] {
        assert_eq!(store.get("first", id).unwrap().unwrap().action, "first");
    }
    assert_eq!(store.count(Some("first")).unwrap(), 3);
    // A duplicate leaves no trace in what finds activities, either.
    let moved = r#"{"id":"1","tenant":"first","action":"x","actor":{"id":"u"},"targets":[{"id":"t"}]}"#;
    store.insert_batch(&[activity(moved)]).unwrap();
    let by_actor = Filter { actor: Some("u".to_owned()), ..Filter::of_tenant("first") };
    let by_target = Filter { target: Some("t".to_owned()), ..Filter::of_tenant("first") };
    for filter in [by_actor, by_target] {
        assert!(ids(store, &Query { filter, after: None, limit: 9 }).is_empty());
    }
}

fn tenants_are_apart(store: &impl Store) {
    let with =
        |tenant: &str| activity(&format!(r#"{{"id":"same","tenant":"{tenant}","action":"{tenant}"}}"#));
    let inserted = store.insert_batch(&[with("left"), with("Left"), with("left ")]).unwrap();
    assert_eq!(inserted, [Inserted::Stored; 3]);
    for tenant in ["left", "Left", "left "] {
        assert_eq!(store.get(tenant, "same").unwrap().unwrap().action, tenant);
        assert_eq!(store.count(Some(tenant)).unwrap(), 1);
    }
    assert_eq!(store.get("nobody", "same").unwrap(), None);
    assert_eq!(store.get("left", "other").unwrap(), None);
    assert_eq!(store.count(Some("nobody")).unwrap(), 0);
    assert!(ids(store, &Query { filter: Filter::of_tenant("nobody"), after: None, limit: 9 }).is_empty());
}

fn pages_are_stable(store: &impl Store) {
    let with = |id: String, second: usize| {
        let time = format!("2020-01-01T00:00:{second:02}Z");
        activity(&format!(r#"{{"id":"{id}","tenant":"paging","action":"a","occurred_at":"{time}"}}"#))
    };
    let batch: Vec<_> = (0..40).map(|at| with(format!("old-{at:02}"), at / 4)).collect();
    store.insert_batch(&batch).unwrap();
    let mut seen = Vec::new();
    let mut query = Query { filter: Filter::of_tenant("paging"), after: None, limit: 7 };
    for round in 0.. {
        let page = store.query(&query).unwrap();
        assert!(page.items.len() <= 7);
        seen.extend(page.items.iter().map(|item| item.id.to_string()).filter(|id| id.starts_with("old")));
        let Some(next) = page.next else { break };
        query.after = Some(next);
        // Newer ones, and one among the pages already seen.
        store.insert_batch(&[with(format!("new-{round}"), 30), with(format!("new-x{round}"), 9)]).unwrap();
    }
    let mut expected: Vec<_> = batch.iter().map(|item| item.id.to_string()).collect();
    expected.reverse();
    assert_eq!(seen, expected, "nothing twice, nothing missing");
}

fn what_came_past_the_topic_is_marked(store: &impl Store) {
    let with = |id: &str| activity(&format!(r#"{{"id":"{id}","tenant":"past","action":"a"}}"#));
    let marked = |limit| {
        let found = store.unpublished(limit).unwrap();
        assert!(found.is_sorted_by_key(|arrived| arrived.arrival));
        found
            .into_iter()
            .map(|arrived| (arrived.activity.id.to_string(), arrived.arrival))
            .collect::<Vec<_>>()
    };
    let ids = |limit| marked(limit).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    use Inserted::{Duplicate, Stored};
    store.insert_batch(&[with("0")]).unwrap();
    assert_eq!(store.unpublished_count().unwrap(), 0);
    // One that the topic has needs no mark; neither does one twice.
    let batch = [with("1"), with("0"), with("2"), with("1"), with("3")];
    assert_eq!(store.insert_unpublished(&batch).unwrap(), [Stored, Duplicate, Stored, Duplicate, Stored]);
    assert_eq!((ids(9), ids(2)), (vec!["1".into(), "2".into(), "3".into()], vec!["1".into(), "2".into()]));
    assert_eq!(store.unpublished(1).unwrap()[0].activity, with("1"));
    // The record of one came by the topic after all.
    assert_eq!(store.insert_batch(&[with("2"), with("4")]).unwrap(), [Duplicate, Stored]);
    assert_eq!(ids(9), ["1", "3"]);
    let first = marked(1)[0].1;
    store.mark_published(&[first, first]).unwrap();
    assert_eq!((ids(9), store.unpublished_count().unwrap()), (vec!["3".to_owned()], 1));
    let rest: Vec<_> = marked(9).into_iter().map(|(_, arrival)| arrival).collect();
    store.mark_published(&rest).unwrap();
    store.mark_published(&[]).unwrap();
    assert_eq!(store.unpublished_count().unwrap(), 0);
    assert_eq!(store.count(Some("past")).unwrap(), 5);
}

fn arrivals_are_seen_once_and_in_order(store: &impl Store) {
    let with = |id: &str| activity(&format!(r#"{{"id":"{id}","tenant":"arrivals","action":"a"}}"#));
    let start = store.last_arrival().unwrap();
    assert!(store.arrived_after(start, 9).unwrap().is_empty());
    store.insert_batch(&[with("2"), with("1")]).unwrap();
    store.insert_unpublished(&[with("1"), with("3")]).unwrap();
    store.insert_batch(&[with("3"), with("2"), with("0")]).unwrap();
    assert_eq!(arrivals(store, start, 9), ["2", "1", "3", "0"]);
    assert_eq!(arrivals(store, start, 1), ["2", "1", "3", "0"]);
    let found = store.arrived_after(start, 9).unwrap();
    assert_eq!(found[2].activity, with("3"));
    assert_eq!(store.last_arrival().unwrap(), found[3].arrival);
    assert!(store.arrived_after(Arrival(i64::MAX), 9).unwrap().is_empty());
    // Whoever follows while others write misses none of them, however their transactions overlap.
    let start = store.last_arrival().unwrap();
    const WRITERS: usize = 3;
    const BATCHES: usize = 6;
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let batch: Vec<_> =
                        (0..5).map(|number| with(&format!("{writer}-{batch}-{number}"))).collect();
                    // A store that is busy is asked again, as the writer does.
                    while store.insert_batch(&batch).is_err() {}
                }
            });
        }
        let mut position = start;
        while seen.len() < WRITERS * BATCHES * 5 {
            for arrived in store.arrived_after(position, 7).unwrap() {
                assert!(arrived.arrival > position);
                position = arrived.arrival;
                if arrived.activity.tenant == "arrivals" {
                    seen.push(arrived.activity.id.to_string());
                }
            }
        }
    });
    assert_eq!(seen, arrivals(store, start, 1000), "nothing showed up behind the follower");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), WRITERS * BATCHES * 5);
}

fn what_is_too_old_goes(store: &impl Store) {
    let with = |tenant: &str, id: usize| {
        let time = format!("{}-{:02}-{:02}T00:00:00Z", 2012 + id / 300, 1 + id / 25 % 12, 1 + id % 25);
        activity(&format!(
            r#"{{"id":"{id}","tenant":"{tenant}","action":"a","actor":{{"id":"u"}},"targets":[{{"id":"i"}}],
                "occurred_at":"{time}"}}"#
        ))
    };
    // More than a step takes, over years.
    let batch = |tenant: &str| (0..2500).map(|id| with(tenant, id)).collect::<Vec<_>>();
    let (short, long, ever) = (batch("old-short"), batch("old-long"), batch("old-ever"));
    for batch in [&short, &long, &ever] {
        store.insert_batch(batch).unwrap();
    }
    let unpublished =
        activity(r#"{"id":"kept","tenant":"old-short","action":"a","occurred_at":"2012-01-01T00:00:00Z"}"#);
    store.insert_unpublished(std::slice::from_ref(&unpublished)).unwrap();
    let time = |text: &str| Some(Timestamp::parse(text).unwrap());
    let tenants = [
        ("old-short".to_owned(), time("2019-01-01T00:00:00Z")),
        ("old-long".to_owned(), time("2014-06-15T00:00:00Z")),
    ];
    expire_all(store, &Cutoffs { default: None, tenants: tenants.clone().into() });
    let left = |batch: &[Activity<'_>], from: Option<Timestamp>| {
        batch.iter().filter(|item| from.is_none_or(|from| item.occurred_at >= from)).count() as u64
    };
    let check = |tenant: &str, expected: u64| {
        assert_eq!(store.count(Some(tenant)).unwrap(), expected, "{tenant}");
        for filter in [
            Filter::of_tenant(tenant),
            Filter { actor: Some("u".to_owned()), ..Filter::of_tenant(tenant) },
            Filter { target: Some("i".to_owned()), ..Filter::of_tenant(tenant) },
        ] {
            let found = ids(store, &Query { filter, after: None, limit: 400 });
            assert_eq!(
                found.iter().filter(|id| *id != "kept").count() as u64,
                expected - u64::from(tenant == "old-short")
            );
        }
    };
    check("old-short", left(&short, time("2019-01-01T00:00:00Z")) + 1);
    check("old-long", left(&long, time("2014-06-15T00:00:00Z")));
    check("old-ever", 2500);
    assert_eq!(store.get("old-long", "0").unwrap(), None);
    // With a time for everybody, those that are named keep theirs.
    let mut tenants: std::collections::BTreeMap<_, _> = tenants.into();
    tenants.insert("old-ever".to_owned(), None);
    for tenant in ["fields", "first", "left", "Left", "left ", "paging", "past", "arrivals", "model"] {
        tenants.insert(tenant.to_owned(), None);
    }
    expire_all(store, &Cutoffs { default: time("2025-01-01T00:00:00Z"), tenants: tenants.clone() });
    check("old-ever", 2500);
    check("old-long", left(&long, time("2014-06-15T00:00:00Z")));
    tenants.insert("old-ever".to_owned(), time("2030-01-01T00:00:00Z"));
    tenants.insert("old-long".to_owned(), time("2030-01-01T00:00:00Z"));
    expire_all(store, &Cutoffs { default: time("2025-01-01T00:00:00Z"), tenants });
    check("old-ever", 0);
    check("old-long", 0);
    assert_eq!(store.get("old-short", "kept").unwrap(), Some(unpublished));
    // What was deleted can come again, like anything new.
    assert_eq!(store.insert_batch(&short[..1]).unwrap(), [Inserted::Stored]);
    let marked: Vec<_> = store.unpublished(9).unwrap().iter().map(|arrived| arrived.arrival).collect();
    store.mark_published(&marked).unwrap();
}

fn expire_all(store: &impl Store, cutoffs: &Cutoffs) {
    while !store.expire(cutoffs).unwrap().is_done {}
}

/// The ids of the suite's tenant of this name that arrived after a place, page by page.
fn arrivals(store: &impl Store, mut after: Arrival, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let found = store.arrived_after(after, limit).unwrap();
        assert!(found.len() <= limit && found.is_sorted_by_key(|arrived| arrived.arrival));
        let Some(last) = found.last() else { return ids };
        after = last.arrival;
        let own = found.iter().filter(|arrived| arrived.activity.tenant == "arrivals");
        ids.extend(own.map(|arrived| arrived.activity.id.to_string()));
    }
}

/// Whatever the pages of `query`, their ids in order.
fn ids(store: &impl Store, query: &Query) -> Vec<String> {
    let mut query = query.clone();
    let mut ids = Vec::new();
    loop {
        let page = store.query(&query).unwrap();
        assert!(page.items.len() <= query.limit);
        ids.extend(page.items.iter().map(|item| item.id.to_string()));
        match page.next {
            Some(next) => {
                assert!(query.after.as_ref().is_none_or(|after| next < *after), "a cursor moves on");
                query.after = Some(next);
            }
            None => return ids,
        }
    }
}

/// What was stored, in the order of answers.
struct Model {
    tenant: String,
    newest_first: Vec<Activity<'static>>,
}

impl Model {
    const ACTIVITIES: u64 = 1500;
    const QUERIES: u64 = 150;
    /// Once more, after the store was opened again.
    const QUERIES_AGAIN: u64 = 20;

    fn fill(store: &impl Store) -> Self {
        let mut random = Random(42);
        let tenant = "model".to_owned();
        let mut by_id = BTreeMap::new();
        for _ in 0..Self::ACTIVITIES / 50 {
            let batch: Vec<_> = (0..50).map(|_| random.activity(&tenant)).collect();
            store.insert_batch(&batch).unwrap();
            for activity in batch {
                by_id.entry(activity.id.to_string()).or_insert(activity);
            }
        }
        let mut newest_first: Vec<_> = by_id.into_values().collect();
        newest_first
            .sort_by_key(|activity| std::cmp::Reverse((activity.occurred_at, activity.id.to_string())));
        assert_eq!(store.count(Some(&tenant)).unwrap(), newest_first.len() as u64);
        Self { tenant, newest_first }
    }

    fn compare(&self, store: &impl Store, queries: u64) {
        let mut random = Random(7);
        let arrived = self.arrived(store);
        for _ in 0..queries {
            let filter = random.filter(&self.tenant);
            let after = random.one_in(3).then(|| {
                let item = &self.newest_first[random.below(self.newest_first.len() as u64) as usize];
                Position { occurred_at: item.occurred_at, id: item.id.to_string() }
            });
            let query = Query { filter, after, limit: 1 + random.below(60) as usize };
            let expected: Vec<_> =
                self.newest_first.iter().filter(|activity| naive(&query, activity)).collect();
            let expected: Vec<_> = expected.iter().map(|activity| activity.id.to_string()).collect();
            assert_eq!(ids(store, &query), expected, "{query:?}");
            // What follows the store by its arrivals finds the same.
            let matcher = Matcher::new(query.filter.clone());
            let followed = arrived.iter().filter(|activity| matcher.matches(activity)).count();
            let found = ids(store, &Query { after: None, ..query.clone() }).len();
            assert_eq!(followed, found, "{:?}", query.filter);
        }
    }

    /// A search whose time is up, or that nobody waits for any more, looks at few rows, and yet comes to its end.
    fn compare_without_patience(&self, store: &impl Store) {
        let nobody_waits = Patience::while_waiting().0;
        let time_is_up = Patience::default().at_most(Duration::ZERO);
        let mut random = Random(11);
        for patience in [&nobody_waits, &time_is_up].repeat(Self::QUERIES_AGAIN as usize / 2) {
            assert!(patience.is_over());
            let mut query = Query { filter: random.filter(&self.tenant), after: None, limit: 500 };
            let expected: Vec<_> =
                self.newest_first.iter().filter(|activity| naive(&query, activity)).cloned().collect();
            let mut found = Vec::new();
            loop {
                let page = store.search(&query, patience).unwrap();
                assert!(page.items.len() <= ROWS_BETWEEN_LOOKS, "{query:?}");
                found.extend(page.items);
                let Some(next) = page.next else { break };
                assert!(query.after.is_none_or(|after| next < after), "it comes further");
                query.after = Some(next);
            }
            assert_eq!(found, expected, "{:?}", query.filter);
        }
    }

    /// The model's activities in the order of their arrival.
    fn arrived(&self, store: &impl Store) -> Vec<Activity<'static>> {
        let mut arrived = Vec::new();
        let mut after = Arrival(i64::MIN);
        loop {
            let found = store.arrived_after(after, 500).unwrap();
            let Some(last) = found.last() else { break };
            after = last.arrival;
            let activities = found.into_iter().map(|arrived| arrived.activity);
            arrived.extend(activities.filter(|activity| activity.tenant == self.tenant.as_str()));
        }
        assert_eq!(arrived.len(), self.newest_first.len());
        arrived
    }
}

fn naive(query: &Query, activity: &Activity<'_>) -> bool {
    let filter = &query.filter;
    let position = Position { occurred_at: activity.occurred_at, id: activity.id.to_string() };
    let actor = activity.actor.as_ref().map(|actor| actor.id.to_string());
    let json = serde_json::to_value(activity).unwrap();
    query.after.as_ref().is_none_or(|after| position < *after)
        && (filter.actor.is_none() || filter.actor == actor)
        && filter.action.as_ref().is_none_or(|action| match action {
            ActionFilter::Exactly(exact) => activity.action == exact.as_str(),
            ActionFilter::Prefix(prefix) => activity.action.starts_with(prefix.as_str()),
        })
        && filter
            .target
            .as_ref()
            .is_none_or(|id| activity.targets.iter().any(|target| target.id == id.as_str()))
        && filter.from.is_none_or(|from| activity.occurred_at >= from)
        && filter.to.is_none_or(|to| activity.occurred_at < to)
        && filter.text.as_ref().is_none_or(|text| {
            let fields = ["id", "action", "actor", "targets", "context", "metadata"];
            fields.iter().any(|field| holds(&json[*field], &text.to_lowercase(), *field == "metadata"))
        })
}

fn holds(value: &serde_json::Value, lower: &str, keys: bool) -> bool {
    match value {
        serde_json::Value::Null => false,
        serde_json::Value::String(text) => text.to_lowercase().contains(lower),
        serde_json::Value::Array(values) => values.iter().any(|value| holds(value, lower, keys)),
        serde_json::Value::Object(map) => map
            .iter()
            .any(|(key, value)| (keys && key.to_lowercase().contains(lower)) || holds(value, lower, keys)),
        other => other.to_string().contains(lower),
    }
}

/// A small generator of numbers (SplitMix64), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn time(&mut self) -> Timestamp {
        // Few distinct times, so that ids decide often.
        Timestamp::from_micros(1_357_000_000_000_000 + self.below(200) as i64 * 60_000_000).unwrap()
    }

    fn activity(&mut self, tenant: &str) -> Activity<'static> {
        let actor =
            if self.one_in(5) { "null".to_owned() } else { format!(r#"{{"id":"u{}"}}"#, self.below(9)) };
        let kinds = ["user", "invoice"];
        let targets: Vec<String> = (0..self.below(4))
            .map(|_| format!(r#"{{"type":"{}","id":"t{}"}}"#, kinds[self.below(2) as usize], self.below(30)))
            .collect();
        let actions = ["invoice.created", "invoice.paid", "user.invited", "invoices"];
        let notes = [r#"{"note":"Caf\u00e9 \"ROYAL\""}"#, r#"{"id":[1,{"deep":"invoice"}]}"#, "null", "{}"];
        activity(&format!(
            r#"{{"id":"{}","tenant":"{tenant}","actor":{actor},"action":"{}","targets":[{}],"metadata":{},
                "occurred_at":"{}"}}"#,
            self.below(Self::IDS),
            actions[self.below(4) as usize],
            targets.join(","),
            notes[self.below(4) as usize],
            self.time(),
        ))
    }

    /// Fewer than there are activities, so that some come twice.
    const IDS: u64 = 5000;

    fn filter(&mut self, tenant: &str) -> Filter {
        let actions = ["invoice.*", "invoice.paid", "*", "user.*", "nothing"];
        let texts = ["café", "CAFÉ \"royal\"", "invoice", "id", "u3", "type", "42", "royal", "\\", "target"];
        Filter {
            actor: self.one_in(3).then(|| format!("u{}", self.below(10))),
            action: self.one_in(3).then(|| ActionFilter::parse(actions[self.below(5) as usize])),
            target: self.one_in(3).then(|| format!("t{}", self.below(31))),
            from: self.one_in(4).then(|| self.time()),
            to: self.one_in(4).then(|| self.time()),
            text: self.one_in(3).then(|| texts[self.below(10) as usize].to_owned()),
            ..Filter::of_tenant(tenant)
        }
    }
}

/// Arbitrary JSON text, biased towards the fields of an activity.
#[cfg(test)]
pub(crate) fn arbitrary_json() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let key = prop_oneof![
        prop::sample::select(vec![
            "id",
            "tenant",
            "actor",
            "action",
            "targets",
            "context",
            "metadata",
            "occurred_at",
            "received_at",
            "type",
            "name",
            "ip",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,8}".prop_map(Into::into),
        Just("2013-01-01T10:17:00Z".into()),
    ];
    let value = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    value.prop_map(|value| value.to_string())
}
