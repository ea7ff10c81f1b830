//! The PostgreSQL store's own tests: the contract, its plans, its partitions, several instances, and servers that hang.

use std::sync::Arc;

use tidings_postgres_server::{PASSWORD, PostgresServer};

use super::*;
use crate::housekeeper::Housekeeper;
use crate::metrics::ActivityMetrics;
use crate::query::{ActionFilter, Filter};
use crate::retention::{Cutoffs, Retention};
use crate::testing::{activity, store_contract};
use crate::timestamp::Timestamp;

fn open(url: &str) -> PostgresStore {
    let store = PostgresStore::open(url.parse().unwrap()).unwrap();
    // The first question waits for the tables.
    store.count(None).unwrap();
    store
}

fn database_of(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1
}

#[test]
fn keeps_the_contract() {
    let server = PostgresServer::shared();
    let url = server.database();
    store_contract(|| open(&url));
}

/// After a batch that was all new the next is believed to be, and what is known of it is found all the same.
#[test]
fn a_large_batch_is_believed_to_be_new_and_asked_when_it_is_not() {
    let server = PostgresServer::shared();
    let store = open(&server.database());
    let batch = |ids| numbered(ids, r#","targets":[{"id":"x"}]"#);
    let stored = |count| vec![Inserted::Stored; count];
    let is_believed = || store.writers[0].session.lock().as_ref().unwrap().last_was_new;
    assert_eq!(store.insert_batch(&batch(0..100)).unwrap(), stored(100));
    assert!(is_believed());
    assert_eq!(store.insert_batch(&batch(100..200)).unwrap(), stored(100));
    let known = [vec![Inserted::Duplicate; 10], stored(90)].concat();
    assert_eq!(store.insert_batch(&batch(190..290)).unwrap(), known);
    assert!(!is_believed());
    // What is twice in one batch is no reason to ask.
    let twice = [batch(300..400), batch(300..301)].concat();
    assert_eq!(store.insert_batch(&batch(290..300)).unwrap(), stored(10));
    assert!(is_believed());
    assert_eq!(store.insert_batch(&twice).unwrap(), [stored(100), vec![Inserted::Duplicate]].concat());
    assert!(is_believed());
    // A mark goes when the topic has what was stored past it.
    assert_eq!(store.insert_unpublished(&batch(400..500)).unwrap(), stored(100));
    assert_eq!(store.unpublished_count().unwrap(), 100);
    assert_eq!(store.insert_batch(&batch(400..500)).unwrap(), vec![Inserted::Duplicate; 100]);
    assert_eq!(store.unpublished_count().unwrap(), 0);
    assert_eq!(store.count(Some("t")).unwrap(), 500);
    let arrivals: Vec<_> = store.arrived_after(Arrival(0), 999).unwrap();
    assert!(arrivals.is_sorted_by_key(|arrived| arrived.arrival) && arrivals.len() == 500);
}

/// So many activities of one tenant, with numbers for ids.
fn numbered(ids: std::ops::Range<usize>, more: &str) -> Vec<Activity<'static>> {
    let of = |id| activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"{more}}}"#));
    ids.map(of).collect()
}

/// Two transactions of it are under way at a time; they arrive in the order of the batch, whatever is there already.
#[test]
fn parts_of_a_batch_that_are_written_at_once_arrive_in_order() {
    const COUNT: usize = 7 * TRANSACTION_ITEMS + 3;
    let server = PostgresServer::shared();
    let store = open(&server.database());
    let known =
        [TRANSACTION_ITEMS - 2..TRANSACTION_ITEMS + 2, 2 * TRANSACTION_ITEMS..2 * TRANSACTION_ITEMS + 1];
    let expected: Vec<Inserted> = (0..COUNT)
        .map(|id| match known.iter().any(|known| known.contains(&id)) {
            true => Inserted::Duplicate,
            false => Inserted::Stored,
        })
        .collect();
    for known in &known {
        store.insert_batch(&numbered(known.clone(), "")).unwrap();
    }
    let before = store.last_arrival().unwrap();
    assert_eq!(store.insert_batch(&numbered(0..COUNT, "")).unwrap(), expected);
    let arrived = store.arrived_after(before, COUNT).unwrap();
    let ids = arrived.iter().map(|arrived| arrived.activity.id.parse::<usize>().unwrap());
    assert!(ids.eq((0..COUNT).filter(|id| expected[*id] == Inserted::Stored)), "the order of the batch");
    // All of it is believed to be new from here on, and in order as well.
    assert_eq!(store.insert_batch(&numbered(COUNT..2 * COUNT, "")).unwrap(), vec![Inserted::Stored; COUNT]);
    let arrived = store.arrived_after(arrived[arrived.len() - 1].arrival, 2 * COUNT).unwrap();
    let ids = arrived.iter().map(|arrived| arrived.activity.id.parse::<usize>().unwrap());
    assert!(ids.eq(COUNT..2 * COUNT), "the order of the batch");
    assert_eq!(
        store.insert_batch(&numbered(0..2 * COUNT, "")).unwrap(),
        vec![Inserted::Duplicate; 2 * COUNT]
    );
    assert_eq!(store.count(Some("t")).unwrap(), 2 * COUNT as u64);
}

/// A batch is written before its turn, as others have left the store then; what they change until the turn counts all the same.
#[test]
fn what_others_change_before_the_turn_counts() {
    let server = PostgresServer::shared();
    let url = server.database();
    let (store, other) = (open(&url), open(&url));
    let old = |ids: std::ops::Range<usize>| {
        numbered(ids, r#","actor":{"id":"ann"},"occurred_at":"2010-06-01T00:00:00Z""#)
    };
    let count = write::BELIEVED_FROM;
    assert_eq!(store.insert_batch(&old(0..count)).unwrap(), vec![Inserted::Stored; count]);
    // Its partition goes.
    let cutoffs = Cutoffs { default: Timestamp::parse("2012-01-01T00:00:00Z").ok(), ..Cutoffs::default() };
    while !other.expire(&cutoffs).unwrap().is_done {}
    assert_eq!(other.count(None).unwrap(), 0);
    assert_eq!(store.insert_batch(&old(count..2 * count)).unwrap(), vec![Inserted::Stored; count]);
    assert_eq!(store.insert_batch(&old(2 * count..3 * count)).unwrap(), vec![Inserted::Stored; count]);
    // Its actor is erased.
    let request = ErasureRequest {
        id: "e".to_owned(),
        tenant: "t".to_owned(),
        actor: "ann".to_owned(),
        requested_by: "bob".to_owned(),
        requested_at: Timestamp::now(),
    };
    other.begin_erasure(&request).unwrap();
    let batch = old(3 * count..4 * count);
    assert_eq!(store.insert_batch(&batch).unwrap(), vec![Inserted::Erased; count]);
    while !other.continue_erasures().unwrap().is_done {}
    assert_eq!(store.insert_batch(&batch).unwrap(), vec![Inserted::Erased; count]);
    assert_eq!(store.count(None).unwrap(), 0);
}

#[test]
fn instances_that_start_together_make_one_store() {
    let server = PostgresServer::shared();
    let url = server.database();
    let stores: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&url))).collect();
        starting.into_iter().map(|store| store.join().unwrap()).collect()
    });
    let ids: Vec<_> = stores.iter().map(|store| store.store_id().unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
    // The same activities from all of them, in partitions that none has seen yet: each is stored once.
    let inserted: Vec<_> = std::thread::scope(|scope| {
        let inserting: Vec<_> = stores
            .iter()
            .map(|store| {
                scope.spawn(|| {
                    (0..24)
                        .map(|month| {
                            let time = format!("{}-{:02}-01T00:00:00Z", 2022 + month / 12, 1 + month % 12);
                            let json = format!(
                                r#"{{"id":"{month}","tenant":"t","action":"a","occurred_at":"{time}"}}"#
                            );
                            store.insert_batch(&[activity(&json)]).unwrap()[0]
                        })
                        .filter(|inserted| *inserted == Inserted::Stored)
                        .count()
                })
            })
            .collect();
        inserting.into_iter().map(|count| count.join().unwrap()).collect()
    });
    assert_eq!(inserted.iter().sum::<usize>(), 24, "{inserted:?}");
    assert_eq!(stores[3].count(Some("t")).unwrap(), 24);
}

#[test]
fn one_instance_publishes_at_a_time() {
    let server = PostgresServer::shared();
    let url = server.database();
    let (first, second) = (open(&url), open(&url));
    let with = |id: &str| activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#));
    first.insert_unpublished(&[with("1"), with("2")]).unwrap();
    let found = first.unpublished(1).unwrap();
    assert!(second.unpublished(9).unwrap().is_empty());
    assert_eq!(second.unpublished_count().unwrap(), 2);
    first.mark_published(&[found[0].arrival]).unwrap();
    // The right goes with the instance.
    drop(first);
    let mut found = second.unpublished(9).unwrap();
    while found.is_empty() {
        found = second.unpublished(9).unwrap();
    }
    assert_eq!(found[0].activity.id, "2");
}

#[test]
fn every_question_walks_an_index_in_the_order_of_the_answer() {
    let server = PostgresServer::shared();
    let url = server.database();
    let store = open(&url);
    let with = |year: usize| {
        activity(&format!(
            r#"{{"id":"{year}","tenant":"t","action":"a","actor":{{"id":"u"}},"targets":[{{"id":"i"}}],
                "occurred_at":"{year}-03-01T00:00:00Z"}}"#
        ))
    };
    store.insert_batch(&[with(2017), with(2018), with(2019)]).unwrap();
    let plan = |sql: &str, entity: Option<&str>| {
        let explain = format!("EXPLAIN (COSTS OFF) {sql}");
        let time = |text: &str| time::Micros(Timestamp::parse(text).unwrap().as_micros());
        let (to, from) = (time("2018-06-01T00:00:00Z"), time("2018-01-01T00:00:00Z"));
        let lines = store.read("explain", async |session| {
            let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                vec![&"t", &to, &"x", &from, &9_i64];
            if let Some(entity) = &entity {
                parameters.push(entity);
            }
            let rows = session.client.query(&explain, &parameters).await?;
            rows.iter().map(|row| Ok(row.try_get::<_, String>(0)?)).collect::<Result<Vec<_>, Fault>>()
        });
        lines.unwrap().join("\n")
    };
    let in_order = |plan: &str, index: &str| {
        assert!(plan.contains(&format!("Scan Backward using {index}")), "{index}: {plan}");
        for wrong in ["Sort", "Seq Scan", "Bitmap", "Hash", "Join Filter"] {
            assert!(!plan.contains(wrong), "{wrong}: {plan}");
        }
    };
    let check = |sql: &str, entity: Option<&str>, index: &str| {
        let plan = plan(sql, entity);
        in_order(&plan, index);
        // Partitions of other times are not looked at.
        assert!(!plan.contains("_2017") && !plan.contains("_2019"), "{plan}");
    };
    check(read::BY_TIME, None, "activity_2018_tenant_occurred_at_id_idx");
    check(read::BY_ACTOR, Some("u"), "activity_2018_tenant_actor_id_occurred_at_id_idx");
    check(read::BY_ACTION, Some("a"), "activity_2018_tenant_action_occurred_at_id_idx");
    let by_target = plan(read::BY_TARGET, Some("i"));
    in_order(&by_target, "target_2018_tenant_target_id_occurred_at_id_idx");
    let looked_up = "activity_2018_tenant_occurred_at_id_idx on activity_2018 activity_2
              Index Cond: ((tenant = t.tenant) AND (occurred_at >= t.occurred_at) AND (occurred_at <= t.occurred_at) \
         AND (id = t.id))";
    let by_target = by_target.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let looked_up = looked_up.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert!(by_target.contains(&looked_up), "{by_target}");
}

#[test]
fn times_far_away_and_long_texts_have_a_place() {
    let server = PostgresServer::shared();
    let url = server.database();
    let store = open(&url);
    let long = |count: usize| "\u{10348}".repeat(count);
    let (id, tenant, action, entity) = (long(128), long(128), long(128), long(256));
    let times = [
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2099-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    let batch: Vec<_> = times
        .iter()
        .map(|time| {
            activity(&format!(
                r#"{{"id":"{time}{}","tenant":"{tenant}","action":"{action}","actor":{{"id":"{entity}"}},
                    "targets":[{{"id":"{entity}"}}],"metadata":{{"nul":"\u0000"}},"occurred_at":"{time}"}}"#,
                &id[..4 * (128 - time.len())]
            ))
        })
        .collect();
    store.insert_batch(&batch).unwrap();
    let newest_first: Vec<_> = batch.iter().rev().cloned().collect();
    for filter in [
        Filter::of_tenant(&tenant),
        Filter { actor: Some(entity.clone()), ..Filter::of_tenant(&tenant) },
        Filter { target: Some(entity.clone()), ..Filter::of_tenant(&tenant) },
        Filter { action: Some(ActionFilter::Exactly(action.clone())), ..Filter::of_tenant(&tenant) },
    ] {
        let page = store.query(&Query { filter, after: None, limit: 9 }).unwrap();
        assert_eq!(page.items, newest_first);
    }
}

/// Somebody else made the schema, and gave it away; a schema can be made by those only who may do anything in the database.
#[test]
fn to_own_the_schema_is_enough() {
    let server = PostgresServer::shared();
    let url = server.database();
    let database = database_of(&url);
    let role = format!("low_of_{database}");
    server.query("postgres", &format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"));
    server.query(database, &format!("CREATE SCHEMA tidings_activity AUTHORIZATION {role}"));
    let store = open(&url.replacen("//tidings:", &format!("//{role}:"), 1));
    assert_eq!(store.insert_batch(&numbered(0..2, "")).unwrap(), [Inserted::Stored; 2]);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'activity'";
    assert_eq!(server.query(database, owner), role);
}

/// PostgreSQL cannot read a text that holds NUL out of JSON, and whoever may write can write one.
#[test]
fn the_query_of_the_guide_cannot_be_broken() {
    const GUIDE: &str = include_str!("../../../../docs/guides/activities.md");
    let server = PostgresServer::shared();
    let url = server.database();
    let store = open(&url);
    let with = |id: &str, metadata: &str| {
        activity(&format!(
            r#"{{"id":"{id}","tenant":"acme","action":"a","actor":{{"id":"ada"}},"metadata":{metadata},
                "occurred_at":"2026-11-02T00:00:00Z"}}"#
        ))
    };
    store
        .insert_batch(&[
            with("4", r#"{"amount":12.50}"#),
            with("3", r#"{"amount":"1","z":"\u0000"}"#),
            with("2", r#"{"amount":"2","note":"\ud83d\ude00 \u00e9 \\"}"#),
            with("1", "null"),
            with("0", r#"{"a":[{"\u0000":1}]}"#),
        ])
        .unwrap();
    let (_, query) = GUIDE.split_once("```sql\n").unwrap();
    let (query, _) = query.split_once("```").unwrap();
    let rows = server.query(database_of(&url), query);
    let amounts: Vec<&str> = rows.lines().map(|row| row.rsplit_once('|').unwrap().1).collect();
    assert_eq!(amounts, ["12.50", "", "2", "", ""], "{rows}");
}

#[test]
fn tables_of_an_older_program_are_brought_up() {
    let server = PostgresServer::shared();
    let url = server.database();
    let with = |id: &str| activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#));
    let store = open(&url);
    store.insert_batch(&[with("before")]).unwrap();
    let id = store.store_id().unwrap();
    drop(store);
    let as_version_1 = "SET search_path = tidings_activity; DROP TABLE erasure; DROP TABLE erased;
        ALTER TABLE store DROP erasures, DROP is_filled; UPDATE store SET version = 1";
    server.query(database_of(&url), as_version_1);
    let store = open(&url);
    assert_eq!(store.store_id().unwrap(), id);
    assert_eq!(store.insert_batch(&[with("before"), with("after")]).unwrap()[1], Inserted::Stored);
    assert_eq!(store.count(Some("t")).unwrap(), 2);
    assert_eq!(store.erasures("t", None, 9).unwrap(), []);
    assert!(store.is_filled().unwrap(), "the topic owes it nothing");
}

#[test]
fn tables_of_a_newer_program_are_refused() {
    let server = PostgresServer::shared();
    let url = server.database();
    drop(open(&url));
    server.query(database_of(&url), "UPDATE tidings_activity.store SET version = 99");
    let store = PostgresStore::open(url.parse().unwrap()).unwrap();
    let error = store.insert_batch(&[activity(r#"{"id":"1","tenant":"t","action":"a"}"#)]).unwrap_err();
    let StoreError::Failed { source, .. } = error else { panic!("{error}") };
    let expected =
        "schema version 99, expected 4: this program is older than the tables, start the newer one";
    assert_eq!(source.to_string(), expected);
    assert!(store.fault().unwrap().contains("schema version 99"));
}

#[test]
fn commits_are_synced_whatever_the_server_is_set_to() {
    let server = PostgresServer::shared();
    let url = server.database();
    server.query("postgres", &format!("ALTER DATABASE {} SET synchronous_commit = off", database_of(&url)));
    let store = open(&url);
    let setting = store.with(&store.writers[0], "ask", async |session| {
        Ok(session.client.query_one("SHOW synchronous_commit", &[]).await?.try_get::<_, String>(0)?)
    });
    assert_eq!(setting.unwrap(), "on");
}

/// A connection that is made for a question with little time serves later ones that have more.
#[test]
fn a_connection_has_the_limit_of_its_place() {
    let server = PostgresServer::shared();
    let store = open(&server.database());
    let setting = store.within(DOUBTFUL_READ_LIMIT, &store.readers[1], "ask", async |session| {
        Ok(session.client.query_one("SHOW statement_timeout", &[]).await?.try_get::<_, String>(0)?)
    });
    assert_eq!(setting.unwrap(), format!("{}s", READ_LIMIT.as_secs()));
}

#[test]
fn a_server_that_is_killed_costs_errors_and_nothing_else() {
    let server = PostgresServer::start();
    let url = server.database();
    let store = open(&url);
    let with = |id: usize| activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#));
    store.insert_batch(&[with(0)]).unwrap();
    assert_eq!(store.fault(), None);
    server.kill();
    // Nobody asks it anything, and it is known.
    wait_for(|| store.fault().is_some());
    // Its children notice one after the other, and one that lives writes.
    let mut failed = None;
    wait_for(|| {
        failed = store.insert_batch(&[with(1)]).err();
        failed.is_some()
    });
    let error = failed.unwrap();
    let shown = format!("{error} {error:?} {:?}", store.fault());
    assert!(shown.contains("127.0.0.1") && !shown.contains(PASSWORD), "{shown}");
    server.restart();
    wait_for(|| store.fault().is_none());
    wait_for(|| store.insert_batch(&[with(0), with(1)]).is_ok());
    assert_eq!(store.count(Some("t")).unwrap(), 2);
}

#[test]
fn a_lock_of_somebody_else_costs_the_limit() {
    let server = PostgresServer::shared();
    let url = server.database();
    let store = Arc::new(open(&url));
    let holder = open(&url);
    let blocked = holder.with(&holder.writers[0], "hold the row", async |session| {
        let transaction = session.client.transaction().await?;
        transaction.execute("UPDATE store SET layout = layout", &[]).await?;
        let store = Arc::clone(&store);
        let insert = std::thread::spawn(move || {
            let began = std::time::Instant::now();
            let batch = [activity(r#"{"id":"1","tenant":"t","action":"a"}"#)];
            let failed = store.insert_unpublished(&batch).is_err_and(|error| error.is_outage());
            (failed, began.elapsed(), store.insert_unpublished(&[]).is_err_and(|error| error.is_outage()))
        });
        Ok(insert.join().unwrap())
    });
    let (failed, took, takes_no_writes) = blocked.unwrap();
    assert!(failed && took >= FALLBACK_LIMIT && took < FALLBACK_LIMIT * 3, "{took:?}");
    assert!(takes_no_writes);
    assert_eq!(store.insert_unpublished(&[]).unwrap(), []);
}

/// Somebody reads for long, as a dump does: new partitions are made all the same, and old ones go later.
#[test]
fn a_long_question_holds_up_no_writer() {
    let server = PostgresServer::shared();
    let url = server.database();
    let (store, reader) = (open(&url), open(&url));
    let with = |year: usize, id: &str| {
        let time = format!("{year}-06-01T00:00:00Z");
        activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a","occurred_at":"{time}"}}"#))
    };
    store.insert_batch(&[with(2010, "old")]).unwrap();
    let cutoffs = Cutoffs { default: Timestamp::parse("2012-01-01T00:00:00Z").ok(), ..Cutoffs::default() };
    let read = reader.with(&reader.writers[0], "read for long", async |session| {
        let transaction = session.client.transaction().await?;
        transaction.query("SELECT FROM activity LIMIT 1", &[]).await?;
        let work = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let inserted = store.insert_unpublished(&[with(2001, "new partition"), with(2026, "other")]);
                (inserted, store.expire(&cutoffs), store.count(None))
            });
            work.join().unwrap()
        });
        Ok(work)
    });
    let (inserted, expired, count) = read.unwrap();
    assert_eq!(inserted.unwrap(), [Inserted::Stored; 2]);
    assert_eq!(expired.unwrap(), Expired { activities: 0, is_done: true });
    assert_eq!(count.unwrap(), 3);
    let published: Vec<_> = store.unpublished(9).unwrap().iter().map(|found| found.arrival).collect();
    store.mark_published(&published).unwrap();
    while !store.expire(&cutoffs).unwrap().is_done {}
    assert_eq!(store.count(None).unwrap(), 1);
}

/// Batches that wait for their turn hold the tables; a partition that is past its retention goes all the same.
#[test]
fn a_partition_goes_while_batches_are_written() {
    let server = PostgresServer::shared();
    let url = server.database();
    let (store, keeper) = (open(&url), open(&url));
    let [old, new] = ["2010", "2026"].map(|year| format!(r#","occurred_at":"{year}-06-01T00:00:00Z""#));
    store.insert_batch(&numbered(0..9, &old)).unwrap();
    let cutoffs = Cutoffs { default: Timestamp::parse("2012-01-01T00:00:00Z").ok(), ..Cutoffs::default() };
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (rounds, tries) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let first = 10 + rounds * PART_ITEMS;
                store.insert_batch(&numbered(first..first + PART_ITEMS, &new)).unwrap();
                rounds += 1;
            }
            rounds
        });
        wait_for(|| store.count(None).unwrap() > PART_ITEMS as u64);
        let mut tries = 0;
        // It has gone when its first step has something left to do.
        while keeper.expire(&cutoffs).unwrap().is_done && tries < 20 {
            tries += 1;
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        (writing.join().unwrap(), tries)
    });
    assert!(tries < 5, "in the way of writers {tries} times");
    while !keeper.expire(&cutoffs).unwrap().is_done {}
    assert_eq!(store.count(None).unwrap(), (rounds * PART_ITEMS) as u64);
}

/// An id that comes again while its partition is being forgotten is new, and stays.
#[test]
fn what_comes_again_while_a_partition_goes_stays() {
    let server = PostgresServer::shared();
    let url = server.database();
    let store = open(&url);
    let with = |id: usize| {
        activity(&format!(
            r#"{{"id":"{id:05}","tenant":"t","action":"a","occurred_at":"2010-06-01T00:00:00Z"}}"#
        ))
    };
    let batch: Vec<_> = (0..5000).map(with).collect();
    store.insert_batch(&batch).unwrap();
    let cutoffs = Cutoffs { default: Timestamp::parse("2012-01-01T00:00:00Z").ok(), ..Cutoffs::default() };
    assert_eq!(store.expire(&cutoffs).unwrap(), Expired { activities: 0, is_done: false });
    let all = Query { filter: Filter::of_tenant("t"), after: None, limit: 9 };
    assert_eq!(store.query(&all).unwrap().items, [], "out of sight at once");
    store.expire(&cutoffs).unwrap();
    // The first ones are forgotten, the last ones not yet; nothing is there twice.
    assert_eq!(store.insert_unpublished(&batch[..1]).unwrap(), [Inserted::Stored]);
    assert_eq!(store.insert_unpublished(&batch[4999..]).unwrap(), [Inserted::Stored]);
    assert_eq!(store.insert_unpublished(&batch[..1]).unwrap(), [Inserted::Duplicate]);
    assert_eq!(store.insert_unpublished(&batch[4999..]).unwrap(), [Inserted::Duplicate]);
    // Many at once, of which some are not forgotten, are believed to be new at first.
    assert_eq!(store.insert_batch(&numbered(0..1, "")).unwrap(), [Inserted::Stored]);
    assert_eq!(store.insert_batch(&batch[4000..4500]).unwrap(), vec![Inserted::Stored; 500]);
    // Another instance goes on from the beginning, and lets nothing else go.
    let other = open(&url);
    while !other.expire(&Cutoffs::default()).unwrap().is_done {}
    let found = other.query(&Query { limit: 999, ..all }).unwrap().items;
    let again = batch[4999..].iter().chain(batch[4000..4500].iter().rev()).chain(&batch[..1]);
    assert!(found[..502].iter().eq(again), "{} are there", found.len());
    assert_eq!(other.count(Some("t")).unwrap(), 503);
    assert_eq!(other.unpublished_count().unwrap(), 2);
    assert_eq!(other.insert_batch(&batch[4998..]).unwrap(), [Inserted::Stored, Inserted::Duplicate]);
}

/// Activities of one actor that are past a retention of the test's, and it: they go with their partition.
fn old_ones_of(actor: &str, count: usize) -> (Vec<Activity<'static>>, Cutoffs) {
    let more = format!(r#","actor":{{"id":"{actor}"}},"occurred_at":"2010-06-01T00:00:00Z""#);
    let default = Timestamp::parse("2012-01-01T00:00:00Z").ok();
    (numbered(0..count, &more), Cutoffs { default, ..Cutoffs::default() })
}

/// How many tables there are that were partitions.
fn detached(server: &PostgresServer, url: &str) -> String {
    server.query(
        database_of(url),
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'expired_%' AND relkind = 'r'",
    )
}

/// The retention was switched off while a partition was being forgotten.
#[test]
fn a_partition_that_began_to_go_goes_whatever_is_kept_now() {
    let server = PostgresServer::shared();
    let url = server.database();
    let store = Arc::new(open(&url));
    let (batch, cutoffs) = old_ones_of("u", 3000);
    store.insert_batch(&batch).unwrap();
    store.expire(&cutoffs).unwrap();
    store.expire(&cutoffs).unwrap();
    assert_eq!((store.count(None).unwrap(), detached(&server, &url).as_str()), (1000, "1"));
    let dyn_store = Arc::clone(&store) as Arc<dyn Store>;
    let housekeeper =
        Housekeeper::start(dyn_store, Retention::default(), ActivityMetrics::default()).unwrap();
    wait_for(|| detached(&server, &url) == "0");
    assert_eq!(store.count(None).unwrap(), 0);
    housekeeper.stop();
}

/// What is out of sight is in the database all the same.
#[test]
fn an_erasure_ends_when_no_partition_that_goes_has_anything_of_the_actor() {
    let server = PostgresServer::shared();
    let url = server.database();
    let (store, other) = (open(&url), open(&url));
    let (batch, cutoffs) = old_ones_of("u", 5000);
    store.insert_batch(&batch).unwrap();
    store
        .insert_batch(&[activity(
            r#"{"id":"x","tenant":"t","action":"a","actor":{"id":"v"},"occurred_at":"2010-06-01T00:00:00Z"}"#,
        )])
        .unwrap();
    store.expire(&cutoffs).unwrap();
    store.expire(&cutoffs).unwrap();
    let request = ErasureRequest {
        id: "e".to_owned(),
        tenant: "t".to_owned(),
        actor: "u".to_owned(),
        requested_by: "bob".to_owned(),
        requested_at: Timestamp::now(),
    };
    other.begin_erasure(&request).unwrap();
    while !other.continue_erasures().unwrap().is_done {}
    let record = other.erasure("e").unwrap().unwrap();
    assert!(record.finished_at.is_some());
    assert_eq!(record.activities, 5000);
    let table =
        server.query(database_of(&url), "SELECT relname FROM pg_class WHERE relname ~ '^expired_[0-9_]+$'");
    let left = format!("SELECT actor_id FROM tidings_activity.{table}");
    assert_eq!(server.query(database_of(&url), &left), "v");
    assert_eq!(other.count(None).unwrap(), 1);
    while !store.expire(&cutoffs).unwrap().is_done {}
    assert_eq!((store.count(None).unwrap(), detached(&server, &url).as_str()), (0, "0"));
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "gave up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
