//! IncrementalAlterConfigs, versions 0 and 1: configs of topics, changed one by one (KIP-339).
//!
//! The answer leaves when the change is durable. Broker configs are set at start: changing them is refused.

use std::collections::HashSet;

use tidings_model::ErrorCode;
use tidings_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use tidings_wire::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use crate::handlers::Cx;
use crate::handlers::describe_configs::TOPIC;
use crate::topics::plan::ConfigChange;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// An error and its message for the client.
pub(crate) type Refused = (ErrorCode, String);

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
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
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

async fn alter(cx: &Cx<'_>, resource: AlterConfigsResource, validate_only: bool) -> Result<(), Refused> {
    only_topics(resource.resource_type)?;
    let mut seen = HashSet::new();
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in resource.configs {
        if !seen.insert(config.name.clone()) {
            return Err((ErrorCode::InvalidRequest, format!("config {} is named twice", config.name)));
        }
        changes.push(change(config)?);
    }
    let altered = cx.shared.topics.alter(resource.resource_name, changes, false, validate_only).await;
    altered.map_err(|error| (error.code(), error.to_string()))
}

/// Refuses configs of anything but topics.
pub(crate) fn only_topics(resource_type: i8) -> Result<(), Refused> {
    if resource_type == TOPIC {
        return Ok(());
    }
    let message = format!("configs of resource type {resource_type} cannot be changed while the broker runs");
    Err((ErrorCode::InvalidRequest, message))
}

fn change(config: AlterableConfig) -> Result<(String, ConfigChange), Refused> {
    let AlterableConfig { name, config_operation, value, .. } = config;
    let change = match (config_operation, value) {
        (DELETE, _) => ConfigChange::Delete,
        (SET, Some(value)) => ConfigChange::Set(value),
        (APPEND, Some(value)) => ConfigChange::Append(value),
        (SUBTRACT, Some(value)) => ConfigChange::Subtract(value),
        (SET | APPEND | SUBTRACT, None) => {
            return Err((ErrorCode::InvalidConfig, format!("Null value not supported for : {name}")));
        }
        (other, _) => {
            return Err((ErrorCode::InvalidRequest, format!("config {name}: unknown operation {other}")));
        }
    };
    Ok((name, change))
}
