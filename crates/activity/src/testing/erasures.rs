//! What every store must do when actors are erased, and how it lists that. No part of the suite besides.

use super::{activity, ids};
use crate::erasure::{ErasurePosition, ErasureRequest};
use crate::query::{Filter, Query};
use crate::store::{Inserted, Store};
use crate::timestamp::Timestamp;

pub(super) fn erased_actors_stay_away(store: &impl Store) {
    let with = |id: usize, actor: &str, received_at: &str| {
        activity(&format!(
            r#"{{"id":"{id}","tenant":"erasing","action":"a","actor":{{"id":"{actor}"}},"targets":[{{"id":"i"}}],
                "occurred_at":"2026-11-{:02}T00:00:00Z","received_at":"{received_at}"}}"#,
            1 + id % 28
        ))
    };
    let before: Vec<_> = (0..2300).map(|id| with(id, "gone", "2026-11-01T00:00:00Z")).collect();
    let others: Vec<_> = (2300..2310).map(|id| with(id, "stays", "2026-11-01T00:00:00Z")).collect();
    store.insert_batch(&others).unwrap();
    store.insert_batch(&before[..2000]).unwrap();
    store.insert_unpublished(&before[2000..]).unwrap();
    let request = ErasureRequest {
        id: format!("erasure-{}", store.last_arrival().unwrap().0),
        tenant: "erasing".to_owned(),
        actor: "gone".to_owned(),
        requested_by: "the officer".to_owned(),
        requested_at: Timestamp::parse("2026-11-02T00:00:00Z").unwrap(),
    };
    store.begin_erasure(&request).unwrap();
    // What the actor does after the request was not asked to go. More than a step looks at.
    let meanwhile: Vec<_> = (3000..5100).map(|id| with(id, "gone", "2026-11-02T00:00:00.000001Z")).collect();
    store.insert_batch(&meanwhile).unwrap();
    let newest = store.last_arrival().unwrap();
    let erased = |id: usize| store.insert_batch(&[with(id, "gone", "2026-11-01T00:00:00Z")]).unwrap()[0];
    assert_eq!(erased(2400), Inserted::Erased, "from the request on");
    while !store.continue_erasures().unwrap().is_done {}
    let record = store.erasure(&request.id).unwrap().unwrap();
    assert_eq!((record.activities, record.requested_by.as_str()), (2300, "the officer"));
    assert!(record.finished_at.is_some() && record.requested_at == request.requested_at);
    assert_eq!(store.erasures("erasing", None, 1).unwrap(), [record]);
    assert_eq!(store.erasures("others", None, 9).unwrap(), []);
    assert_eq!(store.count(Some("erasing")).unwrap(), 10 + 2100);
    assert_eq!(store.unpublished_count().unwrap(), 0);
    for filter in [
        Filter { actor: Some("gone".to_owned()), ..Filter::of_tenant("erasing") },
        Filter {
            target: Some("i".to_owned()),
            from: Timestamp::parse("2026-11-15T00:00:00Z").ok(),
            ..Filter::of_tenant("erasing")
        },
    ] {
        let found = ids(store, &Query { filter, after: None, limit: 99 });
        assert!(found.iter().all(|id| id.parse::<usize>().unwrap() >= 2300), "{found:?}");
        assert!(found.len() >= 900, "those of meanwhile are among them");
    }
    // A replay brings nothing back; what the actor does later, and what others do, is stored at a new place.
    assert_eq!(store.insert_batch(&before[..3]).unwrap(), [Inserted::Erased; 3]);
    assert_eq!(store.insert_unpublished(&before[3..4]).unwrap(), [Inserted::Erased]);
    let later =
        [with(2500, "gone", "2026-11-02T00:00:00.000001Z"), with(2501, "stays", "2026-11-01T00:00:00Z")];
    assert_eq!(store.insert_batch(&later).unwrap(), [Inserted::Stored; 2]);
    let arrived = store.arrived_after(newest, 9).unwrap();
    assert_eq!(arrived.len(), 2, "no place is given twice");
    // What is not stored keeps no id from another one in the same batch.
    let received_at = "2026-11-01T00:00:00Z";
    let same_id = [with(2600, "gone", received_at), with(2600, "stays", received_at)];
    assert_eq!(store.insert_batch(&same_id).unwrap(), [Inserted::Erased, Inserted::Stored]);
    // Elsewhere the same id is somebody else.
    let elsewhere = activity(r#"{"id":"1","tenant":"erasing-not","action":"a","actor":{"id":"gone"}}"#);
    assert_eq!(store.insert_batch(&[elsewhere]).unwrap(), [Inserted::Stored]);
}

/// What is stored goes, also if the clock is behind what it was when that was received.
pub(super) fn clocks_keep_nothing(store: &impl Store) {
    let with = |id: usize, received_at: &str| {
        activity(&format!(
            r#"{{"id":"{id}","tenant":"clocks","action":"a","actor":{{"id":"gone"}},"received_at":"{received_at}"}}"#
        ))
    };
    let (ahead, behind) = ("2026-11-03T00:00:00Z", "2026-11-02T00:00:00Z");
    let stored: Vec<_> = (0..2300).map(|id| with(id, ahead)).collect();
    store.insert_batch(&stored).unwrap();
    let request = ErasureRequest {
        id: format!("clocks-{}", store.last_arrival().unwrap().0),
        tenant: "clocks".to_owned(),
        actor: "gone".to_owned(),
        requested_by: "the officer".to_owned(),
        requested_at: Timestamp::parse(behind).unwrap(),
    };
    store.begin_erasure(&request).unwrap();
    while !store.continue_erasures().unwrap().is_done {}
    assert_eq!(store.erasure(&request.id).unwrap().unwrap().activities, 2300);
    assert_eq!(store.count(Some("clocks")).unwrap(), 0);
    assert!(store.last_erasure().unwrap() >= Some(request.requested_at));
    // A replay brings nothing back, in whichever batch; what the actor does later is stored.
    assert_eq!(store.insert_batch(&stored[..100]).unwrap(), [Inserted::Erased; 100]);
    assert_eq!(store.insert_unpublished(&stored[2299..]).unwrap(), [Inserted::Erased]);
    let later = [with(2299, ahead), with(2300, ahead), with(2301, behind)];
    let inserted = [Inserted::Erased, Inserted::Stored, Inserted::Erased];
    assert_eq!(store.insert_batch(&later).unwrap(), inserted);
    // The id of what was erased is free for others.
    let other = r#"{"id":"1","tenant":"clocks","action":"a","actor":{"id":"stays"}}"#;
    assert_eq!(store.insert_batch(&[activity(other)]).unwrap(), [Inserted::Stored]);
}

/// Newest first, and by their ids where they were asked for at the same time.
pub(super) fn records_come_in_pages(store: &impl Store) {
    let at = |micros: i64| Timestamp::from_micros(micros).unwrap();
    let arrival = store.last_arrival().unwrap().0;
    let begin = |name: &str, tenant: &str, micros: i64| {
        let request = ErasureRequest {
            id: format!("{arrival}-{name}"),
            tenant: tenant.to_owned(),
            actor: format!("nobody {name}"),
            requested_by: "the officer".to_owned(),
            requested_at: at(micros),
        };
        store.begin_erasure(&request).unwrap();
    };
    for (name, micros) in [("c", 2), ("a", 1), ("d", 2), ("f", 3), ("b", 2), ("e", 3)] {
        begin(name, "pages", micros);
        begin(&format!("other-{name}"), "pages-not", micros);
    }
    while !store.continue_erasures().unwrap().is_done {}
    for limit in 1..8 {
        let mut found = Vec::new();
        let mut after: Option<ErasurePosition> = None;
        loop {
            let page = store.erasures("pages", after.as_ref(), limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.position());
            found.extend(page.into_iter().map(|record| record.id));
        }
        assert_eq!(found, ["f", "e", "d", "c", "b", "a"].map(|name| format!("{arrival}-{name}")), "{limit}");
    }
    let before_all = ErasurePosition { requested_at: at(0), id: String::new() };
    assert_eq!(store.erasures("pages", Some(&before_all), 9).unwrap(), []);
}
