//! Errors as a person reads them: what failed and why on one line, what to do about it on a second.

use std::io::ErrorKind;

use tidings::admin::AdminError;
use tidings::reader::ReadError;
use tidings_broker::StartError;
use tidings_bucket::BucketError;
use tidings_console::ServerError;

use crate::backup::{CorruptStore, NoServer};
use crate::commands::log::LogCommandError;
use crate::http_client::NothingAnswers;

/// Prints an error to standard error.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("error: {}", one_line(error));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
}

/// The error and its causes; a cause that the error before it already quotes is left out.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line.replace('\n', " ")
}

fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<AdminError>() {
        return error.hint();
    }
    if let Some(ReadError::Kafka { fault, .. }) = error.downcast_ref::<ReadError>() {
        return Some(fault.hint());
    }
    if let Some(error) = error.downcast_ref::<StartError>() {
        let taken =
            matches!(error, StartError::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse);
        return if taken { Some(other_port("--kafka")) } else { error.hint() };
    }
    if let Some(ServerError::AddressTaken { .. }) = error.downcast_ref::<ServerError>() {
        return Some(other_port("--http"));
    }
    if let Some(error) = error.downcast_ref::<LogCommandError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<NoServer>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<CorruptStore>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<tidings_activity::StartError>() {
        return error.hint();
    }
    if let Some(error) = error.chain().find_map(of_bucket) {
        return error.hint().map(str::to_owned);
    }
    let nothing_answers = error.downcast_ref::<NothingAnswers>()?;
    Some(nothing_answers.hint())
}

/// A store of the SDK puts it into an error of input and output.
fn of_bucket<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a BucketError> {
    let within = || cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref();
    cause.downcast_ref().or_else(within)
}

fn other_port(flag: &str) -> String {
    format!("stop the program that uses the port, or name another port with {flag} (0 takes a free one)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("disk full").context("write a: disk full").context("save\nit");
        assert_eq!(one_line(&error), "save it: write a: disk full");
    }
}
