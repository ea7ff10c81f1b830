//! Writing batches into the PostgreSQL store.
//!
//! Invariants: a batch is one transaction, synced when it returns; writers, of whichever instance, take turns from the
//! row of `store` to the commit, so that arrivals become visible in their order. What is new is copied in (`COPY`),
//! because nothing of it can be there already; of a large batch that is first believed of everything, since a copy costs
//! less than to ask, and asked if it was not so. What is believed to be new is copied before the turn, most of the work, so
//! that two batches are written at once; its identities follow in the turn and tell whether it was so.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use tokio_postgres::Transaction;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::remove;
use super::session::{Fault, Session, Statements};
use super::time::Micros;
use super::turn::Turn;
use crate::activity::Activity;
use crate::cursor::CursorKey;
use crate::store::{Arrival, Inserted};
use crate::text::Text;
use crate::timestamp::Timestamp;

/// Waits for the turn, and takes places in the order of arrival.
const TAKE_PLACES: &str =
    "UPDATE store SET last_arrival = last_arrival + $1 RETURNING last_arrival - $1, layout, erasures";

const COPY_IDENTITY: &str = "COPY identity (arrival, tenant, id, occurred_at) FROM STDIN (FORMAT binary)";

const IDENTIFY: &str = "
INSERT INTO identity (arrival, tenant, id, occurred_at)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[])
ON CONFLICT (tenant, id) DO NOTHING RETURNING arrival";

const COPY: &str = "
COPY activity (tenant, id, occurred_at, received_at, action, actor_id, actor_type, actor_name, targets, context, metadata)
FROM STDIN (FORMAT binary)";

const COPY_TARGETS: &str = "COPY target (tenant, target_id, occurred_at, id) FROM STDIN (FORMAT binary)";

const MARK: &str = "INSERT INTO unpublished (arrival) SELECT * FROM unnest($1::bigint[])";

const TAKE_MARKS_OFF: &str = "
DELETE FROM unpublished WHERE EXISTS (SELECT FROM unpublished) AND arrival IN (
    SELECT identity.arrival FROM identity JOIN unnest($1::text[], $2::text[]) AS known (tenant, id) USING (tenant, id))";

const MARK_PUBLISHED: &str = "DELETE FROM unpublished WHERE arrival = ANY ($1)";

const FIND_ERASED: &str = "
SELECT digest, max(requested_at) FROM erasure WHERE digest = ANY ($1) GROUP BY digest
UNION ALL SELECT digest, NULL FROM erased WHERE digest = ANY ($1)";

/// From how many rows a batch is believed to be new. Below, an error's transaction would cost more than it saves.
pub const BELIEVED_FROM: usize = 64;

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The topic has it.
    Topic,
    /// The topic does not have it.
    Fallback,
}

/// As `Store::insert_batch`, or as `Store::insert_unpublished`; takes its place when `turn` has come.
pub async fn insert_batch(
    session: &mut Session,
    activities: &[Activity<'_>],
    source: Source,
    key: &CursorKey,
    turn: Turn<'_>,
) -> Result<Vec<Inserted>, Fault> {
    let batch = Batch { activities, first: first_of_each(activities, |_| true), source, key };
    if batch.first.is_empty() {
        return Ok(Vec::new());
    }
    // What comes again, after a crash, comes in a row.
    if session.last_was_new && batch.first.len() >= BELIEVED_FROM && session.layout.has_all(batch.times()) {
        let inserted = write_believed(session, &batch, turn).await;
        if !matches!(&inserted, Err(fault) if fault.is_disbelief()) {
            return inserted;
        }
    }
    let inserted = write_asked(session, &batch, turn).await?;
    session.last_was_new = batch.first.iter().all(|index| inserted[*index] != Inserted::Duplicate);
    Ok(inserted)
}

/// What is to be written.
struct Batch<'a> {
    activities: &'a [Activity<'a>],
    /// Where each (tenant, id) stands first.
    first: Vec<usize>,
    source: Source,
    key: &'a CursorKey,
}

impl Batch<'_> {
    fn times(&self) -> impl Iterator<Item = Timestamp> {
        self.first.iter().map(|index| self.activities[*index].occurred_at)
    }

    fn rows(&self, indexes: &[usize]) -> Vec<&Activity<'_>> {
        indexes.iter().map(|index| &self.activities[*index]).collect()
    }
}

/// One transaction, for activities that are believed to be new. If one is not, or if something was changed meanwhile that
/// concerns them, it fails with a fault that says so.
async fn write_believed(
    session: &mut Session,
    batch: &Batch<'_>,
    turn: Turn<'_>,
) -> Result<Vec<Inserted>, Fault> {
    let mut inserted = vec![Inserted::Duplicate; batch.activities.len()];
    let Session { client, statements, erasures, .. } = session;
    let transaction = client.transaction().await?;
    let first = without_erased(&transaction, *erasures, batch, &mut inserted).await?;
    let rows = batch.rows(&first);
    copy_rows(&transaction, statements, &rows).await?;
    copy_targets_of(&transaction, statements, &rows).await?;

    turn.comes_soon().await?;
    let places = Places::take(&transaction, statements, rows.len()).await?;
    if places.erasures != *erasures {
        return Err(Fault::Overtaken);
    }
    copy_identity(&transaction, statements, &places, &rows).await?;
    if batch.source == Source::Fallback {
        mark_unpublished(&transaction, statements, &places.arrivals(rows.len())).await?;
    }
    transaction.commit().await?;
    first.iter().for_each(|index| inserted[*index] = Inserted::Stored);
    Ok(inserted)
}

/// One transaction, in which the server says what is new.
async fn write_asked(
    session: &mut Session,
    batch: &Batch<'_>,
    turn: Turn<'_>,
) -> Result<Vec<Inserted>, Fault> {
    let mut inserted = vec![Inserted::Duplicate; batch.activities.len()];
    let Session { client, statements, layout, erasures, .. } = session;
    turn.comes().await;
    let transaction = client.transaction().await?;
    let places = Places::take(&transaction, statements, batch.first.len()).await?;
    *erasures = places.erasures;
    let first = without_erased(&transaction, *erasures, batch, &mut inserted).await?;

    layout.refresh(&transaction, places.layout).await?;
    for detached in layout.detached() {
        // An identity without a row that anybody finds: what has it now would be known, and stored nowhere.
        let rows = batch.rows(&first);
        remove::forget(&transaction, detached, &tenants(&rows), &ids(&rows)).await?;
    }
    let new = ask_for_new(&transaction, statements, &places, &batch.rows(&first)).await?;
    for arrival in &new {
        inserted[first[(arrival - places.before - 1) as usize]] = Inserted::Stored;
    }
    let (new_rows, known_rows): (Vec<usize>, Vec<usize>) =
        first.iter().partition(|index| inserted[**index] == Inserted::Stored);
    let (new_rows, known_rows) = (batch.rows(&new_rows), batch.rows(&known_rows));

    if !new_rows.is_empty() {
        let times = new_rows.iter().map(|activity| activity.occurred_at);
        layout.ensure(&transaction, times).await?;
        copy_rows(&transaction, statements, &new_rows).await?;
        copy_targets_of(&transaction, statements, &new_rows).await?;
    }
    match batch.source {
        Source::Fallback if !new.is_empty() => {
            mark_unpublished(&transaction, statements, &new).await?;
        }
        Source::Topic if !known_rows.is_empty() => {
            let take_off = statements.of(&transaction, TAKE_MARKS_OFF).await?;
            transaction.execute(&take_off, &[&tenants(&known_rows), &ids(&known_rows)]).await?;
        }
        Source::Fallback | Source::Topic => {}
    }
    transaction.commit().await?;
    Ok(inserted)
}

/// What the row of `store` says to whoever has the turn.
struct Places {
    /// The last arrival before those that were taken.
    before: i64,
    layout: i64,
    erasures: i64,
}

impl Places {
    async fn take(
        transaction: &Transaction<'_>,
        statements: &mut Statements,
        count: usize,
    ) -> Result<Self, Fault> {
        let take_places = statements.of(transaction, TAKE_PLACES).await?;
        let row = transaction.query_one(&take_places, &[&(count as i64)]).await?;
        Ok(Self { before: row.try_get(0)?, layout: row.try_get(1)?, erasures: row.try_get(2)? })
    }

    /// The first so many of those that were taken.
    fn arrivals(&self, count: usize) -> Vec<i64> {
        (self.before + 1..).take(count).collect()
    }
}

/// Waits for the turn as a batch does, and writes nothing else.
pub async fn take_turn(session: &mut Session) -> Result<(), Fault> {
    session.client.execute("UPDATE store SET layout = layout", &[]).await?;
    Ok(())
}

/// As `Store::mark_published`.
pub async fn mark_published(session: &mut Session, arrivals: &[Arrival]) -> Result<(), Fault> {
    let arrivals: Vec<i64> = arrivals.iter().map(|arrival| arrival.0).collect();
    let statement = session.statements.get(&session.client, MARK_PUBLISHED).await?;
    session.client.execute(&statement, &[&arrivals]).await?;
    Ok(())
}

/// Where each (tenant, id) stands first among those that count.
fn first_of_each(activities: &[Activity<'_>], counts: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(activities.len());
    let is_first = |index: &usize| seen.insert((&*activities[*index].tenant, &*activities[*index].id));
    (0..activities.len()).filter(|index| counts(*index)).filter(is_first).collect()
}

/// Where each (tenant, id) stands first among the activities whose actor was not erased since they were received; says of the others
/// that they are not stored. `erasures`: how many there were.
async fn without_erased(
    transaction: &Transaction<'_>,
    erasures: i64,
    batch: &Batch<'_>,
    inserted: &mut [Inserted],
) -> Result<Vec<usize>, Fault> {
    let Batch { activities, first, key, .. } = batch;
    if erasures == 0 {
        return Ok(first.clone());
    }
    // Of the actor, and of the activity itself.
    let digests = |activity: &Activity<'_>| {
        let Activity { tenant, id, .. } = activity;
        let of = |actor: &str| [key.actor_digest(tenant, actor), key.activity_digest(tenant, actor, id)];
        activity.actor.as_ref().map(|actor| of(&actor.id))
    };
    let all: Vec<[u8; 16]> = activities.iter().filter_map(digests).flatten().collect();
    let all: Vec<&[u8]> = all.iter().map(<[u8; 16]>::as_slice).collect();
    let mut erased = HashMap::new();
    for row in transaction.query(FIND_ERASED, &[&all]).await? {
        erased.insert(row.try_get::<_, Vec<u8>>(0)?, row.try_get::<_, Option<Micros>>(1)?);
    }
    let is_erased = |activity: &Activity<'_>| {
        let Some([of_actor, of_activity]) = digests(activity) else { return false };
        let received_at = Micros(activity.received_at.as_micros());
        erased.contains_key(&of_activity[..])
            || erased.get(&of_actor[..]).copied().flatten().is_some_and(|until| received_at <= until)
    };
    for (activity, inserted) in activities.iter().zip(&mut *inserted) {
        if is_erased(activity) {
            *inserted = Inserted::Erased;
        }
    }
    // One that is not stored does not stand in the way of another with its id.
    Ok(first_of_each(activities, |index| inserted[index] != Inserted::Erased))
}

/// Takes the identities of all rows, in these places.
async fn copy_identity(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    places: &Places,
    rows: &[&Activity<'_>],
) -> Result<(), Fault> {
    const TYPES: [Type; 4] = [Type::INT8, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ];
    let copy = statements.of(transaction, COPY_IDENTITY).await?;
    let mut out = pin!(BinaryCopyInWriter::new(transaction.copy_in(&copy).await?, &TYPES));
    for (arrival, row) in places.arrivals(rows.len()).iter().zip(rows) {
        let occurred_at = Micros(row.occurred_at.as_micros());
        let columns: [&(dyn ToSql + Sync); TYPES.len()] =
            [arrival, &row.tenant.as_str(), &row.id.as_str(), &occurred_at];
        out.as_mut().write(&columns).await?;
    }
    out.finish().await?;
    Ok(())
}

/// Takes the identities that are free, in these places; answers the arrivals of these.
async fn ask_for_new(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    places: &Places,
    rows: &[&Activity<'_>],
) -> Result<Vec<i64>, Fault> {
    let identify = statements.of(transaction, IDENTIFY).await?;
    let arrivals = places.arrivals(rows.len());
    let identity: [&(dyn ToSql + Sync); 4] = [&arrivals, &tenants(rows), &ids(rows), &times(rows)];
    let new = transaction.query(&identify, &identity).await?;
    new.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Says that the topic does not have them.
async fn mark_unpublished(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    arrivals: &[i64],
) -> Result<(), Fault> {
    let mark = statements.of(transaction, MARK).await?;
    transaction.execute(&mark, &[&arrivals]).await?;
    Ok(())
}

async fn copy_rows(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    rows: &[&Activity<'_>],
) -> Result<(), Fault> {
    const TYPES: [Type; 11] = [
        Type::TEXT,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::TIMESTAMPTZ,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
    ];
    let copy = statements.of(transaction, COPY).await?;
    let mut out = pin!(BinaryCopyInWriter::new(transaction.copy_in(&copy).await?, &TYPES));
    for row in rows {
        let actor = row.actor.as_ref();
        let columns: [&(dyn ToSql + Sync); TYPES.len()] = [
            &row.tenant.as_str(),
            &row.id.as_str(),
            &Micros(row.occurred_at.as_micros()),
            &Micros(row.received_at.as_micros()),
            &row.action.as_str(),
            &actor.map(|actor| actor.id.as_str()),
            &actor.and_then(|actor| actor.kind.as_ref()).map(Text::as_str),
            &actor.and_then(|actor| actor.name.as_ref()).map(Text::as_str),
            &(!row.targets.is_empty()).then(|| json(&row.targets)),
            &row.context.as_ref().map(json),
            &row.metadata.as_ref().map(|metadata| metadata.as_str()),
        ];
        out.as_mut().write(&columns).await?;
    }
    out.finish().await?;
    Ok(())
}

async fn copy_targets_of(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    rows: &[&Activity<'_>],
) -> Result<(), Fault> {
    const TYPES: [Type; 4] = [Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT];
    if rows.iter().all(|row| row.targets.is_empty()) {
        return Ok(());
    }
    let copy = statements.of(transaction, COPY_TARGETS).await?;
    let mut out = pin!(BinaryCopyInWriter::new(transaction.copy_in(&copy).await?, &TYPES));
    for row in rows {
        for (index, target) in row.targets.iter().enumerate() {
            // One activity may name a target twice, with different types.
            if !row.targets[..index].iter().any(|earlier| earlier.id == target.id) {
                let occurred_at = Micros(row.occurred_at.as_micros());
                let columns: [&(dyn ToSql + Sync); TYPES.len()] =
                    [&row.tenant.as_str(), &target.id.as_str(), &occurred_at, &row.id.as_str()];
                out.as_mut().write(&columns).await?;
            }
        }
    }
    out.finish().await?;
    Ok(())
}

fn tenants<'a>(rows: &[&'a Activity<'_>]) -> Vec<&'a str> {
    rows.iter().map(|row| &*row.tenant).collect()
}

fn ids<'a>(rows: &[&'a Activity<'_>]) -> Vec<&'a str> {
    rows.iter().map(|row| &*row.id).collect()
}

fn times(rows: &[&Activity<'_>]) -> Vec<Micros> {
    rows.iter().map(|row| Micros(row.occurred_at.as_micros())).collect()
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Strings cannot fail to serialise into memory.
    serde_json::to_string(value).unwrap_or_default()
}
