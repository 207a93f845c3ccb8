//! Which changes of the configuration a running bridge applies, and which need a restart.
//!
//! A session creates nearly everything again (connections, producer, encoder, topics), so nearly
//! every key can change between two sessions. The exceptions are what identifies the process and
//! what it set up once: those keys keep their values, and the change is logged.

use std::fmt;

use super::Config;

/// A key whose change needs a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsRestart {
    /// The key, dotted.
    pub key: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, reason } = self;
        write!(f, "{key} stays as it is until a restart: {reason}")
    }
}

const PIPELINE: &str = "checkpoints, slot and topics are named after it";
const SLOT: &str = "the stream reads from the slot that it was started from";
const PUBLICATION: &str = "the server reads the slot's WAL under the publication of its time";
const CHECKPOINTS: &str = "the stream's position is stored there";
const ADMIN: &str = "the address is bound once, when the process starts";
const LOG: &str = "the log is opened once, when the process starts";

impl Config {
    /// This configuration with the values of `running` for all that can't change at run time; and
    /// which of these differed.
    #[must_use]
    pub fn reloaded(mut self, running: &Self) -> (Self, Vec<NeedsRestart>) {
        let mut kept = Vec::new();
        let mut keep = |key, reason, differs: bool| {
            if differs {
                kept.push(NeedsRestart { key, reason });
            }
        };
        let now = running;
        keep("name", PIPELINE, replace(&mut self.name, &now.name));
        let (postgres, topics) = (&mut self.postgres, &mut self.topics);
        keep("postgres.slot", SLOT, replace(&mut postgres.slot, &now.postgres.slot));
        let publication = replace(&mut postgres.publication, &now.postgres.publication);
        keep("postgres.publication", PUBLICATION, publication);
        let checkpoints = replace(&mut topics.checkpoints, &now.topics.checkpoints);
        keep("topics.checkpoints", CHECKPOINTS, checkpoints);
        keep("admin", ADMIN, replace(&mut self.admin, &now.admin));
        keep("log", LOG, replace(&mut self.log, &now.log));
        (self, kept)
    }
}

/// Restores the running value; returns whether it differed.
fn replace<T: Clone + PartialEq>(new: &mut T, holds: &T) -> bool {
    let differs = new != holds;
    if differs {
        new.clone_from(holds);
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Size;

    #[test]
    fn what_a_session_makes_anew_changes_and_the_rest_is_named_and_stays() {
        let running = Config::default();
        let mut new = running.clone();
        new.postgres.tables = vec!["public.*".to_owned()];
        new.memory = Size::from_mb(128);
        assert_eq!(new.clone().reloaded(&running), (new.clone(), Vec::new()));

        let wanted = new.clone();
        new.name = Some("other".to_owned());
        new.postgres.slot = Some("other".to_owned());
        new.postgres.publication = Some("other".to_owned());
        new.topics.checkpoints = "other".to_owned();
        new.admin.enabled = false;
        new.log.level = "debug".to_owned();
        let (config, kept) = new.reloaded(&running);
        assert_eq!(config, wanted, "only what can change did");
        let keys: Vec<&str> = kept.iter().map(|kept| kept.key).collect();
        let all =
            ["name", "postgres.slot", "postgres.publication", "topics.checkpoints", "admin", "log"];
        assert_eq!(keys, all);
        assert!(kept[0].to_string().starts_with("name stays as it is until a restart: "));
    }
}
