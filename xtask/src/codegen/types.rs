//! The types of fields: their names in Kafka's definitions, in Rust and in the codec.

use anyhow::{Result, bail};

/// The type of a field or of an array's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// A type of fixed size.
    Fixed(Fixed),
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// Record batches.
    Records,
    /// Another struct of the same message.
    Struct(String),
    /// Any number of one type.
    Array(Box<Type>),
}

/// A type of fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// Kafka's name.
    pub kafka: &'static str,
    /// The Rust type.
    pub rust: &'static str,
    /// The codec's method.
    pub method: &'static str,
    /// The size in bytes.
    pub size: usize,
}

const FIXED: &[Fixed] = &[
    Fixed { kafka: "bool", rust: "bool", method: "bool", size: 1 },
    Fixed { kafka: "int8", rust: "i8", method: "i8", size: 1 },
    Fixed { kafka: "int16", rust: "i16", method: "i16", size: 2 },
    Fixed { kafka: "uint16", rust: "u16", method: "u16", size: 2 },
    Fixed { kafka: "int32", rust: "i32", method: "i32", size: 4 },
    Fixed { kafka: "uint32", rust: "u32", method: "u32", size: 4 },
    Fixed { kafka: "int64", rust: "i64", method: "i64", size: 8 },
    Fixed { kafka: "float64", rust: "f64", method: "f64", size: 8 },
    Fixed { kafka: "uuid", rust: "TopicId", method: "uuid", size: 16 },
];

impl Type {
    /// Reads Kafka's notation.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(element) = text.strip_prefix("[]") {
            return match Self::parse(element)? {
                element @ (Self::Fixed(_) | Self::String | Self::Struct(_)) => {
                    Ok(Self::Array(Box::new(element)))
                }
                _ => bail!("arrays of {element} are not known"),
            };
        }
        if let Some(fixed) = FIXED.iter().find(|fixed| fixed.kafka == text) {
            return Ok(Self::Fixed(*fixed));
        }
        match text {
            "string" => Ok(Self::String),
            "bytes" => Ok(Self::Bytes),
            "records" => Ok(Self::Records),
            _ if text.starts_with(|first: char| first.is_ascii_uppercase()) => {
                Ok(Self::Struct(text.to_owned()))
            }
            _ => bail!("type {text:?} is not known"),
        }
    }

    /// The struct that this type or its elements are.
    pub fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.struct_name(),
            _ => None,
        }
    }

    /// The Rust type, when it cannot be null.
    pub fn rust(&self) -> String {
        match self {
            Self::Fixed(fixed) => fixed.rust.to_owned(),
            Self::String => "String".to_owned(),
            Self::Bytes => "Bytes".to_owned(),
            Self::Records => "Records".to_owned(),
            Self::Struct(name) => name.clone(),
            Self::Array(element) => format!("Vec<{}>", element.rust()),
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rust())
    }
}
