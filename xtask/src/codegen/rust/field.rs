//! How one field is declared, defaulted, read and written.

use anyhow::{Result, bail};

use super::super::definition::{Definition, Field};
use super::super::types::Type;
use super::super::versions::{Condition, Versions};
use super::snake_case;

/// A field in the versions in which its struct can occur.
pub struct FieldCode<'a> {
    /// The Rust name.
    pub name: String,
    definition: &'a Definition,
    field: &'a Field,
    /// The versions in which the struct can occur.
    context: Versions,
    /// Whether the type can be null in a version that has the field.
    nullable: Condition,
}

const KEYWORDS: &[&str] = &["type", "match", "ref", "self", "move", "use", "where", "loop"];

impl<'a> FieldCode<'a> {
    /// Fails on combinations which the codec has no form for.
    pub fn new(definition: &'a Definition, field: &'a Field, context: Versions) -> Result<Self> {
        let mut name = snake_case(&field.name);
        if KEYWORDS.contains(&name.as_str()) {
            name.insert_str(0, "r#");
        }
        let nullable = field.nullable.condition(field.versions.and(context));
        if nullable != Condition::Never && matches!(field.kind, Type::Fixed(_)) {
            bail!("{}.{}: numbers are never null", definition.name, field.name);
        }
        Ok(Self { name, definition, field, context, nullable })
    }

    /// The tag of a tagged field.
    pub fn tag(&self) -> Option<u32> {
        self.field.tag
    }

    /// The versions that have the field.
    pub fn present(&self) -> Condition {
        self.field.versions.condition(self.context)
    }

    fn is_option(&self) -> bool {
        self.nullable != Condition::Never || self.field.kind == Type::Records
    }

    /// The declared type.
    pub fn rust_type(&self) -> String {
        let plain = self.field.kind.rust();
        if self.is_option() { format!("Option<{plain}>") } else { plain }
    }

    fn defaults_to_null(&self) -> bool {
        self.is_option()
            && (self.field.default.as_deref() == Some("null") || self.field.kind == Type::Records)
    }

    /// Whether the default is what Rust gives the type.
    pub fn default_is_natural(&self) -> bool {
        self.default() == "Default::default()" || self.defaults_to_null()
    }

    /// The default as an expression.
    pub fn default(&self) -> String {
        if self.defaults_to_null() {
            return "None".to_owned();
        }
        let value = match (&self.field.kind, self.field.default.as_deref()) {
            (Type::Fixed(fixed), Some(text)) if fixed.kafka != "uuid" => literal(text),
            (Type::String, Some(text)) if !text.is_empty() => Some(format!("{text:?}.to_owned()")),
            _ => None,
        };
        match (value, self.is_option()) {
            (None, false) => "Default::default()".to_owned(),
            (None, true) => "Some(Default::default())".to_owned(),
            (Some(value), false) => value,
            (Some(value), true) => format!("Some({value})"),
        }
    }

    /// An expression that tells whether the field has its default.
    fn is_default(&self) -> String {
        let name = &self.name;
        if self.defaults_to_null() {
            return format!("self.{name}.is_none()");
        }
        if self.is_option() {
            return match &self.field.kind {
                Type::String => {
                    let text = self.field.default.as_deref().unwrap_or_default();
                    format!("self.{name}.as_deref() == Some({text:?})")
                }
                Type::Struct(one) => format!("self.{name} == Some({one}::default())"),
                _ => format!("self.{name}.as_ref().is_some_and(|x| x.is_empty())"),
            };
        }
        match (&self.field.kind, self.field.default.as_deref()) {
            (Type::Fixed(fixed), default) => match (fixed.kafka, default.and_then(literal)) {
                ("bool", None) => format!("!self.{name}"),
                ("bool", Some(_)) => format!("self.{name}"),
                ("uuid", _) => format!("self.{name}.is_zero()"),
                ("float64", None) => format!("self.{name} == 0.0"),
                (_, value) => format!("self.{name} == {}", value.unwrap_or_else(|| "0".to_owned())),
            },
            (Type::String, Some(text)) if !text.is_empty() => format!("self.{name} == {text:?}"),
            (Type::Struct(one), _) => format!("self.{name} == {one}::default()"),
            _ => format!("self.{name}.is_empty()"),
        }
    }

    /// An expression that tells whether the field does not have its default.
    pub fn differs_from_default(&self) -> String {
        let is_default = self.is_default();
        match is_default.strip_prefix('!') {
            Some(inner) => inner.to_owned(),
            None if is_default.contains(" == ") => is_default.replacen(" == ", " != ", 1),
            None if is_default.ends_with(".is_none()") => is_default.replace(".is_none()", ".is_some()"),
            None => format!("!{is_default}"),
        }
    }

    /// A statement that refuses a value which versions without the field would lose.
    pub fn refuse_when_absent(&self) -> String {
        if self.field.ignorable || self.present() == Condition::Always {
            return String::new();
        }
        format!("field_allowed({}, \"{}\", version)?;\n", self.is_default(), self.name)
    }

    /// The flexible versions, as an argument within a body.
    fn flexible(&self) -> String {
        match self.definition.flexible.condition(self.context) {
            Condition::When(_) if self.tag().is_some() => "true".to_owned(),
            Condition::When(_) => "flexible".to_owned(),
            fixed => fixed.expression(),
        }
    }

    /// An expression that reads the value.
    pub fn decode(&self) -> String {
        let plain = self.decode_as("");
        match (&self.nullable, &self.field.kind) {
            (_, Type::Records) | (Condition::Never, _) => plain,
            (Condition::Always, _) => self.decode_as("nullable_"),
            (Condition::When(condition), _) => {
                format!("if {condition} {{ {} }} else {{ Some({plain}) }}", self.decode_as("nullable_"))
            }
        }
    }

    fn decode_as(&self, prefix: &str) -> String {
        let flexible = self.flexible();
        match &self.field.kind {
            Type::Fixed(fixed) => format!("d.{}()?", fixed.method),
            Type::String => format!("d.{prefix}string({flexible})?"),
            Type::Bytes => format!("d.{prefix}bytes({flexible})?"),
            Type::Records => format!("d.records({flexible})?"),
            Type::Struct(name) if prefix.is_empty() => format!("{name}::decode(d, version)?"),
            // Kafka says so with a varint where there is a tag, and with a byte where there is none.
            Type::Struct(name) if self.tag().is_some() => {
                format!(
                    "if d.unsigned_varint()? == 0 {{ None }} else {{ Some({name}::decode(d, version)?) }}"
                )
            }
            Type::Struct(name) => {
                format!("if d.struct_is_present()? {{ Some({name}::decode(d, version)?) }} else {{ None }}")
            }
            Type::Array(element) => {
                let min_size = min_size(self.definition, element, self.field.versions.and(self.context));
                let read = self.decode_element(element);
                format!("d.{prefix}array({flexible}, version, {min_size}, {read})?")
            }
        }
    }

    /// A function that reads an element; it captures nothing, so it finds out itself what is flexible.
    fn decode_element(&self, element: &Type) -> String {
        match element {
            Type::Fixed(fixed) => format!("|d, _| d.{}()", fixed.method),
            Type::Struct(name) => format!("{name}::decode"),
            _ => {
                let (version, flexible) = self.element_flexible();
                format!("|d, {version}| d.string({flexible})")
            }
        }
    }

    fn element_flexible(&self) -> (&'static str, String) {
        match self.definition.flexible.condition(self.context) {
            Condition::When(expression) if self.tag().is_none() => ("version", expression),
            Condition::When(_) => ("_", "true".to_owned()),
            fixed => ("_", fixed.expression()),
        }
    }

    /// Statements that write the value.
    pub fn encode(&self) -> String {
        let name = &self.name;
        if self.field.kind == Type::Records || self.is_option() {
            let null_check = match &self.nullable {
                Condition::Always => String::new(),
                condition => format!(
                    "null_allowed(self.{name}.is_some() || {}, \"{name}\", version)?;\n",
                    condition.expression()
                ),
            };
            let null = match self.field.kind {
                Type::String => format!("e.null_string({})", self.flexible()),
                Type::Struct(_) if self.tag().is_some() => "e.unsigned_varint(0)".to_owned(),
                Type::Struct(_) => "e.struct_presence(false)".to_owned(),
                _ => format!("e.null({})", self.flexible()),
            };
            let present = match self.field.kind {
                Type::Struct(_) if self.tag().is_some() => "e.unsigned_varint(1); ",
                Type::Struct(_) => "e.struct_presence(true); ",
                _ => "",
            };
            let value = self.encode_value("x");
            return format!(
                "{null_check}match &self.{name} {{ Some(x) => {{ {present}{value}? }} None => {null}, }}\n"
            );
        }
        match &self.field.kind {
            Type::Fixed(fixed) => format!("e.{}(self.{name});\n", fixed.method),
            Type::Struct(_) => format!("{}?;\n", self.encode_value(&format!("self.{name}"))),
            _ => format!("{}?;\n", self.encode_value(&format!("&self.{name}"))),
        }
    }

    fn encode_value(&self, value: &str) -> String {
        let flexible = self.flexible();
        match &self.field.kind {
            Type::Fixed(fixed) => format!("e.{}(*{value})", fixed.method),
            Type::String => format!("e.string({flexible}, {value})"),
            Type::Bytes => format!("e.bytes({flexible}, {value})"),
            Type::Records => format!("e.records({flexible}, {value})"),
            Type::Struct(_) => format!("{value}.encode(e, version)"),
            Type::Array(element) => {
                let write = match &**element {
                    Type::Fixed(fixed) => format!("|x, e, _| {{ e.{}(*x); Ok(()) }}", fixed.method),
                    Type::Struct(name) => format!("{name}::encode"),
                    _ => {
                        let (version, flexible) = self.element_flexible();
                        format!("|x, e, {version}| e.string({flexible}, x)")
                    }
                };
                format!("e.array({flexible}, version, {value}, {write})")
            }
        }
    }
}

/// A number or boolean as Rust writes it; nothing for the type's own default.
fn literal(text: &str) -> Option<String> {
    let value = match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).map_or_else(|_| text.to_owned(), |value| value.to_string()),
        None => text.to_owned(),
    };
    let is_natural = matches!(value.as_str(), "0" | "false" | "0.0" | "");
    (!is_natural).then_some(value)
}

/// The size of the shortest encoding in any of `versions`, in bytes.
fn min_size(definition: &Definition, kind: &Type, versions: Versions) -> usize {
    let versions = versions.and(definition.versions);
    (versions.first..=versions.last)
        .map(|version| size_at(definition, kind, false, version))
        .min()
        .unwrap_or(0)
}

fn size_at(definition: &Definition, kind: &Type, nullable: bool, version: i16) -> usize {
    let flexible = definition.flexible.contains(version);
    match kind {
        Type::Fixed(fixed) => fixed.size,
        Type::String => {
            if flexible {
                1
            } else {
                2
            }
        }
        Type::Bytes | Type::Records | Type::Array(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Type::Struct(_) if nullable => 1,
        Type::Struct(name) => {
            let fields = definition.find(name).map(|one| one.fields.as_slice()).unwrap_or_default();
            let present =
                fields.iter().filter(|field| field.tag.is_none() && field.versions.contains(version));
            let size =
                |field: &Field| size_at(definition, &field.kind, field.nullable.contains(version), version);
            present.map(size).sum::<usize>() + usize::from(flexible)
        }
    }
}
