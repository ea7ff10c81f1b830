//! How many activities per second a store takes, on flight-like ones: random ids, 16 tenants, 4,000 actors, three activities
//! per target, roughly in order of occurrence; and how long questions by tenant take then.
//!
//! `cargo run --release -p tidings-activity --example store_rate -- [activities] [per batch] [folder or postgres URL]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tidings_activity::query::{Filter, Query};
use tidings_activity::{Activity, Draft, Store, StoreOptions, Timestamp};

const QUESTIONS: u64 = 2000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (total, per_batch) = (number(1_000_000), number(2_000));
    let place = arguments.next().unwrap_or_else(|| "./store-rate".to_owned());
    let options = match place.contains("://") {
        true => StoreOptions::Postgres(Box::new(place.parse().expect("a URL"))),
        false => StoreOptions::Sqlite(PathBuf::from(place).join("activities.db")),
    };
    let store = options.open().expect("open the store").store();
    insert(&store, total, per_batch);
    ask(&store, total);
}

fn insert(store: &Arc<dyn Store>, total: u64, per_batch: u64) {
    let (mut inserting, mut slowest) = (0.0, 0.0f64);
    let mut reported = 0.0;
    for batch in 0..total / per_batch {
        let activities: Vec<_> = (batch * per_batch..(batch + 1) * per_batch).map(flight).collect();
        let started = Instant::now();
        store.insert_batch(&activities).expect("insert");
        let took = started.elapsed().as_secs_f64();
        inserting += took;
        slowest = slowest.max(took);
        if (batch + 1) % (total / per_batch / 10).max(1) == 0 {
            let stored = (batch + 1) * per_batch;
            let rate = (total / 10) as f64 / (inserting - reported);
            println!("{stored:>9} stored, {rate:>8.0}/s, slowest batch {:.0} ms", slowest * 1e3);
            (reported, slowest) = (inserting, 0.0);
        }
    }
    println!("{total} in batches of {per_batch}: {:.0}/s", total as f64 / inserting);
}

/// Pages of 50 of one tenant, from random places, with and without an actor or a target.
fn ask(store: &Arc<dyn Store>, total: u64) {
    for kind in ["tenant", "actor", "target", "action"] {
        let mut took: Vec<f64> = (0..QUESTIONS)
            .map(|at| {
                let example = flight(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % total);
                let mut filter = Filter::of_tenant(example.tenant.to_string());
                filter.to = Some(example.occurred_at);
                match kind {
                    "actor" => filter.actor = example.actor.map(|actor| actor.id.to_string()),
                    "target" => filter.target = Some(example.targets[0].id.to_string()),
                    "action" => {
                        filter.action =
                            Some(tidings_activity::query::ActionFilter::Exactly(example.action.to_string()));
                    }
                    _ => {}
                }
                let started = Instant::now();
                store.query(&Query { filter, after: None, limit: 50 }).expect("an answer");
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        took.sort_by(f64::total_cmp);
        let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        println!("by {kind}: median {median:.2} ms, p99 {p99:.2} ms");
    }
}

fn flight(at: u64) -> Activity<'static> {
    let (flight, step) = (at / 3, at % 3);
    let random =
        |salt: u64| (flight * 4 + salt).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (flight << 7);
    let (high, low) =
        (random(step).wrapping_mul(0xbf58_476d_1ce4_e5b9), random(step).wrapping_mul(0x94d0_49bb_1331_11eb));
    let id = format!(
        "{:08x}-{:04x}-5{:03x}-9{:03x}-{:012x}",
        high >> 32,
        high & 0xffff,
        high >> 20 & 0xfff,
        low >> 52,
        low >> 16
    );
    let tenant = random(9) >> 60;
    let second = flight * 90 + step * 5400 + random(step) % 3600;
    let time = Timestamp::from_micros((1_357_000_000 + second as i64) * 1_000_000).expect("in range");
    let action = ["flight.scheduled", "flight.departed", "flight.arrived"][step as usize];
    let json = format!(
        r#"{{"id":"{id}","tenant":"T{tenant}","actor":{{"type":"aircraft","id":"N{:05}","name":"N{:05}"}},"action":"{action}",
            "targets":[{{"type":"flight","id":"T{tenant}-{}-2013-{:02}-{:02}-EWR","name":"T{tenant} {} EWR to IAH"}}],
            "metadata":{{"origin":"EWR","dest":"IAH","distance":1400,"delay":{},"air_time":227,"sched_dep_time":515}},
            "occurred_at":"{time}"}}"#,
        random(8) % 4000,
        random(8) % 4000,
        flight % 5000,
        1 + flight / 30_000 % 12,
        1 + flight / 1000 % 28,
        flight % 5000,
        random(7) % 60,
    );
    let draft: Draft<'_> = serde_json::from_str(&json).expect("an activity");
    draft.complete(time, String::new).into_owned()
}
