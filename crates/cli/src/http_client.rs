//! A small HTTP/1.1 client for the platform's own API: one connection, kept open.
//!
//! Invariants: an answer longer than [`MAX_ANSWER_BYTES`] is an error; a connection that broke is opened anew by the next
//! request, and no request is repeated here, for only the caller knows whether that is safe.

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// The longest answer read as a whole.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A request's body: whole or a stream.
pub type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client of one address.
pub struct HttpClient {
    address: String,
    sender: Option<SendRequest<RequestBody>>,
}

/// Nobody listens there.
#[derive(Debug, thiserror::Error)]
#[error("nothing answers at http://{address}")]
pub struct NothingAnswers {
    address: String,
    source: std::io::Error,
}

impl NothingAnswers {
    /// What to do about it.
    pub fn hint(&self) -> String {
        "start the platform with `tidings up`, or name its address with --http".to_owned()
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl HttpClient {
    /// A client of `host:port`; connects when first used.
    pub fn new(address: impl Into<String>) -> HttpClient {
        HttpClient { address: address.into(), sender: None }
    }

    /// Gets JSON; an answer other than 200 is an error with the server's own words.
    pub async fn get_json<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let request = Request::get(path).header(header::HOST, &self.address).body(whole(Bytes::new()))?;
        let answer = collect(self.send(request).await?).await?;
        answer.into_json()
    }

    /// Posts a body and waits for the whole answer.
    pub async fn post(&mut self, path: &str, content_type: &str, body: Bytes) -> anyhow::Result<Answer> {
        collect(self.post_stream(path, content_type, whole(body)).await?).await
    }

    /// Posts a body that may still be growing; the answer may begin before it ends.
    pub async fn post_stream(
        &mut self,
        path: &str,
        content_type: &str,
        body: RequestBody,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::post(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, content_type)
            .body(body)?;
        self.send(request).await
    }

    async fn send(&mut self, request: Request<RequestBody>) -> anyhow::Result<Response<Incoming>> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        if sender.ready().await.is_err() {
            // The server closed the idle connection at this very moment: nothing was sent yet.
            sender = self.connect().await?;
        }
        let response = sender.send_request(request).await;
        let response = response.with_context(|| format!("{}: the connection broke", self.address))?;
        self.sender = Some(sender);
        Ok(response)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<RequestBody>> {
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|source| NothingAnswers { address: self.address.clone(), source })?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an http connection broke");
            }
        });
        Ok(sender)
    }
}

impl Answer {
    /// Reads a 200 as JSON, anything else as a problem.
    pub fn into_json<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        if self.status != StatusCode::OK {
            bail!(self.problem());
        }
        serde_json::from_slice(&self.body).context("read the answer")
    }

    /// The refusal in the server's own words, on one line.
    pub fn problem(&self) -> anyhow::Error {
        #[derive(serde::Deserialize)]
        struct Problem {
            title: String,
            #[serde(default)]
            detail: String,
        }
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(Problem { title, detail }) if detail.is_empty() => anyhow!("refused: {title}"),
            Ok(Problem { detail, .. }) => anyhow!("refused: {detail}"),
            Err(_) => anyhow!("refused: HTTP {}", self.status),
        }
    }
}

/// A body known from the start.
pub fn whole(body: Bytes) -> RequestBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

async fn collect(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|error| anyhow!("the answer broke off: {error}"))?;
    Ok(Answer { status, body: body.to_bytes() })
}

/// A path with a query string; empty and absent values are left out.
pub fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut url = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        url.push(separator);
        url.push_str(name);
        url.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(byte as char),
                _ => url.push_str(&format!("%{byte:02X}")),
            }
        }
        separator = '&';
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let url = with_query("/a", &[("x", Some("a b&c=ü")), ("y", None), ("z", Some("1"))]);
        assert_eq!(url, "/a?x=a%20b%26c%3D%C3%BC&z=1");
        assert_eq!(with_query("/a", &[]), "/a");
    }
}
