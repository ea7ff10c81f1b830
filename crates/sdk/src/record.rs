//! Records as they are sent and received, and their headers.
//!
//! **Invariant:** headers are kept exactly: order, duplicates, null values and names that are not UTF-8.
//! (A name that contains a NUL byte is the one exception: librdkafka's C interface ends names there.)

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, now: Kafka's timestamp.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The headers of a record: an ordered list of names and values, in one allocation for all their bytes.
///
/// ```
/// use tidings::Headers;
///
/// let mut headers = Headers::new();
/// assert!(headers.is_empty());
/// headers.push("ce_type", "invoice.created");
/// headers.push("trace", [0xff, 0x00]);
/// headers.push_null("ce_type");
/// assert_eq!((headers.len(), headers.size_bytes()), (3, 7 + 15 + 5 + 2 + 7));
/// assert_eq!(headers.last("ce_type"), Some(None));
/// assert_eq!(headers.last_str("trace"), None); // there, but not UTF-8
///
/// // A copy without what is none of others' business.
/// let mut shared = Headers::with_capacity(headers.len(), headers.size_bytes());
/// for (name, value) in headers.iter().filter(|(name, _)| *name != b"trace") {
///     match value {
///         Some(value) => shared.push(name, value),
///         None => shared.push_null(name),
///     }
/// }
/// assert_eq!(shared.len(), 2);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where one header lies in the bytes; it begins where the one before it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Span {
    name_end: u32,
    value_end: u32,
    null: bool,
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), spans: Vec::new() }
    }

    /// No headers, with room for `count` of them and `bytes_len` bytes of names and values.
    pub fn with_capacity(count: usize, bytes_len: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes_len), spans: Vec::with_capacity(count) }
    }

    /// Appends a header with a value.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.append(name.as_ref(), Some(value.as_ref()));
    }

    /// Appends a header whose value is null, which Kafka tells apart from an empty one.
    pub fn push_null(&mut self, name: impl AsRef<[u8]>) {
        self.append(name.as_ref(), None);
    }

    pub(crate) fn append(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.spans.push(Span { name_end, value_end: self.bytes.len() as u32, null: value.is_none() });
    }

    /// How many headers there are, duplicates counted.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Names and values in order.
    pub fn iter(&self) -> HeaderIter<'_> {
        HeaderIter { headers: self, next_index: 0 }
    }

    /// The value of the last header of that name: `None` if there is none, `Some(None)` if it is null.
    pub fn last(&self, name: impl AsRef<[u8]>) -> Option<Option<&[u8]>> {
        let name = name.as_ref();
        (0..self.len())
            .rev()
            .map(|index| self.at(index))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// The value of the last header of that name, if it has one and that is UTF-8.
    pub fn last_str(&self, name: impl AsRef<[u8]>) -> Option<&str> {
        self.last(name).flatten().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The first `count` headers.
    pub(crate) fn prefix(&self, count: usize) -> Self {
        let count = count.min(self.len());
        let end = count.checked_sub(1).map_or(0, |last| self.spans[last].value_end as usize);
        Self { bytes: self.bytes[..end].to_vec(), spans: self.spans[..count].to_vec() }
    }

    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn at(&self, index: usize) -> (&[u8], Option<&[u8]>) {
        let start = index.checked_sub(1).map_or(0, |before| self.spans[before].value_end) as usize;
        let span = self.spans[index];
        let (name_end, value_end) = (span.name_end as usize, span.value_end as usize);
        (&self.bytes[start..name_end], (!span.null).then(|| &self.bytes[name_end..value_end]))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_list().entries(self.iter().map(|(name, value)| (text(name), value.map(text)))).finish()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// Iterates over [`Headers`] in order.
///
/// ```
/// use tidings::{HeaderIter, Headers};
///
/// fn of_events(headers: HeaderIter<'_>) -> usize {
///     headers.filter(|(name, _)| name.starts_with(b"ce_")).count()
/// }
///
/// let mut headers = Headers::new();
/// headers.push("ce_id", "7");
/// headers.push("trace", "a");
/// assert_eq!(of_events(headers.iter()), 1);
/// ```
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    headers: &'a Headers,
    next_index: usize,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next_index;
        (index < self.headers.len()).then(|| {
            self.next_index += 1;
            self.headers.at(index)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.headers.len() - self.next_index;
        (left, Some(left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

/// A record to send.
///
/// ```
/// use tidings::Record;
///
/// let record = Record::new("orders").key("customer-7").value(r#"{"total": 12}"#).header("ce_type", "order.placed");
/// assert_eq!(&*record.topic, "orders");
///
/// // Copied from another cluster: at the same place, and as old as it is.
/// let copy = record.partition(3).timestamp_ms(1_764_200_000_000);
/// assert_eq!((copy.partition, copy.timestamp_ms), (Some(3), Some(1_764_200_000_000)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic; share one `Arc` between the records of a topic.
    pub topic: Arc<str>,
    /// The partition, or `None` to choose it by key (murmur2, as Kafka's Java clients do).
    pub partition: Option<i32>,
    /// The key; records of one key stay in order.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone in a compacted topic.
    pub value: Option<Vec<u8>>,
    /// The headers, sent as they are.
    pub headers: Headers,
    /// Milliseconds since the epoch, or `None` for the time of sending.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record without key, value and headers.
    pub fn new(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Headers::new(),
            timestamp_ms: None,
        }
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Appends a header.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Has it delivered at this time, in milliseconds since the epoch, and not before: by groups that ask for it
    /// ([`crate::consumer::ConsumerOptions::delayed_delivery`]).
    ///
    /// ```
    /// use tidings::{Record, now_ms};
    ///
    /// let reminder = Record::new("reminders").value("call back").due_at_ms(now_ms() + 3_600_000);
    /// assert!(reminder.headers.last_str("tidings.due-ms").is_some());
    /// ```
    pub fn due_at_ms(self, due_ms: i64) -> Self {
        self.header(crate::failure::DUE_HEADER, due_ms.to_string())
    }

    /// Sets the partition.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since the epoch.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// A record as it was read from a partition.
///
/// ```
/// use tidings::{Headers, ReceivedRecord};
///
/// let record = ReceivedRecord {
///     topic: "orders".into(),
///     partition: 3,
///     offset: 4_711,
///     timestamp_ms: None,
///     key: Some(b"customer-7".to_vec()),
///     value: Some(b"placed".to_vec()),
///     headers: Headers::new(),
/// };
/// assert_eq!(record.position(), "orders-3@4711");
/// assert_eq!(record.size_bytes(), 16);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRecord {
    /// The topic it was read from.
    pub topic: Arc<str>,
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since the epoch; `None` if the record carries no timestamp.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone in a compacted topic.
    pub value: Option<Vec<u8>>,
    /// The headers, exactly as sent.
    pub headers: Headers,
}

impl ReceivedRecord {
    /// Bytes of key, value and headers.
    pub fn size_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.size_bytes()
    }

    /// Whether another one is of the same partition.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.partition == other.partition && self.topic == other.topic
    }

    /// Where it lies, as `topic-partition@offset`: for messages and logs.
    pub fn position(&self) -> String {
        format!("{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_duplicates_nulls_and_foreign_bytes() {
        let mut headers = Headers::with_capacity(4, 32);
        headers.push("a", "1");
        headers.push("a", "");
        headers.push_null("a");
        headers.push([0xc3, 0x28], [0xff]);
        let all: Vec<_> = headers.iter().collect();
        let expect: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"a", Some(b"1")), (b"a", Some(b"")), (b"a", None), (&[0xc3, 0x28], Some(&[0xff]))];
        assert_eq!(all, expect);
        assert_eq!(headers.last("a"), Some(None));
        assert_eq!(headers.last("b"), None);
        assert_eq!(headers.iter().len(), 4);
    }

    #[test]
    fn a_prefix_is_the_first_headers_only() {
        let mut headers = Headers::new();
        for index in 0..4 {
            headers.push(format!("name{index}"), format!("value{index}"));
        }
        assert_eq!(headers.prefix(0), Headers::new());
        assert_eq!(headers.prefix(9), headers);
        let two = headers.prefix(2);
        assert_eq!(two.len(), 2);
        assert_eq!(two.last_str("name1"), Some("value1"));
        assert_eq!(two.last_str("name2"), None);
    }
}
