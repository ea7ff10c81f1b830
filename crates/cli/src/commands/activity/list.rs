//! `tidings activity list`: one page of what happened, newest first.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::ListArgs;
use crate::http_client::{HttpClient, with_query};
use crate::output::{print, print_json, print_table, table};

#[derive(Deserialize, Serialize)]
struct Page {
    /// As they are stored: a number keeps all its digits.
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Asks and prints.
pub async fn run(args: ListArgs) -> anyhow::Result<()> {
    let limit = args.limit.to_string();
    let path = with_query(
        "/api/v1/activities",
        &[
            ("tenant", Some(&args.tenant)),
            ("actor", args.actor.as_deref()),
            ("action", args.action.as_deref()),
            ("target", args.target.as_deref()),
            ("from", args.from.as_deref()),
            ("to", args.to.as_deref()),
            ("q", args.q.as_deref()),
            ("limit", Some(&limit)),
            ("cursor", args.cursor.as_deref()),
        ],
    );
    let page: Page = HttpClient::new(&args.http.http).get_json(&path).await?;
    if args.http.json {
        return print_json(&page);
    }
    let items: Result<Vec<Value>, _> =
        page.items.iter().map(|item| serde_json::from_str(item.get())).collect();
    print_activities(&items?)?;
    if let Some(cursor) = &page.next_cursor {
        print(&format!("more: --cursor {cursor}\n"))?;
    }
    Ok(())
}

/// Prints activities, as the HTTP API answers them, as a table.
pub fn print_activities(items: &[Value]) -> anyhow::Result<()> {
    let mut rows = table(["OCCURRED", "ACTION", "ACTOR", "TARGETS", "ID"]);
    for item in items {
        let text = |field: &str| item[field].as_str().unwrap_or("-").to_owned();
        let targets: Vec<String> = item["targets"].as_array().into_iter().flatten().map(entity).collect();
        rows.add_row([
            text("occurred_at"),
            text("action"),
            entity(&item["actor"]),
            targets.join(", "),
            text("id"),
        ]);
    }
    print_table(&rows)
}

/// `user:ada (Ada Lovelace)`.
fn entity(value: &Value) -> String {
    let Some(id) = value["id"].as_str() else { return "-".to_owned() };
    let mut text = match value["type"].as_str() {
        Some(kind) => format!("{kind}:{id}"),
        None => id.to_owned(),
    };
    if let Some(name) = value["name"].as_str() {
        text.push_str(&format!(" ({name})"));
    }
    text
}
