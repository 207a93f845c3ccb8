//! The Kafka sink: takes records with tickets, and returns acknowledgements.
//!
//! Types of the Kafka client stay in this folder; only tickets, topic names and [`Error`] leave it.
//! The producer is idempotent and waits for all replicas, and retries a record until the broker has
//! it or refuses it permanently, so an acknowledgement means what the ledger assumes.
//!
//! Not here: LSNs, tables, and the decision whether to try again after an error.

mod acls;
mod checkpoints;
mod delivery;
mod error;
mod error_table;
mod flush_timer;
mod metadata;
mod producer;
mod properties;
mod queue_budget;
mod quiet;
pub mod reach;
mod rehearsal;
mod topics;
mod transaction;
mod trouble;

pub use rdkafka::ClientConfig;

pub use self::acls::acls;
pub use self::checkpoints::{
    Checkpoints, Found, Notes, PARTITION as CHECKPOINT_PARTITION, checkpoint_topic,
};
pub use self::error::Error;
pub use self::metadata::{Brokers, answers, brokers, topic_names};
pub use self::producer::{Outgoing, Producer, SendError, Sink};
pub use self::properties::{batch_bytes, client_config, compresses, record_limit, set_batch_bytes};
pub use self::rehearsal::rehearse;
pub use self::topics::Topics;
pub use self::transaction::{Takeover, timeout as transaction_timeout};
pub use self::trouble::folded;

/// Logs librdkafka's own lines, at their own level.
fn log(level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
    use rdkafka::config::RDKafkaLogLevel as Level;
    // Connection problems are also reported as errors, once per client.
    let said = match facility {
        "FAIL" | "ERROR" => trouble::said(facility),
        _ => Some(0),
    };
    let Some(folded) = said else {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        return;
    };
    // Appended if not empty.
    let folded = (folded > 0).then_some(folded);
    match level {
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
            tracing::error!(target: "librdkafka", facility, folded, "{message}");
        }
        Level::Warning => tracing::warn!(target: "librdkafka", facility, folded, "{message}"),
        Level::Notice | Level::Info => {
            tracing::info!(target: "librdkafka", facility, folded, "{message}");
        }
        Level::Debug => tracing::debug!(target: "librdkafka", facility, folded, "{message}"),
    }
}
