//! The end of a consumer that could not go on, told to whoever has to act: exit, page somebody, start another one.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Why a consumer has ended without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash<'a> {
    /// Its group.
    pub group: &'a str,
    /// What waiting does not heal, as in [`super::Phase::Failed`].
    pub reason: &'a str,
}

/// A function that is called when a consumer has ended without being asked to, once, on the consumer's own thread. What was done
/// is committed then, and its state says [`super::Phase::Failed`]. [`super::Consumer::stop`] waits for it.
///
/// ```
/// use tidings::consumer::{ConsumerOptions, Crash, CrashHandler};
///
/// let mut options = ConsumerOptions::new("billing", ["orders"]);
/// options.on_crash = Some(CrashHandler::new(|crash: &Crash<'_>| {
///     eprintln!("{} has ended: {}", crash.group, crash.reason);
///     std::process::exit(1); // whoever supervises the process starts it again
/// }));
/// ```
#[derive(Clone)]
pub struct CrashHandler(Arc<dyn Fn(&Crash<'_>) + Send + Sync>);

impl CrashHandler {
    /// Calls this function.
    pub fn new(call: impl Fn(&Crash<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(super) fn call(&self, crash: &Crash<'_>) {
        // The end is announced behind this, whatever it does.
        if catch_unwind(AssertUnwindSafe(|| (self.0)(crash))).is_err() {
            tracing::error!(group = crash.group, "the crash handler panicked");
        }
    }
}

impl fmt::Debug for CrashHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashHandler")
    }
}
