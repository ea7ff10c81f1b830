//! How a bucket is reached.

use std::fmt;

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::Fault;

/// How long a request may take, with the part that it carries.
const REQUEST_TIMEOUT: &str = "120 seconds";

/// How a bucket is reached. What is not given is taken from the environment: `AWS_ENDPOINT_URL`, `AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_ALLOW_HTTP`; without keys the machine's own role.
#[derive(Clone, Default)]
pub struct BucketOptions {
    /// Where the server is, for one that is not Amazon's, as `https://minio.lan:9000`.
    pub endpoint: Option<String>,
    /// Where the bucket is; `us-east-1` if nobody says.
    pub region: Option<String>,
    /// Who asks.
    pub access_key_id: Option<String>,
    /// What proves it.
    pub secret_access_key: Option<String>,
    /// Whether an endpoint of `http://` will do. Whoever listens on the way gets what is stored.
    pub allow_http: bool,
}

impl BucketOptions {
    /// A server that is not Amazon's; the rest is the environment's.
    pub fn at(endpoint: Option<&str>) -> Self {
        Self { endpoint: endpoint.map(str::to_owned), ..Self::default() }
    }

    pub(crate) fn settings(&self, bucket: &str) -> Result<AmazonS3Builder, Fault> {
        let mut settings = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
            // One request for each, which every server understands.
            .with_disable_bulk_delete(true);
        let given = [
            (AmazonS3ConfigKey::S3Endpoint, &self.endpoint),
            (AmazonS3ConfigKey::Region, &self.region),
            (AmazonS3ConfigKey::AccessKeyId, &self.access_key_id),
            (AmazonS3ConfigKey::SecretAccessKey, &self.secret_access_key),
        ];
        for (key, value) in given {
            if let Some(value) = value {
                settings = settings.with_config(key, value);
            }
        }
        if self.allow_http {
            settings = settings.with_allow_http(true);
        }
        require_https(&settings)?;
        Ok(settings)
    }
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Whoever listens on the way would get everything that is stored.
fn require_https(settings: &AmazonS3Builder) -> Result<(), Fault> {
    let setting = |key| settings.get_config_value(&key);
    let is_allowed = setting(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp))
        .is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    let endpoint = setting(AmazonS3ConfigKey::S3Endpoint).or_else(|| setting(AmazonS3ConfigKey::Endpoint));
    match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !is_allowed => {
            Err(Fault::PlainHttp { endpoint })
        }
        Some(endpoint) if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") => {
            Err(Fault::Settings { reason: format!("the endpoint {endpoint:?} does not begin with https://") })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_asked_for_and_secrets_are_not_shown() {
        let check = |endpoint: &str, allow_http: bool, expect: &str| {
            let options = BucketOptions { allow_http, ..BucketOptions::at(Some(endpoint)) };
            let told = options.settings("b").err().map(|fault| fault.to_string()).unwrap_or_default();
            assert!(told.contains(expect) && told.is_empty() == expect.is_empty(), "{endpoint}: {told}");
        };
        check("http://minio.lan:9000", false, "http://minio.lan:9000 is not encrypted");
        check("http://minio.lan:9000", true, "");
        check("https://minio.lan:9000", false, "");
        check("minio.lan:9000", false, "does not begin with https://");
        let options = BucketOptions { secret_access_key: Some("s3cret".into()), ..BucketOptions::default() };
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
