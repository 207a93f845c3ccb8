//! Tracks whether the stream names the publication for inserts.
//!
//! The server looks up a publication as of the change that it decodes, and fails if a named
//! publication did not exist at that point. A slot that is older than the publication (from an
//! earlier version, or created by a DBA) may still have such changes. So a new publication is named
//! only by a stream that begins after its creation: the session ends once that position is
//! confirmed, and the next one names it. If the position is unknown, naming it is tried, and an
//! error that it is missing leads to the same.
//!
//! Until then no table is added to it. A table whose inserts it would publish is left out
//! meanwhile, and its rows are read once it is added.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Bridge;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres;
use crate::state::State;

/// Time between two checks of the confirmed position.
const POLL: Duration = Duration::from_millis(250);

/// The longest such time, if sessions still failed to name it.
const LONGEST_POLL: Duration = Duration::from_secs(60);

/// What is known about the publication for inserts, over all sessions.
#[derive(Debug, Default)]
pub(super) struct Second {
    state: Mutex<Since>,
    is_named: AtomicBool,
}

/// The position from which a stream may name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Since {
    /// From anywhere, as far as is known.
    #[default]
    Ever,
    /// It was missing at some point: from the current end of the WAL on, which is not read yet.
    Now,
    /// From this position on.
    At(Lsn),
}

impl Second {
    fn since(&self) -> Since {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Since) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Whether a stream that begins here may name it, given that it exists.
    pub(super) fn may_be_named(&self, from: Lsn) -> bool {
        match self.since() {
            Since::Ever => true,
            Since::Now => false,
            Since::At(lsn) => from >= lsn,
        }
    }

    /// Whether to read the end of the WAL.
    pub(super) fn wants_wal_end(&self) -> bool {
        self.since() == Since::Now
    }

    /// Whether it is not noted yet since when it exists.
    pub(super) fn is_new(&self) -> bool {
        !matches!(self.since(), Since::At(_))
    }

    /// Notes that it exists from here on at the latest.
    pub(super) fn exists_since(&self, lsn: Lsn) {
        self.set(Since::At(lsn));
    }

    /// Whether the stream of the current session names it.
    pub(super) fn is_named(&self) -> bool {
        self.is_named.load(Ordering::Acquire)
    }

    /// Sets whether the stream of the next session names it.
    pub(super) fn set_named(&self, is_named: bool) {
        self.is_named.store(is_named, Ordering::Release);
    }

    /// Whether a session failed because it was named too early; the next one does not name it.
    pub(super) fn was_missing(&self, error: &Error, name: &str) -> bool {
        // The name is never translated.
        let is_it = matches!(error, Error::Postgres(postgres::Error::PublicationMissing(source))
            if source.message.contains(name));
        let was_missing = is_it && self.is_named();
        if was_missing {
            self.set(Since::Now);
        }
        was_missing
    }
}

impl Bridge {
    /// Completes once the stream has reached the position from which it may name the publication
    /// for inserts but does not name it; `tries` are the sessions that ended for this so far.
    pub(super) async fn second_is_due(&self, tries: u32) {
        let wait = POLL.saturating_mul(1 << tries.min(8)).min(LONGEST_POLL);
        loop {
            tokio::time::sleep(wait).await;
            let Since::At(lsn) = self.second.since() else { continue };
            let confirmed = self.metrics.confirmed();
            let streams = self.status.borrow().state == State::Streaming;
            if streams && !self.second.is_named() && confirmed >= lsn {
                tracing::info!(
                    publication = self.settings.inserts_publication,
                    "the stream is past the creation of this publication: opening it again with \
                     the publication"
                );
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_named_from_its_creation_on_and_anywhere_where_that_is_not_known() {
        let second = Second::default();
        assert!(second.may_be_named(Lsn::from(1)));
        second.set(Since::Now);
        assert!(second.wants_wal_end() && !second.may_be_named(Lsn::from(100)));
        second.exists_since(Lsn::from(50));
        assert!(!second.wants_wal_end());
        assert!(!second.may_be_named(Lsn::from(49)) && second.may_be_named(Lsn::from(50)));
    }
}
