//! The topics in a consumer's subscription, read from the embedded consumer protocol.
//!
//! Only version 0's fields are read, which every later version begins with. A subscription that does not parse
//! is not an error: the group is then not known to be subscribed to anything in particular.
//!
//! ```text
//! version: i16 | topic count: i32 | count x (length: i16, UTF-8 bytes) | user data and later fields, ignored
//! ```

use bytes::{Buf, Bytes};

/// The protocol type under which consumers join; only its metadata can be read here.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// The topics of one member's subscription, or nothing when the bytes are not one.
pub(crate) fn topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut bytes = metadata.clone();
    let _version = bytes.try_get_i16().ok()?;
    let count = bytes.try_get_i32().ok()?;
    // Each topic takes two bytes at least, so the count cannot make us allocate more than was received.
    if count < 0 || count as usize > bytes.len() / 2 {
        return None;
    }
    (0..count)
        .map(|_| {
            let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
            if length > bytes.len() {
                return None;
            }
            String::from_utf8(bytes.split_to(length).to_vec()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &'static [u8], expect: Option<&[&str]>) {
        let expect = expect.map(|topics| topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>());
        assert_eq!(topics(&Bytes::from_static(bytes)), expect, "{bytes:?}");
    }

    #[test]
    fn reads_version_0_and_ignores_what_follows() {
        check(b"\0\0\0\0\0\0", Some(&[]));
        check(b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff", Some(&["a", "bc"]));
    }

    #[test]
    fn refuses_what_is_cut_off_or_lies_about_its_size() {
        check(b"", None);
        check(b"\0\0\0\0\0", None);
        check(b"\0\0\xff\xff\xff\xff", None);
        check(b"\0\0\x7f\xff\xff\xff\0\x01a", None);
        check(b"\0\0\0\0\0\x01\0\x05abc", None);
        check(b"\0\0\0\0\0\x01\xff\xffabc", None);
        check(b"\0\0\0\0\0\x01\0\x01\xff", None);
    }
}
