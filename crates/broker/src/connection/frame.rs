//! Frames: a length of four bytes, then that many bytes.
//!
//! Owns the read buffer of one connection. Invariants: a frame never exceeds the limit; the buffer grows with the bytes
//! that have arrived, at most doubling, never with the length a peer claims; once the frames cut from it are dropped,
//! the same allocation is filled again, unless it was given back. Does not know what a frame means, nor how much it may
//! read.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{self, AsyncRead, AsyncReadExt};

/// The smallest room a read is offered, and all that an idle connection holds.
const READ_CHUNK_BYTES: usize = 8 * 1024;

/// The bytes that carry a frame's length.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Why a connection cannot be read on: where the next frame begins is not known any more.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("frame length {found}: expected from 0 to {max} (socket.request.max.bytes)")]
    Length { found: i32, max: usize },
}

/// Cuts frames from a byte stream.
pub(crate) struct FrameReader {
    buffer: BytesMut,
    max_frame_bytes: usize,
    /// The most the buffer was grown to since it was last given back.
    grown_to: usize,
}

impl FrameReader {
    pub(crate) fn new(max_frame_bytes: usize) -> FrameReader {
        FrameReader { buffer: BytesMut::new(), max_frame_bytes, grown_to: 0 }
    }

    /// Bytes that have arrived and are not yet cut into frames.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether all of the next frame has arrived.
    pub(crate) fn has_frame(&self) -> Result<bool, FrameError> {
        Ok(self.frame_length()?.is_some_and(|length| self.buffer.len() >= LENGTH_BYTES + length))
    }

    /// The next frame without its length, if all of it has arrived.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.frame_length()?.filter(|length| self.buffer.len() >= LENGTH_BYTES + length)
        else {
            return Ok(None);
        };
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Reads once, to at most `end` buffered bytes, which must be more than there are; returns the number of bytes, 0 at
    /// the end of the stream. May be dropped while waiting.
    pub(crate) async fn read_from(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        end: usize,
    ) -> io::Result<usize> {
        let room = end.saturating_sub(self.buffer.len());
        assert!(room > 0, "a read into nothing looks like the end of the stream");
        self.make_room();
        source.read_buf(&mut (&mut self.buffer).limit(room)).await
    }

    /// The most memory the buffer has had since it was last given back.
    pub(crate) fn grown_to(&self) -> usize {
        self.grown_to
    }

    /// Gives the memory back; bytes that have arrived move to an allocation of their size.
    pub(crate) fn give_back(&mut self) {
        self.buffer = BytesMut::from(&self.buffer[..]);
        self.grown_to = self.buffer.capacity();
    }

    /// The length of the frame that arrives next, once that is known.
    pub(crate) fn frame_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let found = i32::from_be_bytes(*prefix);
        match usize::try_from(found) {
            Ok(length) if length <= self.max_frame_bytes => Ok(Some(length)),
            _ => Err(FrameError::Length { found, max: self.max_frame_bytes }),
        }
    }

    fn make_room(&mut self) {
        let arrived = self.buffer.len();
        let spare = self.buffer.capacity() - arrived;
        let missing = match self.frame_length() {
            Ok(Some(length)) => (LENGTH_BYTES + length).saturating_sub(arrived),
            _ => READ_CHUNK_BYTES,
        };
        if spare < missing.min(READ_CHUNK_BYTES) || spare == 0 {
            self.buffer.reserve(missing.min(arrived).max(READ_CHUNK_BYTES));
        }
        self.grown_to = self.grown_to.max(self.buffer.capacity());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn feed(reader: &mut FrameReader, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            reader.read_from(&mut bytes, usize::MAX).await.unwrap();
        }
    }

    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = i32::try_from(length).unwrap().to_be_bytes().to_vec();
        bytes.resize(LENGTH_BYTES + length, 7);
        bytes
    }

    #[tokio::test]
    async fn frames_are_cut_wherever_the_bytes_break() {
        let stream = [frame(3), frame(0), frame(20_000)].concat();
        for step in [1, 3, 4, 5, 4096, stream.len()] {
            let mut reader = FrameReader::new(1 << 20);
            let mut lengths = Vec::new();
            for piece in stream.chunks(step) {
                feed(&mut reader, piece).await;
                while let Some(frame) = reader.next_frame().unwrap() {
                    lengths.push(frame.len());
                }
            }
            assert_eq!(lengths, [3, 0, 20_000], "step {step}");
            assert_eq!(reader.buffered(), 0);
        }
    }

    #[tokio::test]
    async fn lengths_out_of_range_are_refused_before_any_byte_of_the_body() {
        for found in [-1, i32::MIN, 1025, i32::MAX] {
            let mut reader = FrameReader::new(1024);
            feed(&mut reader, &found.to_be_bytes()).await;
            assert_eq!(reader.next_frame(), Err(FrameError::Length { found, max: 1024 }));
        }
    }

    #[tokio::test]
    async fn the_buffer_grows_with_what_arrives_and_not_with_what_is_claimed() {
        let mut reader = FrameReader::new(100 << 20);
        feed(&mut reader, &(100i32 << 20).to_be_bytes()).await;
        reader.make_room();
        assert!(reader.buffer.capacity() <= 2 * READ_CHUNK_BYTES, "{}", reader.buffer.capacity());
        feed(&mut reader, &vec![0; 100_000]).await;
        reader.make_room();
        assert!(reader.buffer.capacity() <= 4 * 100_000, "{}", reader.buffer.capacity());
    }

    #[tokio::test]
    async fn the_allocation_is_filled_again_and_a_large_one_is_given_back() {
        let mut reader = FrameReader::new(100 << 20);
        for _ in 0..20 {
            feed(&mut reader, &frame(100_000)).await;
            assert!(reader.next_frame().unwrap().is_some());
        }
        assert!(reader.grown_to <= 512 * 1024, "{}", reader.grown_to);
        feed(&mut reader, &frame(5 << 20)).await;
        feed(&mut reader, &[0, 0]).await;
        assert!(reader.next_frame().unwrap().is_some());
        reader.give_back();
        reader.make_room();
        assert!(reader.buffer.capacity() <= 2 * READ_CHUNK_BYTES);
        assert_eq!(reader.buffered(), 2);
    }

    #[tokio::test]
    async fn no_more_is_read_than_may_be() {
        let mut reader = FrameReader::new(1 << 20);
        let stream = frame(100);
        let mut rest = &stream[..];
        assert_eq!(reader.read_from(&mut rest, 10).await.unwrap(), 10);
        assert_eq!(reader.read_from(&mut rest, 11).await.unwrap(), 1);
        assert_eq!(reader.buffered(), 11);
    }
}
