//! Widening a definition by the versions that an older release still had.
//!
//! Owns the union: the newer definition is the base; the older one lowers its first version and gives back the fields
//! that went with the dropped versions. Invariant: where both define a version, they agree; a difference is an error.

use anyhow::{Result, ensure};

use super::definition::{Definition, Field};
use super::versions::Versions;

/// Widens `newer` by what only `older` has.
pub fn widen(newer: &mut Definition, older: &Definition) -> Result<()> {
    if older.versions.first >= newer.versions.first {
        return Ok(());
    }
    let dropped = Versions { first: older.versions.first, last: newer.versions.first - 1 };
    let old_valid = older.versions;
    newer.versions.first = older.versions.first;
    newer.origin = match dropped.first == dropped.last {
        true => format!("{} (version {} from {})", newer.origin, dropped.first, older.origin),
        false => {
            format!("{} (versions {}-{} from {})", newer.origin, dropped.first, dropped.last, older.origin)
        }
    };
    for new_struct in &mut newer.structs {
        let old_struct = older.find(&new_struct.name).ok();
        let Some(old_struct) = old_struct else { continue };
        new_struct.versions.first = new_struct.versions.first.min(old_struct.versions.first);
        for (index, old) in old_struct.fields.iter().enumerate() {
            if let Some(new) = new_struct.fields.iter().find(|new| new.name == old.name) {
                agree(new, old, old_valid)?;
                continue;
            }
            let outside =
                old.versions.and(old_valid).and(Versions { first: dropped.last + 1, last: i16::MAX });
            ensure!(outside.is_empty(), "{}.{} vanished from a version still valid", newer.name, old.name);
            let previous = index.checked_sub(1).map(|index| &old_struct.fields[index].name);
            let at = previous.and_then(|name| new_struct.fields.iter().position(|new| new.name == *name));
            new_struct.fields.insert(at.map_or(0, |at| at + 1), old.clone());
        }
    }
    Ok(())
}

/// Both definitions must say the same about the versions that the older one has.
fn agree(new: &Field, old: &Field, old_valid: Versions) -> Result<()> {
    let same = |new: Versions, old: Versions| {
        let (new, old) = (new.and(old_valid), old.and(old_valid));
        new == old || (new.is_empty() && old.is_empty())
    };
    ensure!(
        new.kind == old.kind && new.tag == old.tag && new.default == old.default,
        "field {} changed",
        new.name
    );
    ensure!(same(new.versions, old.versions), "field {} changed its versions", new.name);
    ensure!(same(new.nullable, old.nullable), "field {} changed where it is nullable", new.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(versions: &str, fields: &str) -> Definition {
        let text = format!(
            r#"{{ "name": "XRequest", "type": "request", "apiKey": 1, "validVersions": "{versions}",
            "flexibleVersions": "none", "fields": [{fields}] }}"#
        );
        Definition::parse(&text, "kafka".to_owned()).expect("the definition is in Kafka's form")
    }

    const A: &str = r#"{ "name": "A", "type": "int32", "versions": "0+" }"#;
    const DROPPED: &str = r#"{ "name": "Dropped", "type": "int8", "versions": "0-1" }"#;
    const B: &str = r#"{ "name": "B", "type": "string", "versions": "2+" }"#;

    #[test]
    fn dropped_versions_and_their_fields_come_back_in_place() {
        let mut newer = definition("2-4", &[A, B].join(","));
        widen(&mut newer, &definition("0-3", &[A, DROPPED, B].join(","))).expect("the definitions agree");
        assert_eq!(newer.versions, Versions { first: 0, last: 4 });
        let names: Vec<&str> = newer.structs[0].fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["A", "Dropped", "B"]);
    }

    #[test]
    fn contradictions_are_refused() {
        let changed = r#"{ "name": "A", "type": "int64", "versions": "0+" }"#;
        assert!(widen(&mut definition("2-4", A), &definition("0-3", changed)).is_err());
        let vanished = r#"{ "name": "C", "type": "int8", "versions": "0-3" }"#;
        let older = definition("0-3", &[A, vanished].join(","));
        assert!(widen(&mut definition("2-4", A), &older).is_err());
    }
}
