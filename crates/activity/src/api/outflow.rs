//! A body that a task fills piece by piece.
//!
//! Invariants: at most one piece waits besides the one that is being written; the body ends normally only if its writer
//! says that it is whole, and else breaks off, so that nobody takes a part for all; a reader that takes nothing
//! for [`STALL_TIMEOUT`] is given up, so that it does not hold its place for ever. What it takes is told by slices of a
//! piece, because one that reads slowly may need longer for the whole.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc;

use crate::limits::{OUTFLOW_SLICE_BYTES, STALL_TIMEOUT};

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
        let mut rest = Bytes::from(bytes);
        while !rest.is_empty() {
            let slice = rest.split_to(rest.len().min(OUTFLOW_SLICE_BYTES));
            if !self.hand_over(Piece::Bytes(slice)).await {
                return false;
            }
        }
        true
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
        match tokio::time::timeout(self.stall_timeout, self.pieces.send(piece)).await {
            Ok(taken) => taken.is_ok(),
            Err(_) => {
                tracing::warn!(
                    stalled_ms = self.stall_timeout.as_millis(),
                    "a reader that takes nothing is given up: its transfer breaks off"
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use futures_util::StreamExt;

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

    /// A reader that takes a little all the time needs longer for a whole piece than one that takes nothing may.
    #[tokio::test]
    async fn a_piece_is_taken_in_slices() {
        let (outflow, body) = outflow();
        let piece: Vec<u8> = (0..OUTFLOW_SLICE_BYTES * 5 / 2).map(|at| (at % 251) as u8).collect();
        let writing = tokio::spawn({
            let piece = piece.clone();
            async move {
                assert!(outflow.push(piece).await);
                outflow.end().await;
            }
        });
        let slices: Vec<Bytes> = body.into_data_stream().map(Result::unwrap).collect().await;
        writing.await.unwrap();
        let lengths: Vec<usize> = slices.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [OUTFLOW_SLICE_BYTES, OUTFLOW_SLICE_BYTES, OUTFLOW_SLICE_BYTES / 2]);
        assert_eq!(slices.concat(), piece);
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
