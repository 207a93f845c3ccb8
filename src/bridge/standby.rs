//! Waiting while another reads from the slot, so that two copies make one bridge that survives the
//! death of either.
//!
//! Postgres is the judge: a slot has one reader, and it is free the moment its reader's connection
//! is gone. A copy that waits asks once in [`POLL`] over a connection that it keeps, and touches
//! nothing else: no publication is altered, no producer is opened that could fence the reader's.
//!
//! A slot that this process has read from and that is gone is not made again: the stream would have
//! a hole, and nobody would know. Where a gap leads to a snapshot, it is known.
//!
//! A connection that died without a word leaves its walsender behind, which holds the slot until
//! `wal_sender_timeout`. Where that walsender served *this* process, nobody can be hurt by its end:
//! process id and start time are those that the server itself told on our connection, and our end
//! of it is closed. Any other holder may be alive, so it is waited for, never ended; but for one that
//! makes the slot still, and for whom nobody waits any more (`postgres::slot_creation`).

use std::time::{Duration, Instant};

use super::{Bridge, resume_point};
use crate::error::{self, Error};
use crate::lsn::Lsn;
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnectOptions, Walsender, slot_creation};
use crate::state::State;

/// After this long, a reader that is no copy of this pipeline is called so.
const FOREIGN: Duration = Duration::from_secs(10);

/// Time between two looks at the slot: an eighth of the two seconds within which a copy takes over.
pub(super) const POLL: Duration = Duration::from_millis(250);

impl Bridge {
    /// Waits until nobody reads from the slot.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub(super) async fn await_slot(&self) -> Result<(), Error> {
        let options = ConnectOptions::of(&self.settings);
        let client = postgres::client::connect(&self.conninfo, &options).await?;
        let (name, database) = (&self.settings.slot, self.conninfo.database());
        let mut ours = self.take_walsender();
        let (mut told_of, mut since, mut is_foreign) = (None, Instant::now(), false);
        loop {
            let (pid, is_made) = match slot::state(&client, name, database).await? {
                SlotState::Active { pid, confirmed } => (pid, confirmed != Lsn::ZERO),
                SlotState::Absent
                    if self.has_streamed() && !resume_point::heals_gaps(&self.settings) =>
                {
                    return Err(postgres::Error::SlotGone { slot: name.clone() }.into());
                }
                _ => break,
            };
            if let Some(ours) = ours.take_if(|ours| ours.pid == pid) {
                end_ours(&client, &ours).await;
            } else if !is_made && slot_creation::end_deserted(&client, name, pid).await? {
                tracing::warn!(
                    slot = name,
                    pid,
                    "the server still makes the slot for a copy that is gone: its process is ended"
                );
            } else if told_of != Some(pid) {
                told_of = Some(pid);
                let holder = slot::holder(&client, pid).await?;
                since = Instant::now();
                is_foreign = is_made && !holder.is_named(&self.application_name());
                let (line, does) = match is_made {
                    true => ("standby: another reads from the slot", "is read by"),
                    false => ("standby: another makes the slot", "is being made by"),
                };
                tracing::info!(slot = name, holder = %holder, "{line}");
                self.stand_by(format!("the slot {name:?} {does} {holder}"));
            } else if is_foreign && since.elapsed() >= FOREIGN {
                is_foreign = false;
                let holder = slot::holder(&client, pid).await?;
                let fix = "stop that program, or set postgres.slot to another name";
                tracing::warn!(slot = name, holder = %holder, fix, "no copy of this pipeline reads from the slot");
                self.stand_by(format!(
                    "the slot {name:?} is read by {holder}, which is no copy of this pipeline: {fix}"
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        if told_of.is_some() {
            tracing::info!(slot = name, "the slot is free: taking over");
            self.enter(State::Preflight);
        }
        Ok(())
    }
}

impl Bridge {
    /// How copies of this pipeline name themselves to the server.
    fn application_name(&self) -> String {
        let own = || ConnectOptions::of(&self.settings).application_name;
        self.conninfo.application_name.clone().unwrap_or_else(own)
    }
}

/// A role that may not do it leaves the server's own timeout, which is waited for in any case.
pub(super) async fn end_ours(client: &tokio_postgres::Client, ours: &Walsender) {
    match slot::end_walsender(client, ours).await {
        Ok(ended) => tracing::warn!(
            pid = ours.pid,
            ended,
            "the server still serves a connection of ours that is dead: its process is ended"
        ),
        Err(error) => tracing::warn!(
            pid = ours.pid,
            error = error::told(&error),
            "the server still serves a connection of ours that is dead: waiting for its timeout"
        ),
    }
}
