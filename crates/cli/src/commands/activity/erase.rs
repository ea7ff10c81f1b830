//! `tidings activity erase`: delete all that an actor did.

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::EraseArgs;
use crate::http_client::HttpClient;
use crate::output::{print, print_json, thousands};

/// Asks for it and prints the record.
pub async fn run(args: EraseArgs) -> anyhow::Result<()> {
    let body = json!({"tenant": args.tenant, "actor": args.actor, "requested_by": args.requested_by});
    let mut client = HttpClient::new(&args.http.http);
    let answer = client.post("/api/v1/erasures", "application/json", body.to_string().into()).await?;
    let record: Value = answer.into_json()?;
    if args.http.json {
        return print_json(&record);
    }
    let count = thousands(record["activities"].as_u64().context("the answer has no number of activities")?);
    let id = record["id"].as_str().unwrap_or("?");
    match record["finished_at"].as_str() {
        Some(_) => print(&format!("erased {count} activities, recorded as {id}\n")),
        None => print(&format!("erased {count} activities so far, and going on, recorded as {id}\n")),
    }
}
