//! A connection string of libpq, taken apart: what concerns certificates, and the rest.

/// What a string says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) ssl: SslParameters,
    /// The string without them.
    pub(super) rest: String,
}

/// The parameters that `tokio-postgres` does not know, or not all of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SslParameters {
    /// `sslmode`.
    pub(super) mode: Option<String>,
    /// `sslrootcert`.
    pub(super) root_certificate: Option<String>,
    /// `sslcert`.
    pub(super) certificate: Option<String>,
    /// `sslkey`.
    pub(super) key: Option<String>,
}

impl Parameters {
    /// `None` for what is no connection string at all. The rest may still be none.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            of_url(text)
        } else {
            of_pairs(text)
        }
    }
}

impl SslParameters {
    /// Whether the parameter is one of these.
    fn take(&mut self, key: &str, value: &str) -> bool {
        let place = match key {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root_certificate,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }
}

fn of_url(url: &str) -> Option<Parameters> {
    let mut ssl = SslParameters::default();
    let Some((place, query)) = url.split_once('?') else {
        return Some(Parameters { ssl, rest: url.to_owned() });
    };
    let mut others = Vec::new();
    for parameter in query.split('&') {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !ssl.take(key, &percent_decoded(value)?) {
            others.push(parameter);
        }
    }
    let separator = if others.is_empty() { "" } else { "?" };
    Some(Parameters { ssl, rest: format!("{place}{separator}{}", others.join("&")) })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// `key = value 'and so on'`: values with blanks stand in quotes, and a backslash takes the next character as it is.
fn of_pairs(text: &str) -> Option<Parameters> {
    let mut ssl = SslParameters::default();
    let mut others = String::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let (value, behind) = value(behind.trim_start())?;
        rest = behind.trim_start();
        if !ssl.take(key.trim(), &value) {
            let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
            others.push_str(&format!("{}='{escaped}' ", key.trim()));
        }
    }
    Some(Parameters { ssl, rest: others.trim_end().to_owned() })
}

/// The value at the beginning of a text, and what is behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let (text, is_quoted) = match text.strip_prefix('\'') {
        Some(quoted) => (quoted, true),
        None => (text, false),
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if is_quoted => return Some((value, &text[at + 1..])),
            blank if !is_quoted && blank.is_whitespace() => return Some((value, &text[at..])),
            other => value.push(other),
        }
    }
    (!is_quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_certificates_is_taken_out() {
        let check = |text: &str, ssl: [Option<&str>; 4], rest: &str| {
            let [mode, root_certificate, certificate, key] = ssl.map(|value| value.map(str::to_owned));
            let ssl = SslParameters { mode, root_certificate, certificate, key };
            assert_eq!(Parameters::read(text), Some(Parameters { ssl, rest: rest.to_owned() }), "{text}");
        };
        check("postgres://a@b/c", [None; 4], "postgres://a@b/c");
        check(
            "postgres://a@b/c?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fetc%2Fca.pem",
            [Some("verify-full"), Some("/etc/ca.pem"), None, None],
            "postgres://a@b/c?connect_timeout=3",
        );
        check(
            "postgresql://a@b/c?sslmode=disable",
            [Some("disable"), None, None, None],
            "postgresql://a@b/c",
        );
        check(
            r"host = b sslcert='/my \'own\'/c.pem' sslkey=k.pem password='a b'",
            [None, None, Some("/my 'own'/c.pem"), Some("k.pem")],
            "host='b' password='a b'",
        );
    }

    #[test]
    fn what_has_no_end_is_refused() {
        for text in ["host='b", "host", "postgres://a@b/c?sslrootcert=%2"] {
            assert_eq!(Parameters::read(text), None, "{text}");
        }
    }
}
