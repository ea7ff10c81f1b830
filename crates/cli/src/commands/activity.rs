//! `tidings activity`: send, list, follow and erase activities.

mod erase;
mod list;
mod send;
mod tail;

use crate::args::{ActivityCommand, HttpArgs};
use crate::config::ClientConfig;

pub use list::print_activities;

/// Runs the command.
pub fn run(command: ActivityCommand) -> anyhow::Result<()> {
    match command {
        ActivityCommand::Send(mut args) => {
            find(&mut args.http)?;
            block_on(send::run(args))
        }
        ActivityCommand::Erase(mut args) => {
            find(&mut args.http)?;
            block_on(erase::run(args))
        }
        ActivityCommand::List(mut args) => {
            find(&mut args.http)?;
            block_on(list::run(args))
        }
        // Reading the topic is the work of one thread that blocks.
        ActivityCommand::Tail(args) => tail::run(&args),
    }
}

/// Settles where the platform is. The settings are read only where no address was given: that one works whatever they are.
fn find(args: &mut HttpArgs) -> anyhow::Result<()> {
    args.http = match &args.given {
        Some(given) => given.clone(),
        None => ClientConfig::load(None)?.http()?,
    };
    Ok(())
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
