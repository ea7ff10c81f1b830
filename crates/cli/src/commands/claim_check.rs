//! `tidings claim-check`: what lies beside a cluster for its records.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tidings::claim_check::{BucketOptions, BucketStore, ClaimCheck, DirectoryStore};

use super::cluster::reach;
use crate::args::{ClaimCheckCommand, PayloadsArgs};
use crate::output::{print, print_json};

/// Runs the command.
pub fn run(command: ClaimCheckCommand) -> anyhow::Result<()> {
    let ClaimCheckCommand::Collect { cluster: args, topics, place, timeout } = command;
    let claims = open(&place)?;
    let cluster = reach(&args)?;
    let mut answers = Vec::new();
    for topic in topics {
        let collected = claims.collect(&cluster, &topic, Duration::from_secs(timeout))?;
        if args.json {
            let (deleted, kept) = (collected.deleted, collected.kept);
            answers.push(serde_json::json!({ "topic": topic, "deleted": deleted, "kept": kept }));
        } else {
            print(&format!("{topic}: deleted {}, kept {}\n", collected.deleted, collected.kept))?;
        }
    }
    if args.json { print_json(&answers) } else { Ok(()) }
}

fn open(place: &PayloadsArgs) -> anyhow::Result<ClaimCheck> {
    if let Some(address) = &place.bucket {
        let store = BucketStore::open(address, &BucketOptions::at(place.reached.endpoint.as_deref()))?;
        return Ok(ClaimCheck::new(store, usize::MAX));
    }
    let Some(directory) = &place.directory else { bail!("name a directory or a bucket") };
    // A typing error must not make a directory.
    ensure!(directory.is_dir(), "{} is no directory", directory.display());
    let store = DirectoryStore::open(directory)
        .with_context(|| format!("open the payloads in {}", directory.display()))?;
    Ok(ClaimCheck::new(store, usize::MAX))
}
