//! Where a PostgreSQL database is, and whether the way there is encrypted: libpq's connection strings.
//!
//! `tokio-postgres` reads them but for what concerns certificates; that is taken out here first, and means what it means to
//! libpq. **Invariant:** neither what is shown of a target nor an error about a string repeats it: it may have a password.

use std::fmt;
use std::str::FromStr;

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslVerifyMode};
use postgres_openssl::{MakeTlsConnector, TlsStream};
use thiserror::Error;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Connection, Socket};

use super::parameters::{Parameters, SslParameters};
use crate::security::trust_the_system;

/// The `sslrootcert` that means whom the system trusts.
const SYSTEM: &str = "system";

/// A PostgreSQL database and how to reach it, of a URL or of `key=value` pairs, as libpq takes them.
///
/// `sslmode` is `disable`, `prefer` (the default: encrypted if the server can), `require`, `verify-ca` or `verify-full`;
/// `sslrootcert` is a file with the authorities to trust, or `system`; `sslcert` and `sslkey` are the client's own. As with
/// libpq, `require` checks the authority where `sslrootcert` is given, and `system` means `verify-full`. Other than with
/// libpq, `verify-ca` and `verify-full` look for no file in the home directory, and `allow` is not served.
///
/// ```
/// use tidings::stores::PostgresTarget;
///
/// let target: PostgresTarget = "postgres://ann:s3cret@db.lan/orders?sslmode=verify-full&sslrootcert=system".parse()?;
/// assert!(!format!("{target:?}").contains("s3cret"));
/// # Ok::<(), tidings::stores::PostgresTargetError>(())
/// ```
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tidings::stores::PostgresTarget;
///
/// let mut target: PostgresTarget = "postgres://ann@db.lan/orders?sslmode=require".parse()?;
/// target.config_mut().application_name("orders");
/// assert_eq!(target.config().get_dbname(), Some("orders"));
/// let (client, connection) = target.connect_async().await?;
/// tokio::spawn(connection);
/// client.batch_execute("SELECT 1").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresTarget {
    config: tokio_postgres::Config,
    tls: MakeTlsConnector,
}

/// Why a text is no target.
///
/// ```
/// use tidings::stores::{PostgresTarget, PostgresTargetError};
///
/// let error = "postgres://ann@db.lan/orders?sslmode=verify-ca".parse::<PostgresTarget>().unwrap_err();
/// assert_eq!(error, PostgresTargetError::NoAuthority { mode: "verify-ca".into() });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PostgresTargetError {
    /// It cannot be read.
    #[error("expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, or key=value pairs as libpq takes them")]
    Form,
    /// A URL has a second `@`: a password's own ends it too early, and the rest of it would be shown as the host.
    #[error("expected one @, before the host: write one in a password as %40")]
    SecondAt,
    /// `sslmode` is none that is served.
    #[error("sslmode: expected disable, prefer, require, verify-ca or verify-full")]
    Mode,
    /// Certificates are to be checked, and nothing says by whom they must be signed.
    #[error(
        "sslmode {mode} needs sslrootcert: the file with the authority's certificate, or {SYSTEM} for those the system trusts"
    )]
    NoAuthority {
        /// The `sslmode`.
        mode: String,
    },
    /// Anybody can get a certificate of an authority that everybody trusts.
    #[error("sslrootcert={SYSTEM} needs sslmode verify-full: a weaker one would take any host's certificate")]
    WeakMode,
    /// One is of no use without the other.
    #[error("sslcert and sslkey: expected both or none")]
    HalfAnIdentity,
    /// A file cannot be used.
    #[error("{key}: {reason}")]
    File {
        /// `sslrootcert`, `sslcert` or `sslkey`.
        key: &'static str,
        /// OpenSSL's words.
        reason: String,
    },
}

/// Why there is no encrypted connection to a PostgreSQL server.
///
/// ```no_run
/// use tidings::stores::{PostgresTarget, PostgresTlsFault};
///
/// let target: PostgresTarget = "postgres://ann@db.lan/orders?sslmode=require".parse()?;
/// if let Err(error) = target.connect() {
///     match PostgresTlsFault::of(&error) {
///         Some(fault) => eprintln!("{fault}; {}", fault.hint()),
///         None => eprintln!("{error}"),
///     }
/// }
/// # Ok::<(), tidings::stores::PostgresTargetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PostgresTlsFault {
    /// The server has TLS switched off, and the target wants it.
    #[error("the server speaks no TLS")]
    NoTls,
    /// The certificate is another host's.
    #[error("the server's certificate is for another host")]
    OtherHost,
    /// Nobody who is trusted has signed the certificate, or it is not valid now.
    #[error("the server's certificate is not trusted")]
    Untrusted,
    /// The server takes encrypted connections only, or none by this user.
    #[error("the server wants TLS")]
    WantsTls,
}

impl PostgresTlsFault {
    /// The fault that an error of the client is, if it is one.
    pub fn of(error: &tokio_postgres::Error) -> Option<Self> {
        use std::error::Error as _;
        if let Some(refusal) = error.as_db_error() {
            // pg_hba.conf has no line for this user without encryption, but may have one with it.
            let is_plain =
                refusal.message().contains("no encryption") || refusal.message().contains("SSL off");
            return (refusal.code().code() == "28000" && is_plain).then_some(Self::WantsTls);
        }
        let words = error.source()?.to_string();
        if words.contains("server does not support TLS") {
            Some(Self::NoTls)
        } else if words.contains("hostname mismatch") || words.contains("IP address mismatch") {
            Some(Self::OtherHost)
        } else if words.contains("certificate verify failed") {
            Some(Self::Untrusted)
        } else {
            None
        }
    }

    /// What the operator can do, in one sentence.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoTls => "switch it on at the server (ssl = on), or do without (sslmode=prefer or disable)",
            Self::OtherHost => {
                "connect by a name that the certificate has, or check its authority only (sslmode=verify-ca)"
            }
            Self::Untrusted => {
                "name the file of the authority that has signed the certificate (sslrootcert), and check the dates"
            }
            Self::WantsTls => "switch it on (sslmode=require or verify-full), or add the user to pg_hba.conf",
        }
    }
}

impl FromStr for PostgresTarget {
    type Err = PostgresTargetError;

    fn from_str(text: &str) -> Result<Self, PostgresTargetError> {
        if has_second_at(text) {
            return Err(PostgresTargetError::SecondAt);
        }
        let parameters = Parameters::read(text).ok_or(PostgresTargetError::Form)?;
        let (checks, mode) = checks(&parameters.ssl)?;
        // The parser's own words may quote the text.
        let mut config: tokio_postgres::Config =
            parameters.rest.parse().map_err(|_| PostgresTargetError::Form)?;
        config.ssl_mode(mode);
        let mut tls = MakeTlsConnector::new(connector(&parameters.ssl, checks)?);
        if checks != Checks::Everything {
            tls.set_callback(|configuration, _| {
                configuration.set_verify_hostname(false);
                Ok(())
            });
        }
        Ok(Self { config, tls })
    }
}

impl PostgresTarget {
    /// What is known of it but for certificates.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// The same, to be changed. The `sslmode` is not to be: certificates would go unchecked.
    pub fn config_mut(&mut self) -> &mut tokio_postgres::Config {
        &mut self.config
    }

    /// Connects; blocks for as long as the target's `connect_timeout`.
    pub fn connect(&self) -> Result<postgres::Client, postgres::Error> {
        postgres::Config::from(self.config.clone()).connect(self.tls.clone())
    }

    /// Connects on tokio. The connection is a future that has to be polled for the client to work.
    pub async fn connect_async(
        &self,
    ) -> Result<(Client, Connection<Socket, TlsStream<Socket>>), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }
}

impl fmt::Debug for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTarget").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Whether a URL's user and password end at an `@`, and there is another one before its parameters.
fn has_second_at(text: &str) -> bool {
    let url = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let behind = url.and_then(|url| url.split_once('@')).map_or("", |(_, behind)| behind);
    behind.split('?').next().is_some_and(|place| place.contains('@'))
}

/// What of a certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    Nothing,
    Authority,
    Everything,
}

fn checks(ssl: &SslParameters) -> Result<(Checks, SslMode), PostgresTargetError> {
    let authority = ssl.root_certificate.as_deref();
    let is_system = authority == Some(SYSTEM);
    match ssl.mode.as_deref() {
        Some("disable") => Ok((Checks::Nothing, SslMode::Disable)),
        Some(mode @ ("verify-ca" | "verify-full")) if authority.is_none() => {
            Err(PostgresTargetError::NoAuthority { mode: mode.to_owned() })
        }
        None if is_system => Ok((Checks::Everything, SslMode::Require)),
        Some("verify-full") => Ok((Checks::Everything, SslMode::Require)),
        Some("verify-ca" | "require" | "prefer") if is_system => Err(PostgresTargetError::WeakMode),
        Some("verify-ca") => Ok((Checks::Authority, SslMode::Require)),
        Some("require") if authority.is_some() => Ok((Checks::Authority, SslMode::Require)),
        Some("require") => Ok((Checks::Nothing, SslMode::Require)),
        Some("prefer") | None => Ok((Checks::Nothing, SslMode::Prefer)),
        Some(_) => Err(PostgresTargetError::Mode),
    }
}

fn connector(ssl: &SslParameters, checks: Checks) -> Result<SslConnector, PostgresTargetError> {
    let failed = |key: &'static str| {
        move |error: openssl::error::ErrorStack| PostgresTargetError::File { key, reason: error.to_string() }
    };
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed("sslmode"))?;
    if checks == Checks::Nothing {
        builder.set_verify(SslVerifyMode::NONE);
    } else if let Some(authority) = ssl.root_certificate.as_deref() {
        let trust = |builder: &mut SslConnectorBuilder| match authority {
            SYSTEM => trust_the_system(|file, folder| builder.load_verify_locations(file, folder)),
            file => builder.set_ca_file(file),
        };
        trust(&mut builder).map_err(failed("sslrootcert"))?;
    }
    match (&ssl.certificate, &ssl.key) {
        (Some(certificate), Some(key)) => {
            builder.set_certificate_chain_file(certificate).map_err(failed("sslcert"))?;
            builder.set_private_key_file(key, SslFiletype::PEM).map_err(failed("sslkey"))?;
            builder.check_private_key().map_err(failed("sslkey"))?;
        }
        (None, None) => {}
        _ => return Err(PostgresTargetError::HalfAnIdentity),
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn modes_check_what_libpq_checks() {
        let check = |mode: Option<&str>, root: Option<&str>, expected| {
            let ssl = SslParameters {
                mode: mode.map(str::to_owned),
                root_certificate: root.map(str::to_owned),
                ..SslParameters::default()
            };
            assert_eq!(checks(&ssl), expected, "{mode:?} {root:?}");
        };
        check(None, None, Ok((Checks::Nothing, SslMode::Prefer)));
        check(Some("disable"), Some("ca.pem"), Ok((Checks::Nothing, SslMode::Disable)));
        check(Some("prefer"), Some("ca.pem"), Ok((Checks::Nothing, SslMode::Prefer)));
        check(Some("require"), None, Ok((Checks::Nothing, SslMode::Require)));
        check(Some("require"), Some("ca.pem"), Ok((Checks::Authority, SslMode::Require)));
        check(Some("verify-ca"), Some("ca.pem"), Ok((Checks::Authority, SslMode::Require)));
        check(Some("verify-full"), Some("ca.pem"), Ok((Checks::Everything, SslMode::Require)));
        check(None, Some("system"), Ok((Checks::Everything, SslMode::Require)));
        check(Some("require"), Some("system"), Err(PostgresTargetError::WeakMode));
        check(Some("verify-ca"), Some("system"), Err(PostgresTargetError::WeakMode));
        let no_authority = PostgresTargetError::NoAuthority { mode: "verify-full".into() };
        check(Some("verify-full"), None, Err(no_authority));
        check(Some("allow"), None, Err(PostgresTargetError::Mode));
    }

    #[test]
    fn files_that_cannot_be_used_are_named_by_their_key() {
        let target = "postgres://ann:s3cret@db/x?sslmode=verify-full&sslrootcert=/no/such.pem";
        let error = target.parse::<PostgresTarget>().unwrap_err();
        assert!(matches!(error, PostgresTargetError::File { key: "sslrootcert", .. }), "{error}");
        let half = "host=db dbname=x user=ann sslcert=/some.pem".parse::<PostgresTarget>().unwrap_err();
        assert_eq!(half, PostgresTargetError::HalfAnIdentity);
        for wrong in ["postgres://ann:s3cret@db:port/x", "host", "s3cret='x"] {
            let error = wrong.parse::<PostgresTarget>().unwrap_err();
            assert_eq!(error, PostgresTargetError::Form, "{wrong}");
        }
    }

    /// `top@secret` was shown as the host `secret@db`, in logs and by whoever asked whether all was well.
    #[test]
    fn a_password_with_an_at_is_not_taken_for_a_host() {
        for wrong in [
            "postgres://ann:top@s3cret@db/x",
            "postgresql://ann:top@s3cret@db:5433/x?sslmode=disable",
            "postgres://ann:top@s3cret/word@db/x",
        ] {
            let error = wrong.parse::<PostgresTarget>().unwrap_err();
            assert_eq!(error, PostgresTargetError::SecondAt, "{wrong}");
            assert!(!error.to_string().contains("s3cret"));
        }
        for right in [
            "postgres://ann:top%40s3cret@db/x",
            "postgres://ann:s3cret@db/x?application_name=a@b",
            "host=db user=ann password=top@s3cret dbname=x",
        ] {
            let target: PostgresTarget = right.parse().unwrap();
            assert_eq!(target.config().get_hosts(), [Host::Tcp("db".to_owned())], "{right}");
            assert!(!format!("{target:?}").contains("s3cret"));
        }
    }
}
