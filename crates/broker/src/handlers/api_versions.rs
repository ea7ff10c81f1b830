//! ApiVersions, versions 0 to 4: what is served.
//!
//! Answers before anything is known about the client. A version that is not known is answered in version 0 with
//! UNSUPPORTED_VERSION and the versions of this API, so that the client can try again (KIP-511; version 3 brought the client's software
//! name, version 4 features with a minimum version of 0). Produce is listed from version 0, though it is served from 3:
//! librdkafka before 2.6.1 would not compress otherwise (Kafka does the same).

use tidings_coordinator::TRANSACTION_VERSION_2;
use tidings_model::ErrorCode;
use tidings_wire::ApiKey;
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

use crate::handlers::served_apis;

/// The first version whose request names the client's software.
const WITH_SOFTWARE_NAME: i16 = 3;

/// The first version with room for features (KIP-584).
const WITH_FEATURES: i16 = 3;

/// Before this version clients cannot read a feature whose lowest level is 0.
const WITH_LEVEL_0: i16 = 4;

/// Features never change while a broker runs.
const FEATURES_EPOCH: i64 = 0;

/// What all clients may rely on, and up to which level.
const FEATURES: &[Feature] = &[
    // The consumer protocol (KIP-848).
    Feature { name: "group.version", max_level: 1 },
    // Level 2: an epoch for every transaction, partitions added by what is written to them (KIP-890).
    Feature { name: "transaction.version", max_level: TRANSACTION_VERSION_2 },
];

struct Feature {
    name: &'static str,
    max_level: i16,
}

impl Feature {
    fn supported(&self, version: i16) -> SupportedFeatureKey {
        SupportedFeatureKey {
            name: self.name.to_owned(),
            min_version: if version < WITH_LEVEL_0 { 1 } else { 0 },
            max_version: self.max_level,
            ..SupportedFeatureKey::default()
        }
    }

    fn finalized(&self) -> FinalizedFeatureKey {
        FinalizedFeatureKey {
            name: self.name.to_owned(),
            max_version_level: self.max_level,
            min_version_level: self.max_level,
            ..FinalizedFeatureKey::default()
        }
    }
}

/// Answers a request of a known version.
pub(crate) fn handle(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let named =
        is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version);
    if version >= WITH_SOFTWARE_NAME && !named {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    if version < WITH_FEATURES {
        return ApiVersionsResponse { api_keys: listed(), ..ApiVersionsResponse::default() };
    }
    ApiVersionsResponse {
        api_keys: listed(),
        supported_features: FEATURES.iter().map(|feature| feature.supported(version)).collect(),
        finalized_features_epoch: FEATURES_EPOCH,
        finalized_features: FEATURES.iter().map(Feature::finalized).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Answers a request of a version that is not known.
pub(crate) fn unsupported() -> ApiVersionsResponse {
    let error_code = ErrorCode::UnsupportedVersion.code();
    let mut api_keys = listed();
    api_keys.retain(|listed| listed.api_key == ApiKey::ApiVersions.code());
    ApiVersionsResponse { error_code, api_keys, ..ApiVersionsResponse::default() }
}

fn listed() -> Vec<ApiVersion> {
    let mut listed: Vec<ApiVersion> = served_apis()
        .map(|(api, versions)| ApiVersion {
            api_key: api.code(),
            min_version: if api == ApiKey::Produce { 0 } else { versions.min },
            max_version: versions.max,
            ..ApiVersion::default()
        })
        .collect();
    listed.sort_by_key(|listed| listed.api_key);
    listed
}

/// Letters, digits, hyphens and dots, beginning and ending with a letter or digit (KIP-511).
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, version: i16, error: ErrorCode) {
        let request = ApiVersionsRequest {
            client_software_name: name.to_owned(),
            client_software_version: "1.0".to_owned(),
            ..ApiVersionsRequest::default()
        };
        assert_eq!(handle(&request, version).error_code, error.code(), "{name:?}");
    }

    #[test]
    fn the_software_name_is_checked_where_there_is_one() {
        check("apache-kafka-java", 3, ErrorCode::None);
        check("librdkafka", 4, ErrorCode::None);
        check("", 3, ErrorCode::InvalidRequest);
        check("-x", 3, ErrorCode::InvalidRequest);
        check("a b", 3, ErrorCode::InvalidRequest);
        check("", 2, ErrorCode::None);
    }

    #[test]
    fn produce_is_listed_from_0_for_librdkafka() {
        assert_eq!((listed()[0].api_key, listed()[0].min_version), (0, 0));
    }
}
