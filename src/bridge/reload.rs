//! Reloads the configuration of a running bridge.
//!
//! It is validated completely before any of it takes effect, so an error changes nothing. Then the
//! session drains as it does at the end, with complete transactions and the last position
//! confirmed, and the next one begins with the new settings; status, metrics and requests belong to
//! the process and remain. A new session begins even if no key differs, because passwords and
//! certificates are in files.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Bridge, settle};
use crate::config::{Config, NeedsRestart, Resolved};
use crate::error::{Error, Severity};
use crate::postgres::ConnInfo;

/// A configuration in its resolved form.
pub(super) struct Configured {
    pub(super) config: Config,
    pub(super) settings: Resolved,
    pub(super) conninfo: ConnInfo,
}

/// How a run with one configuration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// The bridge was asked to stop, and did.
    Stopped,
    /// The configuration was reloaded.
    Reconfigured,
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// The changes that need a restart.
    pub kept: Vec<NeedsRestart>,
}

const DATABASE: NeedsRestart = NeedsRestart {
    key: "postgres.url",
    reason: "it names another database, which needs a pipeline of its own",
};

impl Bridge {
    /// Applies another configuration: the session ends, and the next one uses it.
    ///
    /// # Errors
    /// When the connection string or the configuration can't be used; the current one remains.
    pub fn reconfigure(&self, config: &Config) -> Result<Reload, Error> {
        let present = Arc::clone(&self.configured.borrow());
        let (mut config, mut kept) = config.clone().reloaded(&present.config);
        let (mut settings, mut conninfo) = settle(&config)?;
        if conninfo.database() != present.conninfo.database() {
            config.postgres.url.clone_from(&present.config.postgres.url);
            (settings, conninfo) = settle(&config)?;
            kept.push(DATABASE);
        }
        self.configured.send_replace(Arc::new(Configured { config, settings, conninfo }));
        Ok(Reload { kept })
    }

    /// Runs with one configuration after the other, until `shutdown` turns true.
    pub(super) async fn run_reloading(&self, shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let mut configured = self.configured.subscribe();
        let mut bridge = self.clone();
        let mut tries = 0;
        loop {
            {
                let present = configured.borrow_and_update();
                bridge.settings = present.settings.clone();
                bridge.conninfo = present.conninfo.clone();
            }
            let due = bridge.clone();
            let another = async {
                tokio::select! {
                    // The bridge keeps its sender.
                    _changed = configured.changed() => {}
                    // A new session begins even if nothing in the configuration changed.
                    () = due.second_is_due(tries) => tries = tries.saturating_add(1),
                }
            };
            // It holds clones of the bridge, which are large.
            if Box::pin(bridge.run_configured(shutdown.clone(), another)).await? == Run::Stopped {
                return Ok(());
            }
        }
    }
}

/// What was not acknowledged when the session ended is published again by the next one.
///
/// # Errors
/// A failure that a new session does not fix.
pub(super) fn session_ended(ended: Result<(), Error>) -> Result<(), Error> {
    match ended {
        Err(error) if error.severity() == Severity::Retry => {
            tracing::warn!(error = error.told(), "the session ended with an error");
            Ok(())
        }
        ended => ended,
    }
}
