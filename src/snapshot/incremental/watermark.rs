//! Watermarks: logical messages that show the worker, within the stream itself, where a window
//! opens and where it closes.
//!
//! A watermark has a number, and its order waits under that number (`orders`). It names its slot
//! and run, so that two pipelines on one database do not process each other's, nor those that an
//! earlier run left in the WAL.

use serde::{Deserialize, Serialize};

/// Prefix of our own messages, which are never published.
pub(crate) const OWN_PREFIX: &str = "rowcast.";

/// Prefix of watermarks.
pub(crate) const WATERMARK_PREFIX: &str = "rowcast.watermark";

/// Prefix of the messages with which a user requests a snapshot.
pub(crate) const SIGNAL_PREFIX: &str = "rowcast.signal";

/// One watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The pipeline's replication slot.
    pub slot: String,
    /// Identifies this run.
    pub run: String,
    /// Counts the watermarks of the run.
    pub number: u64,
}

impl Watermark {
    /// The message's content.
    #[must_use]
    pub fn content(&self) -> String {
        // Texts and a number can always be written as JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses a message's content; `None` if it is something else.
    #[must_use]
    pub fn read(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let watermark = Watermark { slot: "a\"b".to_owned(), run: "r".to_owned(), number: 7 };
        let content = watermark.content();
        assert_eq!(content, r#"{"slot":"a\"b","run":"r","number":7}"#);
        assert_eq!(Watermark::read(content.as_bytes()), Some(watermark));
        for other in [&b""[..], b"{}", b"[1]", b"\xff", br#"{"slot":"a","run":"r","number":-1}"#] {
            assert_eq!(Watermark::read(other), None);
        }
    }
}
