//! How many files and connections the process may have open, checked before anything is opened.
//!
//! A process that runs out of descriptors can reach neither Postgres nor Kafka, and says so only
//! when it needs the next one, hours later. The admin endpoint, the only part that strangers can make
//! open connections, has a bound of its own; with that and the rest below the limit, none of them can
//! take what the others need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::CliError;
use crate::admin::MAX_CONNECTIONS;

/// Three connections to each of forty brokers, a snapshot's at their most, the admin endpoint's, some
/// to Postgres, files of certificates and settings, the runtime and the log.
const NEEDED: u64 = 256;

const _: () = assert!(MAX_CONNECTIONS <= 32, "the sum above counts 32 of the admin endpoint");

/// Makes sure of enough descriptors: a soft limit that is too low is raised.
///
/// # Errors
/// When the hard limit is too low.
pub(super) fn ensure() -> Result<(), CliError> {
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
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
