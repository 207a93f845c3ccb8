//! Parses the server's errors: an ErrorResponse, or a notice, with its fields.
//!
//! Fields: <https://www.postgresql.org/docs/current/protocol-error-fields.html>

use std::fmt;

/// An error as the server reported it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or of a notice `WARNING` and below; never translated.
    pub severity: String,
    /// The five-character error code, the same in every language.
    pub sqlstate: String,
    /// One line of text, in the server's language.
    pub message: String,
    /// Further details.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
    /// The function of the server that raised it.
    pub routine: Option<String>,
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse. What is cut off or not UTF-8 is kept
    /// as far as possible: a broken error is still better than none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'V' => error.severity = text,
                // Translated; used only if the server is too old for 'V'.
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'R' => error.routine = Some(text),
                _ => {}
            }
        }
        error
    }

    /// The error without the server's text, which can contain row values through a user's SQL. The
    /// text is logged at level debug.
    #[must_use]
    pub fn without_text(&self) -> Self {
        tracing::debug!(error = %self, "the server's error about a condition");
        let message = "the server refuses to read rows with the condition; its error may contain \
                       values, so it is only in the server's log, and in this one at level debug";
        Self {
            severity: self.severity.clone(),
            sqlstate: self.sqlstate.clone(),
            message: message.to_owned(),
            ..Self::default()
        }
    }

    /// Whether this is the warning that a publication does not exist at the stream's position.
    ///
    /// `LoadPublications` in `src/backend/replication/pgoutput/pgoutput.c`; it has no other.
    #[must_use]
    pub(crate) fn tells_of_missing_publication(&self) -> bool {
        self.severity == "WARNING" && self.routine.as_deref() == Some("LoadPublications")
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            routine: error.routine().map(str::to_owned),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, sqlstate, detail, hint, .. } = self;
        write!(f, "{message} (SQLSTATE {sqlstate})")?;
        if let Some(detail) = detail {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_kept() {
        let error = ServerError::parse(
            b"SFEHLER\0VERROR\0C42704\0Mno such slot\0Dwhy\0Hdo\0Fslot.c\0L1\0RAcquire\0\0",
        );
        assert_eq!(error.severity, "ERROR");
        assert_eq!(error.sqlstate, "42704");
        assert_eq!(error.routine.as_deref(), Some("Acquire"));
        let shown = "no such slot (SQLSTATE 42704); detail: why; hint: do";
        assert_eq!(error.to_string(), shown);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(body: Vec<u8>) {
            let _ = ServerError::parse(&body).to_string();
        }
    }
}
