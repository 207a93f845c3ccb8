//! Whether the stream names the publication for inserts.
//!
//! The server looks a publication up as of the change that it decodes, and refuses to stream where one
//! that is named did not exist yet. A slot that is older than the publication (of an earlier version, or
//! made by a DBA) may have such changes left. So one that was just created is named only by a stream
//! that begins behind its creation: the session ends once that is confirmed, and the next one names it.
//! If that is not known, naming it is tried, and an answer that it is missing leads to the same.
//!
//! Until then no table is put into it. A table whose inserts it would publish is left out meanwhile, and
//! its rows are read once it is put in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Bridge;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres;
use crate::state::State;

/// Time between two looks at what is confirmed.
const POLL: Duration = Duration::from_millis(250);

/// The same at most, where a session did not name it all the same.
const LONGEST_POLL: Duration = Duration::from_secs(60);

/// What is known of the publication for inserts, over all sessions.
#[derive(Debug, Default)]
pub(super) struct Second {
    state: Mutex<Since>,
    is_named: AtomicBool,
}

/// From where on a stream may name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Since {
    /// As far as is known, from anywhere.
    #[default]
    Ever,
    /// It was missing at some point: from the WAL's present end on, which is yet to be asked for.
    Now,
    /// From here on.
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

    /// Whether the WAL's end is to be asked for.
    pub(super) fn wants_wal_end(&self) -> bool {
        self.since() == Since::Now
    }

    /// Whether nobody has noted yet since when it exists.
    pub(super) fn is_new(&self) -> bool {
        !matches!(self.since(), Since::At(_))
    }

    /// It exists from here on at the latest.
    pub(super) fn exists_since(&self, lsn: Lsn) {
        self.set(Since::At(lsn));
    }

    /// Whether the stream of the present session names it.
    pub(super) fn is_named(&self) -> bool {
        self.is_named.load(Ordering::Acquire)
    }

    /// Says whether the stream of the next session names it.
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
    /// Completes once the stream has come to where the publication for inserts may be named, and does
    /// not name it; `tries` are the sessions that ended for it so far.
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
                    "the stream is past its creation: opened again, with it"
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
