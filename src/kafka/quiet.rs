//! What the clients next to the producer log: they have the same connection trouble, and the producer
//! reports it.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// The context of an admin client or a consumer, by what it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet(pub(super) &'static str);

impl Quiet {
    /// For clients that ask for topics, or create them.
    pub(super) const ADMIN: Self = Self("admin");
    /// For reading checkpoints.
    pub(super) const CHECKPOINTS: Self = Self("checkpoints");
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, client = self.0, "kafka connection");
    }
}

impl ConsumerContext for Quiet {}
