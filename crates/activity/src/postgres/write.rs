//! Writing batches into the PostgreSQL store.
//!
//! Invariants: a batch is one transaction, synced when it returns; writers, of whichever instance, take turns from the
//! row of `store` to the commit, so that arrivals become visible in their order. What is new is copied in (`COPY`),
//! because nothing of it can be there already; of a large batch that is first believed of everything, since a copy costs
//! less than to ask, and asked if it was not so.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use tokio_postgres::Transaction;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::session::{Fault, Session, Statements};
use super::time::Micros;
use crate::activity::Activity;
use crate::cursor::CursorKey;
use crate::store::{Arrival, Inserted};
use crate::text::Text;

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

/// From how many rows a batch is believed to be new. Below, an error's transaction would cost more than it saves.
const BELIEVED_FROM: usize = 64;

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The topic has it.
    Topic,
    /// The topic does not have it.
    Fallback,
}

/// How it is found out which activities are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identify {
    /// All are; if not, the transaction fails by a unique violation.
    Believe,
    /// The server says which.
    Ask,
}

/// As `Store::insert_batch`, or as `Store::insert_unpublished`.
pub async fn insert_batch(
    session: &mut Session,
    activities: &[Activity<'_>],
    source: Source,
    key: &CursorKey,
) -> Result<Vec<Inserted>, Fault> {
    let first = first_of_each(activities);
    if first.is_empty() {
        return Ok(Vec::new());
    }
    // What comes again, after a crash, comes in a row.
    if session.last_was_new && first.len() >= BELIEVED_FROM {
        let inserted = write(session, activities, first.clone(), source, key, Identify::Believe).await;
        if !matches!(&inserted, Err(fault) if fault.is_known_already()) {
            return inserted;
        }
    }
    let inserted = write(session, activities, first.clone(), source, key, Identify::Ask).await?;
    session.last_was_new = first.iter().all(|index| inserted[*index] != Inserted::Duplicate);
    Ok(inserted)
}

/// One transaction; `first` is where each (tenant, id) stands first.
async fn write(
    session: &mut Session,
    activities: &[Activity<'_>],
    first: Vec<usize>,
    source: Source,
    key: &CursorKey,
    identify: Identify,
) -> Result<Vec<Inserted>, Fault> {
    let mut inserted = vec![Inserted::Duplicate; activities.len()];
    let Session { client, statements, layout, .. } = session;
    let transaction = client.transaction().await?;
    let take_places = statements.of(&transaction, TAKE_PLACES).await?;
    let row = transaction.query_one(&take_places, &[&(first.len() as i64)]).await?;
    let (places, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let first = match row.try_get::<_, i64>(2)? {
        0 => first,
        _ => without_erased(&transaction, key, activities, first, &mut inserted).await?,
    };

    let rows: Vec<(i64, &Activity<'_>)> =
        (places + 1..).zip(first.iter().map(|index| &activities[*index])).collect();
    let new = match identify {
        Identify::Believe => copy_identity(&transaction, statements, &rows).await?,
        Identify::Ask => ask_for_new(&transaction, statements, &rows).await?,
    };
    for arrival in &new {
        inserted[first[(arrival - places - 1) as usize]] = Inserted::Stored;
    }
    let rows = |wanted: Inserted| -> Vec<&Activity<'_>> {
        let rows = first.iter().filter(|index| inserted[**index] == wanted);
        rows.map(|index| &activities[*index]).collect()
    };
    let (new_rows, known_rows) = (rows(Inserted::Stored), rows(Inserted::Duplicate));

    if !new_rows.is_empty() {
        layout.ensure(&transaction, version, new_rows.iter().map(|activity| activity.occurred_at)).await?;
        copy_rows(&transaction, statements, &new_rows).await?;
        copy_targets_of(&transaction, statements, &new_rows).await?;
    }
    match source {
        Source::Fallback if !new.is_empty() => {
            let mark = statements.of(&transaction, MARK).await?;
            transaction.execute(&mark, &[&new]).await?;
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

/// Where each (tenant, id) stands first.
fn first_of_each(activities: &[Activity<'_>]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(activities.len());
    let is_first = |index: &usize| seen.insert((&*activities[*index].tenant, &*activities[*index].id));
    (0..activities.len()).filter(is_first).collect()
}

/// Those whose actor was not erased since they were received; says of the others that they are not stored.
async fn without_erased(
    transaction: &Transaction<'_>,
    key: &CursorKey,
    activities: &[Activity<'_>],
    mut first: Vec<usize>,
    inserted: &mut [Inserted],
) -> Result<Vec<usize>, Fault> {
    let digest = |activity: &Activity<'_>| {
        activity.actor.as_ref().map(|actor| key.actor_digest(&activity.tenant, &actor.id))
    };
    let digests: Vec<[u8; 16]> = first.iter().filter_map(|index| digest(&activities[*index])).collect();
    let digests: Vec<&[u8]> = digests.iter().map(<[u8; 16]>::as_slice).collect();
    let find = "SELECT digest, max(requested_at) FROM erasure WHERE digest = ANY ($1) GROUP BY digest";
    let mut erased = HashMap::new();
    for row in transaction.query(find, &[&digests]).await? {
        erased.insert(row.try_get::<_, Vec<u8>>(0)?, row.try_get::<_, Micros>(1)?);
    }
    let is_erased = |activity: &Activity<'_>| {
        let requested_at = digest(activity).and_then(|digest| erased.get(&digest[..]).copied());
        requested_at.is_some_and(|requested_at| Micros(activity.received_at.as_micros()) <= requested_at)
    };
    for (activity, inserted) in activities.iter().zip(inserted) {
        if is_erased(activity) {
            *inserted = Inserted::Erased;
        }
    }
    first.retain(|index| !is_erased(&activities[*index]));
    Ok(first)
}

/// Takes the identities of all rows, in their arrivals; answers them.
async fn copy_identity(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    rows: &[(i64, &Activity<'_>)],
) -> Result<Vec<i64>, Fault> {
    const TYPES: [Type; 4] = [Type::INT8, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ];
    let copy = statements.of(transaction, COPY_IDENTITY).await?;
    let mut out = pin!(BinaryCopyInWriter::new(transaction.copy_in(&copy).await?, &TYPES));
    for (arrival, row) in rows {
        let occurred_at = Micros(row.occurred_at.as_micros());
        let columns: [&(dyn ToSql + Sync); TYPES.len()] =
            [arrival, &row.tenant.as_str(), &row.id.as_str(), &occurred_at];
        out.as_mut().write(&columns).await?;
    }
    out.finish().await?;
    Ok(arrivals(rows))
}

/// Takes the identities that are free; answers the arrivals of these.
async fn ask_for_new(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    rows: &[(i64, &Activity<'_>)],
) -> Result<Vec<i64>, Fault> {
    let identify = statements.of(transaction, IDENTIFY).await?;
    let activities: Vec<&Activity<'_>> = rows.iter().map(|(_, activity)| *activity).collect();
    let identity: [&(dyn ToSql + Sync); 4] =
        [&arrivals(rows), &tenants(&activities), &ids(&activities), &times(&activities)];
    let new = transaction.query(&identify, &identity).await?;
    new.iter().map(|row| Ok(row.try_get(0)?)).collect()
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

fn arrivals(rows: &[(i64, &Activity<'_>)]) -> Vec<i64> {
    rows.iter().map(|(arrival, _)| *arrival).collect()
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
