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
    port(address).ok_or_else(expected)?;
    Ok(reachable_text(address))
}

/// The addresses of a Kafka cluster, `HOST:PORT` with commas between. A client that is given others tries for ever.
pub fn of_bootstrap(text: &str) -> Result<String, String> {
    let addresses: Vec<&str> = text.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
    let is_wrong = |address: &&str| port(address).is_none_or(|port| port == 0);
    match addresses.iter().copied().find(is_wrong).or(addresses.is_empty().then_some(text)) {
        Some(wrong) => {
            Err(format!("expected HOST:PORT such as 127.0.0.1:9092, or several with commas, found {wrong:?}"))
        }
        None => Ok(addresses.join(",")),
    }
}

/// The port of `HOST:PORT`; `None` if it is something else.
fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.contains(':'),
        None => !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@:[]".contains(c)),
    };
    port.parse().ok().filter(|_| is_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_reached_at_hosts_and_ports() {
        for (text, addresses) in [
            ("127.0.0.1:9092", "127.0.0.1:9092"),
            ("[::1]:9092", "[::1]:9092"),
            (" kafka-1:9092, kafka-2:9092,", "kafka-1:9092,kafka-2:9092"),
            ("kafka_1.lan:1,[2001:db8::7]:65535", "kafka_1.lan:1,[2001:db8::7]:65535"),
        ] {
            assert_eq!(of_bootstrap(text).as_deref(), Ok(addresses));
        }
        for (text, wrong) in [
            ("foo:bar", "foo:bar"),
            ("127.0.0.1", "127.0.0.1"),
            ("a:1,b,c:2", "b"),
            ("a:0", "a:0"),
            ("a:65536", "a:65536"),
            (":9092", ":9092"),
            ("::1", "::1"),
            ("[]:1", "[]:1"),
            ("SSL://a:1", "SSL://a:1"),
            ("a b:1", "a b:1"),
            ("", ""),
            (" ,", " ,"),
        ] {
            let expected =
                format!("expected HOST:PORT such as 127.0.0.1:9092, or several with commas, found {wrong:?}");
            assert_eq!(of_bootstrap(text), Err(expected));
        }
    }

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
