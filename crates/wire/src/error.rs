//! What can be wrong with bytes to decode and with values to encode.
//!
//! Owns the two error types. Positions count bytes from the start of the decoder's frame, without the
//! length prefix. Does not map errors to Kafka's codes: the listener does.

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends inside a value.
    #[error("byte {position}: expected {needed} more bytes, found {remaining}")]
    Truncated {
        /// Where the value starts.
        position: usize,
        /// The size of the value.
        needed: usize,
        /// The bytes left from there.
        remaining: usize,
    },
    /// An array claims more elements than the rest of the frame can hold.
    #[error("byte {position}: an array of {count} elements does not fit the {remaining} bytes left")]
    ArrayExceedsFrame {
        /// Where the elements would start.
        position: usize,
        /// The number of elements claimed.
        count: usize,
        /// The bytes left from there.
        remaining: usize,
    },
    /// The frame's arrays would need far more memory than the frame itself.
    #[error("byte {position}: {needed} bytes of memory for an array exceed the {budget} left to this frame")]
    MemoryBudget {
        /// Where the elements would start.
        position: usize,
        /// The memory needed, in bytes.
        needed: usize,
        /// The memory left, in bytes.
        budget: usize,
    },
    /// A length is negative, or a value that must be present is null.
    #[error("byte {position}: expected a value, found null or the negative length {length}")]
    NullNotAllowed {
        /// Where the length starts.
        position: usize,
        /// The length found; null is -1.
        length: i64,
    },
    /// A string is longer than the protocol allows.
    #[error("byte {position}: a string of {length} bytes is longer than {max}")]
    StringTooLong {
        /// Where the text starts.
        position: usize,
        /// The length found, in bytes.
        length: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A string of a stored message is not UTF-8.
    #[error("byte {position}: a string is not UTF-8")]
    InvalidUtf8 {
        /// Where the text starts.
        position: usize,
    },
    /// A variable-length integer does not end within 32 bits.
    #[error("byte {position}: a variable-length integer exceeds 32 bits")]
    VarintTooLong {
        /// Where the integer starts.
        position: usize,
    },
    /// Tagged fields must come in ascending order, each tag once.
    #[error("byte {position}: tag {tag} does not follow tag {previous}")]
    TagOrder {
        /// Where the tag starts.
        position: usize,
        /// The tag found.
        tag: u32,
        /// The tag before it.
        previous: u32,
    },
    /// A tagged field does not fill the size it declares.
    #[error("byte {position}: tagged field {tag} declares {expected} bytes, found {found}")]
    TagSize {
        /// Where the field's value starts.
        position: usize,
        /// The field's tag.
        tag: u32,
        /// The size declared.
        expected: usize,
        /// The size of the value.
        found: usize,
    },
    /// The message goes on after its last field.
    #[error("byte {position}: {remaining} bytes follow the end of the message")]
    TrailingBytes {
        /// Where the message ended.
        position: usize,
        /// The bytes left.
        remaining: usize,
    },
    /// The version is not one this message has.
    #[error("{message} has no version {version}: expected {min} to {max}")]
    UnsupportedVersion {
        /// The message.
        message: &'static str,
        /// The version found.
        version: i16,
        /// The oldest version known.
        min: i16,
        /// The newest version known.
        max: i16,
    },
    /// The API key is not one that Kafka defines.
    #[error("no API has the key {api_key}")]
    UnknownApiKey {
        /// The key found.
        api_key: i16,
    },
    /// A structured record is of another type than asked for.
    #[error("{message}: expected record type {expected}, found {found}")]
    RecordType {
        /// The message asked for.
        message: &'static str,
        /// The type of that message.
        expected: i16,
        /// The type found.
        found: i16,
    },
}

/// Why a value has no byte form at the version asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The version is not one this message has.
    #[error("{message} has no version {version}: expected {min} to {max}")]
    UnsupportedVersion {
        /// The message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The oldest version known.
        min: i16,
        /// The newest version known.
        max: i16,
    },
    /// A field is set which this version cannot carry and whose loss would change the meaning.
    #[error("field {field} is set, but version {version} does not have it")]
    FieldNotInVersion {
        /// The field's name.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null which must not be at this version.
    #[error("field {field} is null, which version {version} does not allow")]
    NullNotAllowed {
        /// The field's name.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A value is longer than its length prefix can say.
    #[error("a value of {length} bytes or elements is longer than {max}")]
    TooLong {
        /// The length found.
        length: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The unknown tagged fields are not in ascending order, or repeat a known one.
    #[error("tag {tag} is out of order or given twice")]
    TagOrder {
        /// The offending tag.
        tag: u32,
    },
    /// External records were given where the bytes must be complete.
    #[error("external records of {len} bytes have no place in a message without splicing")]
    ExternalRecords {
        /// Their size.
        len: u32,
    },
}
