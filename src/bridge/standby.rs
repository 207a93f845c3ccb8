//! Waits while another copy reads from the slot, so that two copies act as one bridge that survives
//! the loss of either.
//!
//! Postgres decides: a slot has one reader, and it is free as soon as its reader's connection is
//! gone. A waiting copy checks once per [`POLL`] on a connection that it keeps, and changes
//! nothing: it alters no publication and opens no producer that could fence the reader's.
//!
//! A slot that this process has read from and that is gone is not created again: the stream would
//! silently have a gap. If gaps lead to a snapshot, it is.
//!
//! A connection that died silently leaves its walsender behind, which holds the slot until
//! `wal_sender_timeout`. If that walsender served *this* process, ending it is safe: process id and
//! start time are those that the server itself reported on our connection, and our end of it is
//! closed. Any other holder may be alive, so it is waited for and never ended, except one that is
//! still creating the slot for a client that is gone (`postgres::slot_creation`).

use std::time::{Duration, Instant};

use super::{Bridge, resume_point};
use crate::error::{self, Error};
use crate::lsn::Lsn;
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnectOptions, Walsender, slot_creation};
use crate::state::State;

/// After this long, a reader that is not a copy of this pipeline is reported.
const FOREIGN: Duration = Duration::from_secs(10);

/// Time between two checks of the slot: an eighth of the two seconds within which a copy takes
/// over.
pub(super) const POLL: Duration = Duration::from_millis(250);

impl Bridge {
    /// Waits until no one reads from the slot.
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
                    "the server is still creating the slot for a copy that is gone: ending its \
                     process"
                );
            } else if told_of != Some(pid) {
                told_of = Some(pid);
                let holder = slot::holder(&client, pid).await?;
                since = Instant::now();
                is_foreign = is_made && !holder.is_named(&self.application_name());
                let (line, does) = match is_made {
                    true => ("standby: another copy reads from the slot", "is read by"),
                    false => ("standby: another copy is creating the slot", "is being created by"),
                };
                tracing::info!(slot = name, holder = %holder, "{line}");
                self.stand_by(format!("the slot {name:?} {does} {holder}"));
            } else if is_foreign && since.elapsed() >= FOREIGN {
                is_foreign = false;
                let holder = slot::holder(&client, pid).await?;
                let fix = "stop that program, or set postgres.slot to another name";
                tracing::warn!(slot = name, holder = %holder, fix, "a program that is not a copy \
                                                                    of this pipeline reads from \
                                                                    the slot");
                self.stand_by(format!(
                    "the slot {name:?} is read by {holder}, which is not a copy of this \
                     pipeline: {fix}"
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
    /// The `application_name` of this pipeline's copies.
    fn application_name(&self) -> String {
        let own = || ConnectOptions::of(&self.settings).application_name;
        self.conninfo.application_name.clone().unwrap_or_else(own)
    }
}

/// If the role may not do it, the server's own timeout ends it, which is waited for in any case.
pub(super) async fn end_ours(client: &tokio_postgres::Client, ours: &Walsender) {
    match slot::end_walsender(client, ours).await {
        Ok(ended) => tracing::warn!(
            pid = ours.pid,
            ended,
            "the server still serves a dead connection of ours: ending its process"
        ),
        Err(error) => tracing::warn!(
            pid = ours.pid,
            error = error::told(&error),
            "the server still serves a dead connection of ours: waiting for its timeout"
        ),
    }
}
