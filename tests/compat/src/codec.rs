//! Messages as JSON to bytes and back, by Kafka's definitions.
//!
//! Owns the JSON form: fields by Kafka's names with a small first letter; what is not given has its default; what a
//! version does not have is not written. Bytes are text, or `hex:` and digits; ids are 32 digits. Writing does not check
//! whether null is allowed, because scenarios send what is not allowed. Reading is strict: bytes that are missing or left
//! over are errors.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::definitions::{Api, Field, Fields, Kind};
use crate::records;

/// A request as a frame, its length in front.
pub fn request_frame(api: &Api, version: i16, correlation_id: i32, body: &Value) -> Vec<u8> {
    let mut frame = request_header(api.key, version, correlation_id, api.is_flexible(version));
    encode(&api.request, version, api.is_flexible(version), body, &mut frame);
    with_length(&frame)
}

/// The header of a request; `flexible` adds its (no) tagged fields.
pub fn request_header(key: i16, version: i16, correlation_id: i32, flexible: bool) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(key.to_be_bytes());
    header.extend(version.to_be_bytes());
    header.extend(correlation_id.to_be_bytes());
    put_string(Some(CLIENT_ID), false, &mut header);
    if flexible {
        header.push(0);
    }
    header
}

/// What every scenario calls itself.
const CLIENT_ID: &str = "oracle";

/// Bytes with their length in front.
pub fn with_length(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).expect("a frame is smaller than 2 GiB");
    [&length.to_be_bytes(), body].concat()
}

/// Reads a response's frame: the correlation id and the body.
pub fn response(api: &Api, version: i16, frame: &[u8]) -> Result<(i32, Value)> {
    let mut reader = Reader { bytes: frame, flexible: api.is_flexible(version), version };
    let correlation_id = reader.int(4)?;
    // A client that asks which versions there are can read no newer header yet (KIP-511).
    if reader.flexible && api.name != "ApiVersions" {
        ensure!(reader.varint()? == 0, "the header has tagged fields");
    }
    let body = reader.fields(&api.response)?;
    ensure!(reader.bytes.is_empty(), "{} bytes follow the answer", reader.bytes.len());
    Ok((i32::try_from(correlation_id)?, body))
}

/// Writes a struct.
pub fn encode(fields: &Fields, version: i16, flexible: bool, value: &Value, out: &mut Vec<u8>) {
    if let Some(unknown) = value.as_object().and_then(|map| map.keys().find(|key| !is_field(fields, key))) {
        panic!("no field is called {unknown}");
    }
    let mut tagged = Vec::new();
    for field in fields.iter().filter(|field| field.versions.contains(version)) {
        let given = value.get(&field.name);
        match field.tag_in(version) {
            None => encode_field(field, version, flexible, given.unwrap_or(&field.default), out),
            Some(tag) => tagged.extend(given.filter(|given| **given != field.default).map(|given| {
                let mut bytes = Vec::new();
                encode_field(field, version, flexible, given, &mut bytes);
                (tag, bytes)
            })),
        }
    }
    if !flexible {
        return;
    }
    tagged.sort_by_key(|(tag, _)| *tag);
    put_varint(tagged.len(), out);
    for (tag, bytes) in tagged {
        put_varint(tag as usize, out);
        put_varint(bytes.len(), out);
        out.extend(bytes);
    }
}

fn encode_field(field: &Field, version: i16, flexible: bool, value: &Value, out: &mut Vec<u8>) {
    // Whether a struct is there says a byte in front of it, if it need not be.
    if matches!(field.kind, Kind::Struct(_)) && field.nullable.contains(version) {
        out.push(if value.is_null() { 0xff } else { 1 });
        if value.is_null() {
            return;
        }
    }
    encode_value(&field.kind, version, flexible, value, out);
}

fn is_field(fields: &[Field], name: &str) -> bool {
    fields.iter().any(|field| field.name == name)
}

fn encode_value(kind: &Kind, version: i16, flexible: bool, value: &Value, out: &mut Vec<u8>) {
    let number = || value.as_i64().unwrap_or_else(|| panic!("expected a number, found {value}"));
    match kind {
        Kind::Bool => out.push(u8::from(value.as_bool().expect("a truth value"))),
        Kind::Int(size) | Kind::Unsigned(size) => out.extend(&number().to_be_bytes()[8 - size..]),
        Kind::Float => out.extend(value.as_f64().expect("a number").to_be_bytes()),
        Kind::Uuid => out.extend(unhex(value.as_str().expect("an id"))),
        Kind::String => put_string(value.as_str(), flexible, out),
        Kind::Bytes | Kind::Records => {
            let bytes = value.as_str().map(|text| match text.strip_prefix("hex:") {
                Some(digits) => unhex(digits),
                None => text.as_bytes().to_vec(),
            });
            put_length(bytes.as_ref().map(Vec::len), flexible, out);
            out.extend(bytes.unwrap_or_default());
        }
        Kind::Array(element) => {
            let elements = value.as_array();
            put_length(elements.map(Vec::len), flexible, out);
            elements
                .into_iter()
                .flatten()
                .for_each(|value| encode_value(element, version, flexible, value, out));
        }
        Kind::Struct(fields) => encode(fields, version, flexible, value, out),
    }
}

fn put_string(text: Option<&str>, flexible: bool, out: &mut Vec<u8>) {
    match text {
        _ if flexible => put_varint(text.map_or(0, |text| text.len() + 1), out),
        None => out.extend((-1i16).to_be_bytes()),
        Some(text) => out.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes()),
    }
    out.extend(text.unwrap_or_default().as_bytes());
}

fn put_length(length: Option<usize>, flexible: bool, out: &mut Vec<u8>) {
    match length {
        _ if flexible => put_varint(length.map_or(0, |length| length + 1), out),
        None => out.extend((-1i32).to_be_bytes()),
        Some(length) => out.extend(u32::try_from(length).expect("a short array").to_be_bytes()),
    }
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
    version: i16,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).context("the answer ends too early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn int(&mut self, size: usize) -> Result<i64> {
        let bytes = self.take(size)?;
        let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
        Ok(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
    }

    fn varint(&mut self) -> Result<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a variable-length integer does not end")
    }

    /// A length, or null.
    fn length(&mut self, size: usize) -> Result<Option<usize>> {
        let length = if self.flexible { i64::try_from(self.varint()?)? - 1 } else { self.int(size)? };
        Ok(if length == -1 { None } else { Some(usize::try_from(length)?) })
    }

    fn fields(&mut self, fields: &Fields) -> Result<Value> {
        let mut map = Map::new();
        let version = self.version;
        for field in fields.iter().filter(|field| field.versions.contains(version)) {
            let value = match field.tag_in(self.version) {
                Some(_) => field.default.clone(),
                None => self.field(field).with_context(|| format!("read {}", field.name))?,
            };
            map.insert(field.name.clone(), value);
        }
        if self.flexible {
            self.tagged(fields, &mut map)?;
        }
        Ok(Value::Object(map))
    }

    fn field(&mut self, field: &Field) -> Result<Value> {
        let nullable = field.nullable.contains(self.version);
        let value = self.value(&field.kind, nullable)?;
        ensure!(nullable || !value.is_null(), "null is not allowed");
        Ok(value)
    }

    fn tagged(&mut self, fields: &Fields, map: &mut Map<String, Value>) -> Result<()> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()?;
            let mut inner = Reader { bytes: self.take(size)?, ..*self };
            let known =
                fields.iter().find(|field| field.tag_in(self.version).is_some_and(|own| own as usize == tag));
            let field = known.with_context(|| format!("the tag {tag} is not known"))?;
            map.insert(field.name.clone(), inner.field(field)?);
            ensure!(inner.bytes.is_empty(), "the tagged field {} is longer than its value", field.name);
        }
        Ok(())
    }

    fn value(&mut self, kind: &Kind, nullable: bool) -> Result<Value> {
        Ok(match kind {
            Kind::Bool => Value::Bool(self.take(1)?[0] != 0),
            Kind::Int(size) => self.int(*size)?.into(),
            Kind::Unsigned(size) => (self.int(*size)? & ((1 << (8 * size)) - 1)).into(),
            Kind::Float => f64::from_be_bytes(self.take(8)?.try_into()?).into(),
            Kind::Uuid => hex(self.take(16)?).into(),
            Kind::String => match self.length(2)? {
                Some(length) => std::str::from_utf8(self.take(length)?)?.into(),
                None => Value::Null,
            },
            Kind::Bytes => match self.length(4)? {
                Some(length) => format!("hex:{}", hex(self.take(length)?)).into(),
                None => Value::Null,
            },
            Kind::Records => match self.length(4)? {
                Some(length) => records::describe(self.take(length)?),
                None => Value::Null,
            },
            Kind::Struct(_) if nullable && self.int(1)? < 0 => Value::Null,
            Kind::Struct(fields) => self.fields(fields)?,
            Kind::Array(element) => match self.length(4)? {
                // Elements are read one by one: a length that is a lie ends with the bytes.
                Some(length) => {
                    Value::Array((0..length).map(|_| self.value(element, false)).collect::<Result<_>>()?)
                }
                None => Value::Null,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_sign() {
        let read = |bytes: &[u8]| Reader { bytes, flexible: false, version: 0 }.int(bytes.len()).unwrap();
        assert_eq!((read(&[0xff, 0xfe]), read(&[0x7f]), read(&[1, 0])), (-2, 127, 256));
    }
}
