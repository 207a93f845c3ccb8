//! Why a configuration that is right in itself can't be run with, and what is odd about one that can.

use std::path::PathBuf;

use thiserror::Error;

use super::Fault;

/// Why a configuration that is right in itself can't be run with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No broker is named.
    #[error(
        "no Kafka broker is named; set kafka.brokers in the file, KAFKA_BROKERS in the environment, \
         or --brokers"
    )]
    NoBrokers,
    /// A secret's file can't be read.
    #[error("cannot read {file}, which {key} names: {source}", file = file.display())]
    SecretFile {
        /// The key that names the file.
        key: String,
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A secret's file has nothing in it.
    #[error("{file}, which {key} names, has an empty first line", file = file.display())]
    EmptySecretFile {
        /// The key that names the file.
        key: String,
        /// The file.
        file: PathBuf,
    },
    /// A password that comes from two places.
    #[error(
        "postgres.password_file and postgres.password_command are both set; keep one of the two"
    )]
    TwoPasswords,
    /// Signals that would never come.
    #[error(
        "postgres.signal_table needs inserts, and postgres.skipped_operations leaves them out; take \
         insert out of it, or send signals as messages (postgres.signal_token_file)"
    )]
    NoSignals,
    /// A hash that anybody could compute.
    #[error(
        "{key} needs a salt, or values could be guessed from their hashes; set \
         format.hash_salt_file, or format.hash_salt in the environment \
         (ROWCAST_FORMAT__HASH_SALT)"
    )]
    NoSalt {
        /// The key that asks for the hash.
        key: String,
    },
    /// Rows in the topic of the checkpoints, which Kafka compacts.
    #[error(
        "{key} and topics.checkpoints are the same topic, {topic:?}, and checkpoints need one of \
         their own; set either to another name"
    )]
    CheckpointTopic {
        /// The key that names the topic too.
        key: String,
        /// The topic.
        topic: String,
    },
    /// A pattern that is wrong; only in configurations that were not loaded from a source.
    #[error("reading the table patterns: {0}")]
    Pattern(#[from] Fault),
}

/// What is odd but no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A secret's file that every user of the machine can read.
    WorldReadable {
        /// The key that names the file.
        key: String,
        /// The file.
        file: PathBuf,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::WorldReadable { key, file } = self;
        let file = file.display();
        write!(f, "every user can read {file}, which {key} names; run: chmod o-r {file}")
    }
}
