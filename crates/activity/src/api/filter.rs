//! The filters of a question as query parameters: the list, the export and the live tail take the same. And what a path names.
//!
//! Invariant: no term that leaves here holds a control character: nothing that is stored does (`rules`), and PostgreSQL would
//! refuse a NUL as if it were at fault itself. The text to search for may: it is compared here, with metadata that may hold any.

use axum::http::Uri;
use tidings_http::{FieldError, Params, PathParams, Problem};

use crate::limits::MAX_SEARCH_CHARS;
use crate::query::{ActionFilter, Filter};
use crate::rules::check_text;
use crate::timestamp::Timestamp;

/// Their names.
pub(super) const FILTERS: [&str; 7] = ["tenant", "actor", "action", "target", "from", "to", "q"];

/// The filter that the parameters ask for; what is wrong with them is added to `errors`.
pub(super) fn filter(params: &Params, errors: &mut Vec<FieldError>) -> Filter {
    let mut term = |name: &str| {
        let term = params.get(name).map(|text| checked(name, text)).transpose();
        term.unwrap_or_else(|error| {
            errors.push(error);
            None
        })
    };
    let mut filter = Filter {
        tenant: String::new(),
        actor: term("actor"),
        action: term("action").map(|action| ActionFilter::parse(&action)),
        target: term("target"),
        from: None,
        to: None,
        text: params.get("q").map(str::to_owned),
    };
    if filter.text.as_ref().is_some_and(String::is_empty) {
        errors.push(FieldError::new("q", "is empty"));
    }
    match tenant(params) {
        Ok(tenant) => filter.tenant = tenant,
        Err(error) => errors.push(error),
    }
    if let Some(ActionFilter::Exactly(action) | ActionFilter::Prefix(action)) = &filter.action
        && action.contains('*')
    {
        errors.push(FieldError::new("action", "may have '*' at its end only"));
    }
    if filter.text.as_ref().is_some_and(|text| text.chars().count() > MAX_SEARCH_CHARS) {
        errors
            .push(FieldError::new("q", format!("is longer than the {MAX_SEARCH_CHARS} characters allowed")));
    }
    for (name, time) in [("from", &mut filter.from), ("to", &mut filter.to)] {
        match params.get(name).map(Timestamp::parse) {
            Some(Err(error)) => errors.push(FieldError::new(name, error.to_string())),
            Some(Ok(parsed)) => *time = Some(parsed),
            None => {}
        }
    }
    filter
}

/// The tenant of a request that has no other parameter, or 400.
pub(super) fn only_tenant(uri: &Uri) -> Result<String, Problem> {
    let params = Params::parse(uri.query(), &["tenant"])?;
    tenant(&params).map_err(|error| Problem::bad_parameters(vec![error]))
}

/// Whose activities: there is no question without a tenant.
pub(super) fn tenant(params: &Params) -> Result<String, FieldError> {
    match params.get("tenant") {
        None => Err(FieldError::new("tenant", "is missing")),
        Some(tenant) => checked("tenant", tenant),
    }
}

/// The id in the path of a request, or 400.
pub(super) fn path_id(PathParams(id): PathParams<String>) -> Result<String, Problem> {
    checked("id", &id).map_err(|error| Problem::bad_request("").with_errors(vec![error]))
}

/// Something that is to be found as it is; of any length, because what is too long is only not there.
fn checked(name: &str, text: &str) -> Result<String, FieldError> {
    match check_text(text, usize::MAX) {
        Ok(()) => Ok(text.to_owned()),
        Err(detail) => Err(FieldError::new(name, detail)),
    }
}
