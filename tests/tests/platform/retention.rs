//! Old activities go, and those of an erased actor, from either store; a replay of the topic does not bring them back.

use rustix::process::Signal;
use serde_json::{Value, json};
use tidings_postgres_server::PostgresServer;
use tidings_tests::{Http, until};

use crate::site::Site;
use crate::support::{ACTIVITIES, activity, stored_ids, until_ready, until_stored};

fn by(tenant: &str, id: &str, actor: &str) -> Value {
    let mut activity = activity(tenant, id, 1);
    activity["actor"]["id"] = json!(actor);
    activity
}

#[test]
fn an_erased_actor_stays_away_in_sqlite() {
    an_erased_actor_stays_away("sqlite");
}

#[test]
fn an_erased_actor_stays_away_in_postgres() {
    let server = PostgresServer::shared();
    an_erased_actor_stays_away(&server.database());
}

fn an_erased_actor_stays_away(store: &str) {
    let site = Site::new();
    let launch = || site.platform().environment("TIDINGS_ACTIVITY_STORE", store);
    let platform = launch().start();
    let http = platform.http();
    until_ready(&http);
    let batch: Vec<Value> = (0..300)
        .map(|number| by("acme", &number.to_string(), if number % 3 == 0 { "ada" } else { "bob" }))
        .collect();
    http.post(ACTIVITIES, &Value::Array(batch)).expect(200);
    until_stored(&http, "acme", 300);
    let request = json!({"tenant": "acme", "actor": "ada", "requested_by": "privacy-officer"});
    let record = http.post("/api/v1/erasures", &request).expect(200);
    assert_eq!((&record["activities"], &record["requested_by"]), (&json!(100), &json!("privacy-officer")));
    assert!(record["finished_at"].is_string());
    check_gone(&http);
    let listed = http.get("/api/v1/erasures?tenant=acme").expect(200);
    assert_eq!(listed["items"], json!([record]));
    assert!(!listed.to_string().contains("ada"), "{listed}");
    let id = record["id"].as_str().unwrap();
    assert_eq!(http.get(&format!("/api/v1/erasures/{id}?tenant=acme")).expect(200), record);
    http.get(&format!("/api/v1/erasures/{id}?tenant=another")).expect(404);
    http.get(&format!("/api/v1/erasures/{id}")).expect(400);
    http.get("/api/v1/erasures/nobody?tenant=acme").expect(404);
    let refused = http.post("/api/v1/erasures", &json!({"tenant": "acme", "actor": ""})).expect(422);
    assert_eq!(refused["errors"], json!([{"field": "requested_by", "detail": "is required"}]));
    http.post("/api/v1/erasures", &json!(["acme", "ada", "privacy-officer"])).expect(422);
    http.post("/api/v1/erasures", &json!({"tenant": "acme", "actor": "", "requested_by": "x"})).expect(422);
    platform.kill_now();

    // All records come again, as in a replay of the topic, and one that is new.
    let platform = launch().start();
    let (http, kafka) = (platform.http(), platform.kafka());
    until_ready(&http);
    let records = kafka.read_all(site.topic());
    assert_eq!(records.len(), 300, "the topic keeps its records");
    let again: Vec<_> =
        records.iter().map(|record| (record.key.as_deref(), record.value.as_deref().unwrap())).collect();
    kafka.produce(site.topic(), &again);
    http.post(ACTIVITIES, &by("acme", "later", "ada")).expect(200);
    until("all of it has been read again", || {
        (http.metric("tidings_activity_erased_total") >= Some(100.0)
            && http.metric("tidings_activity_duplicates_total") >= Some(200.0)
            && http.metric("tidings_activity_stored_total") >= Some(1.0))
        .then_some(())
    });
    let stored = stored_ids(&http, "acme");
    assert_eq!((stored.len(), stored.get("later")), (201, Some(&1)));
}

fn check_gone(http: &Http) {
    assert_eq!(stored_ids(http, "acme").len(), 200);
    let page = http.get(&format!("{ACTIVITIES}?tenant=acme&actor=ada")).expect(200);
    assert_eq!(page["items"], json!([]));
    http.get(&format!("{ACTIVITIES}/3?tenant=acme")).expect(404);
}

#[test]
fn old_activities_go_by_tenant_in_sqlite() {
    old_activities_go_by_tenant("sqlite", || true);
}

#[test]
fn old_activities_go_by_tenant_in_postgres() {
    let server = PostgresServer::shared();
    let url = server.database();
    let database = url.rsplit_once('/').unwrap().1;
    let partitions =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tidings_activity.activity'::regclass";
    // That of the year which one tenant keeps, and that of the month which is new; those of the other years are gone.
    old_activities_go_by_tenant(&url, || server.query(database, partitions) == "2");
}

fn old_activities_go_by_tenant(store: &str, is_tidy: impl Fn() -> bool) {
    let site = Site::new();
    let launch = || site.platform().environment("TIDINGS_ACTIVITY_STORE", store);
    let platform = launch().start();
    let old = |tenant: &str, year: u32| {
        let mut old = activity(tenant, &format!("{year}"), 0);
        old["occurred_at"] = json!(format!("{year}-06-01T00:00:00Z"));
        old
    };
    let mut batch = vec![old("keeps", 2013)];
    batch.extend((2010..2016).map(|year| old("acme", year)));
    for tenant in ["keeps", "acme"] {
        batch.push(json!({"tenant": tenant, "id": "new", "action": "a"}));
    }
    until_ready(&platform.http());
    platform.http().post(ACTIVITIES, &Value::Array(batch)).expect(200);
    until_stored(&platform.http(), "acme", 7);
    until_stored(&platform.http(), "keeps", 2);
    platform.kill_now();
    let platform = launch()
        .environment("TIDINGS_ACTIVITY_RETENTION_DAYS", "365")
        .environment("TIDINGS_ACTIVITY_RETENTION_DAYS_PER_TENANT", "keeps=0")
        .start();
    let http = platform.http();
    until_ready(&http);
    until("what is too old is gone", || {
        let is_gone = http.metric("tidings_activity_expired_total") >= Some(6.0);
        if !is_gone {
            // A partition that is in use is left for the next time, in ten minutes or when the settings are
            // read again.
            platform.signal(Signal::HUP);
        }
        is_gone.then_some(())
    });
    until("the last one is gone", || (stored_ids(&http, "acme").len() == 1).then_some(()));
    // Activities may go before what held them.
    until("what held them is gone", || is_tidy().then_some(()));
    assert_eq!(stored_ids(&http, "keeps").len(), 2);
}
