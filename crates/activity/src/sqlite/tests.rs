//! The SQLite store's own tests: the contract, its plans, its lock and its files.

use super::*;
use crate::query::{Filter, Query};
use crate::testing::{activity, store_contract};
use crate::timestamp::Timestamp;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn keeps_the_contract() {
    let folder = folder();
    store_contract(|| SqliteStore::open(&folder.path().join("activities.db")).unwrap());
}

#[test]
fn serves_one_instance_only() {
    let folder = folder();
    let path = folder.path().join("new/activities.db");
    let store = SqliteStore::open(&path).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("PostgreSQL"), "{error}");
    drop(store);
    SqliteStore::open(&path).unwrap();
}

#[test]
fn refuses_files_that_are_not_its_own() {
    let folder = folder();
    let path = folder.path().join("activities.db");
    std::fs::write(&path, "this is no database, but it is long enough to be looked at".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::Sqlite { .. })));
    std::fs::remove_file(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(other);
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::Foreign { .. })));
    std::fs::remove_file(&path).unwrap();
    drop(SqliteStore::open(&path).unwrap());
    for (version, is_newer) in [(99, true), (0, false)] {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = SqliteStore::open(&path).err().unwrap();
        let known = schema::VERSION;
        assert_eq!(
            error.to_string(),
            format!("{}: schema version {version}, expected 1 to {known}", path.display())
        );
        assert_eq!(error.hint().is_some_and(|hint| hint.contains("newer version")), is_newer);
        assert!(std::fs::read(&path).unwrap() == before, "it is left as it is");
    }
}

#[test]
fn brings_files_of_older_versions_up_to_date() {
    let folder = folder();
    let path = folder.path().join("activities.db");
    let store = SqliteStore::open(&path).unwrap();
    let old = activity(r#"{"id":"old","tenant":"t","action":"a"}"#);
    store.insert_batch(std::slice::from_ref(&old)).unwrap();
    let cursor_key = store.cursor_key().unwrap();
    drop(store);
    // What version 1 had: no more than this was added since.
    let connection = Connection::open(&path).unwrap();
    let as_version_1 = "DROP TABLE unpublished; DROP TABLE erasure; DROP TABLE erased; DELETE FROM meta WHERE name = 'is_new';
        PRAGMA user_version = 1";
    connection.execute_batch(as_version_1).unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.get("t", "old").unwrap().as_ref(), Some(&old));
    assert!(store.cursor_key().unwrap() == cursor_key);
    assert!(store.is_filled().unwrap(), "the topic owes it nothing");
    store.insert_unpublished(&[activity(r#"{"id":"new","tenant":"t","action":"a"}"#)]).unwrap();
    assert_eq!(store.unpublished_count().unwrap(), 1);
}

#[test]
fn syncs_every_commit() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
    let (journal_mode, synchronous) = store.writer.lock().durability();
    assert_eq!((journal_mode.as_str(), synchronous), ("wal", 2));
}

/// A file system that gives up may answer the sync itself with success.
#[test]
fn a_commit_counts_only_if_the_file_system_is_alive_behind_it() {
    let folder = folder();
    let mut store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
    store.ensure_alive = |_| Err(io::ErrorKind::ReadOnlyFilesystem.into());
    let activities = [activity(r#"{"id":"a","tenant":"t","action":"a"}"#)];
    for inserted in [store.insert_batch(&activities), store.insert_unpublished(&activities)] {
        assert!(matches!(inserted, Err(StoreError::Failed { is_outage: true, .. })), "{inserted:?}");
    }
}

fn numbered(id: usize) -> Activity<'static> {
    activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#))
}

#[track_caller]
fn takes_nothing(store: &SqliteStore, id: usize) {
    for inserted in [store.insert_batch(&[numbered(id)]), store.insert_unpublished(&[])] {
        assert!(matches!(inserted, Err(StoreError::Failed { is_outage: true, .. })), "{inserted:?}");
    }
    assert!(store.mark_filled().is_err_and(|error| error.is_outage()));
    assert!(store.continue_erasures().is_err_and(|error| error.is_outage()));
    assert!(store.begin_copy().err().is_some_and(|error| error.is_outage()));
    assert!(!store.is_filled().unwrap());
}

/// The process went on writing into a file without a name, and all of that was gone with it.
#[test]
fn a_file_that_is_not_in_its_place_takes_nothing() {
    let folder = folder();
    let [path, aside] = ["activities.db", "aside"].map(|name| folder.path().join(name));
    let store = SqliteStore::open(&path).unwrap();
    store.insert_batch(&[numbered(1)]).unwrap();
    std::fs::rename(&path, &aside).unwrap();
    takes_nothing(&store, 2);
    std::fs::write(&path, "another file").unwrap();
    takes_nothing(&store, 3);
    let fault = store.fault().unwrap();
    assert!(fault.starts_with(&*path.to_string_lossy()) && fault.contains("restart"), "{fault}");
    assert_eq!(store.count(None).unwrap(), 1, "what it has can be asked for");
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(store.insert_batch(&[numbered(4)]).unwrap(), [Inserted::Stored]);
    assert_eq!((store.fault(), store.count(None).unwrap()), (None, 2));
    std::fs::remove_file(folder.path().join("activities.db-wal")).unwrap();
    takes_nothing(&store, 5);
    // As the hint says.
    store.close().unwrap();
    drop(store);
    assert_eq!(SqliteStore::open(&path).unwrap().count(None).unwrap(), 2);
}

#[test]
fn a_commit_counts_only_if_the_file_is_in_its_place_behind_it() {
    thread_local! {
        static GOING: std::cell::RefCell<PathBuf> = const { std::cell::RefCell::new(PathBuf::new()) };
    }
    let folder = folder();
    let path = folder.path().join("activities.db");
    let mut store = SqliteStore::open(&path).unwrap();
    GOING.set(path);
    store.ensure_alive = |_| GOING.with_borrow(|path| std::fs::remove_file(path.as_path()));
    let inserted = store.insert_batch(&[numbered(1)]);
    assert!(matches!(inserted, Err(StoreError::Failed { is_outage: true, .. })), "{inserted:?}");
}

#[test]
fn that_a_file_is_gone_is_noticed_while_nobody_writes() {
    let folder = folder();
    let path = folder.path().join("activities.db");
    let store = SqliteStore::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let begun = std::time::Instant::now();
    while store.fault().is_none() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "nobody has noticed");
        std::thread::yield_now();
    }
}

/// Makes nonsense of the first page of a table or an index of a store that nobody has open.
fn damage(path: &Path, name: &str) {
    use std::os::unix::fs::FileExt;
    let connection = Connection::open(path).unwrap();
    let root = "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = ?1";
    let (page, bytes): (u64, u64) =
        connection.query_row(root, [name], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    connection.close().unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&vec![0xff; bytes as usize], (page - 1) * bytes).unwrap();
}

/// `/readyz` went on saying that all was well.
#[test]
fn what_a_question_finds_corrupt_is_remembered_and_takes_nothing() {
    let folder = folder();
    let path = folder.path().join("activities.db");
    let store = SqliteStore::open(&path).unwrap();
    store.insert_batch(&[numbered(1)]).unwrap();
    drop(store);
    damage(&path, "activity_by_time");
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.fault(), None);
    let query = Query { filter: Filter::of_tenant("t"), after: None, limit: 5 };
    assert!(store.query(&query).unwrap_err().is_outage());
    let fault = store.fault().unwrap();
    assert!(fault.starts_with(&*path.to_string_lossy()) && fault.contains("is corrupt"), "{fault}");
    takes_nothing(&store, 2);
    assert!(store.get("t", "1").unwrap().is_some(), "what can be read is answered");
    // A file whose beginning is nonsense is not opened at all.
    drop(store);
    std::fs::write(&path, [0xff; 8192]).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert_eq!(error.hint().as_deref(), Some(CORRUPT_HINT), "{error}");
}

#[test]
fn every_query_walks_an_index_in_the_order_of_the_answer() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
    let check = |sql: &str, expected: &[&str]| {
        let connection = store.readers[0].lock();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>();
        assert_eq!(rows.unwrap(), expected);
    };
    check(read::GET, &["SEARCH activity USING INDEX activity_by_id (tenant_id=? AND id=?)"]);
    check(
        read::BY_TIME,
        &[
            "SEARCH activity USING INDEX activity_by_time (tenant_id=? AND occurred_at>? AND (occurred_at,id)<(?,?))",
        ],
    );
    check(
        links::NEWEST,
        &[
            "SEARCH link USING PRIMARY KEY (bucket=? AND role=? AND tenant_id=? AND entity_id=? AND occurred_at>? \
           AND (occurred_at,id)<(?,?))",
        ],
    );
    check(
        read::UNPUBLISHED,
        &[
            "SCAN unpublished",
            "SEARCH activity USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH tenant USING INTEGER PRIMARY KEY (rowid=?)",
        ],
    );
    check(
        read::ARRIVED_AFTER,
        &[
            "SEARCH activity USING INTEGER PRIMARY KEY (rowid>?)",
            "SEARCH tenant USING INTEGER PRIMARY KEY (rowid=?)",
        ],
    );
    // One short row for every 8,192 activities: reading them all and sorting them is cheap.
    check(links::BUCKETS, &["SCAN bucket", "USE TEMP B-TREE FOR ORDER BY"]);
}

#[test]
fn links_are_merged_over_buckets() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
    // Three buckets, arriving neither in order of time nor against it; every tenth by the same actor.
    let total = 20_000;
    let time = |at: usize| 1_357_000_000 + (at * 7919) % total;
    let batch: Vec<_> = (0..total)
        .map(|at| {
            let time = Timestamp::from_micros(time(at) as i64 * 1_000_000).unwrap();
            let actor = if at % 10 == 0 { "often".to_owned() } else { format!("u{at}") };
            activity(&format!(
                r#"{{"id":"{at:05}","tenant":"t","action":"a{}","actor":{{"id":"{actor}"}},"occurred_at":"{time}"}}"#,
                at % 3
            ))
        })
        .collect();
    for batch in batch.chunks(1000) {
        store.insert_batch(batch).unwrap();
    }
    let mut expected: Vec<usize> = (0..total).step_by(10).filter(|at| at % 3 == 1).collect();
    expected.sort_by_key(|at| std::cmp::Reverse(time(*at)));
    let filter = Filter {
        actor: Some("often".to_owned()),
        action: Some(crate::query::ActionFilter::Exactly("a1".to_owned())),
        ..Filter::of_tenant("t")
    };
    let mut query = Query { filter, after: None, limit: 100 };
    let mut found: Vec<usize> = Vec::new();
    loop {
        let page = store.query(&query).unwrap();
        found.extend(page.items.iter().map(|item| item.id.parse::<usize>().unwrap()));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
    let rare = Filter { actor: Some("u9999".to_owned()), ..Filter::of_tenant("t") };
    let page = store.query(&Query { filter: rare, after: None, limit: 9 }).unwrap();
    assert_eq!(page.items.len(), 1);
}

#[test]
fn a_search_looks_at_a_bounded_number_of_rows() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
    let rows = crate::limits::MAX_SCANNED_ROWS + 10;
    let batch: Vec<_> = (0..rows)
        .map(|at| activity(&format!(r#"{{"id":"{at:08}","tenant":"t","action":"a{}"}}"#, at % 2)))
        .collect();
    store.insert_batch(&batch).unwrap();
    let filter = Filter { text: Some("00000003".to_owned()), ..Filter::of_tenant("t") };
    let mut query = Query { filter, after: None, limit: 5 };
    let page = store.query(&query).unwrap();
    assert!(page.items.is_empty());
    assert_eq!(page.next.as_ref().unwrap().id, "00000010");
    query.after = page.next;
    let page = store.query(&query).unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.next, None);
}

#[test]
fn a_failed_batch_leaves_nothing() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
    let with = |id: &str| activity(&format!(r#"{{"id":"{id}","tenant":"t{id}","action":"a"}}"#));
    store.writer.lock().fail_on_id("bad");
    let error = store.insert_batch(&[with("1"), with("bad"), with("2")]).unwrap_err();
    let StoreError::Failed { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("no bad ones"), "{source}");
    assert_eq!(store.count(None).unwrap(), 0);
    assert_eq!(store.insert_batch(&[with("1"), with("2")]).unwrap(), [Inserted::Stored; 2]);
    assert_eq!(store.get("t1", "1").unwrap().unwrap().tenant, "t1");
}
