//! The `tidings` executable: reads the command line and hands over to the command.
//!
//! Owns how errors reach a person: one line on standard error, perhaps a second with a hint, and status 1. Bad usage is
//! status 2, as clap has it.

mod address;
mod args;
mod backup;
mod commands;
mod config;
mod control;
mod demo;
mod http_client;
mod memory;
mod output;
mod platform;
mod ready;
mod reload;
mod report;
mod shutdown;

use std::process::ExitCode;

use clap::Parser;
use rustix::fs::Mode;
use rustix::process::umask;

use args::{Args, Command};

fn main() -> ExitCode {
    memory::keep_small();
    keep_files_private();
    let args = Args::parse();
    let result = match args.command {
        Command::Up(args) => commands::up::run(&args),
        Command::Broker(args) => commands::broker::run(&args),
        Command::Demo(args) => commands::demo::run(args),
        Command::Activity(command) => commands::activity::run(command),
        Command::Dlq(command) => commands::dlq::run(command),
        Command::ClaimCheck(command) => commands::claim_check::run(command),
        Command::Topic(command) => commands::topic::run(command),
        Command::Group(command) => commands::group::run(command),
        Command::Log(command) => commands::log::run(&command),
        Command::Backup(command) => commands::backup::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Data directories, backups and whatever else is written hold records and activities: nobody but their owner reads them,
/// and the system's default would let everybody.
fn keep_files_private() {
    let group_and_others = Mode::RWXG | Mode::RWXO;
    let as_it_was = umask(group_and_others);
    umask(as_it_was | group_and_others);
}
