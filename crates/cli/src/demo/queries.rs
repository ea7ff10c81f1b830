//! A few real questions to the platform, asked through its HTTP API as anybody would.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::commands::activity::print_activities;
use crate::http_client::{HttpClient, with_query};
use crate::output::{print, thousands};

/// Asked in this order: a title, and the parameters of the query.
const QUESTIONS: [(&str, &[(&str, &str)]); 3] = [
    (
        "The latest flights that American Airlines cancelled",
        &[("tenant", "AA"), ("action", "flight.cancelled"), ("limit", "5")],
    ),
    (
        "What the aircraft N952UW of US Airways did on 3 January",
        &[
            ("tenant", "US"),
            ("actor", "N952UW"),
            ("from", "2013-01-03T05:00:00Z"),
            ("to", "2013-01-04T05:00:00Z"),
            ("limit", "12"),
        ],
    ),
    (
        "The latest arrivals of Hawaiian Airlines in Honolulu",
        &[("tenant", "HA"), ("action", "flight.arrived"), ("q", "HNL"), ("limit", "3")],
    ),
];

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
}

/// Asks, prints the answers, and says what else can be tried.
pub async fn show_answers(http: SocketAddr, stays_up: bool) -> anyhow::Result<()> {
    let mut client = HttpClient::new(http.to_string());
    for (title, parameters) in QUESTIONS {
        let parameters: Vec<(&str, Option<&str>)> =
            parameters.iter().map(|(name, value)| (*name, Some(*value))).collect();
        let path = with_query("/api/v1/activities", &parameters);
        let page: Page = client.get_json(&path).await?;
        print(&format!("\n{title}\n  http://{http}{path}\n\n"))?;
        print_activities(&page.items)?;
    }
    let inbox: Page = client.get_json("/api/v1/dlq/activities").await?;
    let letters = thousands(inbox.items.len() as u64);
    print(&format!("\nThe failure inbox holds {letters} records\n  http://{http}/api/v1/dlq/activities\n"))?;
    if stays_up {
        print(&try_this(http))?;
    }
    Ok(())
}

fn try_this(http: SocketAddr) -> String {
    format!(
        "\nIt stays up until Ctrl-C. Try:\n\
         \x20 curl 'http://{http}/api/v1/activities?tenant=UA&action=flight.*&limit=3'\n\
         \x20 curl http://{http}/metrics\n\
         \x20 curl http://{http}/readyz\n\
         \x20 curl http://{http}/api/v1/activities -H 'content-type: application/json' \\\n\
         \x20      -d '{{\"tenant\": \"UA\", \"action\": \"flight.noticed\", \"actor\": {{\"type\": \"user\", \"id\": \"you\"}}}}'\n\
         and any Kafka client, or `tidings activity`, `tidings dlq`, `tidings topic`, `tidings group`.\n"
    )
}
