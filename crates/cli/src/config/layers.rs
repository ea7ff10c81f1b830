//! The sources of settings, each as a layer for figment.
//!
//! Owns how a key is spelt in each source. Kafka's names contain dots, which TOML reads as tables within tables and
//! environment variables cannot hold; every layer hands them on under one spelling, `num.partitions` within `broker`.
//! Invariant: an error quotes no setting that may hold a password.

use std::fmt::Display;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use figment::error::Actual;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

const ENVIRONMENT_PREFIX: &str = "TIDINGS_";
/// Variables that are read elsewhere: the name of the configuration file.
const NOT_SETTINGS: [&str; 1] = ["TIDINGS_CONFIG"];

/// `tidings.toml`.
pub struct FileLayer {
    name: String,
    values: Dict,
}

/// `TIDINGS_*`.
pub struct EnvironmentLayer(Dict);

/// `--set key=value`.
pub struct BrokerFlags<'a>(pub &'a [(String, String)]);

impl FileLayer {
    /// Reads the file; an error names the file, and the line if it is not TOML.
    pub fn read(path: &Path) -> anyhow::Result<FileLayer> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        let mut values: Dict = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            // The parser has no words for some errors.
            let what = if error.message().is_empty() { "is not TOML" } else { error.message() };
            anyhow!("{name}, line {line}: {}", what.replace('\n', " "))
        })?;
        if let Some(broker) = values.remove("broker") {
            let Value::Dict(tag, nested) = broker else {
                bail!("{name}: broker: expected a table, found {}", broker.to_actual());
            };
            let mut flat = Dict::new();
            flatten("", nested, &mut flat);
            values.insert("broker".to_owned(), Value::Dict(tag, flat));
        }
        Ok(FileLayer { name, values })
    }
}

impl EnvironmentLayer {
    /// Picks the settings out of the environment's variables.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> EnvironmentLayer {
        let mut values = Dict::new();
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if NOT_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            let key = key.to_ascii_lowercase();
            if let Some(key) = key.strip_prefix("broker_") {
                insert_nested(&mut values, "broker", key.replace('_', "."), Value::from(text));
            } else if let Some(key) = key.strip_prefix("cluster_") {
                // A password may look like a number.
                let value = if key == "verify_host_name" { parse(&text) } else { Value::from(text) };
                insert_nested(&mut values, "cluster", key.to_owned(), value);
            } else if key == "activity_retention_days_per_tenant" {
                insert_nested(&mut values, "activity", "retention_days_per_tenant".to_owned(), pairs(&text));
            } else if let Some(key) = key.strip_prefix("activity_") {
                insert_nested(&mut values, "activity", key.to_owned(), parse(&text));
            } else if key == "host_names" {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                values.insert(key, names.collect::<Vec<_>>().into());
            } else {
                values.insert(key, parse(&text));
            }
        }
        EnvironmentLayer(values)
    }
}

impl Provider for FileLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone()).interpolater(|_, keys| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Provider for EnvironmentLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment").interpolater(|_, keys| {
            let key = keys.join("_").replace('.', "_").to_ascii_uppercase();
            format!("{ENVIRONMENT_PREFIX}{key}")
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

impl Provider for BrokerFlags<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("--set")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut values = Dict::new();
        for (key, value) in self.0 {
            insert_nested(&mut values, "broker", key.clone(), Value::from(value.clone()));
        }
        Ok(Profile::Default.collect(values))
    }
}

/// Where a layer's values stand, for messages: a file's name, `environment`, `--set`.
pub fn place(metadata: &Metadata) -> String {
    metadata.name.clone().into_owned()
}

/// figment's error as one line: where, which key, what is wrong with it.
pub fn one_line(error: &figment::Error) -> anyhow::Error {
    use figment::error::Kind;
    let mut keys = error.path.clone();
    let what = match &error.kind {
        Kind::UnknownField(key, known) => {
            if keys.last() != Some(key) {
                keys.push(key.clone());
            }
            format!("no such setting; there are {}", known.join(", "))
        }
        // figment's own words quote it.
        _ if is_secret(&keys) => "expected a string; what was found is not shown".to_owned(),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("expected {}, found {}", in_words(expected), found_in_words(found))
        }
        other => other.to_string().replace('\n', " "),
    };
    let path = match &error.metadata {
        Some(metadata) if metadata.name == "environment" => metadata.interpolate(&Profile::Default, &keys),
        Some(metadata) => format!("{}: {}", metadata.name, keys.join(".")),
        None => keys.join("."),
    };
    anyhow!("{path}: {what}")
}

/// Serde names Rust's types.
fn in_words(expected: &str) -> String {
    let number = |from: &dyn Display, to: &dyn Display| format!("a whole number from {from} to {to}");
    match expected {
        "i32" => number(&i32::MIN, &i32::MAX),
        "i64" => number(&i64::MIN, &i64::MAX),
        "u32" => number(&0, &u32::MAX),
        "u64" => number(&0, &u64::MAX),
        "a map" => "a table".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a boolean" => "true or false".to_owned(),
        table if table.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn found_in_words(found: &Actual) -> String {
    match found {
        Actual::Signed(number) => number.to_string(),
        Actual::Unsigned(number) => number.to_string(),
        Actual::Bool(is_true) => is_true.to_string(),
        Actual::Str(text) => format!("{text:?}"),
        Actual::Map => "a table".to_owned(),
        Actual::Seq => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// Whether a setting is a password, or a store's address that may hold one.
fn is_secret(keys: &[String]) -> bool {
    keys.last().is_some_and(|key| key.ends_with("password")) || keys == ["activity", "store"]
}

/// A variable's text as the value it looks like.
fn parse(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) => Value::from(number),
        Err(_) => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
    }
}

/// `a=1,b=2` as a table; anything else as the text that it is, which is no table.
fn pairs(text: &str) -> Value {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (key, value) = pair.rsplit_once('=')?;
        Some((key.trim().to_owned(), parse(value.trim())))
    });
    pairs.collect::<Option<Dict>>().map_or_else(|| Value::from(text), Value::from)
}

fn insert_nested(values: &mut Dict, table: &str, key: String, value: Value) {
    let entry = values.entry(table.to_owned()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, nested) = entry {
        nested.insert(key, value);
    }
}

/// Tables within tables become keys with dots.
fn flatten(prefix: &str, nested: Dict, flat: &mut Dict) {
    for (key, value) in nested {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, deeper) => flatten(&key, deeper, flat),
            value => {
                flat.insert(key, value);
            }
        }
    }
}
