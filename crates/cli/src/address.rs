//! Addresses as those who connect need them.
//!
//! The settings that tell a server where to listen tell the commands whom to ask, and people write addresses as their browser
//! does. Owns what is made of both. Resolves no names and connects to nobody.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// A listener on every interface is reached through loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// The same for an address as it is written; with a name in it, it stays as it is.
pub fn reachable_text(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), |address| reachable(address).to_string())
}

/// `HOST:PORT` of an HTTP API, given as such or as `http://HOST:PORT`.
pub fn of_http(text: &str) -> Result<String, String> {
    let expected = || format!("expected HOST:PORT such as 127.0.0.1:8080, found {text:?}");
    let address = match text.split_once("://") {
        None => text,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest.strip_suffix('/').unwrap_or(rest),
        Some((scheme, _)) => return Err(format!("{}, and there is no {scheme} here", expected())),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
    if host.is_empty() || host.contains(['/', '@', ' ']) || port.parse::<u16>().is_err() {
        return Err(expected());
    }
    Ok(reachable_text(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_reached_at_a_host_and_a_port() {
        for (text, address) in [
            ("tidings.lan:8080", "tidings.lan:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("HTTP://tidings:8080/", "tidings:8080"),
            ("0.0.0.0:18080", "127.0.0.1:18080"),
            ("[::]:8080", "[::1]:8080"),
            ("[2001:db8::7]:8080", "[2001:db8::7]:8080"),
        ] {
            assert_eq!(of_http(text).as_deref(), Ok(address));
        }
        for text in
            ["localhost", "http://localhost", "localhost:http", ":8080", "http://a:1/api", "a b:1", ""]
        {
            let expected = format!("expected HOST:PORT such as 127.0.0.1:8080, found {text:?}");
            assert_eq!(of_http(text), Err(expected));
        }
        let error = of_http("https://tidings.lan:8080").unwrap_err();
        assert!(error.ends_with("found \"https://tidings.lan:8080\", and there is no https here"), "{error}");
    }
}
