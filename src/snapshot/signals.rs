//! Decides who may request snapshots in the stream: senders of a message with the token, and
//! writers of the signal table (`signal_row`).
//!
//! Every role that may connect can write a logical message, which does not name its author. So
//! until it is admitted, only its length, its token and its pipeline name are read.

use serde::Deserialize;

use super::bounds::{MAX_BYTES, SignalError};
use super::signal::Signal;
use crate::config::{Secret, SignalTable};

/// The settings for signals in the stream.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// The token that a message must have; without it no message counts.
    pub token: Option<Secret>,
    /// The signal table; without it no row counts.
    pub table: Option<SignalTable>,
    /// Whether a signal may have a condition.
    pub conditions: bool,
    /// The name of this pipeline.
    pub pipeline: String,
}

/// Whether a message in the stream is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It is admitted.
    Yes,
    /// Signals by message are not enabled.
    Off,
    /// It does not have the token.
    Stranger,
    /// It is for another pipeline.
    Another,
    /// It is too long.
    TooLong,
}

impl Signals {
    /// Reads only a message's length, its token and its pipeline name.
    #[must_use]
    pub fn admit(&self, content: &[u8]) -> Admitted {
        let Some(token) = &self.token else { return Admitted::Off };
        if content.len() > MAX_BYTES {
            return Admitted::TooLong;
        }
        let Ok(address) = serde_json::from_slice::<Address>(content) else {
            return Admitted::Stranger;
        };
        match (address.token, address.pipeline) {
            (Some(brought), _) if !token.is(&brought) => Admitted::Stranger,
            (None, _) => Admitted::Stranger,
            (Some(_), Some(pipeline)) if pipeline != self.pipeline => Admitted::Another,
            (Some(_), _) => Admitted::Yes,
        }
    }

    /// Parses an admitted message. `name` is the ID of a request without one.
    ///
    /// # Errors
    /// With what is wrong with it, or when it has a condition and may not.
    pub fn read(&self, content: &[u8], name: &str) -> Result<Signal, SignalError> {
        let signal = Signal::read(content, name)?;
        match &signal {
            Signal::Take(requests)
                if !self.conditions && requests.iter().any(|one| one.condition.is_some()) =>
            {
                Err(SignalError::ConditionsOff)
            }
            _ => Ok(signal),
        }
    }
}

/// A signal's token and pipeline.
#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    pipeline: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_only_with_the_token_and_for_this_pipeline() {
        let token = Some(Secret::from("s3cret".to_owned()));
        let signals = Signals { token, pipeline: "taxi".to_owned(), ..Signals::default() };
        for (text, admitted) in [
            (r#"{"type":"stop"}"#, Admitted::Stranger),
            (r#"{"type":"stop","token":"other"}"#, Admitted::Stranger),
            (r#"{"type":"stop","token":7}"#, Admitted::Stranger),
            ("take one", Admitted::Stranger),
            (r#"{"type":"stop","token":"s3cret"}"#, Admitted::Yes),
            (r#"{"type":"stop","token":"s3cret","pipeline":"taxi"}"#, Admitted::Yes),
            (r#"{"type":"stop","token":"s3cret","pipeline":"other"}"#, Admitted::Another),
            (r#"{"type":"stop","token":"no","pipeline":"other"}"#, Admitted::Stranger),
        ] {
            assert_eq!(signals.admit(text.as_bytes()), admitted, "{text}");
            assert_eq!(Signals::default().admit(text.as_bytes()), Admitted::Off, "{text}");
        }
        assert_eq!(signals.admit(&vec![b' '; MAX_BYTES + 1]), Admitted::TooLong);
        let with = br#"{"type":"snapshot","token":"s3cret","tables":["a.b"],"where":"x > 1"}"#;
        assert!(matches!(signals.read(with, "1"), Err(SignalError::ConditionsOff)));
        assert!(Signals { conditions: true, ..signals }.read(with, "1").is_ok());
    }
}
