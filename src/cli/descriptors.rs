//! Checks how many files and connections the process may open, before it opens any.
//!
//! A process that runs out of descriptors can reach neither Postgres nor Kafka, and fails only when
//! it needs the next one, hours later. The admin endpoint is the only part where others open
//! connections, and its number of connections is bounded. With this bound and all other needs below
//! the limit, no part can use up the descriptors of another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::CliError;
use crate::admin::MAX_CONNECTIONS;

/// Three connections to each of forty brokers, the maximum of a snapshot and of the admin endpoint,
/// some connections to Postgres, certificate and settings files, the runtime and the log.
const NEEDED: u64 = 256;

const _: () = assert!(MAX_CONNECTIONS <= 32, "the sum above counts 32 of the admin endpoint");

/// Ensures that there are enough descriptors; raises a soft limit that is too low.
///
/// # Errors
/// When the hard limit is too low.
pub(super) fn ensure() -> Result<(), CliError> {
    let limit = getrlimit(Resource::Nofile);
    // `None` means unlimited.
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= NEEDED);
    if is_enough(limit.current) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(NEEDED), maximum: limit.maximum };
    if is_enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    let allowed = limit.maximum.or(limit.current).unwrap_or_default();
    Err(CliError::Descriptors { allowed, needed: NEEDED })
}
