//! The table of Kafka's errors: which are temporary, and the fix of each.
//!
//! The client itself retries without end what the protocol calls retriable, because a dropped
//! record would be a hole in the stream; only other errors arrive here. A code that is not in the
//! table is tried again too, with a new producer: Kafka adds codes, and a new session loses
//! nothing.
//!
//! `docs/faults.md` has the same codes and texts, held by a test.
//!
//! Codes: <https://kafka.apache.org/protocol#protocol_error_codes>

use rdkafka::error::RDKafkaErrorCode as Code;

/// One error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) code: Code,
    /// Whether the same may work later without anyone acting.
    pub(super) heals: bool,
    /// The fix if it is not temporary, or lasts too long.
    pub(super) fix: Option<&'static str>,
}

const fn heals(code: Code, fix: Option<&'static str>) -> Condition {
    Condition { code, heals: true, fix }
}

const fn stays(code: Code, fix: &'static str) -> Condition {
    Condition { code, heals: false, fix: Some(fix) }
}

const FIX_BROKERS: Option<&str> = Some(
    "check kafka.brokers, and that the brokers' advertised listeners can be reached from here",
);
const FIX_REPLICAS: Option<&str> = Some("start the brokers that are down: min.insync.replicas");
const FIX_LOGIN: &str =
    "check security.protocol, sasl.mechanism, sasl.username and sasl.password in kafka.properties";
const FIX_SIZE: &str = "raise max.message.bytes of the topic; or lower message.max.bytes and \
                        batch.size in kafka.properties to it, and errors.on_oversize applies to \
                        larger records";
const FIX_SETTINGS: &str = "check topics.settings and the table's own settings";
const FIX_COMPRESSION: &str = "set compression.type in kafka.properties to one that the brokers \
                               and the topic accept: zstd needs messages of Kafka 2.1, lz4 and \
                               snappy are older";
const FIX_VERSION: &str = "use brokers of Kafka 2.1 or later";

/// Every error that is distinguished.
pub(super) const CONDITIONS: &[Condition] = &[
    heals(Code::BrokerTransportFailure, FIX_BROKERS),
    heals(Code::AllBrokersDown, FIX_BROKERS),
    heals(Code::Resolve, FIX_BROKERS),
    heals(Code::OperationTimedOut, FIX_BROKERS),
    heals(Code::SSL, Some("check security.protocol and ssl.ca.location in kafka.properties")),
    heals(Code::RequestTimedOut, None),
    heals(Code::NetworkException, None),
    heals(Code::BrokerNotAvailable, None),
    heals(Code::LeaderNotAvailable, None),
    heals(Code::NotLeaderForPartition, None),
    heals(Code::NotController, None),
    heals(Code::ReplicaNotAvailable, None),
    heals(Code::NotEnoughReplicas, FIX_REPLICAS),
    heals(Code::NotEnoughReplicasAfterAppend, FIX_REPLICAS),
    heals(Code::KafkaStorageError, Some("see the broker's log: its disk is full or failing")),
    // The topic was deleted: the next session creates it again, or reports that it must not.
    heals(Code::UnknownTopicOrPartition, None),
    heals(Code::UnknownTopic, None),
    heals(Code::UnknownPartition, None),
    heals(Code::OutOfOrderSequenceNumber, None),
    heals(Code::UnknownProducerId, None),
    heals(Code::ThrottlingQuotaExceeded, Some("raise the principal's quota")),
    stays(
        Code::TopicAuthorizationFailed,
        "grant the principal Create, Describe and Write on the topic",
    ),
    stays(
        Code::ClusterAuthorizationFailed,
        "grant the principal IdempotentWrite on the cluster, and Create to create topics",
    ),
    stays(
        Code::TransactionalIdAuthorizationFailed,
        "grant the principal Describe and Write on the transactional id",
    ),
    stays(Code::GroupAuthorizationFailed, "grant the principal Read on the group rowcast"),
    stays(
        Code::InvalidTransactionTimeout,
        "set transaction.timeout.ms in kafka.properties to at most the brokers' \
         transaction.max.timeout.ms",
    ),
    stays(Code::SaslAuthenticationFailed, FIX_LOGIN),
    stays(Code::Authentication, FIX_LOGIN),
    stays(Code::UnsupportedSASLMechanism, FIX_LOGIN),
    stays(Code::IllegalSASLState, FIX_LOGIN),
    stays(Code::SecurityDisabled, "configure an authorizer on the brokers, or do not use ACLs"),
    stays(Code::MessageSizeTooLarge, FIX_SIZE),
    stays(Code::InvalidMessageSize, FIX_SIZE),
    stays(
        Code::InvalidRecord,
        "see the broker's log: it refuses the record by its topic's settings",
    ),
    stays(Code::InvalidTopic, "set another topics.template, or the table's topic"),
    stays(Code::InvalidPartitions, "set topics.partitions to a number that the brokers allow"),
    // Invalid while fewer brokers are up than replicas are requested, as in a restart of the
    // cluster.
    heals(
        Code::InvalidReplicationFactor,
        Some(
            "start as many brokers as the topic has replicas, or set topics.replication_factor \
             to at most their number",
        ),
    ),
    stays(Code::InvalidConfig, FIX_SETTINGS),
    stays(Code::PolicyViolation, FIX_SETTINGS),
    stays(Code::UnsupportedForMessageFormat, FIX_COMPRESSION),
    stays(Code::UnsupportedCompressionType, FIX_COMPRESSION),
    stays(Code::UnsupportedVersion, FIX_VERSION),
    stays(Code::UnsupportedFeature, FIX_VERSION),
    stays(Code::Fenced, "another copy has taken over with the same name: stop one of the two"),
];

/// The table's entry for a code, if any.
pub(super) fn find(code: Code) -> Option<&'static Condition> {
    CONDITIONS.iter().find(|condition| condition.code == code)
}

/// Whether the very same request can succeed later.
pub(super) fn passes(code: Code) -> bool {
    find(code).is_none_or(|condition| condition.heals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_stands_once_and_what_needs_someone_says_what_to_do() {
        for (index, condition) in CONDITIONS.iter().enumerate() {
            assert!(condition.heals || condition.fix.is_some(), "{condition:?}");
            let first = CONDITIONS.iter().position(|other| other.code == condition.code);
            assert_eq!(first, Some(index), "{condition:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_tried_again() {
        assert!(find(Code::InconsistentVoterSet).is_none() && passes(Code::InconsistentVoterSet));
    }

    #[test]
    fn the_manual_has_every_error_with_what_becomes_of_it() {
        let manual = include_str!("../../docs/faults.md");
        let mut missing = Vec::new();
        for Condition { code, heals, fix } in CONDITIONS {
            let does = match (heals, code) {
                (true, _) => "tried again",
                (false, Code::Fenced) => "exit 77",
                (false, _) => "exit 69",
            };
            let row = format!("| `{code:?}` | {does} | {} |", fix.unwrap_or("none needed"));
            if !manual.lines().any(|line| line == row) {
                missing.push(row);
            }
        }
        assert!(missing.is_empty(), "docs/faults.md lacks the rows\n{}", missing.join("\n"));
    }
}
