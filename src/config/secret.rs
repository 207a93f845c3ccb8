//! A value that may be used but never shown.
//!
//! `Debug` and `Serialize` print asterisks, so that no log line, error or `rowcast config` can leak
//! it by accident; only [`Secret::expose`] returns the text, and its callers are few enough to
//! review.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What is printed in place of a secret.
pub const MASK: &str = "********";

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is this text. Takes constant time: digests of equal length are compared to the
    /// end.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let (wanted, got) = (Sha256::digest(&self.0), Sha256::digest(text));
        wanted.as_slice().ct_eq(got.as_slice()).into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}
