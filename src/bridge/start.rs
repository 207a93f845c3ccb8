//! Where a stream starts: what the slot, the checkpoint and the server say, brought together.
//!
//! The decision itself is pure ([`decide`]); here it is asked for, told of, and what it calls for
//! is prepared: a slot that can't be read any more makes room for a new one where a gap is accepted.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::checkpoint::{
    Checkpoint, Decision, Gap, Progress, Server, SlotFound, Snapshots, Source, decide,
};
use crate::config::{OnGap, Resolved};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnInfo, ConnectOptions, ReplicationClient};

/// What is decided.
pub(super) struct Course {
    /// The slot to stream from is to be made.
    pub(super) makes_slot: bool,
    /// Where the changes come from.
    pub(super) source: Source,
    /// See [`Checkpoint::generation`].
    pub(super) generation: u64,
    /// What is published; of a slot that is to be made, nothing yet.
    pub(super) progress: Progress,
    /// The snapshots that are not finished.
    pub(super) snapshots: Arc<Snapshots>,
    /// Whether this says more than the checkpoint in the topic.
    pub(super) is_new: bool,
}

impl Course {
    /// The checkpoint that holds at the start, given where a slot that was made begins.
    pub(super) fn checkpoint(&self, made_at: Option<Lsn>) -> Checkpoint {
        Checkpoint {
            source: self.source.clone(),
            generation: self.generation,
            progress: made_at.map_or(self.progress, Progress::at),
            snapshots: Arc::clone(&self.snapshots),
        }
    }
}

/// Decides, and tells of all that is not a plain first start or going on.
///
/// # Errors
/// [`Error::Gap`] when changes are missing and that is not accepted.
pub(super) async fn course(
    settings: &Resolved,
    info: &ConnInfo,
    options: &ConnectOptions,
    client: &Client,
    slot: &SlotState,
    checkpoint: Option<&Checkpoint>,
) -> Result<Course, Error> {
    let found = match slot {
        SlotState::Lost => SlotFound::Lost,
        SlotState::Idle { confirmed } | SlotState::Active { confirmed, .. } => {
            SlotFound::Present { confirmed: *confirmed }
        }
        SlotState::Absent | SlotState::Foreign { .. } => SlotFound::Absent,
    };
    let server = server(settings, info, options, checkpoint).await?;
    let source = server.source.clone();
    let generation = checkpoint.map_or(0, |checkpoint| checkpoint.generation);
    let anew = |slot: SlotFound| Course {
        makes_slot: !matches!(slot, SlotFound::Present { .. }),
        source: source.clone(),
        generation: generation + 1,
        progress: match slot {
            SlotFound::Present { confirmed } => Progress::at(confirmed),
            SlotFound::Absent | SlotFound::Lost => Progress::default(),
        },
        // What was under way is of no use without the changes that are missing.
        snapshots: Arc::default(),
        is_new: true,
    };
    Ok(match decide(found, checkpoint, &server) {
        Decision::FirstStart => anew(found),
        Decision::Adopt { confirmed } => {
            let slot = settings.slot.as_str();
            tracing::info!(
                slot,
                %confirmed,
                "slot adopted: it has no checkpoint yet, and the stream goes on where it was \
                 confirmed; what its last reader published since comes again"
            );
            anew(found)
        }
        Decision::Continue { progress, failover_from } => {
            if let Some(timeline) = failover_from {
                let now = source.timeline;
                tracing::info!(timeline, now, "failover: the server has all that was published");
            }
            let is_new = checkpoint.is_none_or(|before| before.source != source);
            let snapshots = checkpoint.map(|before| Arc::clone(&before.snapshots));
            let snapshots = snapshots.unwrap_or_default();
            Course { makes_slot: false, source, generation, progress, snapshots, is_new }
        }
        Decision::Gap(gap) if settings.on_gap == OnGap::Accept => {
            tracing::warn!(gap = %gap, "accepted: going on without what is missing");
            if found == SlotFound::Lost {
                slot::drop(client, &settings.slot).await?;
            }
            anew(found)
        }
        Decision::Gap(gap) => return Err(refused(gap)),
    })
}

fn refused(gap: Gap) -> Error {
    Error::Gap(Box::new(gap))
}

/// Which server this is. Its history is asked for only where it matters.
async fn server(
    settings: &Resolved,
    info: &ConnInfo,
    options: &ConnectOptions,
    checkpoint: Option<&Checkpoint>,
) -> Result<Server, postgres::Error> {
    let mut client = ReplicationClient::connect(info, options).await?;
    let identity = client.identify_system().await?;
    let is_other = checkpoint.is_some_and(|before| before.source.timeline != identity.timeline);
    let history = match identity.timeline {
        // The first has none.
        timeline if is_other && timeline > 1 => client.timeline_history(timeline).await?,
        _ => Vec::new(),
    };
    Ok(Server {
        source: Source {
            system_identifier: identity.system_id,
            timeline: identity.timeline,
            database: identity.database,
            slot: settings.slot.clone(),
        },
        history,
        wal_end: identity.wal_position,
    })
}
