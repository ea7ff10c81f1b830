//! The filters of a question as query parameters: the list, the export and the live tail take the same.

use axum::http::Uri;
use tidings_http::{FieldError, Params, Problem};

use crate::limits::MAX_SEARCH_CHARS;
use crate::query::{ActionFilter, Filter};
use crate::timestamp::Timestamp;

/// Their names.
pub(super) const FILTERS: [&str; 7] = ["tenant", "actor", "action", "target", "from", "to", "q"];

/// The filter that the parameters ask for; what is wrong with them is added to `errors`.
pub(super) fn filter(params: &Params, errors: &mut Vec<FieldError>) -> Filter {
    let mut text = |name: &str| match params.get(name) {
        Some("") => {
            errors.push(FieldError::new(name, "is empty"));
            None
        }
        value => value.map(str::to_owned),
    };
    let mut filter = Filter {
        tenant: String::new(),
        actor: text("actor"),
        action: text("action").map(|action| ActionFilter::parse(&action)),
        target: text("target"),
        from: None,
        to: None,
        text: text("q"),
    };
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
fn tenant(params: &Params) -> Result<String, FieldError> {
    match params.get("tenant") {
        None => Err(FieldError::new("tenant", "is missing")),
        Some("") => Err(FieldError::new("tenant", "is empty")),
        Some(tenant) => Ok(tenant.to_owned()),
    }
}
