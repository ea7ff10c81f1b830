//! Kafka's own definitions of its messages, read from the jar of the Kafka that judges.
//!
//! Owns the schemas by which requests are written and answers are read here. They are read anew in each run and share
//! nothing with the generated codecs of `wire`: what both brokers say is judged by Kafka's own definition. Fails on a
//! type it does not know.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Every API of a Kafka release.
#[derive(Debug)]
pub struct Definitions {
    apis: BTreeMap<String, Api>,
}

/// One API.
#[derive(Debug)]
pub struct Api {
    /// Kafka's name, without `Request`.
    pub name: String,
    /// Its key.
    pub key: i16,
    /// The first version whose lengths are compact and which has tagged fields.
    flexible: Versions,
    /// The fields of the request.
    pub request: Fields,
    /// The fields of the response.
    pub response: Fields,
}

/// The fields of a struct, in the order of the wire.
pub type Fields = Arc<Vec<Field>>;

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Kafka's name with a small first letter.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// The versions that have it.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// Its tag and the versions in which it is a tagged field.
    pub tag: Option<(u32, Versions)>,
    /// What it is where nothing is said.
    pub default: Value,
}

/// The type of a field.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A byte, zero or one.
    Bool,
    /// A signed number of so many bytes.
    Int(usize),
    /// An unsigned number of so many bytes.
    Unsigned(usize),
    /// A double.
    Float,
    /// Sixteen bytes.
    Uuid,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// Record batches.
    Records,
    /// A struct.
    Struct(Fields),
    /// Any number of one type.
    Array(Box<Kind>),
}

/// A range of versions, both ends included; empty when the first is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub first: i16,
    /// The last.
    pub last: i16,
}

impl Versions {
    const NONE: Self = Self { first: 1, last: 0 };

    /// Reads Kafka's notation: `0+`, `3-12`, `5`, `none`.
    pub fn parse(text: &str) -> Result<Self> {
        let number = |text: &str| text.trim().parse().with_context(|| format!("read the version {text:?}"));
        Ok(if text == "none" {
            Self::NONE
        } else if let Some(first) = text.strip_suffix('+') {
            Self { first: number(first)?, last: i16::MAX }
        } else if let Some((first, last)) = text.split_once('-') {
            Self { first: number(first)?, last: number(last)? }
        } else {
            Self { first: number(text)?, last: number(text)? }
        })
    }

    /// Whether `version` is one of them.
    pub fn contains(self, version: i16) -> bool {
        (self.first..=self.last).contains(&version)
    }
}

impl Definitions {
    /// Unpacks the definitions that `kafka-clients` carries in this folder of jars into `scratch`, and reads them.
    pub fn from_jars(jars: &Path, scratch: &Path) -> Result<Self> {
        let jar = std::fs::read_dir(jars)
            .with_context(|| format!("list {}", jars.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kafka-clients-"))
            })
            .with_context(|| format!("find kafka-clients in {}", jars.display()))?;
        let mut unpack = Command::new("jar");
        unpack.args(["--extract", "--file"]).arg(&jar).arg("common/message").current_dir(scratch);
        ensure!(unpack.status().context("run jar")?.success(), "unpack {}", jar.display());
        Self::read(&scratch.join("common/message"))
    }

    fn read(folder: &Path) -> Result<Self> {
        let mut apis = BTreeMap::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let Some(name) = stem.strip_suffix("Request") else { continue };
            let request = json(&path)?;
            if request["validVersions"] == "none" {
                continue;
            }
            let response = json(&folder.join(format!("{name}Response.json")))?;
            let api = Api::read(name, &request, &response).with_context(|| format!("read {name}"))?;
            apis.insert(name.to_owned(), api);
        }
        Ok(Self { apis })
    }

    /// The API of this name.
    ///
    /// # Panics
    /// When Kafka has none: a scenario is mistaken.
    pub fn api(&self, name: &str) -> &Api {
        self.apis.get(name).unwrap_or_else(|| panic!("Kafka has no API {name}"))
    }

    /// The API of this key.
    pub fn by_key(&self, key: i64) -> Option<&Api> {
        self.apis.values().find(|api| i64::from(api.key) == key)
    }
}

impl Api {
    fn read(name: &str, request: &Value, response: &Value) -> Result<Self> {
        let key = request["apiKey"].as_i64().context("find the API's key")?;
        Ok(Self {
            name: name.to_owned(),
            key: i16::try_from(key)?,
            flexible: Versions::parse(request["flexibleVersions"].as_str().unwrap_or("none"))?,
            request: fields(request, request)?,
            response: fields(response, response)?,
        })
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible.contains(version)
    }
}

impl Field {
    /// The tag, if the field is a tagged one in this version.
    pub fn tag_in(&self, version: i16) -> Option<u32> {
        self.tag.filter(|(_, versions)| versions.contains(version)).map(|(tag, _)| tag)
    }
}

/// The fields of a struct; `message` declares the structs that several fields share.
fn fields(holder: &Value, message: &Value) -> Result<Fields> {
    let list = holder["fields"].as_array().context("find the fields")?;
    list.iter().map(|value| field(value, message)).collect::<Result<Vec<_>>>().map(Arc::new)
}

fn field(value: &Value, message: &Value) -> Result<Field> {
    let name = value["name"].as_str().context("find a field's name")?;
    let versions = |key: &str| value[key].as_str().map_or(Ok(Versions::NONE), Versions::parse);
    let kind = kind(value["type"].as_str().context("find a field's type")?, value, message)?;
    let nullable = versions("nullableVersions")?;
    let tag = match value["tag"].as_u64() {
        Some(tag) => Some((u32::try_from(tag)?, versions("taggedVersions")?)),
        None => None,
    };
    let default = default(&value["default"], &kind).with_context(|| format!("read the default of {name}"))?;
    let name = name[..1].to_ascii_lowercase() + &name[1..];
    Ok(Field { name, kind, versions: versions("versions")?, nullable, tag, default })
}

fn kind(text: &str, value: &Value, message: &Value) -> Result<Kind> {
    if let Some(element) = text.strip_prefix("[]") {
        return Ok(Kind::Array(Box::new(kind(element, value, message)?)));
    }
    Ok(match text {
        "bool" => Kind::Bool,
        "int8" => Kind::Int(1),
        "int16" => Kind::Int(2),
        "uint16" => Kind::Unsigned(2),
        "int32" => Kind::Int(4),
        "uint32" => Kind::Unsigned(4),
        "int64" => Kind::Int(8),
        "float64" => Kind::Float,
        "uuid" => Kind::Uuid,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        _ if value.get("fields").is_some() => Kind::Struct(fields(value, message)?),
        name => {
            let shared = message["commonStructs"].as_array().into_iter().flatten();
            let Some(shared) = shared.into_iter().find(|shared| shared["name"] == name) else {
                bail!("the type {name} is not known");
            };
            Kind::Struct(fields(shared, message)?)
        }
    })
}

/// A field's default: what the definition says, or the type's own.
fn default(declared: &Value, kind: &Kind) -> Result<Value> {
    let text = match declared {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Ok(match kind {
        _ if text == "null" => Value::Null,
        Kind::Bool => Value::Bool(text == "true"),
        Kind::Int(_) | Kind::Unsigned(_) if text.is_empty() => 0.into(),
        Kind::Int(_) | Kind::Unsigned(_) => number(&text)?.into(),
        Kind::Float => text.parse::<f64>().unwrap_or(0.0).into(),
        Kind::Uuid => "0".repeat(32).into(),
        Kind::String | Kind::Bytes | Kind::Records => text.into(),
        Kind::Struct(_) => Value::Object(serde_json::Map::new()),
        Kind::Array(_) => Value::Array(Vec::new()),
    })
}

fn number(text: &str) -> Result<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => Ok(i64::from_str_radix(digits, 16)?),
        None => Ok(text.parse()?),
    }
}

/// Reads a file of JSON with `//` comments on lines of their own.
fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}
