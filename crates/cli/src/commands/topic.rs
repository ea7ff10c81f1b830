//! `tidings topic`: list, create, delete and describe topics.

use serde_json::{Value, json};
use tidings::admin::{TopicDescription, TopicPartitionInfo, TopicSpec};

use super::cluster::admin;
use crate::args::TopicCommand;
use crate::output::{print, print_json, print_table, table};

/// Runs the command.
pub fn run(command: TopicCommand) -> anyhow::Result<()> {
    match command {
        TopicCommand::List { cluster, internal } => {
            let mut topics = admin(&cluster)?.list_topics()?;
            topics.retain(|topic| internal || !topic.name.starts_with("__"));
            if cluster.json { print_json(&listed(&topics)) } else { print_list(&topics) }
        }
        TopicCommand::Create { cluster, topic, partitions, replication_factor, config } => {
            let mut spec = TopicSpec::new(&topic, partitions).replication(replication_factor);
            spec.config = config;
            admin(&cluster)?.create_topic(&spec)?;
            match cluster.json {
                true => print_json(&json!({ "created": topic, "partitions": partitions })),
                false => print(&format!("created {topic} with {partitions} partitions\n")),
            }
        }
        TopicCommand::Delete { cluster, topic } => {
            admin(&cluster)?.delete_topic(&topic)?;
            match cluster.json {
                true => print_json(&json!({ "deleted": topic })),
                false => print(&format!("deleted {topic}\n")),
            }
        }
        TopicCommand::Describe { cluster, topic } => {
            let topic = admin(&cluster)?.describe_topic(&topic)?;
            if cluster.json { print_json(&topic) } else { print_description(&topic) }
        }
    }
}

/// What a list knows of topics: offsets and settings are asked for topic by topic, by `describe`.
fn listed(topics: &[TopicDescription]) -> Value {
    let partition = |partition: &TopicPartitionInfo| {
        json!({
            "partition": partition.partition,
            "leader": partition.leader,
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
        })
    };
    topics
        .iter()
        .map(|topic| {
            let partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
            json!({ "name": topic.name, "partitions": partitions })
        })
        .collect()
}

fn print_list(topics: &[TopicDescription]) -> anyhow::Result<()> {
    let mut rows = table(["TOPIC", "PARTITIONS", "REPLICAS"]);
    for topic in topics {
        let replicas = topic.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0);
        rows.add_row([topic.name.clone(), topic.partitions.len().to_string(), replicas.to_string()]);
    }
    print_table(&rows)
}

fn print_description(topic: &TopicDescription) -> anyhow::Result<()> {
    print(&format!("topic {}\n", topic.name))?;
    for (key, value) in &topic.config {
        print(&format!("  {key} = {value}\n"))?;
    }
    let mut rows = table(["PARTITION", "LEADER", "START", "END", "OFFSETS"]);
    let offset = |offset: Option<i64>| offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
    for partition in &topic.partitions {
        // Not records: transactions and cleaning leave offsets without one.
        let offsets = partition.end_offset.zip(partition.start_offset).map(|(end, start)| end - start);
        rows.add_row([
            partition.partition.to_string(),
            partition.leader.to_string(),
            offset(partition.start_offset),
            offset(partition.end_offset),
            offset(offsets),
        ]);
    }
    print_table(&rows)
}
