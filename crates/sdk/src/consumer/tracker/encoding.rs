//! What is done behind a committed offset, as text for the commit's metadata.
//!
//! ```text
//! "tidings1r" base64url(varint undone, varint done, varint undone, varint done, …)   run lengths
//! "tidings1b" base64url(one bit for each offset, lowest bit first: 1 = done)          bitmap
//! ```
//!
//! Both begin at the committed offset, which is itself not done; whatever lies behind the last bit or run is not done.
//! The shorter form is taken. If neither fits, as much of the beginning is kept as does: leaving out what is done costs
//! a repeated record, never a lost one.
//!
//! **Invariant:** decoding never panics, and allocates in proportion to the bytes given: other programs of the group
//! write metadata, too.

use std::ops::Range;

const RUNS: &str = "tidings1r";
const BITMAP: &str = "tidings1b";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// How many offsets behind the committed one always fit into metadata of so many bytes.
pub(in crate::consumer) fn capacity(max_bytes: usize) -> i64 {
    payload_bytes(max_bytes) as i64 * 8
}

/// Bytes that remain for the payload, before base64.
fn payload_bytes(max_bytes: usize) -> usize {
    max_bytes.saturating_sub(RUNS.len()) * 3 / 4
}

/// Metadata for what is done behind `next_offset`: sorted, disjoint ranges, each behind it. Empty if nothing is.
pub(super) fn encode(next_offset: i64, done: &[Range<i64>], max_bytes: usize) -> String {
    let limit = payload_bytes(max_bytes);
    let (runs, runs_end) = encode_runs(next_offset, done, limit);
    let (bitmap, bitmap_end) = encode_bitmap(next_offset, done, limit);
    let bitmap_is_better = (bitmap_end, runs.len()) > (runs_end, bitmap.len());
    let (form, payload) = if bitmap_is_better { (BITMAP, bitmap) } else { (RUNS, runs) };
    if payload.is_empty() { String::new() } else { to_text(form, &payload) }
}

/// The run lengths that fit, and the end of the last one.
fn encode_runs(next_offset: i64, done: &[Range<i64>], limit: usize) -> (Vec<u8>, i64) {
    let mut payload = Vec::new();
    let mut from = next_offset;
    for range in done {
        let len = payload.len();
        push_varint(&mut payload, (range.start - from) as u64);
        push_varint(&mut payload, (range.end - range.start) as u64);
        if payload.len() > limit {
            payload.truncate(len);
            break;
        }
        from = range.end;
    }
    (payload, from)
}

/// The bits that fit, and the end of the last offset done among them.
fn encode_bitmap(next_offset: i64, done: &[Range<i64>], limit: usize) -> (Vec<u8>, i64) {
    let bits = limit as i64 * 8;
    let mut payload = Vec::new();
    let mut end = next_offset;
    for range in done {
        for bit in (range.start - next_offset)..(range.end - next_offset).min(bits) {
            let index = (bit / 8) as usize;
            if payload.len() <= index {
                payload.resize(index + 1, 0);
            }
            payload[index] |= 1 << (bit % 8);
            end = next_offset + bit + 1;
        }
        if range.end - next_offset >= bits {
            break;
        }
    }
    (payload, end)
}

/// The ranges that metadata says are done: sorted, disjoint, not empty. None if it is not ours.
pub(super) fn decode(next_offset: i64, metadata: &[u8]) -> Vec<Range<i64>> {
    if let Some(text) = metadata.strip_prefix(RUNS.as_bytes()) {
        return from_text(text).map(|payload| decode_runs(next_offset, &payload)).unwrap_or_default();
    }
    if let Some(text) = metadata.strip_prefix(BITMAP.as_bytes()) {
        return from_text(text).map(|payload| decode_bitmap(next_offset, &payload)).unwrap_or_default();
    }
    Vec::new()
}

fn decode_runs(next_offset: i64, mut payload: &[u8]) -> Vec<Range<i64>> {
    let mut ranges = Vec::new();
    let mut from = next_offset;
    while !payload.is_empty() {
        let next = |payload: &mut &[u8]| i64::try_from(read_varint(payload)?).ok().filter(|len| *len > 0);
        let (Some(undone), Some(done)) = (next(&mut payload), next(&mut payload)) else { break };
        let start = from.checked_add(undone);
        let Some((start, end)) = start.and_then(|start| Some((start, start.checked_add(done)?))) else {
            break;
        };
        ranges.push(start..end);
        from = end;
    }
    ranges
}

fn decode_bitmap(next_offset: i64, payload: &[u8]) -> Vec<Range<i64>> {
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for (index, byte) in payload.iter().enumerate() {
        for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
            let Some(offset) = next_offset.checked_add(index as i64 * 8 + bit) else { return ranges };
            let Some(end) = offset.checked_add(1) else { return ranges };
            match ranges.last_mut() {
                Some(last) if last.end == offset => last.end = end,
                _ => ranges.push(offset..end),
            }
        }
    }
    ranges
}

fn push_varint(payload: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        payload.push(value as u8 | 0x80);
        value >>= 7;
    }
    payload.push(value as u8);
}

fn read_varint(payload: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = payload.split_first()?;
        *payload = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn to_text(form: &str, payload: &[u8]) -> String {
    let mut text = String::with_capacity(form.len() + payload.len().div_ceil(3) * 4);
    text.push_str(form);
    for chunk in payload.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * index)) as usize & 0x3f]));
        }
    }
    text
}

fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| ALPHABET.iter().position(|letter| *letter == byte).map(|index| index as u32);
    let mut payload = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut group = 0;
        for byte in chunk {
            group = group << 6 | digit(*byte)?;
        }
        group <<= 6 * (4 - chunk.len());
        let bytes = [(group >> 16) as u8, (group >> 8) as u8, group as u8];
        payload.extend_from_slice(bytes.get(..chunk.len().checked_sub(1)?)?);
    }
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(next_offset: i64, done: &[Range<i64>], form: &str) {
        let text = encode(next_offset, done, 4096);
        assert!(text.starts_with(form) && text.len() <= 4096, "{text}");
        assert_eq!(decode(next_offset, text.as_bytes()), done);
    }

    #[test]
    fn ranges_survive_in_the_shorter_form() {
        assert_eq!(encode(5, &[], 4096), "");
        check(0, std::slice::from_ref(&(1..2)), BITMAP);
        check(i64::MAX - 9, std::slice::from_ref(&(i64::MAX - 5..i64::MAX)), RUNS);
        check(100, &[1_000_000..3_000_000, 3_000_001..3_000_007], RUNS);
        let every_second: Vec<_> = (1..20_000).step_by(2).map(|offset| offset..offset + 1).collect();
        check(0, &every_second, BITMAP);
        for len in 1..40 {
            check(7, std::slice::from_ref(&(8..8 + len)), "tidings1");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let done: Vec<_> = (1..200_000).step_by(2).map(|offset| offset..offset + 1).collect();
        for max_bytes in [0, 8, 9, 10, 11, 13, 64, 300, 4096] {
            let text = encode(0, &done, max_bytes);
            assert!(text.len() <= max_bytes);
            let kept = decode(0, text.as_bytes());
            assert_eq!(kept, done[..kept.len()]);
            let fits = usize::try_from(capacity(max_bytes)).unwrap() / 2;
            assert!(kept.len() >= fits, "{} of {fits} in {max_bytes} bytes", kept.len());
        }
    }

    #[test]
    fn metadata_of_others_says_nothing_and_harms_nothing() {
        for text in [
            "",
            "hello",
            "tidings1r",
            "tidings1r!",
            "tidings1rA",
            "tidings1b",
            "tidings2rAQE",
            "tidings1r_____w",
        ] {
            let _ = decode(0, text.as_bytes());
            let _ = decode(i64::MAX, text.as_bytes());
        }
        assert_eq!(decode(0, b"tidings1rAAA"), [], "runs of no length");
        let mut state = 1_u64;
        for _ in 0..10_000 {
            let mut text = if state.is_multiple_of(2) { RUNS } else { BITMAP }.to_string();
            for _ in 0..state % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(char::from(ALPHABET[(state >> 58) as usize]));
            }
            state = state.wrapping_add(1);
            let ranges = decode(i64::MAX - 1_000, text.as_bytes());
            assert!(ranges.len() <= text.len() * 8);
            assert!(ranges.iter().all(|range| !range.is_empty()));
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
