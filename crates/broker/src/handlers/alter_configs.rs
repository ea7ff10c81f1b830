//! AlterConfigs, versions 0 to 2: all configs of a topic replaced at once; what is not named falls back to its default.
//!
//! Deprecated by IncrementalAlterConfigs (KIP-339), but older admin clients (KafkaJS) know nothing else.

use tidings_model::ErrorCode;
use tidings_wire::messages::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource};
use tidings_wire::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};

use crate::handlers::Cx;
use crate::handlers::incremental_alter_configs::{Refused, only_topics};
use crate::topics::plan::ConfigChange;

pub(crate) async fn handle(cx: &Cx<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
        let (error, error_message) = match alter(cx, resource, request.validate_only).await {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(message)),
        };
        responses.push(AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message,
            resource_type,
            resource_name,
            ..AlterConfigsResourceResponse::default()
        });
    }
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

async fn alter(cx: &Cx<'_>, resource: AlterConfigsResource, validate_only: bool) -> Result<(), Refused> {
    only_topics(resource.resource_type)?;
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in resource.configs {
        let name = config.name;
        let value = config.value.ok_or_else(|| {
            (ErrorCode::InvalidRequest, format!("Null value not supported for topic configs : {name}"))
        })?;
        changes.push((name, ConfigChange::Set(value)));
    }
    let altered = cx.shared.topics.alter(resource.resource_name, changes, true, validate_only).await;
    altered.map_err(|error| (error.code(), error.to_string()))
}
