//! DescribeConfigs, versions 0 to 4: the configs of topics and of the broker, where they come from, and their defaults.
//!
//! Version 1 has sources and synonyms (KIP-226), 3 the type (KIP-569); documentation is not kept. Broker configs are
//! read-only: they are set at start. Other resources (loggers, client metrics, groups) are refused.

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use tidings_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

use crate::handlers::Cx;
use crate::settings::definition::{Definition, find};
use crate::settings::topic::{ConfigSource, TOPIC_DEFINITIONS, TopicOverrides, effective};
use crate::settings::{BROKER_DEFINITIONS, BrokerSettings};
use crate::topics::names::check_name;

/// The number of a topic in requests about configs.
pub(crate) const TOPIC: i8 = 2;
/// The number of a broker in requests about configs.
pub(crate) const BROKER: i8 = 4;

/// The only version that tells a default by a flag; the others tell the source.
const DEFAULT_FLAG: i16 = 0;

pub(crate) async fn handle(cx: &Cx<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let with_synonyms = request.include_synonyms;
    let results =
        request.resources.into_iter().map(|resource| describe(cx, resource, with_synonyms)).collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn describe(cx: &Cx<'_>, resource: DescribeConfigsResource, with_synonyms: bool) -> DescribeConfigsResult {
    let DescribeConfigsResource { resource_type, resource_name, configuration_keys, .. } = resource;
    let described = match resource_type {
        TOPIC => topic(cx, &resource_name, with_synonyms),
        BROKER => broker(cx, &resource_name, with_synonyms),
        other => Err((ErrorCode::InvalidRequest, format!("configs of resource type {other} are not served"))),
    };
    let result = DescribeConfigsResult { resource_type, resource_name, ..DescribeConfigsResult::default() };
    match described {
        Ok(mut configs) => {
            // No keys means all of them, as null does.
            if let Some(keys) = configuration_keys.filter(|keys| !keys.is_empty()) {
                configs.retain(|config| keys.contains(&config.name));
            }
            DescribeConfigsResult { error_message: None, configs, ..result }
        }
        Err((error, message)) => {
            DescribeConfigsResult { error_code: error.code(), error_message: Some(message), ..result }
        }
    }
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)>;

fn topic(cx: &Cx<'_>, name: &str, with_synonyms: bool) -> Described {
    check_name(name).map_err(|message| (ErrorCode::InvalidTopicException, message))?;
    let unknown = || (ErrorCode::UnknownTopicOrPartition, format!("topic {name} does not exist"));
    let topic = cx.shared.topics.by_name(name).ok_or_else(unknown)?;
    let settings = &cx.shared.settings;
    let config = |definition: &'static Definition| {
        let (value, source) = effective(definition, &topic.overrides, settings);
        let synonyms =
            if with_synonyms { topic_synonyms(definition, &topic.overrides, settings) } else { Vec::new() };
        DescribeConfigsResourceResult {
            name: definition.name.to_owned(),
            value: Some(value.into_owned()),
            is_default: cx.version == DEFAULT_FLAG && source == ConfigSource::Default,
            config_source: source.code(),
            synonyms,
            config_type: definition.kind.code(),
            documentation: None,
            ..DescribeConfigsResourceResult::default()
        }
    };
    Ok(TOPIC_DEFINITIONS.iter().map(config).collect())
}

fn broker(cx: &Cx<'_>, name: &str, with_synonyms: bool) -> Described {
    if !name.is_empty() && name.parse() != Ok(cx.shared.node_id) {
        let message = format!("expected broker {}, found {name}", cx.shared.node_id);
        return Err((ErrorCode::InvalidRequest, message));
    }
    let settings = &cx.shared.settings;
    let config = |definition: &'static Definition| {
        let source = broker_source(definition.name, settings);
        let value = settings.value(definition.name);
        DescribeConfigsResourceResult {
            name: definition.name.to_owned(),
            // A setting without a default is null until it is set.
            value: (!value.is_empty()).then(|| value.to_owned()),
            read_only: true,
            is_default: cx.version == DEFAULT_FLAG && source == ConfigSource::Default,
            config_source: source.code(),
            synonyms: if with_synonyms { broker_synonyms(definition, settings) } else { Vec::new() },
            config_type: definition.kind.code(),
            documentation: None,
            ..DescribeConfigsResourceResult::default()
        }
    };
    Ok(BROKER_DEFINITIONS.iter().map(config).collect())
}

fn broker_source(name: &str, settings: &BrokerSettings) -> ConfigSource {
    if settings.explicit(name).is_some() { ConfigSource::StaticBroker } else { ConfigSource::Default }
}

fn topic_synonyms(
    definition: &Definition,
    overrides: &TopicOverrides,
    settings: &BrokerSettings,
) -> Vec<DescribeConfigsSynonym> {
    let own =
        overrides.get(definition.name).map(|value| synonym(definition.name, value, ConfigSource::Topic));
    let of_broker = definition
        .synonyms
        .iter()
        .filter_map(|(name, _)| find(BROKER_DEFINITIONS, name))
        .flat_map(|definition| broker_synonyms(definition, settings));
    own.into_iter().chain(of_broker).collect()
}

fn broker_synonyms(definition: &Definition, settings: &BrokerSettings) -> Vec<DescribeConfigsSynonym> {
    let explicit = settings.explicit(definition.name);
    let explicit = explicit.map(|value| synonym(definition.name, value, ConfigSource::StaticBroker));
    let default = Some(definition.default).filter(|default| !default.is_empty());
    let default = default.map(|value| synonym(definition.name, value, ConfigSource::Default));
    explicit.into_iter().chain(default).collect()
}

fn synonym(name: &str, value: &str, source: ConfigSource) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source: source.code(),
        ..DescribeConfigsSynonym::default()
    }
}
