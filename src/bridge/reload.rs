//! Another configuration for a bridge that runs.
//!
//! It is judged whole before anything of it holds, so a fault changes nothing. Then the session
//! drains as it does at the end, its transaction whole and its last position confirmed, and the next
//! one begins with the new settings; status, metrics and requests are those of the process and stay.
//! A new session begins even where no key differs: passwords and certificates stand in files.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Bridge, settle};
use crate::config::{Config, NeedsRestart, Resolved};
use crate::error::{Error, Severity};
use crate::postgres::ConnInfo;

/// A configuration and what it settles.
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
    /// There is another configuration.
    Reconfigured,
}

/// What became of another configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// What of it holds only after a restart.
    pub kept: Vec<NeedsRestart>,
}

const DATABASE: NeedsRestart = NeedsRestart {
    key: "postgres.url",
    reason: "it names another database, whose changes are another pipeline's",
};

impl Bridge {
    /// Takes on another configuration, from the next session on, which begins at once.
    ///
    /// # Errors
    /// When the connection string or the configuration can't be used; the present one stays.
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

    /// One configuration after the other, until `shutdown` turns true.
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
                    // Its sender lives as long as the bridge.
                    _changed = configured.changed() => {}
                    // The next session is another one though nothing of the configuration is.
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

/// What was not acknowledged when the session ended comes again with the next one.
///
/// # Errors
/// A failure that a new session does not fix.
pub(super) fn session_ended(ended: Result<(), Error>) -> Result<(), Error> {
    match ended {
        Err(error) if error.severity() == Severity::Retry => {
            tracing::warn!(error = error.told(), "the session ended in a failure");
            Ok(())
        }
        ended => ended,
    }
}
