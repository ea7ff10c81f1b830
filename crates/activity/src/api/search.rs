//! `GET /api/v1/activities` and `GET /api/v1/activities/{id}`.
//!
//! Filters are query parameters: `tenant` (required), `actor`, `action` (`invoice.*` for a prefix), `target`, `from`
//! (inclusive), `to` (exclusive), `q`, `limit`, `cursor`. Answers `{"items": […], "next_cursor": …}`, newest first; a
//! page may be short and yet have a next one, if the search had to look at very many rows. Unknown, repeated or
//! malformed parameters are 400.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidings_http::{FieldError, Params, PathParams, Problem};
use tokio::sync::Semaphore;

use super::Api;
use super::filter::{FILTERS, filter, only_tenant, path_id};
use crate::activity::Activity;
use crate::cursor::CursorKey;
use crate::limits::{DEFAULT_PAGE_ITEMS, MAX_PAGE_ITEMS, SEARCH_TIME};
use crate::query::{Page, Patience, Query};
use crate::store::{Store, StoreError};

#[derive(Serialize)]
struct List<'a> {
    items: &'a [Activity<'static>],
    next_cursor: Option<String>,
}

pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    let key = cursor_key(&api)?;
    let query = parse(uri.query(), &key)?;
    let (patience, _waiting) = Patience::while_waiting();
    let page = ask(&api, {
        let query = query.clone();
        // From here on: how long it waits for its turn says nothing about the question.
        move |store| fill_page(store, query, &patience.at_most(SEARCH_TIME))
    })
    .await?;
    let next_cursor = page.next.as_ref().map(|next| key.encode(&query.filter, next));
    json(&List { items: &page.items, next_cursor })
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    id: PathParams<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = path_id(id)?;
    let tenant = only_tenant(&uri)?;
    let found = ask(&api, {
        let id = id.clone();
        move |store| store.get(&tenant, &id)
    })
    .await?;
    match found {
        Some(activity) => json(&activity),
        None => Err(Problem::not_found(format!("this tenant has no activity {id:?}"))),
    }
}

/// The question that a query string asks, or 400 with every parameter that is wrong.
pub(crate) fn parse(query: Option<&str>, key: &CursorKey) -> Result<Query, Problem> {
    let known = [&FILTERS[..], &["limit", "cursor"]].concat();
    let params = Params::parse(query, &known)?;
    let mut errors = Vec::new();
    let filter = filter(&params, &mut errors);
    let limit = limit(params.get("limit")).unwrap_or_else(|error| {
        errors.push(error);
        DEFAULT_PAGE_ITEMS
    });
    // A cursor depends on the other parameters: with one of those wrong it would be blamed wrongly.
    let after = match params.get("cursor") {
        Some(cursor) if errors.is_empty() => match key.decode(&filter, cursor) {
            Ok(position) => Some(position),
            Err(error) => {
                errors.push(FieldError::new("cursor", error.to_string()));
                None
            }
        },
        _ => None,
    };
    if errors.is_empty() { Ok(Query { filter, after, limit }) } else { Err(Problem::bad_parameters(errors)) }
}

/// How many items a page is to have.
pub(super) fn limit(text: Option<&str>) -> Result<usize, FieldError> {
    let Some(text) = text else { return Ok(DEFAULT_PAGE_ITEMS) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| digits && (1..=MAX_PAGE_ITEMS).contains(limit));
    let wrong =
        || FieldError::new("limit", format!("expected a number from 1 to {MAX_PAGE_ITEMS}, found {text:?}"));
    limit.ok_or_else(wrong)
}

/// Asks the store, more than once where it stopped at its bound of rows, until the page is full or patience is over.
fn fill_page(store: &dyn Store, mut query: Query, patience: &Patience) -> Result<Page, StoreError> {
    let limit = query.limit;
    let mut page = store.search(&query, patience)?;
    while page.items.len() < limit && !patience.is_over() {
        let Some(next) = page.next.take() else { break };
        query = Query { after: Some(next), limit: limit - page.items.len(), ..query };
        let more = store.search(&query, patience)?;
        page.items.extend(more.items);
        page.next = more.next;
    }
    Ok(page)
}

/// The store's key, or 503 while the store has not been reached.
pub(super) fn cursor_key(api: &Api) -> Result<CursorKey, Problem> {
    api.store.cursor_key().map_err(|error| no_answer(&error))
}

/// Runs a question on a thread for blocking work.
pub(super) async fn ask<T: Send + 'static>(
    api: &Api,
    question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    ask_within(&api.queries, &api.store, question).await
}

/// The same with turns of its own. A turn lasts as long as its question does, also when the caller is gone.
pub(super) async fn ask_within<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    store: &Arc<dyn Store>,
    question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    // The semaphore is never closed, so there is always a permit.
    let turn = Arc::clone(turns).acquire_owned().await;
    let store = Arc::clone(store);
    let answer = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        question(&*store)
    });
    let answer = answer.await;
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(no_answer(&error)),
        Err(_) => Err(Problem::internal("the question to the store broke off")),
    }
}

fn no_answer(error: &StoreError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a question to the store failed");
    Problem::unavailable("the store does not answer", 1)
}

pub(super) fn json(value: &impl Serialize) -> Result<Response, Problem> {
    let body =
        serde_json::to_vec(value).map_err(|_| Problem::internal("the answer cannot be written as JSON"))?;
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::{ActionFilter, Filter, Position};
    use crate::sqlite::SqliteStore;
    use crate::timestamp::Timestamp;

    fn key() -> CursorKey {
        CursorKey::new([7; 16])
    }

    #[test]
    fn reads_every_parameter() {
        let query = parse(
            Some(
                "tenant=t&actor=u&action=invoice.*&target=i&from=2013-01-01T00:00:00Z&to=2013-01-02T00:00:00%2B01:00\
                 &q=caf%C3%A9&limit=500",
            ),
            &key(),
        )
        .unwrap();
        let filter = Filter {
            tenant: "t".to_owned(),
            actor: Some("u".to_owned()),
            action: Some(ActionFilter::Prefix("invoice.".to_owned())),
            target: Some("i".to_owned()),
            from: Timestamp::parse("2013-01-01T00:00:00Z").ok(),
            to: Timestamp::parse("2013-01-01T23:00:00Z").ok(),
            text: Some("café".to_owned()),
        };
        assert_eq!(query, Query { filter, after: None, limit: 500 });
        let position = Position { occurred_at: Timestamp::MIN, id: "x".to_owned() };
        let cursor = key().encode(&query.filter, &position);
        let filter = Filter::of_tenant("t");
        assert_eq!(parse(Some(&format!("tenant=t&cursor={cursor}")), &key()).unwrap_err().status, 400);
        let cursor = key().encode(&filter, &position);
        let query = parse(Some(&format!("tenant=t&cursor={cursor}")), &key()).unwrap();
        assert_eq!(query, Query { filter, after: Some(position), limit: DEFAULT_PAGE_ITEMS });
    }

    #[test]
    fn names_every_wrong_parameter() {
        let check = |query: &str, expected: &[&str]| {
            let problem = parse(Some(query), &key()).unwrap_err();
            assert_eq!(problem.status, 400);
            let found: Vec<_> = problem.errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{query}");
        };
        check("", &["tenant: is missing"]);
        check("tenant=", &["tenant: is empty"]);
        check("tenant=t&limit=0", &["limit: expected a number from 1 to 500, found \"0\""]);
        check("tenant=t&limit=501", &["limit: expected a number from 1 to 500, found \"501\""]);
        check("tenant=t&limit=%2B5", &["limit: expected a number from 1 to 500, found \"+5\""]);
        check("tenant=t&action=a*b*&q=", &["q: is empty", "action: may have '*' at its end only"]);
        check("tenant=t&action=*.*", &["action: may have '*' at its end only"]);
        check(
            "tenant=t&from=yesterday",
            &["from: expected an RFC 3339 timestamp such as 2013-01-01T10:17:00Z, found \"yesterday\""],
        );
        check(
            "tenant=t&cursor=AAAA",
            &["cursor: is not a cursor of this query: take next_cursor from an answer, and keep the other \
               parameters the same"],
        );
        check("tenant=t&tenant=u", &["tenant: is given more than once"]);
    }

    /// A caller who hangs up does not end the question, and so does not make room for another one.
    #[tokio::test]
    async fn a_question_keeps_its_turn_when_its_caller_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let turns = Arc::new(Semaphore::new(1));
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (patience, waiting) = Patience::while_waiting();
        let asking = tokio::spawn({
            let (turns, store, patience) = (Arc::clone(&turns), Arc::clone(&store), patience.clone());
            async move {
                let _waiting = waiting;
                let question = move |_: &dyn Store| {
                    begin.send(patience.is_over()).unwrap();
                    ended.recv().unwrap();
                    Ok(())
                };
                ask_within(&turns, &store, question).await
            }
        });
        assert!(!begun.await.unwrap());
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        assert_eq!(turns.available_permits(), 0, "it goes on");
        assert!(patience.is_over(), "and is told that nobody waits for it");
        end.send(()).unwrap();
        ask_within(&turns, &store, |_| Ok(())).await.unwrap();
    }

    proptest! {
        #[test]
        fn never_panics(query in "[a-z=&%*0-9.:TZ-]{0,60}") {
            let _ = parse(Some(&query), &key());
            let _ = parse(Some(&format!("tenant=t&{query}")), &key());
        }
    }
}
