//! Why a broker takes no connection of ours, asked of the broker itself.
//!
//! librdkafka's words say that a handshake failed, and guess at the rest. Here one connection is made by hand, with the same
//! certificates, to tell an untrusted authority from another host's certificate, and a listener with TLS from one without.
//! Never logs in, and sends no secret.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use openssl::ssl::{ErrorCode, HandshakeError, SslStream, SslVerifyMode};
use openssl::x509::X509VerifyResult;

use super::Security;
use crate::error::TlsProblem;

/// How long one step may take: it runs while others wait for the client's events.
const STEP_TIMEOUT: Duration = Duration::from_secs(1);
/// No answer to these questions is as long.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

const API_VERSIONS: i16 = 18;
const SASL_HANDSHAKE: i16 = 17;
/// What a listener without SASL answers to a SASL handshake.
const ILLEGAL_SASL_STATE: i16 = 34;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    Tls(TlsProblem),
    /// The listener wants a login, and the client has none.
    WantsLogin,
}

/// Connects to `host:port`, and says what a client with this security does wrong there; `None` if that does not show.
pub(super) fn diagnose(address: &str, security: &Security) -> Option<Finding> {
    let plain = connect(address)?;
    if security.tls.is_none() {
        return match ask_versions(plain) {
            Some(stream) => wants_login(stream, security),
            None => speaks_tls(address).then_some(Finding::Tls(TlsProblem::ServerSpeaksTls)),
        };
    }
    match handshake(plain, address, security)? {
        Ok(stream) => match verdict(&stream, address) {
            Some(problem) => Some(Finding::Tls(problem)),
            None => match ask_versions(stream) {
                Some(stream) => wants_login(stream, security),
                None => refused_certificate(address, security).map(Finding::Tls),
            },
        },
        Err(_) if connect(address).and_then(ask_versions).is_some() => {
            Some(Finding::Tls(TlsProblem::ServerSpeaksPlaintext))
        }
        Err(reason) => Some(Finding::Tls(of_alert(reason?))),
    }
}

fn connect(address: &str) -> Option<TcpStream> {
    let resolved = address.to_socket_addrs().ok()?;
    let stream =
        resolved.take(2).find_map(|address| TcpStream::connect_timeout(&address, STEP_TIMEOUT).ok())?;
    stream.set_read_timeout(Some(STEP_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(STEP_TIMEOUT)).ok()?;
    Some(stream)
}

/// `Err` has the server's or our own reason, or none if it only hung up. `None` if our certificates cannot be read.
fn handshake(
    stream: TcpStream,
    address: &str,
    security: &Security,
) -> Option<Result<SslStream<TcpStream>, Option<String>>> {
    let mut configuration = security.connector().ok()?.configure().ok()?;
    // The verdict is read afterwards: a failed handshake does not tell it.
    configuration.set_verify(SslVerifyMode::NONE);
    let ignores_host_name = security.tls.as_ref().is_some_and(|tls| tls.ignores_host_name);
    configuration.set_verify_hostname(!ignores_host_name);
    Some(match configuration.connect(host(address), stream) {
        Ok(stream) => Ok(stream),
        Err(HandshakeError::Failure(failed)) => {
            Err(failed.error().ssl_error().map(|error| error.to_string()))
        }
        Err(_) => Err(None),
    })
}

fn verdict(stream: &SslStream<TcpStream>, address: &str) -> Option<TlsProblem> {
    match stream.ssl().verify_result() {
        X509VerifyResult::OK => None,
        result if is_other_host(result) => Some(TlsProblem::OtherHost { host: host(address).to_owned() }),
        result => Some(TlsProblem::Untrusted { reason: result.error_string().to_owned() }),
    }
}

/// Whether it is the host that differs: X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
fn is_other_host(result: X509VerifyResult) -> bool {
    matches!(result.as_raw(), 62 | 64)
}

/// What a server says about our certificate comes, in TLS 1.3, with the first answer.
fn refused_certificate(address: &str, security: &Security) -> Option<TlsProblem> {
    let mut stream = handshake(connect(address)?, address, security)?.ok()?;
    let error = stream.ssl_read(&mut [0]).err()?;
    match error.code() {
        ErrorCode::SSL => error.ssl_error().map(|error| of_alert(error.to_string())),
        _ => None,
    }
}

fn of_alert(reason: String) -> TlsProblem {
    let is_about_us = ["certificate required", "bad certificate", "unknown ca", "certificate unknown"];
    if is_about_us.iter().any(|words| reason.contains(words)) {
        TlsProblem::ClientCertificate { reason }
    } else {
        TlsProblem::Handshake { reason }
    }
}

fn speaks_tls(address: &str) -> bool {
    let Some(stream) = connect(address) else { return false };
    match handshake(stream, address, &Security::tls()) {
        Some(Ok(_)) => true,
        // Only who speaks TLS refuses by an alert.
        Some(Err(reason)) => reason.is_some_and(|reason| reason.contains("alert")),
        None => false,
    }
}

/// The stream, if somebody who speaks Kafka's protocol answered on it.
fn ask_versions<S: Read + Write>(mut stream: S) -> Option<S> {
    exchange(&mut stream, API_VERSIONS, 0, &[])?;
    Some(stream)
}

fn wants_login<S: Read + Write>(mut stream: S, security: &Security) -> Option<Finding> {
    if security.sasl.is_some() {
        return None;
    }
    let answer = exchange(&mut stream, SASL_HANDSHAKE, 1, b"\x00\x05PLAIN")?;
    let code = i16::from_be_bytes(answer.get(..2)?.try_into().ok()?);
    (code != ILLEGAL_SASL_STATE).then_some(Finding::WantsLogin)
}

/// Asks one question; answers the body of the answer.
fn exchange<S: Read + Write>(stream: &mut S, api_key: i16, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    const CORRELATION_ID: i32 = 1;
    let mut request = Vec::new();
    request.extend(api_key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION_ID.to_be_bytes());
    request.extend(b"\x00\x07tidings");
    request.extend(body);
    let length = i32::try_from(request.len()).ok()?;
    stream.write_all(&length.to_be_bytes()).ok()?;
    stream.write_all(&request).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length = usize::try_from(i32::from_be_bytes(length)).ok()?;
    if !(4..=ANSWER_MAX_BYTES).contains(&length) {
        return None;
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    let body = answer.split_off(4);
    (answer == CORRELATION_ID.to_be_bytes()).then_some(body)
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
