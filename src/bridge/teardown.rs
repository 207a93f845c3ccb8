//! Removes what the bridge created: the slot, then the publications, then the checkpoint.
//!
//! First it determines who owns the slot, the publication and the checkpoint, so that it does
//! nothing if the role may not do all of it. Then each step is reported as it is done, so that a
//! failure in the middle leaves no doubt.
//!
//! The slot goes first, because it holds back the server's WAL. The checkpoint goes last: without
//! the slot it means that changes are missing, which a later run would have to be allowed to skip.
//!
//! | | removed when | else |
//! |---|---|---|
//! | slot | it is for pgoutput in this database, and no one reads from it | refused, nothing is removed |
//! | publication, and the one for inserts | it lists its tables, our role owns it and `postgres.manage` is set; or it is named | kept |
//! | checkpoint | it is of this database of this cluster, and of this slot | kept |
//!
//! A checkpoint is found by the pipeline's name alone, and pipelines of two clusters may have the
//! same name by mistake. Without its checkpoint the other would not notice that it lost its slot.

use std::fmt;

use tokio_postgres::Client;

use super::checkpointing::blocking;
use super::{fresh_client_config, settle};
use crate::checkpoint::{RecordError, Source};
use crate::config::{Config, Resolved};
use crate::error::Error;
use crate::kafka::{self, Checkpoints};
use crate::postgres::preflight::Shortfall;
use crate::postgres::publication::Publication;
use crate::postgres::slot::SlotState;
use crate::postgres::{self, ConnInfo, ConnectOptions, ReplicationClient, publication, slot};

/// What a teardown would remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teardown {
    /// The database.
    pub database: String,
    /// The slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// The name of the publication for inserts.
    pub inserts_publication: String,
    /// The topic of the checkpoints.
    pub checkpoints: String,
}

/// Options of a teardown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// Keep the checkpoint in any case.
    pub keep_checkpoint: bool,
    /// Drop the publication, whoever owns it.
    pub any_publication: bool,
}

/// The outcome for one of the three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was removed.
    Removed,
    /// It did not exist.
    Absent,
    /// It was kept.
    Left {
        /// Why.
        reason: String,
    },
}

/// One completed step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The object, with its name.
    pub what: String,
    /// The outcome.
    pub outcome: Outcome,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match &self.outcome {
            Outcome::Removed => f.write_str("removed"),
            Outcome::Absent => f.write_str("did not exist"),
            Outcome::Left { reason } => write!(f, "kept: {reason}"),
        }
    }
}

impl Teardown {
    /// What would be removed; does not connect to a server.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub fn planned(config: &Config) -> Result<Self, Error> {
        let (settings, info) = settle(config)?;
        Ok(Self {
            database: info.database().to_owned(),
            slot: settings.slot,
            publication: settings.publication,
            inserts_publication: settings.inserts_publication,
            checkpoints: settings.topics.checkpoints,
        })
    }
}

/// What to remove, decided before anything is removed.
struct Plan {
    slot: bool,
    /// The publications, with their names.
    publications: Vec<(String, Outcome)>,
    checkpoint: Outcome,
}

/// Drops those of slot, publications and checkpoint that belong to this pipeline; reports each step
/// once it is done.
///
/// # Errors
/// When the slot has a reader, the role may not drop them, or no broker responds: then nothing is
/// removed. When a step fails: what was reported is done.
pub async fn teardown(
    config: &Config,
    scope: Scope,
    mut report: impl FnMut(Step),
) -> Result<(), Error> {
    let (settings, info) = settle(config)?;
    let client = postgres::client::connect(&info, &ConnectOptions::of(&settings)).await?;
    let version = postgres::client::server_version(&client).await?;
    let client_config = fresh_client_config(&settings).await?;
    let checkpoints = Checkpoints::new(&client_config, &settings);
    let plan = plan(&client, version, &settings, &info, &checkpoints, scope).await?;

    if plan.slot {
        slot::drop(&client, &settings.slot).await?;
    }
    let outcome = if plan.slot { Outcome::Removed } else { Outcome::Absent };
    report(Step { what: format!("replication slot {}", settings.slot), outcome });
    for (name, outcome) in plan.publications {
        if outcome == Outcome::Removed {
            publication::drop(&client, &name, version).await?;
        }
        report(Step { what: format!("publication {name}"), outcome });
    }
    if plan.checkpoint == Outcome::Removed {
        checkpoints.remove().await?;
    }
    let what = format!("checkpoint in {}", settings.topics.checkpoints);
    report(Step { what, outcome: plan.checkpoint });
    Ok(())
}

async fn plan(
    client: &Client,
    version: u32,
    settings: &Resolved,
    info: &ConnInfo,
    checkpoints: &Checkpoints,
    scope: Scope,
) -> Result<Plan, Error> {
    let mut shortfalls = Vec::new();
    let state = slot::state(client, &settings.slot, info.database()).await?;
    if let SlotState::Active { pid, .. } = state {
        let slot = settings.slot.clone();
        return Err(postgres::Error::SlotActive { slot, pid: Some(pid), source: None }.into());
    }
    shortfalls.extend(super::preconditions::unusable(&settings.slot, &state));
    let role = postgres::preflight::role(client).await?;
    if state != SlotState::Absent && !role.can_replicate {
        shortfalls.push(postgres::preflight::no_replication(&role.name));
    }
    let mut publications = Vec::new();
    for name in publication::Names::of(settings).both() {
        let found = publication::find(client, name, version).await?;
        let outcome = match &found {
            None => Outcome::Absent,
            Some(found) => publication_of(settings, found, &role.name, scope.any_publication),
        };
        if let (Some(found), Outcome::Removed) = (&found, &outcome)
            && !found.is_owned
        {
            shortfalls.push(not_owned(name, found));
        }
        publications.push((name.to_owned(), outcome));
    }
    if !shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls }.into());
    }
    let checkpoint = if scope.keep_checkpoint {
        Outcome::Left { reason: "--keep-checkpoint".to_owned() }
    } else {
        checkpoint_of(settings, info, checkpoints).await?
    };
    Ok(Plan { slot: state != SlotState::Absent, publications, checkpoint })
}

/// Whether rowcast created the publication, or it is requested by name.
fn publication_of(settings: &Resolved, found: &Publication, role: &str, is_named: bool) -> Outcome {
    let name = &settings.publication;
    let why = if is_named {
        return Outcome::Removed;
    } else if !found.is_by_table {
        "it is for all tables or whole schemas, which rowcast does not create".to_owned()
    } else if found.owner != role {
        format!("it belongs to {:?}, not to {role:?}", found.owner)
    } else if !settings.manage {
        "postgres.manage is false".to_owned()
    } else {
        return Outcome::Removed;
    };
    Outcome::Left { reason: format!("{why}; --publication {name} drops it too") }
}

fn not_owned(name: &str, found: &Publication) -> Shortfall {
    Shortfall {
        cause: format!(
            "the publication {name:?} belongs to {:?}: this role may not drop it",
            found.owner
        ),
        fix: "leave out --publication, and have its owner drop it".to_owned(),
    }
}

async fn checkpoint_of(
    settings: &Resolved,
    info: &ConnInfo,
    checkpoints: &Checkpoints,
) -> Result<Outcome, Error> {
    let asked = checkpoints.clone();
    let source = match blocking(move || asked.read_if_any()).await {
        Ok(None) => return Ok(Outcome::Absent),
        Ok(Some(found)) => Some(found.source),
        Err(Error::Kafka(kafka::Error::CheckpointRecord { source, .. })) => match source {
            RecordError::Newer { of, .. } => of.map(|source| *source),
            // It is useless to any pipeline.
            _ => return Ok(Outcome::Removed),
        },
        Err(error) => return Err(error),
    };
    let Some(source) = source else {
        let reason = "it was written by a newer rowcast, and its owner is unknown".to_owned();
        return Ok(Outcome::Left { reason });
    };
    let options = ConnectOptions::of(settings);
    let identity = ReplicationClient::connect(info, &options).await?.identify_system().await?;
    let here = (identity.system_id.as_str(), info.database(), settings.slot.as_str());
    Ok(of_another(&source, here))
}

/// Whether it is another pipeline's: `here` is the cluster, the database and the slot.
fn of_another(source: &Source, here: (&str, &str, &str)) -> Outcome {
    let Source { system_identifier, database, slot, .. } = source;
    if (system_identifier.as_str(), database.as_str(), slot.as_str()) == here {
        return Outcome::Removed;
    }
    Outcome::Left {
        reason: format!(
            "it is of another pipeline of this name: slot {slot:?} of database {database:?} of the \
             cluster {system_identifier}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_removed_only_where_all_that_it_is_of_is_the_same() {
        let source = Source {
            system_identifier: "7".to_owned(),
            timeline: 3,
            database: "app".to_owned(),
            slot: "rowcast_app".to_owned(),
        };
        let is_left = |here| matches!(of_another(&source, here), Outcome::Left { .. });
        assert!(!is_left(("7", "app", "rowcast_app")));
        assert!(is_left(("8", "app", "rowcast_app")));
        assert!(is_left(("7", "other", "rowcast_app")));
        assert!(is_left(("7", "app", "rowcast_other")));
    }
}
