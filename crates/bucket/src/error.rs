//! What a bucket's errors mean to a person: which object, what is wrong, what to do.
//!
//! Owns the reading of S3's error codes. `object_store` keeps them in the text of its errors only. Invariant: no secret is in an error.

use std::error::Error;
use std::fmt;

use object_store::client::{HttpError, HttpErrorKind};
use thiserror::Error;

/// Why something was not done with a bucket or an object.
#[derive(Debug, Error)]
pub struct BucketError {
    address: String,
    #[source]
    fault: Box<Fault>,
}

/// What was wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// The address is none.
    #[error("no address of a bucket or an object: {reason}")]
    Address {
        /// Why.
        reason: String,
    },
    /// The environment has no whole set of settings.
    #[error("the settings do not fit: {reason}")]
    Settings {
        /// Why.
        reason: String,
    },
    /// Nobody has allowed it.
    #[error("{endpoint} is not encrypted")]
    PlainHttp {
        /// The endpoint.
        endpoint: String,
    },
    /// The environment has none, and the instance gives none.
    #[error("there are no credentials")]
    NoCredentials,
    /// There is no such bucket.
    #[error("the bucket does not exist")]
    NoBucket,
    /// There is no such object.
    #[error("the object is missing")]
    NoObject,
    /// The name is taken.
    #[error("there is an object of this name already")]
    Exists,
    /// It is another one than a moment ago.
    #[error("the object was replaced while it was read")]
    Replaced,
    /// The secret does not belong to the key, or the key to nobody.
    #[error("the credentials are wrong ({code})")]
    WrongCredentials {
        /// S3's word for it.
        code: String,
    },
    /// A session is over.
    #[error("the credentials have expired ({code})")]
    Expired {
        /// S3's word for it.
        code: String,
    },
    /// Who it is may not do this.
    #[error("access is denied")]
    Denied,
    /// Requests are signed with their time.
    #[error("this machine's clock and the server's are too far apart")]
    ClockSkew,
    /// The bucket is elsewhere.
    #[error("the bucket is in another region")]
    WrongRegion,
    /// No answer.
    #[error("the server does not answer: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// Nobody whom this machine trusts has signed its certificate.
    #[error("the server's certificate is not trusted: {reason}")]
    Untrusted {
        /// Why.
        reason: String,
    },
    /// Anything else, in the server's words.
    #[error("{}", said(source))]
    Failed {
        /// What the client says.
        source: object_store::Error,
    },
}

impl BucketError {
    pub(crate) fn new(address: impl Into<String>, fault: Fault) -> Self {
        Self { address: address.into(), fault: Box::new(fault) }
    }

    /// What was wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match *self.fault {
            Fault::Address { .. } => "write s3://BUCKET/PREFIX",
            Fault::Settings { .. } | Fault::NoCredentials => {
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and AWS_ENDPOINT_URL for a store that is not Amazon's"
            }
            Fault::PlainHttp { .. } => {
                "use https://, or set AWS_ALLOW_HTTP=true where nobody can listen on the way"
            }
            Fault::NoBucket => "make the bucket, or correct its name, AWS_REGION or AWS_ENDPOINT_URL",
            Fault::WrongCredentials { .. } => "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Fault::Expired { .. } => "get new credentials, with their AWS_SESSION_TOKEN",
            Fault::Denied => {
                "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and \
                 s3:AbortMultipartUpload on its objects, as far as they are needed"
            }
            Fault::ClockSkew => "set this machine's clock: a request is signed with its time",
            Fault::WrongRegion => "set AWS_REGION to the bucket's region",
            Fault::Untrusted { .. } => {
                "install the certificates of those to trust (Debian: ca-certificates), or name a file of them in SSL_CERT_FILE"
            }
            Fault::Unreachable { .. } => "correct AWS_ENDPOINT_URL or AWS_REGION, or try again",
            Fault::NoObject | Fault::Exists | Fault::Replaced | Fault::Failed { .. } => return None,
        })
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.fault)
    }
}

impl Fault {
    pub(crate) fn of(error: object_store::Error) -> Self {
        let text = error.to_string();
        if let Some(unanswered) = unanswered(&error, &text) {
            return unanswered;
        }
        match (code(&text), &error) {
            (Some("NoSuchBucket"), _) => Self::NoBucket,
            (Some("PreconditionFailed"), object_store::Error::Precondition { .. }) => Self::Replaced,
            (Some("RequestTimeTooSkewed" | "RequestExpired"), _) => Self::ClockSkew,
            (Some(code @ ("SignatureDoesNotMatch" | "InvalidAccessKeyId")), _) => {
                Self::WrongCredentials { code: code.to_owned() }
            }
            (Some(code @ ("ExpiredToken" | "InvalidToken")), _) => Self::Expired { code: code.to_owned() },
            (Some("AuthorizationHeaderMalformed" | "PermanentRedirect"), _) => Self::WrongRegion,
            // Some servers answer other things by 404, too, as that they do not know who asks.
            (None | Some("NoSuchKey"), object_store::Error::NotFound { .. }) => Self::NoObject,
            (_, object_store::Error::AlreadyExists { .. }) => Self::Exists,
            (_, object_store::Error::PermissionDenied { .. }) => Self::Denied,
            _ if text.contains("Received redirect without LOCATION") => Self::WrongRegion,
            _ => Self::Failed { source: error },
        }
    }
}

/// Whether the object ends before the first byte that was asked for.
pub(crate) fn is_out_of_range(error: &object_store::Error) -> bool {
    code(&error.to_string()) == Some("InvalidRange")
}

/// What happened on the way, or where credentials are asked for.
fn unanswered(error: &object_store::Error, text: &str) -> Option<Fault> {
    let first: &(dyn Error + 'static) = error;
    let mut causes = vec![first];
    while let Some(cause) = causes[causes.len() - 1].source() {
        causes.push(cause);
    }
    let http = causes.iter().find_map(|cause| cause.downcast_ref::<HttpError>())?;
    if text.contains("http://169.254.") {
        return Some(Fault::NoCredentials);
    }
    let is_of_the_way = matches!(
        http.kind(),
        HttpErrorKind::Connect | HttpErrorKind::Timeout | HttpErrorKind::Interrupted | HttpErrorKind::Request
    );
    // The innermost says it without the layers around it.
    let reason = causes.last().map(ToString::to_string).unwrap_or_default();
    if reason.contains("certificate") {
        return Some(Fault::Untrusted { reason });
    }
    is_of_the_way.then_some(Fault::Unreachable { reason })
}

/// S3's code of an error, out of its XML.
fn code(text: &str) -> Option<&str> {
    element(text, "Code")
}

fn said(error: &object_store::Error) -> String {
    let text = error.to_string();
    match (code(&text), element(&text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text,
    }
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str) -> Fault {
        let body = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
        Fault::of(object_store::Error::Generic { store: "S3", source: body.into() })
    }

    #[test]
    fn codes_are_told_in_words_with_what_to_do() {
        let check = |code: &str, expect: &str, hint: &str| {
            let error = BucketError::new("s3://b/a", answered(code));
            assert_eq!(error.to_string(), format!("s3://b/a: {expect}"));
            assert!(error.hint().unwrap_or_default().contains(hint), "{code}: {:?}", error.hint());
        };
        check("NoSuchBucket", "the bucket does not exist", "make the bucket");
        check("SignatureDoesNotMatch", "the credentials are wrong (SignatureDoesNotMatch)", "AWS_SECRET");
        check("InvalidAccessKeyId", "the credentials are wrong (InvalidAccessKeyId)", "AWS_ACCESS_KEY_ID");
        check("ExpiredToken", "the credentials have expired (ExpiredToken)", "AWS_SESSION_TOKEN");
        let skew = "this machine's clock and the server's are too far apart";
        check("RequestTimeTooSkewed", skew, "clock");
        check("PermanentRedirect", "the bucket is in another region", "AWS_REGION");
        check("SlowDown", "SlowDown: No.", "");
    }

    #[test]
    fn who_is_not_trusted_is_told_from_who_is_not_there() {
        let check = |reason: &str, expect: &str, hint: &str| {
            let way = HttpError::new(HttpErrorKind::Connect, std::io::Error::other(reason.to_owned()));
            let error = Fault::of(object_store::Error::Generic { store: "S3", source: Box::new(way) });
            let error = BucketError::new("s3://b", error);
            assert_eq!(error.to_string(), format!("s3://b: {expect}: {reason}"));
            assert!(error.hint().unwrap_or_default().contains(hint));
        };
        let untrusted = "the server's certificate is not trusted";
        check("invalid peer certificate: UnknownIssuer", untrusted, "SSL_CERT_FILE");
        check("Connection refused", "the server does not answer", "AWS_ENDPOINT_URL");
    }
}
