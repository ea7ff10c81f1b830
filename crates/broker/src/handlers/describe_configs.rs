//! DescribeConfigs, versions 0 to 4: the configs of topics, groups and the broker, where they come from, and their defaults.
//!
//! Version 1 has sources and synonyms (KIP-226), 3 the type (KIP-569); documentation is not kept. Broker configs are
//! read-only: they are set at start. Other resources (loggers, client metrics) are refused. Values are kept as they were
//! sent and told in one form; the broker's settings among the synonyms as they were written, as in Kafka.

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use tidings_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

use crate::handlers::Cx;
use crate::mentions::first_of_each;
use crate::settings::definition::{Definition, find};
use crate::settings::group::GROUP_DEFINITIONS;
use crate::settings::topic::{ConfigSource, TOPIC_DEFINITIONS, TopicOverrides, effective};
use crate::settings::{BROKER_DEFINITIONS, BrokerSettings};
use crate::topics::names::check_name;

/// The number of a topic in requests about configs.
pub(crate) const TOPIC: i8 = 2;
/// The number of a broker in requests about configs.
pub(crate) const BROKER: i8 = 4;
/// The number of a group in requests about configs.
pub(crate) const GROUP: i8 = 32;

/// The only version that tells a default by a flag; the others tell the source.
const DEFAULT_FLAG: i16 = 0;

pub(crate) async fn handle(cx: &Cx<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let with_synonyms = request.include_synonyms;
    let key = |resource: &DescribeConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let resources = first_of_each(request.resources, key);
    let results = resources.into_iter().map(|resource| describe(cx, resource, with_synonyms)).collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn describe(cx: &Cx<'_>, resource: DescribeConfigsResource, with_synonyms: bool) -> DescribeConfigsResult {
    let DescribeConfigsResource { resource_type, resource_name, configuration_keys, .. } = resource;
    let described = match resource_type {
        TOPIC => topic(cx, &resource_name, with_synonyms),
        BROKER => broker(cx, &resource_name, with_synonyms),
        GROUP => group(cx, &resource_name, with_synonyms),
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
    let configs = Overridable { overrides: &topic.overrides, own: ConfigSource::Topic };
    Ok(configs.describe(cx, TOPIC_DEFINITIONS, with_synonyms))
}

/// A group need not exist to have configs.
fn group(cx: &Cx<'_>, name: &str, with_synonyms: bool) -> Described {
    if name.is_empty() {
        return Err((ErrorCode::InvalidRequest, "Group name must not be empty".to_owned()));
    }
    let overrides = cx.shared.group_configs.of(name);
    let configs = Overridable { overrides: &overrides, own: ConfigSource::Group };
    Ok(configs.describe(cx, GROUP_DEFINITIONS, with_synonyms))
}

/// What a topic or group has of its own, above the broker's settings.
struct Overridable<'a> {
    overrides: &'a TopicOverrides,
    /// Where the overrides come from.
    own: ConfigSource,
}

impl Overridable<'_> {
    fn describe(
        &self,
        cx: &Cx<'_>,
        definitions: &'static [Definition],
        with_synonyms: bool,
    ) -> Vec<DescribeConfigsResourceResult> {
        let settings = &cx.shared.settings;
        let config = |definition: &'static Definition| {
            let (value, source) = effective(definition, self.overrides, settings);
            let source = if source == ConfigSource::Topic { self.own } else { source };
            DescribeConfigsResourceResult {
                name: definition.name.to_owned(),
                value: Some(definition.kind.described(&value)),
                is_default: cx.version == DEFAULT_FLAG && source == ConfigSource::Default,
                config_source: source.code(),
                synonyms: if with_synonyms { self.synonyms(definition, settings) } else { Vec::new() },
                config_type: definition.kind.code(),
                documentation: None,
                ..DescribeConfigsResourceResult::default()
            }
        };
        definitions.iter().map(config).collect()
    }

    fn synonyms(&self, definition: &Definition, settings: &BrokerSettings) -> Vec<DescribeConfigsSynonym> {
        let own = self.overrides.get(definition.name);
        let own = own.map(|value| synonym(definition.name, &definition.kind.described(value), self.own));
        let first = definition.synonyms.first();
        let of_broker = first.map(|(first, _)| settings_from(first, definition.synonyms, settings));
        own.into_iter().chain(of_broker.unwrap_or_default()).collect()
    }
}

fn broker(cx: &Cx<'_>, name: &str, with_synonyms: bool) -> Described {
    if name.is_empty() {
        // What all brokers were given while they run: nothing can be.
        return Ok(Vec::new());
    }
    if name.parse() != Ok(cx.shared.node_id) {
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
            value: (!value.is_empty()).then(|| definition.kind.described(value)),
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

fn broker_synonyms(definition: &Definition, settings: &BrokerSettings) -> Vec<DescribeConfigsSynonym> {
    let mut groups = TOPIC_DEFINITIONS.iter().map(|topic| topic.synonyms);
    let group = groups.find(|group| group.iter().any(|(name, _)| *name == definition.name));
    settings_from(definition.name, group.unwrap_or(&[(definition.name, 1)]), settings)
}

/// Settings that stand for one another: those that are set, then the defaults, but none before the first that is called
/// `from`, as in Kafka. So `log.retention.hours` is no synonym of `retention.ms` while `log.retention.ms`, which has no
/// default, is not set.
fn settings_from(
    from: &str,
    group: &[(&'static str, i64)],
    settings: &BrokerSettings,
) -> Vec<DescribeConfigsSynonym> {
    let set = group.iter().filter_map(|(name, _)| {
        settings.explicit(name).map(|value| synonym(name, value, ConfigSource::StaticBroker))
    });
    let defaults = group.iter().filter_map(|(name, _)| {
        let default = find(BROKER_DEFINITIONS, name)?.default;
        (!default.is_empty()).then(|| synonym(name, default, ConfigSource::Default))
    });
    set.chain(defaults).skip_while(|synonym| synonym.name != from).collect()
}

fn synonym(name: &str, value: &str, source: ConfigSource) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source: source.code(),
        ..DescribeConfigsSynonym::default()
    }
}
