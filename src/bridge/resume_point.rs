//! Decides where a stream starts, from the slot, the checkpoint and the server.
//!
//! The decision itself is pure ([`decide`]); this module collects its input, logs it, and applies
//! the configuration of snapshots and gaps.

use std::sync::Arc;

use crate::checkpoint::{
    Checkpoint, Decision, Gap, Progress, ServerFound, SlotFound, Snapshots, Source, decide,
    other_source,
};
use crate::config::{OnGap, Resolved, SnapshotMode};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnInfo, ConnectOptions, ReplicationClient};

/// The decision.
pub(super) struct Course {
    /// The slot must be created; an existing one is replaced.
    pub(super) makes_slot: bool,
    /// The rows that exist at the slot's start are published first.
    pub(super) takes_snapshot: bool,
    /// Where the changes come from.
    pub(super) source: Source,
    /// See [`Checkpoint::generation`].
    pub(super) generation: u64,
    /// What is published; nothing yet for a slot that must be created.
    pub(super) progress: Progress,
    /// The snapshots that are not finished.
    pub(super) snapshots: Arc<Snapshots>,
    /// Whether this says more than the checkpoint in the topic.
    pub(super) is_new: bool,
}

impl Course {
    /// The checkpoint at the start, given where a newly created slot begins.
    pub(super) fn checkpoint(&self, made_at: Option<Lsn>) -> Checkpoint {
        Checkpoint {
            source: self.source.clone(),
            generation: self.generation,
            progress: made_at.map_or(self.progress, Progress::at),
            snapshots: Arc::clone(&self.snapshots),
        }
    }
}

/// Decides, and logs everything but a plain first start or continuation.
///
/// # Errors
/// [`Error::Gap`] when changes are missing and that is not accepted;
/// [`SlotActive`](postgres::Error::SlotActive) when another copy reads from the slot.
pub(super) async fn course(
    settings: &Resolved,
    info: &ConnInfo,
    options: &ConnectOptions,
    slot: &SlotState,
    checkpoint: Option<&Checkpoint>,
    is_stranded: bool,
) -> Result<Course, Error> {
    let found = found(settings, slot, is_stranded)?;
    let server = server(settings, info, options, checkpoint).await?;
    let source = server.source.clone();
    let generation = checkpoint.map_or(0, |checkpoint| checkpoint.generation);
    let anew = |slot: SlotFound| Course {
        makes_slot: matches!(slot, SlotFound::Absent | SlotFound::Lost),
        takes_snapshot: false,
        source: source.clone(),
        generation: generation + 1,
        progress: match slot {
            SlotFound::Present { confirmed } | SlotFound::Stranded { confirmed } => {
                Progress::at(confirmed)
            }
            SlotFound::Absent | SlotFound::Lost => Progress::default(),
        },
        // Unfinished snapshots are useless without the changes that are missing.
        snapshots: Arc::default(),
        is_new: true,
    };
    // An existing slot is replaced.
    let from_the_start = |takes_snapshot| Course { takes_snapshot, ..anew(SlotFound::Absent) };
    Ok(match decide(found, checkpoint, &server) {
        Decision::FirstStart => from_the_start(settings.snapshot.mode != SnapshotMode::Never),
        Decision::Adopt { confirmed } => {
            log_adopted(&settings.slot, confirmed);
            anew(found)
        }
        Decision::Continue { progress, failover_from } => {
            let now = source.timeline;
            if let Some(timeline) = failover_from {
                tracing::info!(timeline, now, "failover: the server has everything published");
            }
            let Some(snapshots) = snapshots_of(checkpoint, settings.snapshot.mode) else {
                tracing::info!("snapshot.mode is only: reading all rows, with a new slot");
                return Ok(from_the_start(true));
            };
            let is_new = checkpoint.is_none_or(|before| before.source != source);
            let (makes_slot, takes_snapshot) = (false, false);
            Course { makes_slot, takes_snapshot, source, generation, progress, snapshots, is_new }
        }
        Decision::Gap(gap) if heals_gaps(settings) => {
            let gap = because(gap, slot);
            tracing::warn!(
                gap = %gap,
                "the pipeline starts over: reading all rows again, with a new slot; no deletes \
                 are published for rows that were deleted meanwhile"
            );
            from_the_start(true)
        }
        Decision::Gap(gap) if settings.on_gap == OnGap::Accept => {
            let gap = because(gap, slot);
            tracing::warn!(gap = %gap, "gap accepted: continuing without the missing changes");
            anew(found)
        }
        Decision::Gap(gap) => return Err(refused(because(gap, slot))),
    })
}

fn log_adopted(slot: &str, confirmed: Lsn) {
    tracing::info!(
        slot,
        %confirmed,
        "slot adopted: it has no checkpoint yet, and the stream continues from its confirmed position; \
         what its last reader published after that is published again, and existing rows are not read"
    );
}

/// What the decision needs to know of the slot.
fn found(
    settings: &Resolved,
    slot: &SlotState,
    is_stranded: bool,
) -> Result<SlotFound, postgres::Error> {
    Ok(match slot {
        SlotState::Lost { .. } => SlotFound::Lost,
        SlotState::Idle { confirmed } if is_stranded => {
            SlotFound::Stranded { confirmed: *confirmed }
        }
        SlotState::Idle { confirmed } => SlotFound::Present { confirmed: *confirmed },
        // It was free a moment ago. Another copy has streamed since the checkpoint was read, which
        // would look as if changes were missing.
        SlotState::Active { pid, .. } => {
            let (slot, pid) = (settings.slot.clone(), Some(*pid));
            return Err(postgres::Error::SlotActive { slot, pid, source: None });
        }
        SlotState::Absent | SlotState::Foreign { .. } => SlotFound::Absent,
    })
}

/// The snapshots that go on while the stream runs; none where `mode` wants nothing but a snapshot,
/// and the one before is complete.
fn snapshots_of(checkpoint: Option<&Checkpoint>, mode: SnapshotMode) -> Option<Arc<Snapshots>> {
    let snapshots = checkpoint.map(|before| Arc::clone(&before.snapshots));
    let mut snapshots = snapshots.unwrap_or_default();
    match (mode, snapshots.is_only) {
        (SnapshotMode::Only, true) => {
            tracing::info!("the interrupted snapshot continues while the stream runs");
        }
        (SnapshotMode::Only, false) => return None,
        (_, true) => Arc::make_mut(&mut snapshots).is_only = false,
        (_, false) => {}
    }
    Some(snapshots)
}

/// Refuses to continue with the checkpoint of another pipeline that happens to have this one's
/// name: taking over its transactional id, or overwriting its checkpoint, would end it. Checked
/// before either is done. If gaps are accepted, it is taken over unless that pipeline is running.
///
/// # Errors
/// [`Error::Gap`] when it is one; when the server can't be queried.
pub(super) async fn ensure_own(
    settings: &Resolved,
    info: &ConnInfo,
    options: &ConnectOptions,
    checkpoint: &Checkpoint,
) -> Result<(), Error> {
    let takes_over = settings.on_gap == OnGap::Accept || heals_gaps(settings);
    let here = server(settings, info, options, None).await?;
    if let Some(gap) = other_source(&checkpoint.source, &here.source) {
        return if takes_over { Ok(()) } else { Err(refused(gap)) };
    }
    let theirs = &checkpoint.source.slot;
    if *theirs == settings.slot {
        return Ok(());
    }
    let client = postgres::client::connect(info, options).await?;
    if let SlotState::Active { .. } = slot::state(&client, theirs, info.database()).await? {
        let (theirs, ours) = (theirs.clone(), settings.slot.clone());
        return Err(refused(Gap::OtherPipeline { theirs, ours }));
    }
    let ours = slot::state(&client, &settings.slot, info.database()).await?;
    if ours == SlotState::Absent && !checkpoint.is_intent() && !takes_over {
        let (slot, published) = (settings.slot.clone(), checkpoint.progress.through_lsn);
        let wal_end = here.wal_end;
        return Err(refused(Gap::SlotAbsent { slot, published, wal_end }));
    }
    Ok(())
}

/// Whether all rows are read again if changes are missing.
pub(super) fn heals_gaps(settings: &Resolved) -> bool {
    settings.on_gap == OnGap::Snapshot
        || (settings.on_gap == OnGap::Stop && settings.snapshot.mode == SnapshotMode::WhenNeeded)
}

/// The gap with the server's reason, if any.
fn because(gap: Gap, slot: &SlotState) -> Gap {
    match (gap, slot) {
        (Gap::SlotLost { slot, published, wal_end, .. }, SlotState::Lost { reason }) => {
            Gap::SlotLost { slot, published, wal_end, reason: reason.clone() }
        }
        (gap, _) => gap,
    }
}

fn refused(gap: Gap) -> Error {
    Error::Gap(Box::new(gap))
}

/// Identifies the server. Reads its timeline history only if it matters.
async fn server(
    settings: &Resolved,
    info: &ConnInfo,
    options: &ConnectOptions,
    checkpoint: Option<&Checkpoint>,
) -> Result<ServerFound, postgres::Error> {
    let mut client = ReplicationClient::connect(info, options).await?;
    let identity = client.identify_system().await?;
    let is_other = checkpoint.is_some_and(|before| before.source.timeline != identity.timeline);
    let history = match identity.timeline {
        // The first timeline has no history.
        timeline if is_other && timeline > 1 => client.timeline_history(timeline).await?,
        _ => Vec::new(),
    };
    Ok(ServerFound {
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
