//! IncrementalAlterConfigs, versions 0 and 1: configs of topics and groups, changed one by one (KIP-339).
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
use crate::handlers::describe_configs::{GROUP, TOPIC};
use crate::topics::names::check_name;
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
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

async fn alter(cx: &Cx<'_>, resource: AlterConfigsResource, validate_only: bool) -> Result<(), Refused> {
    no_config_twice(resource.configs.iter().map(|config| &*config.name))?;
    let changes = resource.configs.into_iter().map(change).collect::<Result<_, _>>()?;
    apply(cx, (resource.resource_type, resource.resource_name), changes, false, validate_only).await
}

/// Changes the configs of a topic or group; those of anything else are set at start.
pub(crate) async fn apply(
    cx: &Cx<'_>,
    (resource_type, name): Resource,
    changes: Vec<(String, ConfigChange)>,
    replace: bool,
    validate_only: bool,
) -> Result<(), Refused> {
    if let (TOPIC, false, Err(why)) = (resource_type, name.is_empty(), check_name(&name)) {
        return Err((ErrorCode::InvalidTopicException, why));
    }
    let refuse = |what: String| Err((ErrorCode::InvalidRequest, what));
    let altered = match resource_type {
        TOPIC if name.is_empty() => return refuse("Default topic resources are not allowed.".to_owned()),
        TOPIC => cx.shared.topics.alter(name, changes, replace, validate_only).await,
        GROUP if name.is_empty() => return refuse("Default group resources are not allowed.".to_owned()),
        GROUP => cx.shared.group_configs.alter(name, changes, replace, validate_only).await,
        other => {
            return refuse(format!(
                "configs of resource type {other} cannot be changed while the broker runs"
            ));
        }
    };
    altered.map_err(|error| (error.code(), error.to_string()))
}

/// A resource's type and name.
pub(crate) type Resource = (i8, String);

/// The resources that a request names more than once: which of the changes is meant?
pub(crate) fn repeated<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> HashSet<Resource> {
    let mut seen = HashSet::new();
    let again = resources.filter(|resource| !seen.insert(*resource));
    again.map(|(resource_type, name)| (resource_type, name.to_owned())).collect()
}

/// Refuses each mention of a resource that is named more than once.
pub(crate) fn only_once(
    repeated: &HashSet<Resource>,
    resource_type: i8,
    resource_name: &str,
) -> Result<(), Refused> {
    if repeated.is_empty() || !repeated.contains(&(resource_type, resource_name.to_owned())) {
        return Ok(());
    }
    Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".to_owned()))
}

/// Refuses a resource that names a config more than once.
pub(crate) fn no_config_twice<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), Refused> {
    let mut seen = HashSet::new();
    match names.find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(name) => Err((ErrorCode::InvalidRequest, format!("Error due to duplicate config keys: {name}"))),
    }
}

fn change(config: AlterableConfig) -> Result<(String, ConfigChange), Refused> {
    let AlterableConfig { name, config_operation, value, .. } = config;
    let change = match (config_operation, value) {
        (DELETE, _) => ConfigChange::Delete,
        (SET, Some(value)) => ConfigChange::Set(value),
        (APPEND, Some(value)) => ConfigChange::Append(value),
        (SUBTRACT, Some(value)) => ConfigChange::Subtract(value),
        (SET | APPEND | SUBTRACT, None) => {
            return Err((ErrorCode::InvalidRequest, format!("Null value not supported for : {name}")));
        }
        (other, _) => {
            return Err((ErrorCode::InvalidRequest, format!("config {name}: unknown operation {other}")));
        }
    };
    Ok((name, change))
}
