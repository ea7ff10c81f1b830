//! Request bodies: their media type, and reading one whole within a limit.
//!
//! Invariant: [`read_body`] never holds more than the limit plus one frame, whatever `Content-Length` claims, nor for longer
//! than its sender is given. Bodies that are read piece by piece are the caller's own business.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::problem::Problem;

/// How long a body that is read whole may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of a body over its limit that are read and thrown away.
const MAX_DRAINED_BYTES: usize = 128 * 1024 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long it waits for more.
const DRAIN_IDLE: Duration = Duration::from_millis(300);

/// The media types that our services take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`: one JSON value per line.
    Ndjson,
}

impl MediaType {
    /// The media type of a request, or 415: also for compressed bodies and charsets other than UTF-8.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::one_of(&[Self::Json, Self::Ndjson], headers)
    }

    /// The same where not every media type is taken: the refusal names those that are.
    pub fn one_of(taken: &[Self], headers: &HeaderMap) -> Result<Self, Problem> {
        let names = || taken.iter().map(|media_type| media_type.name()).collect::<Vec<_>>().join(" or ");
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            return Err(Problem::unsupported_media_type(format!(
                "content encoding {encoding:?} is not taken"
            )));
        }
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Err(Problem::unsupported_media_type(format!("no content type: send {}", names())));
        };
        let value = value.to_str().unwrap_or("?");
        let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
        let essence = essence.trim().to_ascii_lowercase();
        let media_type = match essence.as_str() {
            "application/json" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
            _ => None,
        };
        let Some(media_type) = media_type.filter(|media_type| taken.contains(media_type)) else {
            return Err(Problem::unsupported_media_type(format!(
                "content type {essence:?} is not taken: send {}",
                names()
            )));
        };
        for parameter in parameters.split(';') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let is_utf8 = value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8");
            if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
                return Err(Problem::unsupported_media_type(format!(
                    "charset {value:?} is not taken: send UTF-8"
                )));
            }
        }
        Ok(media_type)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// Where there is room for bodies.
pub trait BodyRoom {
    /// Takes room for a body of which so many bytes have arrived, or gives up all that it holds and says why.
    fn hold(&mut self, bytes: usize) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// There is always room.
impl BodyRoom for () {
    async fn hold(&mut self, _: usize) -> Result<(), Problem> {
        Ok(())
    }
}

/// The whole body, or 413 as soon as it is known to be longer than `limit_bytes`, 400 if it breaks off, or 408 if it takes
/// longer than [`BODY_TIMEOUT`].
pub async fn read_body(headers: &HeaderMap, body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    read_body_into(&mut (), headers, body, limit_bytes).await
}

/// [`read_body`] for as long as there is room for what has arrived.
pub async fn read_body_into(
    room: &mut impl BodyRoom,
    headers: &HeaderMap,
    body: Body,
    limit_bytes: usize,
) -> Result<Bytes, Problem> {
    read_within(BODY_TIMEOUT, room, headers, body, limit_bytes).await
}

async fn read_within(
    limit: Duration,
    room: &mut impl BodyRoom,
    headers: &HeaderMap,
    body: Body,
    limit_bytes: usize,
) -> Result<Bytes, Problem> {
    timeout(limit, read_whole(room, headers, body, limit_bytes)).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} s", limit.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Request timeout", detail))
    })
}

async fn read_whole(
    room: &mut impl BodyRoom,
    headers: &HeaderMap,
    body: Body,
    limit_bytes: usize,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large("the body", limit_bytes);
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut stream = body.into_data_stream();
    if declared.is_some_and(|length| length > limit_bytes as u64) {
        // A client that asks first is answered before it has sent anything.
        if !headers.contains_key(header::EXPECT) {
            drain(&mut stream).await;
        }
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if first.len() + whole.len() + piece.len() > limit_bytes {
            drop((first, whole));
            drain(&mut stream).await;
            return Err(too_large());
        }
        if let Err(no_room) = room.hold(first.len() + whole.len() + piece.len()).await {
            drop((first, whole, piece));
            drain(&mut stream).await;
            return Err(no_room);
        }
        if first.is_empty() && whole.is_empty() {
            // Most bodies come in one piece, which needs no copy.
            first = piece;
        } else {
            if whole.is_empty() {
                whole.reserve(declared.map_or(first.len() * 2, |length| length as usize));
                whole.extend_from_slice(&first);
                first = Bytes::new();
            }
            whole.extend_from_slice(&piece);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Reads on and throws away, for a while: most clients look for an answer only when they have sent everything, and a
/// connection that is closed under them shows them a broken pipe instead of the 413.
async fn drain(stream: &mut BodyDataStream) {
    let mut left_bytes = MAX_DRAINED_BYTES;
    let drained = async {
        while let Ok(Some(Ok(piece))) = timeout(DRAIN_IDLE, stream.next()).await {
            left_bytes = left_bytes.saturating_sub(piece.len());
            if left_bytes == 0 {
                break;
            }
        }
    };
    // How it ends makes no difference to the answer.
    let _ = timeout(DRAIN_TIME, drained).await;
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};

    use super::*;

    fn media_type(content_type: &'static str) -> Result<MediaType, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        MediaType::of(&headers).map_err(|problem| problem.status)
    }

    #[test]
    fn knows_the_media_types() {
        assert_eq!(media_type("application/json"), Ok(MediaType::Json));
        assert_eq!(media_type("Application/JSON; charset=\"UTF-8\""), Ok(MediaType::Json));
        assert_eq!(media_type("application/x-ndjson"), Ok(MediaType::Ndjson));
        for bad in ["text/plain", "application/json; charset=latin1", "", "application/jsonx", "*/*"] {
            assert_eq!(media_type(bad), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{bad}");
        }
        assert_eq!(MediaType::of(&HeaderMap::new()).unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(MediaType::of(&headers).unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn a_refusal_names_what_its_place_takes() {
        let mut headers = HeaderMap::new();
        let refused =
            |headers: &HeaderMap| MediaType::one_of(&[MediaType::Json], headers).unwrap_err().detail;
        assert_eq!(refused(&headers), "no content type: send application/json");
        let detail = MediaType::of(&headers).unwrap_err().detail;
        assert_eq!(detail, "no content type: send application/json or application/x-ndjson");
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let expected = "content type \"application/x-ndjson\" is not taken: send application/json";
        assert_eq!(refused(&headers), expected);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(MediaType::one_of(&[MediaType::Json], &headers), Ok(MediaType::Json));
    }

    #[tokio::test]
    async fn reads_bodies_up_to_the_limit() {
        let pieces = |sizes: Vec<usize>| {
            let pieces = sizes.into_iter().map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; size])));
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let none = HeaderMap::new();
        for sizes in [vec![], vec![10], vec![3, 3, 4], vec![0, 9, 0, 1]] {
            let total: usize = sizes.iter().sum();
            assert_eq!(read_body(&none, pieces(sizes), 10).await.unwrap().len(), total);
        }
        for sizes in [vec![11], vec![10, 1], vec![1, 10]] {
            let problem = read_body(&none, pieces(sizes), 10).await.unwrap_err();
            assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("99"));
        let problem = read_body(&headers, pieces(vec![]), 10).await.unwrap_err();
        assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let problem =
            read_within(Duration::from_millis(5), &mut (), &HeaderMap::new(), body, 10).await.unwrap_err();
        assert_eq!(problem.status, StatusCode::REQUEST_TIMEOUT);
    }
}
