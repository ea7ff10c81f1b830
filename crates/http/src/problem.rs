//! Problem details: every refusal over HTTP has this one shape (RFC 9457, `application/problem+json`).
//!
//! Owns the wire form of errors. Invariant: an answer never carries more than [`MAX_ERRORS`] field errors, whatever the
//! request held. It decides no status itself: the caller does.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The largest number of field errors in one answer: a request with a million bad fields gets a short reply.
pub const MAX_ERRORS: usize = 100;

/// One thing that is wrong with one place of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field as a path, such as `targets[2].name`; a query parameter by its name; empty for the value as a whole.
    pub field: String,
    /// The element of the array sent, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The line of the text sent, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What was expected and what was found.
    pub detail: String,
}

impl FieldError {
    /// An error at `field`, with neither index nor line.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), index: None, line: None, detail: detail.into() }
    }

    /// The same error, in element `index` of an array.
    #[must_use]
    pub fn at_index(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// The same error, on line `line`.
    #[must_use]
    pub fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "[{index}] ")?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.detail)
    }
}

/// What is wrong with a request, as much as an answer tells: a request with a million bad fields takes no more memory than one
/// with [`MAX_ERRORS`] of them, and whoever looks for more may stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    has_more: bool,
}

impl FieldErrors {
    /// Adds one, or only that there is one more.
    pub fn push(&mut self, error: FieldError) {
        if self.listed.len() < MAX_ERRORS {
            self.listed.push(error);
        } else {
            self.has_more = true;
        }
    }

    /// Adds those of a part, each of them as `place` makes it.
    pub fn append(&mut self, part: Self, place: impl FnMut(FieldError) -> FieldError) {
        part.listed.into_iter().map(place).for_each(|error| self.push(error));
        self.has_more |= part.has_more;
    }

    /// The first of them, at most [`MAX_ERRORS`].
    pub fn listed(&self) -> &[FieldError] {
        &self.listed
    }

    /// Whether there are more than are listed: to look for another one is of no use.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

impl From<Vec<FieldError>> for FieldErrors {
    fn from(mut listed: Vec<FieldError>) -> Self {
        let has_more = listed.len() > MAX_ERRORS;
        listed.truncate(MAX_ERRORS);
        Self { listed, has_more }
    }
}

/// A refused request, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// `urn:tidings:problem:…`, which names the kind of problem for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem for people; the same for every problem of one type.
    pub title: &'static str,
    /// The HTTP status.
    #[serde(serialize_with = "status_number")]
    pub status: StatusCode,
    /// What is wrong with this request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What is wrong where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// After how many seconds to try again: sent as the header `Retry-After`, not in the body.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
}

fn status_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem of the type `urn:tidings:problem:{kind}`.
    pub fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:tidings:problem:{kind}"),
            title,
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }

    /// 400: query parameters are wrong; `errors` says which.
    pub fn bad_parameters(errors: Vec<FieldError>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-parameters", "Bad query parameters", "").with_errors(errors)
    }

    /// 403: the request comes from where none may come from.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 413: the body, or one part of it, is longer than `limit_bytes`.
    pub fn too_large(what: &str, limit_bytes: usize) -> Self {
        let detail = format!("{what} is longer than the {limit_bytes} bytes allowed");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// 415: the body is of another media type than `expected`.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Unsupported media type",
            detail,
        )
    }

    /// 422: the body is well formed, but its content is not acceptable; `errors` says where.
    pub fn unprocessable(errors: impl Into<FieldErrors>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-content", "Invalid content", "")
            .with_errors(errors)
    }

    /// 500: our fault. `detail` goes to the client, so it names nothing internal.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    /// 503 with `Retry-After`: the same request may succeed later.
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail);
        problem.retry_after_s = Some(retry_after_s);
        problem
    }

    /// The same problem with `errors`; an empty detail becomes a summary of them.
    #[must_use]
    pub fn with_errors(mut self, errors: impl Into<FieldErrors>) -> Self {
        let FieldErrors { listed, has_more } = errors.into();
        if self.detail.is_empty()
            && let Some(first) = listed.first()
        {
            self.detail = match listed.len() {
                1 => first.to_string(),
                count if has_more => {
                    format!("more than {count} errors, the first {count} of which are listed; {first}")
                }
                count => format!("{count} errors; the first is {first}"),
            };
        }
        self.errors = listed;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Serialising strings and numbers cannot fail; an empty body would still carry the status.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_shape_of_rfc_9457() {
        let problem = Problem::unprocessable(vec![FieldError::new("actor.id", "is missing").at_index(3)]);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:tidings:problem:invalid-content",
                "title": "Invalid content",
                "status": 422,
                "detail": "[3] actor.id: is missing",
                "errors": [{"field": "actor.id", "index": 3, "detail": "is missing"}],
            })
        );
        let response = Problem::unavailable("no broker", 2).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn cuts_long_lists_of_errors() {
        let errors = |count| (0..count).map(|i| FieldError::new("id", "is empty").at_index(i));
        let problem = Problem::unprocessable(errors(1000).collect::<Vec<_>>());
        assert_eq!(problem.errors.len(), MAX_ERRORS);
        assert!(problem.detail.starts_with("more than 100 errors, the first 100"), "{}", problem.detail);
        let mut listed = FieldErrors::default();
        errors(MAX_ERRORS).for_each(|error| listed.push(error));
        assert!(!listed.has_more());
        assert!(Problem::unprocessable(listed.clone()).detail.starts_with("100 errors; the first is"));
        let mut all = FieldErrors::default();
        all.append(listed, |error| error.at_index(7));
        assert_eq!((all.has_more(), all.listed()[99].index), (false, Some(7)));
        all.push(FieldError::new("id", "is empty"));
        assert!(all.has_more());
        assert!(all.listed.capacity() <= 2 * MAX_ERRORS, "no room for what is not kept");
    }
}
