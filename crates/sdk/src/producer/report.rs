//! What became of a record, told to whoever wants to count it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Delivered;
use crate::error::KafkaFault;

/// What became of one record that was handed to the client.
#[derive(Debug)]
pub struct DeliveryReport<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Where it was written, or why it was not, as far as is known.
    pub result: Result<Delivered, &'a KafkaFault>,
    /// From the call that sent it to the answer.
    pub took: Duration,
}

/// A function that is called with each report, on the client's own thread: it must be quick, and not send itself.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tidings::ProducerOptions;
/// use tidings::producer::{DeliveryCallback, DeliveryReport};
///
/// let refused = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&refused);
/// let on_delivery = DeliveryCallback::new(move |report: &DeliveryReport<'_>| {
///     counter.fetch_add(u64::from(report.result.is_err()), Ordering::Relaxed);
/// });
/// let options = ProducerOptions { on_delivery: Some(on_delivery), ..ProducerOptions::default() };
/// # drop(options);
/// ```
#[derive(Clone)]
pub struct DeliveryCallback(Arc<dyn Fn(&DeliveryReport<'_>) + Send + Sync>);

impl DeliveryCallback {
    /// Calls this function.
    pub fn new(call: impl Fn(&DeliveryReport<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(super) fn call(&self, report: &DeliveryReport<'_>) {
        (self.0)(report);
    }
}

impl fmt::Debug for DeliveryCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryCallback")
    }
}
