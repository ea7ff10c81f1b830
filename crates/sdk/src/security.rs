//! How a client proves who it is, and how it knows whom it talks to: TLS and SASL.
//!
//! **Invariant:** passwords and private keys leave this module only towards librdkafka: what is shown of a [`Security`]
//! does not have them.
//!
//! Not served: Kerberos and OAuth. Brokers that want these are reached by [`Cluster::set`](crate::Cluster::set) as far as
//! librdkafka was built for it.

mod diagnosis;
mod faults;

use std::fmt;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use openssl::x509::X509;

pub(crate) use faults::ConnectionFaults;

/// What protects the connections to a cluster. Nothing does, by default.
///
/// ```
/// use tidings::{Cluster, Mechanism, Security};
///
/// let security = Security::tls().ca_file("/etc/kafka/ca.pem").sasl(Mechanism::ScramSha512, "orders", "s3cret");
/// let cluster = Cluster::new("kafka-1:9093").security(security);
/// assert!(!format!("{cluster:?}").contains("s3cret"));
///
/// // A login without TLS, for a network that is nobody else's.
/// let inside = Security::plaintext().sasl(Mechanism::ScramSha256, "orders", "s3cret");
/// // A certificate of the client's own instead of a login; brokers reached by a name that their certificates do not have.
/// let certified = Security::tls()
///     .client_certificate_files("client.pem", "client.key")
///     .key_password("of the key")
///     .ignore_host_name();
/// // The same from memory.
/// let pem = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
/// let from_memory =
///     Security::plaintext().ca_pem(pem("ca.pem")).client_certificate_pem(pem("client.pem"), pem("client.key"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Security {
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

/// How the password is shown to the cluster.
///
/// ```
/// use tidings::Mechanism;
///
/// assert_eq!(Mechanism::of_name("scram-sha-512"), Some(Mechanism::ScramSha512));
/// assert_eq!(Mechanism::ScramSha512.name(), "SCRAM-SHA-512");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is: only with TLS is it safe from those who listen.
    Plain,
    /// Proved without being shown (SCRAM, RFC 5802), with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Tls {
    /// Whom to trust; `None` for those whom the system trusts.
    authorities: Option<Pem>,
    identity: Option<Identity>,
    ignores_host_name: bool,
}

/// Certificates or a key in PEM.
#[derive(Clone, PartialEq, Eq)]
enum Pem {
    File(PathBuf),
    Text(String),
}

/// A client's own certificate.
#[derive(Clone, PartialEq, Eq)]
struct Identity {
    certificate: Pem,
    key: Pem,
    key_password: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Sasl {
    mechanism: Mechanism,
    user: String,
    password: String,
}

impl Mechanism {
    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of that name, in any case.
    pub fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Plain, Self::ScramSha256, Self::ScramSha512];
        all.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl Security {
    /// No TLS: everybody on the way can read and change what is sent.
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// TLS. The brokers' certificates must come from whom the system trusts, and name the host that is connected to.
    pub fn tls() -> Self {
        Self { tls: Some(Tls::default()), sasl: None }
    }

    /// Trusts the certificate authorities in this PEM file, instead of the system's. Implies TLS.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with_tls(|tls| tls.authorities = Some(Pem::File(path.into())))
    }

    /// Trusts these certificate authorities in PEM, instead of the system's. Implies TLS.
    pub fn ca_pem(self, pem: impl Into<String>) -> Self {
        self.with_tls(|tls| tls.authorities = Some(Pem::Text(pem.into())))
    }

    /// Shows brokers that ask for it the certificate (with those between it and its authority) and proves by the key that
    /// it is its own. Both are PEM files. Implies TLS.
    pub fn client_certificate_files(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.with_identity(Pem::File(certificate.into()), Pem::File(key.into()))
    }

    /// The same with the PEM itself.
    pub fn client_certificate_pem(self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.with_identity(Pem::Text(certificate.into()), Pem::Text(key.into()))
    }

    /// What the key of the client's certificate is encrypted with. Without such a certificate it means nothing.
    pub fn key_password(self, password: impl Into<String>) -> Self {
        self.with_tls(|tls| {
            if let Some(identity) = &mut tls.identity {
                identity.key_password = Some(password.into());
            }
        })
    }

    /// Takes any host's certificate, as long as it comes from a trusted authority: for brokers that are reached by another
    /// name than their certificates have. Whoever holds any certificate of that authority can then pose as the cluster.
    pub fn ignore_host_name(self) -> Self {
        self.with_tls(|tls| tls.ignores_host_name = true)
    }

    /// Logs in by name and password, over TLS or not.
    pub fn sasl(
        mut self,
        mechanism: Mechanism,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.sasl = Some(Sasl { mechanism, user: user.into(), password: password.into() });
        self
    }

    fn with_tls(mut self, change: impl FnOnce(&mut Tls)) -> Self {
        change(self.tls.get_or_insert_default());
        self
    }

    fn with_identity(self, certificate: Pem, key: Pem) -> Self {
        self.with_tls(|tls| tls.identity = Some(Identity { certificate, key, key_password: None }))
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }

    /// The same in librdkafka's settings.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("security.protocol", self.protocol().to_owned())];
        if let Some(tls) = &self.tls {
            settings.push(match &tls.authorities {
                None => ("ssl.ca.location", "probe".to_owned()),
                Some(pem) => pem.setting("ssl.ca.location", "ssl.ca.pem"),
            });
            if let Some(identity) = &tls.identity {
                let certificate = &identity.certificate;
                settings.push(certificate.setting("ssl.certificate.location", "ssl.certificate.pem"));
                settings.push(identity.key.setting("ssl.key.location", "ssl.key.pem"));
                settings.extend(identity.key_password.clone().map(|password| ("ssl.key.password", password)));
            }
            let identification = if tls.ignores_host_name { "none" } else { "https" };
            settings.push(("ssl.endpoint.identification.algorithm", identification.to_owned()));
        }
        if let Some(sasl) = &self.sasl {
            settings.push(("sasl.mechanism", sasl.mechanism.name().to_owned()));
            settings.push(("sasl.username", sasl.user.clone()));
            settings.push(("sasl.password", sasl.password.clone()));
        }
        settings
    }

    /// What connects with the same certificates; [`diagnosis`] asks by it why librdkafka could not.
    fn connector(&self) -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        let Some(tls) = &self.tls else { return Ok(builder.build()) };
        match &tls.authorities {
            Some(Pem::File(path)) => builder.set_ca_file(path)?,
            Some(Pem::Text(pem)) => {
                for authority in X509::stack_from_pem(pem.as_bytes())? {
                    builder.cert_store_mut().add_cert(authority)?;
                }
            }
            None => trust_the_system(|file, folder| builder.load_verify_locations(file, folder))?,
        }
        if let Some(Identity {
            certificate: Pem::File(certificate),
            key: Pem::File(key),
            key_password: None,
        }) = &tls.identity
        {
            builder.set_certificate_chain_file(certificate)?;
            builder.set_private_key_file(key, SslFiletype::PEM)?;
        }
        Ok(builder.build())
    }
}

/// Loads the authorities that the system trusts: OpenSSL, built with the program, does not know where they are.
pub(crate) fn trust_the_system<E>(
    mut load: impl FnMut(Option<&Path>, Option<&Path>) -> Result<(), E>,
) -> Result<(), E> {
    let found = openssl_probe::probe();
    match (found.cert_file.as_deref(), found.cert_dir.first().map(PathBuf::as_path)) {
        (None, None) => Ok(()),
        (file, folder) => load(file, folder),
    }
}

impl Pem {
    fn setting(&self, file: &'static str, text: &'static str) -> (&'static str, String) {
        match self {
            Self::File(path) => (file, path.to_string_lossy().into_owned()),
            Self::Text(pem) => (text, pem.clone()),
        }
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Security");
        shown.field("protocol", &self.protocol());
        if let Some(Sasl { mechanism, user, password: _ }) = &self.sasl {
            shown.field("mechanism", mechanism).field("user", user);
        }
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_librdkafka() {
        let check = |security: Security, expected: &[(&str, &str)]| {
            let settings = security.settings();
            let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
            assert_eq!(settings, expected);
        };
        check(Security::plaintext(), &[("security.protocol", "plaintext")]);
        check(
            Security::tls(),
            &[
                ("security.protocol", "ssl"),
                ("ssl.ca.location", "probe"),
                ("ssl.endpoint.identification.algorithm", "https"),
            ],
        );
        let files = Security::plaintext().client_certificate_files("c.pem", "k.pem").key_password("k");
        check(
            files.ca_pem("pem").ignore_host_name().sasl(Mechanism::ScramSha256, "ann", "s3cret"),
            &[
                ("security.protocol", "sasl_ssl"),
                ("ssl.ca.pem", "pem"),
                ("ssl.certificate.location", "c.pem"),
                ("ssl.key.location", "k.pem"),
                ("ssl.key.password", "k"),
                ("ssl.endpoint.identification.algorithm", "none"),
                ("sasl.mechanism", "SCRAM-SHA-256"),
                ("sasl.username", "ann"),
                ("sasl.password", "s3cret"),
            ],
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let security = Security::tls()
            .client_certificate_pem("certificate", "secret key")
            .key_password("secret word")
            .sasl(Mechanism::Plain, "ann", "secret password");
        let shown = format!("{security:?}");
        assert!(shown.contains("ann") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn mechanisms_have_kafkas_names() {
        for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
            assert_eq!(Mechanism::of_name(&mechanism.name().to_lowercase()), Some(mechanism));
        }
        assert_eq!(Mechanism::of_name("GSSAPI"), None);
    }
}
