//! Where a PostgreSQL store is, from its URL.
//!
//! Invariant: the password leaves this module only towards the server: neither what is shown of a place nor an error
//! about a URL repeats it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tidings::stores::{PostgresTarget, PostgresTargetError};
use tokio_postgres::config::Host;

/// How long one address may take to answer, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// After how much silence a connection is asked whether it is still there: what lies between forgets idle ones.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const DEFAULT_PORT: u16 = 5432;

/// A database and how to reach it.
#[derive(Clone)]
pub struct PostgresOptions {
    target: PostgresTarget,
    name: String,
}

/// Why a text is no URL of a PostgreSQL store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is something else.
    #[error("expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Form,
    /// No database is named: the user's name is not a good guess.
    #[error("names no database: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    NoDatabase,
    /// What it asks for cannot be had: of `sslmode` and certificates, for the most part.
    #[error(transparent)]
    Target(PostgresTargetError),
}

impl FromStr for PostgresOptions {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(UrlError::Form);
        }
        let mut target: PostgresTarget = url.parse().map_err(|error| match error {
            PostgresTargetError::Form => UrlError::Form,
            error => UrlError::Target(error),
        })?;
        let config = target.config_mut();
        if config.get_hosts().is_empty() {
            return Err(UrlError::Form);
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(UrlError::NoDatabase);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if !url.contains("keepalives_idle=") {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_application_name().is_none() {
            config.application_name("tidings");
        }
        Ok(Self { name: name(target.config()), target })
    }
}

impl PostgresOptions {
    /// The place without user and password: `postgres at HOST:PORT/DATABASE`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn target(&self) -> &PostgresTarget {
        &self.target
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn name(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    });
    let hosts: Vec<String> = hosts.collect();
    format!("postgres at {}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_without_its_password() {
        let check = |url: &str, name: &str| {
            let options: PostgresOptions = url.parse().unwrap();
            assert_eq!(options.name(), name);
            assert_eq!(format!("{options:?}"), name);
        };
        check("postgres://ann:s3cret@db.lan:5433/audit", "postgres at db.lan:5433/audit");
        check("postgresql://ann:s3cret@a,b/audit?sslmode=disable", "postgres at a:5432,b:5432/audit");
        check("postgres://ann@%2Frun%2Fpg/audit", "postgres at /run/pg:5432/audit");
    }

    #[test]
    fn wrong_urls_are_refused_without_being_repeated() {
        let check = |url: &str, expected: UrlError| {
            let error = url.parse::<PostgresOptions>().unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!error.to_string().contains("s3cret"));
        };
        check("mysql://ann:s3cret@db/audit", UrlError::Form);
        check("postgres://ann:s3cret@db:port/audit", UrlError::Form);
        check("postgres://ann:s3cret@db/audit?s3cret=1", UrlError::Form);
        check("postgres://ann:top@s3cret@db/audit", UrlError::Target(PostgresTargetError::SecondAt));
        check("postgres://ann:s3cret@db", UrlError::NoDatabase);
        check("postgres://ann:s3cret@db/audit?sslmode=no", UrlError::Target(PostgresTargetError::Mode));
    }
}
