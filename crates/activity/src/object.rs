//! Keeps serde from reading an array as a struct.
//!
//! serde's derive takes `["user", "u1"]` for a struct, field by field; in a public format that is a second spelling
//! which nobody asked for. Types under [`only_objects`] are derived with `remote = "Self"`, which makes the derived
//! code an inherent function, and get a `Deserialize` here that calls it for objects only.

macro_rules! only_objects {
    ($($name:ident),+) => {$(
        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name<'de>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                        $name::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }

                deserializer.deserialize_map(Visitor)
            }
        }
    )+};
}

pub(crate) use only_objects;

#[cfg(test)]
mod tests {
    use crate::activity::{Draft, Entity};

    #[test]
    fn arrays_are_no_objects() {
        assert!(serde_json::from_str::<Entity<'_>>(r#"["user","u1","Ann"]"#).is_err());
        assert!(serde_json::from_str::<Entity<'_>>(r#"{"type":"user","id":"u1"}"#).is_ok());
        let draft = r#"{"tenant":"t","action":"a","actor":["user","u1",null]}"#;
        let error = serde_json::from_str::<Draft<'_>>(draft).unwrap_err().to_string();
        assert!(error.contains("expected an object"), "{error}");
    }
}
