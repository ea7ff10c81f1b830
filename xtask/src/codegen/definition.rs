//! A message as Kafka defines it: names, types and versions, read from its JSON.
//!
//! Owns the reading; fails on anything it does not know, so that a new feature of the definitions cannot be
//! passed over in silence. The prose (`about`) is not read.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::types::Type;
use super::versions::Versions;

/// One message.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Kafka's name.
    pub name: String,
    /// `request`, `response`, `data`, `metadata`, `coordinator-key` or `coordinator-value`.
    pub kind: String,
    /// The API key, or the record type.
    pub api_key: Option<i16>,
    /// The versions of this message.
    pub versions: Versions,
    /// The flexible versions.
    pub flexible: Versions,
    /// Whether Kafka may still change the newest version.
    pub latest_version_unstable: bool,
    /// The artifacts that define it.
    pub origin: String,
    /// The message first, then every struct inside it in the order of their first use.
    pub structs: Vec<Struct>,
}

/// The fields of a message or of a struct inside it.
#[derive(Debug, Clone)]
pub struct Struct {
    /// The Rust and Kafka name.
    pub name: String,
    /// The message's versions in which the struct can occur.
    pub versions: Versions,
    /// In the order of the wire.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Kafka's name.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// The versions that have the field.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// The tag, if the field is a tagged one.
    pub tag: Option<u32>,
    /// Whether a value is dropped in silence by versions that do not have the field.
    pub ignorable: bool,
    /// The default where it is not the type's own, as Kafka writes it.
    pub default: Option<String>,
}

const KNOWN_FIELD_KEYS: &[&str] = &[
    "name",
    "type",
    "versions",
    "nullableVersions",
    "taggedVersions",
    "tag",
    "ignorable",
    "default",
    "fields",
    "about",
    "entityType",
    "mapKey",
    "zeroCopy",
];

/// What a definition says about the message as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The API key, or the record type.
    pub api_key: Option<i16>,
    /// The versions; none for an API that Kafka keeps only in name.
    pub versions: Versions,
    /// The flexible versions.
    pub flexible: Versions,
}

impl Definition {
    /// Reads a definition; `text` is JSON with `//` comments on lines of their own.
    pub fn parse(text: &str, origin: String) -> Result<Self> {
        let value = json(text)?;
        let head = head(&value)?;
        let name = string(&value, "name")?.to_owned();
        let mut reader = Reader { message: head.versions, structs: Vec::new() };
        reader.read_struct(&name, head.versions, &value)?;
        for common in value["commonStructs"].as_array().into_iter().flatten() {
            let declared = Versions::parse(string(common, "versions")?)?;
            reader.read_struct(string(common, "name")?, declared.and(head.versions), common)?;
        }
        Ok(Self {
            kind: string(&value, "type")?.to_owned(),
            api_key: head.api_key,
            versions: head.versions,
            flexible: head.flexible,
            latest_version_unstable: value["latestVersionUnstable"].as_bool().unwrap_or(false),
            origin,
            structs: reader.structs,
            name,
        })
    }

    /// Reads only what concerns the message as a whole.
    pub fn parse_head(text: &str) -> Result<Head> {
        head(&json(text)?)
    }

    /// The struct `name` of this message.
    pub fn find(&self, name: &str) -> Result<&Struct> {
        let found = self.structs.iter().find(|known| known.name == name);
        found.with_context(|| format!("{}: no struct {name}", self.name))
    }
}

struct Reader {
    message: Versions,
    structs: Vec<Struct>,
}

impl Reader {
    fn read_struct(&mut self, name: &str, versions: Versions, value: &Value) -> Result<()> {
        if self.structs.iter().any(|known| known.name == name) {
            bail!("struct {name} is defined twice");
        }
        let index = self.structs.len();
        self.structs.push(Struct { name: name.to_owned(), versions, fields: Vec::new() });
        for field in value["fields"].as_array().with_context(|| format!("find the fields of {name}"))? {
            let read = read_field(field, versions).with_context(|| format!("read a field of {name}"))?;
            if let (Some(inner), true) = (read.kind.struct_name(), field.get("fields").is_some()) {
                self.read_struct(inner, read.versions.and(self.message), field)?;
            }
            self.structs[index].fields.push(read);
        }
        Ok(())
    }
}

fn read_field(value: &Value, context: Versions) -> Result<Field> {
    let name = string(value, "name")?.to_owned();
    let object = value.as_object().context("read a field as an object")?;
    if let Some(key) = object.keys().find(|key| !KNOWN_FIELD_KEYS.contains(&key.as_str())) {
        bail!("field {name} has the unknown property {key}");
    }
    let optional = |key: &str| value[key].as_str().map_or(Ok(Versions::NONE), Versions::parse);
    let tagged = optional("taggedVersions")?;
    // A field that is tagged wherever it exists may leave the other property out.
    let versions = match value["versions"].as_str() {
        None if value.get("taggedVersions").is_some() => tagged,
        _ => Versions::parse(string(value, "versions")?)?,
    };
    let tag = value["tag"].as_u64().map(u32::try_from).transpose()?;
    if tag.is_some() && tagged.and(context) != versions.and(context) {
        bail!("field {name} is tagged in some of its versions only");
    }
    let default = match &value["default"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Ok(Field {
        kind: Type::parse(string(value, "type")?)?,
        versions,
        nullable: optional("nullableVersions")?,
        tag,
        ignorable: value["ignorable"].as_bool().unwrap_or(false),
        default,
        name,
    })
}

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("find the text {key:?}"))
}

fn json(text: &str) -> Result<Value> {
    let json: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    serde_json::from_str(&json).context("parse JSON")
}

fn head(value: &Value) -> Result<Head> {
    Ok(Head {
        api_key: value["apiKey"].as_i64().map(i16::try_from).transpose()?,
        versions: Versions::parse(string(value, "validVersions")?)?,
        flexible: Versions::parse(value["flexibleVersions"].as_str().unwrap_or("none"))?,
    })
}
