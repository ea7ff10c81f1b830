//! `GET /api/v1/activities/export`: everything that a question finds, as one file.
//!
//! `format` is `csv` (with a line of names; `csv` says how fields are escaped) or `ndjson`; the filters are those of the list.
//! Newest first. Invariants: memory is bounded by a page, however much is found and however slowly it is read; an export
//! that ends normally is whole, and whatever goes wrong in the middle breaks the transfer off; nothing is read for a
//! caller who is gone. What arrives meanwhile may be in it or not.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use tidings_http::{FieldError, Params, Problem};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::filter::{FILTERS, filter};
use super::outflow::{Outflow, outflow};
use super::search::ask;
use crate::activity::Activity;
use crate::csv;
use crate::limits::{EXPORT_PAGE_ITEMS, SEARCH_TIME};
use crate::query::{Page, Patience, Query};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
}

pub(super) async fn export(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    let (query, format) = parse(uri.query())?;
    let place = Arc::clone(&api.exports)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("as many exports are under way as may be at once", 5))?;
    // The first page before the answer begins: so far a refusal has a status.
    let first = page(&api, &query).await?;
    let (outflow, body) = outflow();
    tokio::spawn(send(api, query, format, first, outflow, place));
    let mut response = Response::new(body);
    let (kind, disposition) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "attachment; filename=\"activities.csv\""),
        Format::Ndjson => ("application/x-ndjson", "attachment; filename=\"activities.ndjson\""),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn parse(query: Option<&str>) -> Result<(Query, Format), Problem> {
    let mut known = FILTERS.to_vec();
    known.push("format");
    let params = Params::parse(query, &known)?;
    let mut errors = Vec::new();
    let filter = filter(&params, &mut errors);
    let format = match params.get("format") {
        Some("csv") => Format::Csv,
        Some("ndjson") => Format::Ndjson,
        other => {
            let found = other.map_or_else(|| "nothing".to_owned(), |found| format!("{found:?}"));
            errors.push(FieldError::new("format", format!("expected csv or ndjson, found {found}")));
            Format::Csv
        }
    };
    if errors.is_empty() {
        Ok((Query { filter, after: None, limit: EXPORT_PAGE_ITEMS }, format))
    } else {
        Err(Problem::bad_parameters(errors))
    }
}

async fn page(api: &Api, query: &Query) -> Result<Page, Problem> {
    let query = query.clone();
    let (patience, _waiting) = Patience::while_waiting();
    ask(api, move |store| store.search(&query, &patience.at_most(SEARCH_TIME))).await
}

/// Sends pages until nothing is left, nobody reads, or the store fails, in which case the body breaks off.
async fn send(
    api: Arc<Api>,
    mut query: Query,
    format: Format,
    first: Page,
    outflow: Outflow,
    _place: OwnedSemaphorePermit,
) {
    let mut piece = Vec::new();
    if format == Format::Csv {
        csv::write_header(&mut piece);
    }
    let mut page = first;
    loop {
        page.items.iter().for_each(|activity| format.write(&mut piece, activity));
        // A search that finds little looks at many rows for each piece.
        if !piece.is_empty() && !outflow.push(std::mem::take(&mut piece)).await {
            return;
        }
        let Some(next) = page.next else { return outflow.end().await };
        query.after = Some(next);
        let more = tokio::select! {
            more = self::page(&api, &query) => more,
            () = outflow.closed() => return,
        };
        page = match more {
            Ok(page) => page,
            Err(problem) => {
                return tracing::warn!(reason = problem.detail, "an export is broken off");
            }
        };
    }
}

impl Format {
    fn write(self, piece: &mut Vec<u8>, activity: &Activity<'_>) {
        match self {
            Self::Csv => csv::write_row(piece, activity),
            Self::Ndjson => {
                // Strings and raw JSON cannot fail to be written into memory.
                let written = serde_json::to_writer(&mut *piece, activity);
                debug_assert!(written.is_ok());
                piece.push(b'\n');
            }
        }
    }
}
