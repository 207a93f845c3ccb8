//! Errors of the Kafka side, each with its fix.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::error_table::{self, passes};
use crate::checkpoint::RecordError;

/// A failure of the sink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user set a property that the delivery guarantees depend on.
    #[error("kafka.properties sets {property:?}, which rowcast sets itself: {reason}")]
    Clash {
        /// The property as the user wrote it.
        property: String,
        /// What depends on it.
        reason: &'static str,
    },
    /// The client library refuses a property.
    #[error("kafka.properties: the property {property:?} is refused: {reason}")]
    Property {
        /// The property.
        property: String,
        /// The library's text, without the value if it may be a secret.
        reason: String,
    },
    /// The client could not be made from properties that are each valid.
    #[error("creating the kafka client: {reason}")]
    Client {
        /// The library's text.
        reason: String,
    },
    /// No broker responds.
    #[error("requesting metadata from {brokers}: {source}{}", because(reason.as_deref()))]
    Unreachable {
        /// The bootstrap brokers.
        brokers: String,
        /// The client's error.
        source: Box<KafkaError>,
        /// What the client reported of its connections, if anything.
        reason: Option<String>,
    },
    /// A topic is missing and must not be created.
    #[error("the topic {topic:?} does not exist, and topics.create is false")]
    TopicMissing {
        /// The topic.
        topic: String,
    },
    /// A topic could not be created.
    #[error("creating the topic {topic:?}: {code}")]
    TopicRefused {
        /// The topic.
        topic: String,
        /// The broker's error.
        code: RDKafkaErrorCode,
    },
    /// The request to create a topic failed as a whole.
    #[error("creating the topic {topic:?}: {source}")]
    TopicRequest {
        /// The topic.
        topic: String,
        /// The client's error.
        source: KafkaError,
    },
    /// A record is larger than the producer may send.
    #[error("a record of {bytes} bytes for the topic {topic:?} is larger than message.max.bytes")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Key and value together.
        bytes: usize,
    },
    /// The client did not accept a record.
    #[error("handing a record for the topic {topic:?} to the producer: {source}")]
    Refused {
        /// The topic.
        topic: String,
        /// The client's error.
        source: KafkaError,
    },
    /// The broker refused a record for good.
    #[error("delivering a record to {topic}[{partition}]: {source}")]
    Undelivered {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The broker's error.
        source: KafkaError,
    },
    /// The client reported a record as delivered without an offset.
    #[error(
        "delivering a record to {topic}[{partition}]: it was reported delivered without an offset, \
         so it may not be in the log"
    )]
    Unplaced {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The brokers respond, but the producer does not reach them.
    #[error(
        "the producer is stuck: {}, although the brokers answer other clients",
        match records {
            0 => "the checkpoint was not accepted".to_owned(),
            _ => format!("none of {records} waiting records was acknowledged"),
        }
    )]
    Stuck {
        /// Waiting records; if zero, a checkpoint waits.
        records: u64,
    },
    /// A checkpoint on which everything else waits did not become durable.
    #[error("the brokers have not accepted the checkpoint for {} s", after.as_secs())]
    CheckpointUnwritten {
        /// The time waited.
        after: std::time::Duration,
    },
    /// The producer failed and must be replaced.
    #[error("the producer failed: {code}: {reason}")]
    Fatal {
        /// The client's code.
        code: RDKafkaErrorCode,
        /// Its text.
        reason: String,
    },
    /// A step of a Kafka transaction failed.
    #[error("{doing} a kafka transaction: {source}")]
    Transaction {
        /// The step.
        doing: &'static str,
        /// The client's error.
        source: KafkaError,
    },
    /// A producer with the same transactional id was started after this one.
    #[error("another copy of this pipeline has started and taken over the transactional id {id:?}")]
    Fenced {
        /// The transactional id.
        id: String,
    },
    /// The brokers aborted a transaction that was open for too long.
    #[error("the brokers aborted a kafka transaction that was open for {open:?}")]
    Expired {
        /// How long it was open.
        open: Duration,
    },
    /// The checkpoint topic would lose checkpoints.
    #[error("the topic {topic:?} has cleanup.policy={policy:?}, which lets checkpoints expire")]
    NotCompacted {
        /// The topic.
        topic: String,
        /// Its policy.
        policy: String,
    },
    /// The checkpoint topic can't be read.
    #[error("reading the checkpoint from the topic {topic:?}: {source}")]
    CheckpointRead {
        /// The topic.
        topic: String,
        /// The client's error.
        source: KafkaError,
    },
    /// The checkpoint topic can't be read to its end in time.
    #[error("reading the checkpoint from the topic {topic:?}: not at its end after {after:?}")]
    CheckpointSlow {
        /// The topic.
        topic: String,
        /// The time waited.
        after: Duration,
    },
    /// The checkpoint can't be used.
    #[error("the checkpoint at offset {offset} of the topic {topic:?} can't be used: {source}")]
    CheckpointRecord {
        /// The topic.
        topic: String,
        /// Its offset.
        offset: i64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The thread that receives delivery reports could not be started.
    #[error("starting the delivery thread: {source}")]
    Thread {
        /// The system's error.
        source: std::io::Error,
    },
    /// A thread of the producer ended in a panic.
    #[error("the {thread} thread ended in a panic")]
    Panicked {
        /// Its name.
        thread: &'static str,
    },
}

impl Error {
    /// Whether a retry may succeed without anyone acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Clash { .. }
            | Self::Property { .. }
            | Self::Client { .. }
            | Self::TopicMissing { .. }
            | Self::TooLarge { .. }
            | Self::Fenced { .. }
            | Self::NotCompacted { .. }
            | Self::CheckpointRecord { .. }
            | Self::Panicked { .. } => false,
            Self::Expired { .. } | Self::CheckpointSlow { .. } => true,
            Self::Unreachable { source, .. } => source.rdkafka_error_code().is_none_or(passes),
            Self::TopicRequest { source, .. }
            | Self::Refused { source, .. }
            | Self::Transaction { source, .. }
            | Self::CheckpointRead { source, .. }
            | Self::Undelivered { source, .. } => source.rdkafka_error_code().is_none_or(passes),
            Self::TopicRefused { code, .. } | Self::Fatal { code, .. } => passes(*code),
            Self::Unplaced { .. }
            | Self::Stuck { .. }
            | Self::CheckpointUnwritten { .. }
            | Self::Thread { .. } => true,
        }
    }

    /// The topic for which a batch was too large, if that is what it is.
    #[must_use]
    pub fn refused_for_size(&self) -> Option<&str> {
        match self {
            Self::Undelivered { topic, source, .. }
                if source.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) =>
            {
                Some(topic)
            }
            _ => None,
        }
    }

    /// Whether the brokers refused our credentials.
    #[must_use]
    pub fn is_refused_login(&self) -> bool {
        matches!(
            self.code(),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed)
        )
    }

    /// Whether the brokers refused a request because a permission is missing.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(
            self.code(),
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
            )
        )
    }

    /// The error code of the brokers or the client.
    fn code(&self) -> Option<RDKafkaErrorCode> {
        match self {
            Self::Fatal { code, .. } | Self::TopicRefused { code, .. } => Some(*code),
            Self::Unreachable { source, .. } => source.rdkafka_error_code(),
            Self::TopicRequest { source, .. }
            | Self::Refused { source, .. }
            | Self::Transaction { source, .. }
            | Self::CheckpointRead { source, .. }
            | Self::Undelivered { source, .. } => source.rdkafka_error_code(),
            _ => None,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: what helps against each error")]
    pub fn fix(&self) -> Option<String> {
        let code = match self {
            Self::Clash { property, .. } => {
                return Some(format!("remove {property:?} from kafka.properties"));
            }
            Self::TopicMissing { topic } => {
                return Some(format!("create {topic:?}, or set topics.create = true"));
            }
            Self::TooLarge { bytes, .. } => {
                return Some(format!(
                    "raise kafka.properties.\"message.max.bytes\" above {bytes}, and the topic's \
                     max.message.bytes with it"
                ));
            }
            Self::Fenced { .. } => {
                return Some(
                    "stop the other copy, or leave this one stopped; a pipeline of its own needs \
                     another `name`"
                        .to_owned(),
                );
            }
            Self::NotCompacted { topic, .. } => {
                return Some(format!(
                    "kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact, \
                     or set topics.checkpoints to another name"
                ));
            }
            Self::CheckpointRecord { .. } => {
                return Some(
                    "run the newest rowcast that ran here before; or rowcast run --accept-gap, \
                     which removes it and continues from the slot's confirmed position: nothing \
                     that the slot holds is lost, and what was published after that is published \
                     again"
                        .to_owned(),
                );
            }
            Self::TopicRefused { code, .. } | Self::Fatal { code, .. } => *code,
            Self::Unreachable { source, .. } => source.rdkafka_error_code()?,
            Self::TopicRequest { source, .. }
            | Self::Transaction { source, .. }
            | Self::CheckpointRead { source, .. }
            | Self::Refused { source, .. }
            | Self::Undelivered { source, .. } => source.rdkafka_error_code()?,
            _ => return None,
        };
        if matches!((self, code), (Self::TopicRefused { .. }, RDKafkaErrorCode::InvalidTopic)) {
            return Some(
                "set another topic for the table in [tables.\"...\"]: Kafka refuses a topic \
                 whose name differs only in '.' and '_' from that of another, which this \
                 principal may not be able to see"
                    .to_owned(),
            );
        }
        let topic = match self {
            Self::TopicRefused { topic, .. }
            | Self::CheckpointRead { topic, .. }
            | Self::Undelivered { topic, .. } => topic.as_str(),
            _ => "the topic",
        };
        if matches!(self, Self::CheckpointRead { .. })
            && code == RDKafkaErrorCode::TopicAuthorizationFailed
        {
            return Some(format!("grant the principal Read and Describe on {topic}"));
        }
        error_table::find(code)?.fix.map(|fix| fix.replace("the topic", topic))
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undelivered(code: RDKafkaErrorCode) -> Error {
        Error::Undelivered {
            topic: "rides".to_owned(),
            partition: 0,
            source: KafkaError::MessageProduction(code),
        }
    }

    #[test]
    fn what_only_an_operator_can_mend_is_not_tried_again_and_says_what_to_do() {
        for code in [
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::ClusterAuthorizationFailed,
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::SaslAuthenticationFailed,
        ] {
            let error = undelivered(code);
            assert!(!error.is_transient(), "{error}");
            assert!(error.fix().is_some(), "{error}");
        }
    }

    #[test]
    fn a_compression_that_is_refused_is_named_and_not_the_age_of_the_broker() {
        use rdkafka::types::RDKafkaRespErr::{
            RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
            RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
        };
        for answer in [
            RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
            RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
        ] {
            let error = undelivered(answer.into());
            assert!(!error.is_transient(), "{error}");
            let fix = error.fix().unwrap_or_default();
            assert!(fix.contains("compression.type") && !fix.contains("use brokers"), "{fix}");
        }
    }

    #[test]
    fn what_a_broker_gets_over_is_tried_again() {
        for code in [
            RDKafkaErrorCode::NotLeaderForPartition,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::InvalidReplicationFactor,
        ] {
            assert!(undelivered(code).is_transient(), "{code}");
        }
    }
}
