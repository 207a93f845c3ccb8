//! Removes the server's text from errors that may contain row values.
//!
//! A function in a request's condition can raise any SQLSTATE with any text, so every error that
//! holds text of the server loses it; the code remains.

use super::{Error, ServerError};

impl Error {
    /// The error without the server's text. Its meaning, and whether it is temporary, remain.
    #[must_use]
    pub(crate) fn without_text(self) -> Self {
        let strip = |error: &ServerError| Box::new(error.without_text());
        match self {
            Self::Hosts { attempts } => {
                let attempts = attempts.into_iter();
                let attempts = attempts.map(|(host, error)| (host, error.without_text()));
                Self::Hosts { attempts: attempts.collect() }
            }
            Self::AuthFailed(error) => Self::AuthFailed(strip(&error)),
            Self::SlotActive { slot, pid, source } => {
                Self::SlotActive { slot, pid, source: source.as_deref().map(strip) }
            }
            Self::SlotMissing { slot, source } => {
                Self::SlotMissing { slot, source: strip(&source) }
            }
            Self::SlotExists { slot, source } => Self::SlotExists { slot, source: strip(&source) },
            Self::WalRemoved { slot, source } => Self::WalRemoved { slot, source: strip(&source) },
            Self::Decoding(stuck) => Self::Decoding(Box::new(stuck.without_text())),
            Self::Stuck(stuck) => Self::Stuck(Box::new(stuck.without_text())),
            Self::PublicationMissing(error) => Self::PublicationMissing(strip(&error)),
            Self::TooManyWalsenders(error) => Self::TooManyWalsenders(strip(&error)),
            Self::TooManySlots(error) => Self::TooManySlots(strip(&error)),
            Self::Server(error) => Self::Server(strip(&error)),
            // The library's error can't be changed, so it is replaced by our own.
            Self::Sql { doing, source } => match source.as_db_error() {
                Some(error) => Self::Server(strip(&ServerError::from(error))),
                None => Self::Sql { doing, source },
            },
            error => error,
        }
    }
}
