//! The Host and Origin guard: what keeps a web page of someone else from talking to a service on this machine.
//!
//! A page on `evil.example` can have its own name resolve to 127.0.0.1 (DNS rebinding): the browser then believes that
//! our answers are the page's own. Such a request carries the foreign name in `Host`; a plain cross-site request
//! carries it in `Origin`. Invariant: a request whose host, or whose origin, is neither a loopback name nor configured
//! never reaches a handler. It is no authentication: programs can send any header they like.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// The names under which this server may be addressed.
#[derive(Debug, Clone, Default)]
pub struct HostGuard {
    names: BTreeSet<String>,
}

impl HostGuard {
    /// A guard that lets loopback names and addresses pass, and `names`: host names or addresses, without a port.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let names = names.into_iter().map(|name| comparable(bare(name.as_ref()))).collect();
        Self { names }
    }

    /// Whether the request may pass, else the problem to answer with.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(host), None) => {
                Some(host.to_str().map_err(|_| Problem::bad_request("unreadable Host header"))?)
            }
            (Some(_), Some(_)) => return Err(Problem::bad_request("more than one Host header")),
        };
        // A request line with an absolute address names the host too, and then it is the one that counts (RFC 9112, 3.2.2).
        let named = [uri.authority().map(|authority| authority.as_str()), host];
        if named.iter().all(Option::is_none) {
            return Err(Problem::bad_request("no Host header"));
        }
        for authority in named.into_iter().flatten() {
            if !self.allows(authority) {
                return Err(Problem::forbidden(format!(
                    "this server is not addressed as {authority:?}: name it with --host-name, or host_names in tidings.toml"
                )));
            }
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().map_err(|_| Problem::bad_request("unreadable Origin header"))?;
            if !self.allows_origin(origin) {
                return Err(Problem::forbidden(format!("requests from origin {origin:?} are refused")));
            }
        }
        Ok(())
    }

    fn allows_origin(&self, origin: &str) -> bool {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| self.allows(authority))
    }

    /// `authority` is `host` or `host:port`.
    fn allows(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else { return false };
        let host = comparable(host);
        match host.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => true,
            _ => host == "localhost" || host.ends_with(".localhost") || self.names.contains(&host),
        }
    }
}

/// The host without port and brackets, or `None` if `authority` is not `host` or `host:port`.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let host = rootless(host);
    (port_ok && !host.is_empty()).then_some(host)
}

fn bare(name: &str) -> &str {
    rootless(name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name))
}

/// A name may end in the root's dot, which names the same host.
fn rootless(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// What different spellings of the same host have in common.
fn comparable(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |address| address.to_string())
}

/// `router` behind `guard`: foreign requests are answered before any route, the fallback included.
pub fn protect(router: Router, guard: HostGuard) -> Router {
    router.layer(from_fn_with_state(Arc::new(guard), check_request))
}

async fn check_request(State(guard): State<Arc<HostGuard>>, request: Request, next: Next) -> Response {
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};

    use super::*;

    fn status(host: Option<&'static str>, origin: Option<&'static str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, HeaderValue::from_static(host));
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        let guard = HostGuard::new([
            "Tidings.example",
            "[2001:db8::7]",
            "10.0.0.5",
            "rooted.example.",
            "2001:DB8:0::9",
        ]);
        guard.check(&Uri::from_static("/x"), &headers).map_or_else(|p| p.status.as_u16(), |()| 200)
    }

    #[test]
    fn lets_loopback_and_configured_hosts_pass() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost:80",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::1]",
            "tidings.example",
            "tidings.example.:8080",
            "[2001:db8::7]:1",
            "10.0.0.5:8080",
            "rooted.example:8080",
            "[2001:db8::9]:8080",
        ] {
            assert_eq!(status(Some(host), None), 200, "{host}");
        }
    }

    #[test]
    fn refuses_foreign_hosts() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.1",
            "[2001:db8::8]",
            "",
            "localhost:",
            "localhost:+80",
            "localhost:99999",
            "localhost:80@evil.example",
            "[::1]evil",
            "[localhost]",
        ] {
            assert_eq!(status(Some(host), None), 403, "{host}");
        }
        assert_eq!(status(None, None), 400);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("172.17.0.3:8080"));
        let problem = HostGuard::default().check(&Uri::from_static("/metrics"), &headers).unwrap_err();
        assert!(problem.detail.contains("name it with --host-name"), "{}", problem.detail);
    }

    #[test]
    fn refuses_foreign_origins() {
        for origin in
            ["https://evil.example", "null", "file://", "http://127.0.0.1.evil.example", "ftp://localhost"]
        {
            assert_eq!(status(Some("localhost"), Some(origin)), 403, "{origin}");
        }
        for origin in
            ["http://localhost:3000", "http://127.0.0.1:8080", "https://tidings.example", "http://[::1]:1"]
        {
            assert_eq!(status(Some("localhost"), Some(origin)), 200, "{origin}");
        }
    }

    #[test]
    fn counts_the_host_of_an_absolute_address() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let problem =
            HostGuard::default().check(&Uri::from_static("http://evil.example/x"), &headers).unwrap_err();
        assert_eq!(problem.status, StatusCode::FORBIDDEN);
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        let problem = HostGuard::default().check(&Uri::from_static("/x"), &headers).unwrap_err();
        assert_eq!(problem.status, StatusCode::BAD_REQUEST);
    }
}
