//! What the path of a request names, decoded: what is no UTF-8 is a problem like any other, not axum's line of text.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::problem::Problem;

/// [`axum::extract::Path`] whose refusals are problems: 400 for what cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathParams<T>(pub T);

impl<S, T> FromRequestParts<S> for PathParams<T>
where
    S: Send + Sync,
    Path<T>: FromRequestParts<S, Rejection = PathRejection>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(refused) if refused.status().is_client_error() => {
                Err(Problem::bad_request(refused.body_text()))
            }
            Err(refused) => {
                tracing::error!(error = %refused, "a handler reads what its route does not have");
                Err(Problem::internal("the path cannot be read"))
            }
        }
    }
}
