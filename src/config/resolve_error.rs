//! Why a valid configuration is not usable, and warnings about one that is.

use std::path::PathBuf;

use thiserror::Error;

use super::Fault;

/// Why a valid configuration is not usable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No broker is configured.
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
        /// The system's error.
        source: std::io::Error,
    },
    /// A secret's file is empty.
    #[error("{file}, which {key} names, has an empty first line", file = file.display())]
    EmptySecretFile {
        /// The key that names the file.
        key: String,
        /// The file.
        file: PathBuf,
    },
    /// A password from two sources.
    #[error(
        "postgres.password_file and postgres.password_command are both set; keep one of the two"
    )]
    TwoPasswords,
    /// Signals that could never arrive.
    #[error(
        "postgres.signal_table needs inserts, and postgres.skipped_operations skips them; remove \
         insert from it, or send signals as messages (postgres.signal_token_file)"
    )]
    NoSignals,
    /// A hash without a salt.
    #[error(
        "{key} needs a salt, because values could be guessed from their hashes without one; set \
         format.hash_salt_file, or format.hash_salt in the environment \
         (ROWCAST_FORMAT__HASH_SALT)"
    )]
    NoSalt {
        /// The key that uses the hash.
        key: String,
    },
    /// Rows in the compacted topic of the checkpoints.
    #[error(
        "{key} and topics.checkpoints are the same topic, {topic:?}, and checkpoints need a \
         topic of their own; rename one of the two"
    )]
    CheckpointTopic {
        /// The key that names the same topic.
        key: String,
        /// The topic.
        topic: String,
    },
    /// An invalid pattern; only possible in configurations that were not loaded from a source.
    #[error("reading the table patterns: {0}")]
    Pattern(#[from] Fault),
}

/// Something suspicious that is not an error.
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
