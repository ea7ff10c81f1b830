//! What one connection takes in: frames, and the memory they may take.
//!
//! Owns the read buffer and its claims on the budget that all connections share. Invariants: at most one small frame's
//! bytes are read without a claim; the body of a larger frame is read only once its whole length is reserved, and the
//! reservation goes with the frame to whoever handles it; while it waits, nothing is read and other connections go on; a
//! sender that stalls in a claimed body ends the connection. Does not know what a frame means.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::budget::{RequestBudget, Reservation, Retention};
use super::frame::{FrameError, FrameReader, LENGTH_BYTES};
use super::{Closed, ended};
use crate::clock::{Clock, Sleep};

/// Frames up to this size need no reservation, so that ordinary requests get through whatever others do.
pub(crate) const SMALL_FRAME_BYTES: usize = 64 * 1024;

/// The most that is read before the next frame's length is known and granted.
const UNCLAIMED_BYTES: usize = LENGTH_BYTES + SMALL_FRAME_BYTES;

/// How long a claimed body may take for [`BODY_PROGRESS_BYTES`].
pub(crate) const BODY_STALL: Duration = Duration::from_secs(30);

/// What of a claimed body must arrive in [`BODY_STALL`], unless that completes it. Clients that are slower run into
/// their own request timeouts.
const BODY_PROGRESS_BYTES: usize = 1024 * 1024;

/// A buffer up to this size is kept without asking.
const SMALL_BUFFER_BYTES: usize = 2 * SMALL_FRAME_BYTES;

/// A buffer larger than this is always given back: one large request must not pin its size for ever.
const RETAINED_BYTES: usize = 2 * 1024 * 1024;

/// A frame without its length, and what it has reserved.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) reservation: Option<Reservation>,
}

/// The reading half of a connection.
pub(crate) struct Intake {
    reader: FrameReader,
    claim: Claim,
    retention: Option<Retention>,
    budget: Arc<RequestBudget>,
    clock: Arc<dyn Clock>,
}

/// What the frame at the head of the buffer has of the budget.
enum Claim {
    None,
    Waiting(Pin<Box<dyn Future<Output = Reservation> + Send>>),
    Granted(Body),
}

/// A body that is arriving.
struct Body {
    reservation: Reservation,
    /// The bytes that must be in the buffer when `due` ends.
    due_bytes: usize,
    due: Sleep,
}

impl Intake {
    pub(crate) fn new(max_frame_bytes: usize, budget: Arc<RequestBudget>, clock: Arc<dyn Clock>) -> Intake {
        let reader = FrameReader::new(max_frame_bytes);
        Intake { reader, claim: Claim::None, retention: None, budget, clock }
    }

    /// The next frame, if all of it has arrived.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(bytes) = self.reader.next_frame()? else { return Ok(None) };
        let reservation = match mem::replace(&mut self.claim, Claim::None) {
            Claim::Granted(body) => Some(body.reservation),
            Claim::None | Claim::Waiting(_) => None,
        };
        Ok(Some(Frame { bytes, reservation }))
    }

    /// Whether all of the next frame has arrived.
    pub(crate) fn has_frame(&self) -> Result<bool, FrameError> {
        self.reader.has_frame()
    }

    /// Whether some of the next frame has arrived.
    pub(crate) fn has_more(&self) -> bool {
        self.reader.buffered() > 0
    }

    /// To be called when a frame has been taken out: decides whether its memory is kept for the next one.
    pub(crate) fn taken(&mut self) {
        let grown_to = self.reader.grown_to();
        if grown_to <= SMALL_BUFFER_BYTES {
            return;
        }
        if grown_to > RETAINED_BYTES {
            self.retention = None;
        } else if self.retention.is_none() {
            self.retention = self.budget.retain();
        }
        if self.retention.is_none() {
            self.reader.give_back();
        }
    }

    /// Whether something of the budget is held or waited for.
    pub(crate) fn has_claim(&self) -> bool {
        !matches!(self.claim, Claim::None)
    }

    /// Reads once, after waiting for the budget where the next frame needs it. May be dropped while waiting; a place in
    /// the queue for the budget is kept. To be called only when no whole frame is buffered.
    pub(crate) async fn read(&mut self, source: &mut (impl AsyncRead + Unpin)) -> Result<(), Closed> {
        let large = self.reader.frame_length()?.filter(|length| *length > SMALL_FRAME_BYTES);
        let Some(length) = large else {
            return ended(self.reader.read_from(source, UNCLAIMED_BYTES).await);
        };
        let frame_end = LENGTH_BYTES + length;
        if !self.has_claim() {
            self.claim = Claim::Waiting(Box::pin(self.budget.reserve(length)));
        }
        if let Claim::Waiting(waiting) = &mut self.claim {
            let reservation = waiting.await;
            let (due_bytes, due) = next_check(self.reader.buffered(), frame_end, &*self.clock);
            self.claim = Claim::Granted(Body { reservation, due_bytes, due });
        }
        let Claim::Granted(body) = &mut self.claim else { return Ok(()) };
        loop {
            tokio::select! {
                biased;
                read = self.reader.read_from(source, frame_end + UNCLAIMED_BYTES) => return ended(read),
                () = &mut body.due => {
                    let arrived = self.reader.buffered();
                    if arrived < body.due_bytes {
                        return Err(Closed::Stalled { arrived, expected: frame_end });
                    }
                    (body.due_bytes, body.due) = next_check(arrived, frame_end, &*self.clock);
                }
            }
        }
    }

    /// Reads ahead while an earlier frame is being handled; for ever when there is no room for more.
    pub(crate) async fn read_ahead(&mut self, source: &mut (impl AsyncRead + Unpin)) -> Result<(), Closed> {
        if self.reader.buffered() >= UNCLAIMED_BYTES {
            return std::future::pending().await;
        }
        ended(self.reader.read_from(source, UNCLAIMED_BYTES).await)
    }
}

/// How much must have arrived, and when that is looked at.
fn next_check(arrived: usize, frame_end: usize, clock: &dyn Clock) -> (usize, Sleep) {
    let due = clock.sleep_until(clock.steady_ms() + BODY_STALL.as_millis() as i64);
    ((arrived + BODY_PROGRESS_BYTES).min(frame_end), due)
}
