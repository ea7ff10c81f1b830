//! `tidings activity`: send, list, follow and erase activities.

mod erase;
mod list;
mod send;
mod tail;

use crate::args::ActivityCommand;

pub use list::print_activities;

/// Runs the command.
pub fn run(command: ActivityCommand) -> anyhow::Result<()> {
    match command {
        ActivityCommand::Send(args) => block_on(send::run(args)),
        ActivityCommand::Erase(args) => block_on(erase::run(args)),
        ActivityCommand::List(args) => block_on(list::run(args)),
        // Reading the topic is the work of one thread that blocks.
        ActivityCommand::Tail(args) => tail::run(&args),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
