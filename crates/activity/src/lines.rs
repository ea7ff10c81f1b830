//! Cuts a stream of bytes into lines in constant memory.
//!
//! Invariant: no more than one line's limit and one piece of the stream are held. A line that is longer is dropped up
//! to its end and reported as one that is too long, and the stream goes on behind it.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// One line of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which line, counted from 1; blank ones count.
    pub number: u64,
    /// Its bytes without the line break, or `None` if it was too long to keep.
    pub bytes: Option<Bytes>,
}

/// Takes pieces in and gives lines out.
#[derive(Debug)]
pub struct Lines {
    limit_bytes: usize,
    /// The beginning of a line whose end has not come.
    partial: BytesMut,
    /// What came and was not looked at yet.
    piece: Bytes,
    number: u64,
    /// Whether the line at hand is too long and is being dropped.
    dropping: bool,
}

impl Lines {
    /// Lines of at most `limit_bytes` each.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, partial: BytesMut::new(), piece: Bytes::new(), number: 0, dropping: false }
    }

    /// Adds a piece. All lines of the one before must have been taken.
    pub fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    /// The next complete line that is not blank, or `None` until more is pushed.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(end) = memchr(b'\n', &self.piece) else {
                let rest = std::mem::take(&mut self.piece);
                self.keep(&rest);
                return None;
            };
            let last = self.piece.split_to(end);
            self.piece.advance(1);
            if let Some(line) = self.end_line(last) {
                return Some(line);
            }
        }
    }

    /// The last line, if the stream ended without a line break.
    pub fn finish(&mut self) -> Option<Line> {
        self.end_line(Bytes::new())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > self.limit_bytes {
            self.dropping = true;
        }
        if self.dropping {
            self.partial = BytesMut::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, last: Bytes) -> Option<Line> {
        self.number += 1;
        let bytes = if self.partial.is_empty() && !self.dropping && last.len() <= self.limit_bytes {
            // The usual line lies in one piece and needs no copy.
            last
        } else {
            self.keep(&last);
            self.partial.split().freeze()
        };
        if std::mem::take(&mut self.dropping) {
            return Some(Line { number: self.number, bytes: None });
        }
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(Line { number: self.number, bytes: Some(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8;

    fn cut(pieces: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::new(LIMIT);
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(Bytes::copy_from_slice(piece));
            while let Some(line) = lines.next_line() {
                found.push(line);
            }
            assert!(lines.partial.len() <= LIMIT);
        }
        found.extend(lines.finish());
        found
    }

    fn naive(text: &[u8]) -> Vec<Line> {
        let lines = text.split(|byte| *byte == b'\n').zip(1..);
        let lines = lines.map(|(line, number)| {
            let kept = line.len() <= LIMIT;
            (line, Line { number, bytes: kept.then(|| Bytes::copy_from_slice(line)) })
        });
        let blank = |line: &[u8]| line.len() <= LIMIT && line.iter().all(u8::is_ascii_whitespace);
        lines.filter(|(line, _)| !blank(line)).map(|(_, line)| line).collect()
    }

    #[test]
    fn cuts_lines_and_counts_blank_ones() {
        let line = |number, bytes: &'static [u8]| Line { number, bytes: Some(Bytes::from_static(bytes)) };
        assert_eq!(cut(&[b"a\n\n b\r\nc"]), [line(1, b"a"), line(3, b" b\r"), line(4, b"c")]);
        assert_eq!(cut(&[b"a", b"b", b"\n", b"", b"c\n"]), [line(1, b"ab"), line(2, b"c")]);
        assert_eq!(cut(&[b"", b"\n\n"]), []);
        let too_long = |number| Line { number, bytes: None };
        assert_eq!(cut(&[b"123456789\n12345678\nx"]), [too_long(1), line(2, b"12345678"), line(3, b"x")]);
        assert_eq!(cut(&[b"12345678", b"9", b"0000000000000\n", b"y\n"]), [too_long(1), line(2, b"y")]);
        assert_eq!(cut(&[b"1234567890"]), [too_long(1)]);
    }

    proptest! {
        #[test]
        fn agrees_with_splitting_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab \n".to_vec()), 0..14), 0..12)
        ) {
            let whole: Vec<u8> = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(cut(&pieces), naive(&whole));
        }
    }
}
