//! `tidings group`: list, describe and delete consumer groups.

use serde_json::json;
use tidings::admin::{GroupDescription, GroupSummary};

use super::cluster::admin;
use crate::args::GroupCommand;
use crate::output::{print, print_json, print_table, table, visible};

/// Runs the command.
pub fn run(command: GroupCommand) -> anyhow::Result<()> {
    match command {
        GroupCommand::List { cluster } => {
            let groups = admin(&cluster)?.list_groups()?;
            if cluster.json { print_json(&groups) } else { print_list(&groups) }
        }
        GroupCommand::Describe { cluster, group } => {
            let group = admin(&cluster)?.describe_group(&group)?;
            if cluster.json { print_json(&group) } else { print_description(&group) }
        }
        GroupCommand::Delete { cluster, group } => {
            admin(&cluster)?.delete_group(&group)?;
            match cluster.json {
                true => print_json(&json!({ "deleted": group })),
                false => print(&format!("deleted group {group}\n")),
            }
        }
    }
}

fn print_list(groups: &[GroupSummary]) -> anyhow::Result<()> {
    let mut rows = table(["GROUP", "STATE", "MEMBERS", "PROTOCOL"]);
    for group in groups {
        rows.add_row([&visible(&group.name), &group.state, &group.members.to_string(), &group.protocol_type]);
    }
    print_table(&rows)
}

fn print_description(group: &GroupDescription) -> anyhow::Result<()> {
    print(&format!("group {}  {}  {}\n\n", visible(&group.name), group.state, group.protocol))?;
    let mut rows = table(["MEMBER", "CLIENT", "HOST"]);
    for member in &group.members {
        rows.add_row([&member.member_id, &member.client_id, &member.host].map(|text| visible(text)));
    }
    print_table(&rows)?;
    print("\n")?;
    let mut rows = table(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"]);
    for offset in &group.offsets {
        rows.add_row([
            offset.topic.clone(),
            offset.partition.to_string(),
            offset.committed_offset.to_string(),
            offset.end_offset.to_string(),
            offset.lag.to_string(),
        ]);
    }
    print_table(&rows)
}
