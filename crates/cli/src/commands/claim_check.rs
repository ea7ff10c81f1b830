//! `tidings claim-check`: what lies beside a cluster for its records.

use std::time::Duration;

use anyhow::{Context, ensure};
use tidings::claim_check::{ClaimCheck, DirectoryStore};

use super::cluster::reach;
use crate::args::ClaimCheckCommand;
use crate::output::{print, print_json};

/// Runs the command.
pub fn run(command: ClaimCheckCommand) -> anyhow::Result<()> {
    let ClaimCheckCommand::Collect { cluster: args, topics, directory, timeout } = command;
    // A typing error must not make a directory.
    ensure!(directory.is_dir(), "{} is no directory", directory.display());
    let store = DirectoryStore::open(&directory)
        .with_context(|| format!("open the payloads in {}", directory.display()))?;
    let claims = ClaimCheck::new(store, usize::MAX);
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
