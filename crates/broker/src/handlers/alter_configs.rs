//! AlterConfigs, versions 0 to 2: all configs of a topic or group replaced at once; what is not named falls back to its default.
//!
//! Deprecated by IncrementalAlterConfigs (KIP-339), but older admin clients (KafkaJS) know nothing else.

use tidings_model::ErrorCode;
use tidings_wire::messages::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource};
use tidings_wire::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};

use crate::handlers::Cx;
use crate::handlers::incremental_alter_configs::{Refused, apply, no_config_twice, only_once, repeated};
use crate::topics::plan::ConfigChange;

pub(crate) async fn handle(cx: &Cx<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = request.resources.iter().map(|resource| (resource.resource_type, &*resource.resource_name));
    let repeated = repeated(named);
    for resource in request.resources {
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
        let altered = match only_once(&repeated, resource_type, &resource_name) {
            Ok(()) => alter(cx, resource, request.validate_only).await,
            Err(refused) => Err(refused),
        };
        let (error, error_message) = match altered {
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
    no_config_twice(resource.configs.iter().map(|config| &*config.name))?;
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in resource.configs {
        let name = config.name;
        let value = config.value.ok_or_else(|| {
            (ErrorCode::InvalidRequest, format!("Null value not supported for topic configs : {name}"))
        })?;
        changes.push((name, ConfigChange::Set(value)));
    }
    apply(cx, (resource.resource_type, resource.resource_name), changes, true, validate_only).await
}
