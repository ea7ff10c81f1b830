//! Handlers that panic: over a record, which may count as rejected, or for good, which ends the consumer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Workshop;
use crate::consumer::handler::{HandlerError, Outcome};
use crate::consumer::scheduler::Job;
use crate::failure::Failure;
use crate::record::ReceivedRecord;

impl Workshop {
    /// Calls the handler. A panic goes on, unless it tells which record it was about and counts as its rejection.
    pub(super) fn call_handler(&self, records: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        if !self.rejects_panics || records.len() > 1 {
            return self.handler.handle(records);
        }
        catch_unwind(AssertUnwindSafe(|| self.handler.handle(records)))
            .unwrap_or_else(|panic| Ok(vec![Outcome::Reject(Failure::new(reason(&*panic)))]))
    }

    /// Ends the consumer after a panic, with where it was.
    pub(in crate::consumer) fn fail_after(&self, panic: &(dyn Any + Send), job: &Job) {
        let at = match job.records.as_slice() {
            [] => String::new(),
            [only] => format!("{}: ", only.position()),
            [first, rest @ ..] => format!("{} and {} more: ", first.position(), rest.len()),
        };
        self.board.fail(format!("{at}{}", reason(panic)));
    }
}

/// What a handler panicked with, in words.
fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "the handler panicked".into(), |text| format!("the handler panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_told_in_their_words() {
        let reason = |panic: Box<dyn Any + Send>| reason(&*panic);
        assert_eq!(reason(Box::new("no such key")), "the handler panicked: no such key");
        assert_eq!(reason(Box::new(String::from("index 3"))), "the handler panicked: index 3");
        assert_eq!(reason(Box::new(7)), "the handler panicked");
    }
}
