//! A body that a task fills piece by piece.
//!
//! Invariants: at most one piece waits besides the one that is being written; the body ends normally only if its writer
//! says that it is whole, and else breaks off, so that nobody takes a part for all; a reader that takes nothing
//! for [`STALL_TIMEOUT`] is given up, so that it does not hold its place for ever.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc;

use crate::limits::STALL_TIMEOUT;

enum Piece {
    Bytes(Bytes),
    End,
}

/// The end that pieces are put in at. Dropped without [`Outflow::end`], the body breaks off.
pub struct Outflow {
    pieces: mpsc::Sender<Piece>,
    stall_timeout: Duration,
}

/// A body and what fills it.
pub fn outflow() -> (Outflow, Body) {
    with_stall_timeout(STALL_TIMEOUT)
}

fn with_stall_timeout(stall_timeout: Duration) -> (Outflow, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stream::unfold(Some(receiver), async |receiver| {
        let mut receiver: mpsc::Receiver<Piece> = receiver?;
        match receiver.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
        }
    });
    (Outflow { pieces: sender, stall_timeout }, Body::from_stream(pieces))
}

impl Outflow {
    /// Hands a piece over; false if nobody takes it any more.
    pub async fn push(&self, bytes: Vec<u8>) -> bool {
        self.hand_over(Piece::Bytes(bytes.into())).await
    }

    /// The body is whole.
    pub async fn end(self) {
        self.hand_over(Piece::End).await;
    }

    /// Waits until the reader is gone.
    pub async fn closed(&self) {
        self.pieces.closed().await;
    }

    async fn hand_over(&self, piece: Piece) -> bool {
        matches!(tokio::time::timeout(self.stall_timeout, self.pieces.send(piece)).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn ends_only_if_it_is_whole() {
        let (outflow, body) = outflow();
        let reading = tokio::spawn(to_bytes(body, 100));
        assert!(outflow.push(b"one".to_vec()).await && outflow.push(b" two".to_vec()).await);
        outflow.end().await;
        assert_eq!(reading.await.unwrap().unwrap(), "one two");
        let (outflow, body) = super::outflow();
        let reading = tokio::spawn(to_bytes(body, 100));
        assert!(outflow.push(b"one".to_vec()).await);
        drop(outflow);
        assert!(reading.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_or_stalls_is_given_up() {
        let (outflow, body) = with_stall_timeout(Duration::from_millis(20));
        assert!(outflow.push(b"one".to_vec()).await);
        assert!(!outflow.push(b"two".to_vec()).await, "stalled");
        drop(body);
        outflow.closed().await;
        assert!(!outflow.push(b"three".to_vec()).await, "gone");
    }
}
