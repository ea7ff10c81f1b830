//! The generated Rust: one file per message, the API keys, and the index of all.
//!
//! Owns the shape of a file. How a single field is declared, read and written is in [`field`].

mod field;

use std::fmt::Write;

use anyhow::{Result, bail};

use super::definition::{Definition, Struct};
use super::source::{ApiKey, Source};
use super::versions::{Condition, Versions};
use field::FieldCode;

/// Kafka's `ThrottleTimeMs` as Rust's `throttle_time_ms`.
pub fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let after_word = index > 0 && !letters[index - 1].is_ascii_uppercase();
        let before_word = index > 0 && letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && (after_word || before_word) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The file of one message.
pub fn message_file(definition: &Definition) -> Result<String> {
    let mut code = String::new();
    for one in &definition.structs {
        struct_code(&mut code, definition, one)?;
    }
    let mut file = header(&format!("`{}`", definition.name), &definition.origin);
    if code.contains("Bytes") {
        file.push_str("use bytes::Bytes;\n");
    }
    if code.contains("TopicId") {
        file.push_str("use tidings_model::TopicId;\n");
    }
    for helper in ["field_allowed", "null_allowed"] {
        if code.contains(helper) {
            writeln!(file, "use crate::message::{helper};")?;
        }
    }
    file.push_str("use crate::{DecodeError, Decoder, EncodeError, Encoder, Message");
    for import in ["ApiKey", "RecordMessage", "Records", "Request"] {
        let used = match import {
            "RecordMessage" => code.contains("impl RecordMessage"),
            "Records" => code.contains("Option<Records>"),
            "Request" => code.contains("impl Request "),
            _ => code.contains("ApiKey::"),
        };
        if used {
            write!(file, ", {import}")?;
        }
    }
    file.push_str("};\n\n");
    file.push_str(&code);
    Ok(file)
}

/// The module that names all messages.
pub fn index_file(definitions: &[Definition]) -> String {
    let mut modules: Vec<String> = definitions.iter().map(|one| snake_case(&one.name)).collect();
    let mut names: Vec<&str> = definitions.iter().map(|one| one.name.as_str()).collect();
    modules.push("api_key".to_owned());
    names.push("ApiKey");
    modules.sort_unstable();
    names.sort_unstable();
    let mut file = header("All messages", "the artifacts that each file names");
    file.push_str("#![allow(missing_docs, reason = \"the fields are Kafka's\")]\n");
    file.push_str("#![allow(clippy::field_reassign_with_default)]\n\n");
    for module in &modules {
        file.push_str(&format!("pub mod {module};\n"));
    }
    file.push('\n');
    for name in names {
        file.push_str(&format!("pub use {}::{name};\n", snake_case(name)));
    }
    file
}

/// The enum of all APIs.
pub fn api_key_file(keys: &[ApiKey], source: &Source) -> String {
    let origin = format!("{} {}", source.artifact.name, source.artifact.version);
    let mut file = header("The keys of all APIs", &origin);
    let list = |line: &dyn Fn(&ApiKey) -> String| keys.iter().map(line).collect::<String>();
    let contiguous = keys.iter().enumerate().all(|(index, key)| usize::try_from(key.code) == Ok(index));
    assert!(contiguous, "the lookup by key below counts on keys without gaps");
    file.push_str(&format!(
        "/// An API by its key, whether or not its messages are generated.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ApiKey {{ {variants} }}

        impl ApiKey {{
            /// Every API, in the order of the keys, which start at 0 and have no gaps.
            pub const ALL: &[ApiKey] = &[{all}];

            /// The API of this key.
            pub fn from_code(code: i16) -> Option<Self> {{
                usize::try_from(code).ok().and_then(|code| Self::ALL.get(code).copied())
            }}

            /// The key on the wire.
            pub const fn code(self) -> i16 {{ self as i16 }}

            /// Kafka's name.
            pub const fn name(self) -> &'static str {{ NAMES[self as usize] }}

            /// The first version with a flexible body.
            pub const fn flexible_from(self) -> Option<i16> {{ FLEXIBLE_FROM[self as usize] }}
        }}

        const NAMES: [&str; {count}] = [{names}];

        const FLEXIBLE_FROM: [Option<i16>; {count}] = [{flexible}];\n",
        count = keys.len(),
        variants = list(&|key| format!("{} = {},", key.name, key.code)),
        all = list(&|key| format!("ApiKey::{},", key.name)),
        names = list(&|key| format!("\"{}\",", key.name)),
        flexible = list(&|key| format!("{:?},", key.flexible_from)),
    ));
    file
}

fn header(what: &str, origin: &str) -> String {
    format!("//! {what}, from {origin}. Generated by `cargo xtask codegen`: do not edit.\n\n")
}

fn struct_code(code: &mut String, definition: &Definition, one: &Struct) -> Result<()> {
    let versions = one.versions.and(definition.versions);
    let flexible = definition.flexible.condition(versions);
    let mut fields = Vec::new();
    for field in &one.fields {
        if !field.versions.and(versions).is_empty() {
            fields.push(FieldCode::new(definition, field, versions)?);
        }
    }
    let can_have_tags = flexible != Condition::Never;
    declaration(code, &one.name, &fields, can_have_tags)?;
    let decode = decode_body(&fields, &flexible)?;
    let encode = encode_body(&fields, &flexible)?;
    if one.name == definition.name {
        message_impl(code, definition, &decode, &encode)
    } else {
        let name = &one.name;
        let unused = |body: &str| if uses_version(body) { "" } else { "_" };
        writeln!(
            code,
            "impl {name} {{
                fn decode(d: &mut Decoder, {}version: i16) -> Result<Self, DecodeError> {{ {decode} }}

                fn encode(&self, e: &mut Encoder, {}version: i16) -> Result<(), EncodeError> {{ {encode} }}
            }}\n",
            unused(&decode),
            unused(&encode),
        )?;
        Ok(())
    }
}

/// Whether the word `version` occurs by itself, not as a part of a field's name.
fn uses_version(body: &str) -> bool {
    body.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').any(|word| word == "version")
}

fn declaration(code: &mut String, name: &str, fields: &[FieldCode], can_have_tags: bool) -> Result<()> {
    let natural = fields.iter().all(FieldCode::default_is_natural);
    let derive = if natural { ", Default" } else { "" };
    writeln!(code, "#[derive(Debug, Clone, PartialEq{derive})]\npub struct {name} {{")?;
    for field in fields {
        writeln!(code, "pub {}: {},", field.name, field.rust_type())?;
    }
    if can_have_tags {
        code.push_str("pub unknown_tagged_fields: Vec<(u32, Bytes)>,\n");
    }
    code.push_str("}\n\n");
    if !natural {
        writeln!(code, "impl Default for {name} {{ fn default() -> Self {{ Self {{")?;
        for field in fields {
            writeln!(code, "{}: {},", field.name, field.default())?;
        }
        if can_have_tags {
            code.push_str("unknown_tagged_fields: Vec::new(),\n");
        }
        code.push_str("} } }\n\n");
    }
    Ok(())
}

fn decode_body(fields: &[FieldCode], flexible: &Condition) -> Result<String> {
    let mut body = String::from("let mut v = Self::default();\n");
    for field in fields.iter().filter(|field| field.tag().is_none()) {
        body.push_str(&guarded(&field.present(), &format!("v.{} = {};\n", field.name, field.decode())));
    }
    let tagged: Vec<_> = fields.iter().filter(|field| field.tag().is_some()).collect();
    let mut tags = String::new();
    if tagged.is_empty() {
        tags.push_str("v.unknown_tagged_fields = d.unknown_tagged_fields()?;\n");
    } else {
        tags.push_str("v.unknown_tagged_fields = d.tagged_fields(&mut |tag, d| { match tag {\n");
        for field in tagged {
            let guard = match field.present() {
                Condition::When(expression) => format!(" if {expression}"),
                _ => String::new(),
            };
            let tag = field.tag().unwrap_or_default();
            writeln!(tags, "{tag}{guard} => v.{} = {},", field.name, field.decode())?;
        }
        tags.push_str("_ => return Ok(false),\n} Ok(true) })?;\n");
    }
    body.push_str(&guarded(&flexible_local(flexible), &tags));
    body.push_str("Ok(v)\n");
    Ok(with_flexible(&body, flexible))
}

fn encode_body(fields: &[FieldCode], flexible: &Condition) -> Result<String> {
    let mut body = String::new();
    for field in fields {
        let otherwise = field.refuse_when_absent();
        let write = if field.tag().is_some() { String::new() } else { field.encode() };
        body.push_str(&either(&field.present(), &write, &otherwise));
    }
    let tagged: Vec<_> = fields.iter().filter(|field| field.tag().is_some()).collect();
    let mut tags = String::new();
    if tagged.is_empty() {
        tags.push_str("e.unknown_tagged_fields(&self.unknown_tagged_fields)?;\n");
    } else {
        let mut ordered = tagged;
        ordered.sort_by_key(|field| field.tag());
        tags.push_str("let mut tags = e.begin_tags(&self.unknown_tagged_fields);\n");
        for field in ordered {
            let tag = field.tag().unwrap_or_default();
            let value = field.encode();
            let is_set = field.differs_from_default();
            let condition = match field.present() {
                Condition::When(expression) => format!("{expression} && {is_set}"),
                _ => is_set,
            };
            writeln!(
                tags,
                "if {condition} {{ e.begin_tag(&mut tags, {tag})?; {value} e.end_tag(&mut tags)?; }}"
            )?;
        }
        tags.push_str("e.end_tags(tags)?;\n");
    }
    let refuse = "e.no_tags(&self.unknown_tagged_fields, version)?;\n";
    body.push_str(&either(
        &flexible_local(flexible),
        &tags,
        if *flexible == Condition::Never { "" } else { refuse },
    ));
    body.push_str("Ok(())\n");
    Ok(with_flexible(&body, flexible))
}

/// Bodies name the condition once, as a local.
fn flexible_local(flexible: &Condition) -> Condition {
    match flexible {
        Condition::When(_) => Condition::When("flexible".to_owned()),
        other => other.clone(),
    }
}

fn with_flexible(body: &str, flexible: &Condition) -> String {
    match flexible {
        Condition::When(expression) if body.contains("flexible") => {
            format!("let flexible = {expression};\n{body}")
        }
        _ => body.to_owned(),
    }
}

fn guarded(condition: &Condition, code: &str) -> String {
    either(condition, code, "")
}

fn either(condition: &Condition, code: &str, otherwise: &str) -> String {
    match condition {
        Condition::Always => code.to_owned(),
        Condition::Never => otherwise.to_owned(),
        Condition::When(_) if code.is_empty() && otherwise.is_empty() => String::new(),
        Condition::When(expression) if otherwise.is_empty() => format!("if {expression} {{ {code} }}\n"),
        Condition::When(expression) if code.is_empty() => {
            let opposite = opposite(expression);
            format!("if {opposite} {{ {otherwise} }}\n")
        }
        Condition::When(expression) => format!("if {expression} {{ {code} }} else {{ {otherwise} }}\n"),
    }
}

fn opposite(expression: &str) -> String {
    if expression.contains(">=") {
        expression.replace(">=", "<")
    } else if expression.contains("<=") {
        expression.replace("<=", ">")
    } else if expression.contains("==") {
        expression.replace("==", "!=")
    } else {
        format!("!{expression}")
    }
}

fn message_impl(code: &mut String, definition: &Definition, decode: &str, encode: &str) -> Result<()> {
    let Versions { first, last } = definition.versions;
    let name = &definition.name;
    let flexible = definition.flexible.and(definition.versions);
    let flexible_from =
        if flexible.is_empty() { "None".to_owned() } else { format!("Some({})", flexible.first) };
    writeln!(
        code,
        "impl Message for {name} {{
            const NAME: &'static str = \"{name}\";
            const MIN_VERSION: i16 = {first};
            const MAX_VERSION: i16 = {last};
            const FLEXIBLE_FROM: Option<i16> = {flexible_from};

            fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError> {{
                Self::check_decode(version)?;
                {decode}
            }}

            fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {{
                Self::check_encode(version)?;
                {encode}
            }}
        }}\n",
    )?;
    match (definition.kind.as_str(), definition.api_key, name.strip_suffix("Request")) {
        ("request", Some(_), Some(api)) => {
            let stable = if definition.latest_version_unstable { last - 1 } else { last };
            writeln!(
                code,
                "impl Request for {name} {{
                    const API_KEY: ApiKey = ApiKey::{api};
                    const MAX_STABLE_VERSION: i16 = {stable};
                    type Response = super::{api}Response;
                }}\n",
            )?;
        }
        ("coordinator-key" | "coordinator-value" | "metadata", Some(record_type), _) => {
            writeln!(code, "impl RecordMessage for {name} {{ const RECORD_TYPE: i16 = {record_type}; }}\n")?;
        }
        ("response" | "data", ..) => {}
        (kind, ..) => bail!("{name}: messages of type {kind} are not known"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::snake_case;

    #[test]
    fn names_become_snake_case() {
        for (kafka, rust) in [
            ("ThrottleTimeMs", "throttle_time_ms"),
            ("memberId", "member_id"),
            ("LastKnownElr", "last_known_elr"),
            ("IsKRaftController", "is_k_raft_controller"),
            ("Enable2Pc", "enable2_pc"),
            ("ErrorCode", "error_code"),
        ] {
            assert_eq!(snake_case(kafka), rust);
        }
    }
}
