//! `[cluster]`: how to log in at the Kafka cluster of `bootstrap`.
//!
//! Invariant: a password is read here and handed to the SDK; it is never shown, nor quoted in an error.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tidings::{Mechanism, Security};

/// `[cluster]` in the configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Kafka's name of what protects connections: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    security_protocol: String,
    /// PEM file of the authorities to trust; whom the system trusts if there is none.
    ca_file: Option<PathBuf>,
    /// Whether a broker's certificate has to name its host.
    verify_host_name: bool,
    /// PEM file of the client's own certificate.
    certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    key_file: Option<PathBuf>,
    /// File with the password of the key.
    key_password_file: Option<PathBuf>,
    /// Kafka's name of how the password is shown.
    sasl_mechanism: String,
    /// The name to log in with.
    user: Option<String>,
    /// Its password.
    password: Option<Password>,
    /// File with its password.
    password_file: Option<PathBuf>,
}

/// A secret, not to be shown.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            security_protocol: "plaintext".to_owned(),
            ca_file: None,
            verify_host_name: true,
            certificate_file: None,
            key_file: None,
            key_password_file: None,
            sasl_mechanism: Mechanism::ScramSha512.name().to_owned(),
            user: None,
            password: None,
            password_file: None,
        }
    }
}

impl ClusterConfig {
    /// Whether anything is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What the SDK's clients take. Reads the files with passwords.
    pub fn security(&self) -> anyhow::Result<Security> {
        let (tls, sasl) = match self.security_protocol.to_ascii_lowercase().as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => bail!(
                "cluster.security_protocol: expected plaintext, ssl, sasl_plaintext or sasl_ssl, found {:?}",
                self.security_protocol
            ),
        };
        let mut security = if tls { self.tls()? } else { self.no_tls()? };
        if sasl {
            let user = self.user.as_deref().context("cluster.user: needed with SASL")?;
            security = security.sasl(self.mechanism()?, user, self.password()?);
        } else if self.user.is_some() || self.password.is_some() || self.password_file.is_some() {
            bail!(
                "cluster.user, password and password_file: need security_protocol sasl_ssl or sasl_plaintext"
            );
        }
        Ok(security)
    }

    fn tls(&self) -> anyhow::Result<Security> {
        let mut security = Security::tls();
        if let Some(path) = &self.ca_file {
            security = security.ca_file(readable("ca_file", path)?);
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                let certificate = readable("certificate_file", certificate)?;
                security = security.client_certificate_files(certificate, readable("key_file", key)?);
                if let Some(path) = &self.key_password_file {
                    security = security.key_password(secret("key_password_file", path)?);
                }
            }
            (None, None) => {}
            _ => bail!("cluster.certificate_file and cluster.key_file: expected both or none"),
        }
        Ok(if self.verify_host_name { security } else { security.ignore_host_name() })
    }

    fn no_tls(&self) -> anyhow::Result<Security> {
        let files = [&self.ca_file, &self.certificate_file, &self.key_file, &self.key_password_file];
        if files.into_iter().any(Option::is_some) || !self.verify_host_name {
            bail!(
                "cluster.ca_file, verify_host_name, certificate_file and key_file: need security_protocol ssl or sasl_ssl"
            );
        }
        Ok(Security::plaintext())
    }

    fn mechanism(&self) -> anyhow::Result<Mechanism> {
        Mechanism::of_name(&self.sasl_mechanism).with_context(|| {
            format!(
                "cluster.sasl_mechanism: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, found {:?}",
                self.sasl_mechanism
            )
        })
    }

    fn password(&self) -> anyhow::Result<String> {
        match (&self.password, &self.password_file) {
            (Some(Password(password)), None) => Ok(password.clone()),
            (None, Some(path)) => secret("password_file", path),
            (Some(_), Some(_)) => bail!("cluster.password and cluster.password_file: expected one of them"),
            (None, None) => bail!("cluster.password_file (or cluster.password): needed with SASL"),
        }
    }
}

/// librdkafka's words about a file that is not there are hard to read.
fn readable<'a>(key: &str, path: &'a Path) -> anyhow::Result<&'a Path> {
    std::fs::File::open(path).with_context(|| format!("cluster.{key}: open {}", path.display()))?;
    Ok(path)
}

/// The text of a file, without the line's end that editors add.
fn secret(key: &str, path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cluster.{key}: read {}", path.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of_toml(text: &str) -> ClusterConfig {
        let given: toml::Table = toml::from_str(text).unwrap();
        let mut all = toml::Table::try_from(ClusterConfig::default()).unwrap();
        all.extend(given);
        all.try_into().unwrap()
    }

    #[test]
    fn a_login_needs_all_it_needs() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", of_toml(text).security().unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        };
        check("security_protocol = 'tls'", "cluster.security_protocol: expected plaintext, ssl,");
        check("security_protocol = 'sasl_ssl'", "cluster.user: needed");
        check(
            "security_protocol = 'sasl_ssl'\nuser = 'ann'",
            "cluster.password_file (or cluster.password): needed",
        );
        check("user = 'ann'", "cluster.user, password and password_file: need security_protocol");
        check("ca_file = '/ca.pem'", "cluster.ca_file, verify_host_name,");
        check(
            "security_protocol = 'ssl'\nca_file = '/no/such.pem'",
            "cluster.ca_file: open /no/such.pem: No such",
        );
        check(
            "security_protocol = 'ssl'\nkey_file = '/k.pem'",
            "cluster.certificate_file and cluster.key_file:",
        );
        let login = "security_protocol = 'sasl_plaintext'\nuser = 'ann'\npassword = 's3cret'\n";
        check(&format!("{login}sasl_mechanism = 'GSSAPI'"), "cluster.sasl_mechanism: expected PLAIN,");
        check(&format!("{login}password_file = 'x'"), "cluster.password and cluster.password_file:");
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_not_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"s3cret\n").unwrap();
        let login = "security_protocol = 'SASL_PLAINTEXT'\nsasl_mechanism = 'plain'\nuser = 'ann'\n";
        let by_file = of_toml(&format!("{login}password_file = {:?}", file.path()));
        let by_text = of_toml(&format!("{login}password = 's3cret'"));
        let expected = Security::plaintext().sasl(Mechanism::Plain, "ann", "s3cret");
        assert_eq!((by_file.security().unwrap(), by_text.security().unwrap()), (expected.clone(), expected));
        assert!(!format!("{by_text:?}").contains("s3cret"));
    }
}
