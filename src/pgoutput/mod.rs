//! The messages of Postgres' `pgoutput` plugin: bytes in, borrowed values out.
//!
//! Parses the body of one `XLogData` frame into one [`Message`] over the same bytes. Holds for any
//! bytes whatever: no panic, no allocation, no read past a length that was not checked, and no byte
//! left over unexplained.
//!
//! Covers protocol versions 1 and 2 without streaming of open transactions and without two-phase
//! commit, neither of which the bridge asks for: a server that sends them anyway is refused by
//! name. Not here: what a table is, what a value means, any I/O.
//!
//! Format: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod buffer;
mod decode;
mod message;
mod reader;

pub use self::buffer::{TupleBuffer, TupleFull};
pub use self::decode::decode;
pub use self::message::{
    Begin, Commit, Datum, LogicalMessage, Message, OldTuple, Origin, RelationBody, RelationColumn,
    RelationColumns, ReplicaIdentity, Truncate, TruncatedRelations, Tuple, TupleIter, TypeBody,
};

/// Bytes that are not a message this bridge asked for. Offsets count from the message's letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame has no body, not even the letter.
    #[error("reading a pgoutput message: the frame is empty")]
    Empty,
    /// The message ends inside a field.
    #[error(
        "reading {field} of a pgoutput message at byte {offset}: {needed} bytes are needed, {left} are left"
    )]
    Truncated {
        /// The field that was read.
        field: &'static str,
        /// Where it starts.
        offset: usize,
        /// Its length in bytes.
        needed: usize,
        /// Bytes from there to the end.
        left: usize,
    },
    /// A text field has no terminating zero byte.
    #[error("reading {field} of a pgoutput message at byte {offset}: the text has no end")]
    Unterminated {
        /// The field that was read.
        field: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// A name or prefix is not UTF-8 although the session's `client_encoding` is.
    #[error("reading {field} of a pgoutput message at byte {offset}: the text is not UTF-8")]
    NotUtf8 {
        /// The field that was read.
        field: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// A count or a length below zero.
    #[error("reading {field} of a pgoutput message at byte {offset}: {value} is negative")]
    Negative {
        /// The field that was read.
        field: &'static str,
        /// Where it starts.
        offset: usize,
        /// What was sent.
        value: i64,
    },
    /// A one-byte tag that the protocol does not define at this place.
    #[error(
        "reading {field} of a pgoutput message at byte {offset}: tag 0x{tag:02x} is not defined"
    )]
    UnknownTag {
        /// The field that was read.
        field: &'static str,
        /// Its position.
        offset: usize,
        /// What was sent.
        tag: u8,
    },
    /// Bytes after the message's last field.
    #[error(
        "reading a pgoutput message: {left} bytes are left after its last field, at byte {offset}"
    )]
    Trailing {
        /// Where the last field ended.
        offset: usize,
        /// How many bytes follow.
        left: usize,
    },
    /// A first byte that no protocol version defines.
    #[error("reading a pgoutput message: letter 0x{letter:02x} at byte 0 is not defined")]
    UnknownMessage {
        /// What was sent.
        letter: u8,
    },
    /// A message that belongs to an option the bridge did not switch on.
    #[error("reading a pgoutput message: the server sent {name}, which was not asked for")]
    NotAskedFor {
        /// The message's letter.
        letter: char,
        /// Its name in the protocol's documentation.
        name: &'static str,
    },
}
