//! Detects tables that are created, altered or renamed, while the bridge runs or before it started.
//!
//! - **New tables**: those that `postgres.tables` matches and the publication does not have. Such a
//!   table has rows already, so a snapshot of it is requested, which adds it to the publication at
//!   the right moment; see `snapshot::incremental`. With `snapshot.mode = "never"` it is only added
//!   to the publication. Checked every `postgres.discover_interval`.
//! - **Tables that lost their replica identity**: the application's updates fail until the table is
//!   removed from the publication. So this is checked every second, or so often that the checks
//!   take a fiftieth of the server's time, and not only while rows are streamed: also while the
//!   slot is created, while a first snapshot is read, and while brokers are unavailable
//!   (`looks_in`). Such tables move to the publication for inserts (`publication::plan`).
//! - **Tables that have it again** are treated as new: updates and deletes of the meantime are
//!   unknown, so their rows are read.
//! - **Tables whose topic another table has** are left out (`topics`); one that was left out and
//!   has a topic now is read like a new one.
//!
//! All on connections of their own, which wait for locks only briefly. A table that is refused, by
//! the server or because of its filter or key, does not hold up others. New partitions are detected
//! elsewhere (`partitions`). Without `postgres.manage`, or if the role may not alter the
//! publication, nothing is added, and the log says what to do.

mod seen;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use self::seen::Seen;
use super::renames::Released;
use super::{Bridge, signal_table};
use crate::backoff::Repeats;
use crate::checkpoint::SnapshotReason;
use crate::config::{SnapshotMode, TablePattern};
use crate::error::Error;
use crate::postgres::filters::Asked;
use crate::postgres::publication::manage::{self, Look};
use crate::postgres::publication::{
    self, LONG_PATIENCE, Names, PATIENCE, Plan, TableName, lock_is_taken,
};
use crate::postgres::{self, ConnectOptions, client};
use crate::route::Named;
use crate::snapshot::{Command, Request, SnapshotState, SnapshotStatus};
use crate::state::{LeftOutReason, State, Status};

/// Longest wait for one check.
const ANSWER: Duration = Duration::from_secs(30);

/// Shortest time between two checks for tables that lost their identity.
const URGENT: Duration = Duration::from_secs(1);

/// Shortest time between two checks for new tables.
const LEAST: Duration = Duration::from_millis(50);

/// How much longer the time between two checks is than a check takes.
const SHARE: u32 = 50;

/// After this many tries, wait longer for a table's lock.
const SHORT_TRIES: u32 = 3;

/// Shared by both kinds of checks; the one that alters the publications holds it for one check.
type Shared = tokio::sync::Mutex<Seen>;

/// What a check is for.
#[derive(Clone, Copy)]
enum Depth<'a> {
    /// To remove from the publications what must not be in them any more.
    Urgent,
    /// To add new tables, too: those of these that are not captured yet.
    Full { new: &'a [TableName] },
}

/// The result of a check.
struct Looked {
    /// The server's errors where it refused to alter a publication for a table.
    failed: Option<postgres::Error>,
    /// Tables of which more is captured from now on.
    gains: Vec<TableName>,
    /// The server's time for it, without that for new tables.
    took: Duration,
}

impl Bridge {
    /// Checks periodically. The checks that protect the application's statements do not wait for
    /// what the others wait for: neither for Kafka nor for the queries about new tables.
    pub(super) async fn discover(&self) -> Infallible {
        let seen = tokio::sync::Mutex::new(Seen::default());
        let (never, _) = tokio::join!(self.protect(&seen), self.look_for_new(&seen));
        never
    }

    /// Checks for tables that lost their identity, or that must not be published any more.
    async fn protect(&self, seen: &Shared) -> Infallible {
        let mut status = self.status.subscribe();
        let (mut connected, mut repeats) = (None, Repeats::new());
        let mut took = Duration::ZERO;
        loop {
            let guards = || self.guards.load(Ordering::Acquire);
            let looks = |status: &Status| looks_in(status.state, guards());
            if status.wait_for(looks).await.is_err() {
                std::future::pending::<()>().await;
            }
            let look = async {
                let client = self.connected(&mut connected).await?;
                let look = self.look_at_publications(client, seen, Depth::Urgent).await?;
                took = look.took;
                look.failed.map_or(Ok(()), |error| Err(error.into()))
            };
            match tokio::time::timeout(ANSWER, look).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    connected = None;
                    tell_repeated(
                        &error,
                        "checking for tables without a replica identity",
                        &mut repeats,
                    );
                }
                Err(_) => connected = None,
            }
            let wait = URGENT.max(took.saturating_mul(SHARE));
            tokio::time::sleep(wait.min(self.settings.discover_interval)).await;
        }
    }

    /// Checks for new tables and new names, while rows are streamed.
    async fn look_for_new(&self, seen: &Shared) -> Infallible {
        let mut status = self.status.subscribe();
        let (mut connected, mut repeats) = (None, Repeats::new());
        loop {
            if status.wait_for(|status| status.state == State::Streaming).await.is_err() {
                std::future::pending::<()>().await;
            }
            let began = Instant::now();
            let look = async {
                let client = self.connected(&mut connected).await?;
                self.look_for_tables(client, seen).await
            };
            match tokio::time::timeout(ANSWER, look).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    connected = None;
                    tell_repeated(&error, "checking for new tables", &mut repeats);
                }
                Err(_) => connected = None,
            }
            let interval = self.settings.discover_interval;
            tokio::time::sleep(interval.saturating_sub(began.elapsed()).max(LEAST)).await;
        }
    }

    /// The existing connection, or a new one in its place.
    async fn connected<'a>(&self, connected: &'a mut Option<Client>) -> Result<&'a Client, Error> {
        let client = match connected.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let options = ConnectOptions::of(&self.settings);
                let client = client::connect(&self.conninfo, &options).await?;
                limit_locks(&client).await?;
                client
            }
        };
        Ok(connected.insert(client))
    }

    async fn look_for_tables(&self, client: &Client, seen: &Shared) -> Result<(), Error> {
        let mut released = self.look_at_renames(client).await?;
        let first = self.look_at_publications(client, seen, Depth::Urgent).await?;
        // The brokers are queried now, while nothing waits for this check.
        if !(first.gains.is_empty() && self.left_out.oids(LeftOutReason::Topic).is_empty()) {
            self.ask_for_topics().await;
        }
        let depth = Depth::Full { new: &first.gains };
        let look = self.look_at_publications(client, seen, depth).await?;
        // A table whose topic another table has is left out: it is read once it has one.
        let refused = self.left_out.oids(LeftOutReason::Topic);
        released.retain(|oid, _| !refused.contains(oid));
        self.read_again(&released).await?;
        look.failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Compares the publications with the tables that they should have, and alters them. An error
    /// for one table does not hold up others. Does not query Kafka.
    async fn look_at_publications(
        &self,
        client: &Client,
        seen: &Shared,
        depth: Depth<'_>,
    ) -> Result<Looked, postgres::Error> {
        // A start alters the same publications.
        let mut altering = self.altering.lock().await;
        let began = Instant::now();
        let seen = &mut *seen.lock().await;
        let settings = &self.settings_of_published();
        // Read before the check: what was done by then is in the publication that it sees.
        let snapshots = self.control.shown();
        let is_full = matches!(depth, Depth::Full { .. });
        seen.probes.ask(if is_full { Asked::Unlocked } else { Asked::Nothing });
        let is_named = self.second.is_named();
        let mut look = manage::look(client, settings, is_named, &mut seen.probes).await?;
        if !self.second.is_named() && look.survey.inserts.is_some() {
            self.note_second(client).await?;
        }
        self.show_limits(&look);
        seen.note_keys(&look.keys);
        if is_full {
            seen.note_filters(&look.filters);
            self.note_signal_table(signal_table::look(client, settings, &look).await?);
            self.settle_topics(client, &mut look, seen).await?;
        }
        let gains = look.plan.gains();
        if !manage::may_alter(settings, &look.survey) {
            return Ok(Looked { failed: None, gains, took: began.elapsed() });
        }
        let Look { plan, filters, .. } = look;
        // By its current name, a table may not be one to publish any more.
        let surplus = plan.main.remove.iter().chain(&plan.inserts.remove);
        let is_surplus =
            |table: &&TableName| !settings.captured.matches(&table.schema, &table.name);
        let surplus: BTreeSet<TableName> = surplus.filter(is_surplus).cloned().collect();
        let mut failed = None;
        let by_table = plan.by_table();
        for table in plan.urgent().into_iter().chain(surplus) {
            let Some(change) = by_table.get(&table) else { continue };
            let what = "publication altered, as the table was";
            *altering = altering.wrapping_add(1);
            let applied = self.apply_to(client, seen, (&table, what), change).await;
            failed = failed.or(applied.err());
        }
        // A table that was dropped and created again is new, and so is one that was removed and is
        // back.
        seen.asked.retain(|table| gains.contains(table) || filters.keeps_out(table));
        let is_tried = |table: &TableName| {
            [&plan.main, &plan.inserts].iter().any(|change| {
                let altered = change.alter.iter().any(|change| change.table == *table);
                altered || change.remove.contains(table)
            })
        };
        seen.locked.retain(|table, _| gains.contains(table) || is_tried(table));
        // The application waits for this; the rest may take longer.
        let took = began.elapsed();
        if let Depth::Full { new } = depth {
            failed = failed.or(self.take_in(client, seen, (&plan, new), &snapshots).await);
        }
        Ok(Looked { failed, gains, took })
    }

    /// Adds the tables of which more is captured from now on. Returns the server's errors.
    async fn take_in(
        &self,
        client: &Client,
        seen: &mut Seen,
        (plan, known): (&Plan, &[TableName]),
        snapshots: &[SnapshotStatus],
    ) -> Option<postgres::Error> {
        let mut failed = None;
        let mut new = plan.gains();
        // For a table that appeared since, the brokers were not queried yet.
        new.retain(|table| known.contains(table));
        seen.note_not_owned(plan, Names::of(&self.settings));
        new.retain(|table| !plan.main.not_owned.iter().any(|(other, _)| other == table));
        new.retain(|table| is_to_be_asked(snapshots, table, seen.asked.contains(table)));
        // Existing rows are old signals.
        let by_table = plan.by_table();
        let is_signals = |table: &TableName| self.settings.hides(&table.schema, &table.name);
        if let Some(at) = new.iter().position(is_signals) {
            let table = new.remove(at);
            let what = "signal table added to the publication";
            if let Some(change) = by_table.get(&table) {
                failed = self.apply_to(client, seen, (&table, what), change).await.err();
            }
        }
        if new.is_empty() {
            return failed;
        }
        let tables = manage::list(&new);
        if self.settings.snapshot.mode == SnapshotMode::Never {
            for table in &new {
                let Some(change) = by_table.get(table) else { continue };
                let what = "new tables added to the publication";
                let applied = self.apply_to(client, seen, (table, what), change).await;
                failed = failed.or(applied.err());
            }
            return failed;
        }
        tracing::info!(tables, "new tables: reading their rows, then streaming their changes");
        let exactly = |table: &TableName| TablePattern::exact(&table.schema, &table.name);
        let names = new.iter().map(exactly).collect();
        let request = Request::new(names, None, SnapshotReason::Added);
        self.rows_asked(&new, &request.id);
        self.control.ask(Command::Take(request));
        seen.asked.extend(new);
        failed
    }

    /// Carries out what is planned for one table, and logs it with this message. If its lock is
    /// taken, the next check tries again.
    async fn apply_to(
        &self,
        client: &Client,
        seen: &mut Seen,
        (table, what): (&TableName, &str),
        change: &Plan,
    ) -> Result<(), postgres::Error> {
        if change.is_empty() {
            return Ok(());
        }
        let names = Names::of(&self.settings);
        let tries = seen.locked.get(table).copied().unwrap_or_default();
        let patience = if tries < SHORT_TRIES { PATIENCE } else { LONG_PATIENCE };
        match publication::apply(client, names, change, patience).await {
            Ok(()) => {
                seen.locked.remove(table);
                manage::tell_altered(names, change, what);
                Ok(())
            }
            Err(error) if lock_is_taken(&error) => {
                if tries == 0 {
                    tracing::warn!(
                        table = %table,
                        "it can't be moved between publications while it is being altered or \
                         vacuumed: trying again"
                    );
                }
                seen.locked.insert(table.clone(), tries.saturating_add(1));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Checks the current names of tables and handles renames.
    async fn look_at_renames(&self, client: &Client) -> Result<Released, Error> {
        let through = self.metrics.confirmed();
        let findings = self.look_at_names(client, through).await?;
        let released = findings.released();
        self.settle_names(findings).await?;
        Ok(released)
    }

    /// Notes that the publication for inserts exists and the stream does not name it yet.
    async fn note_second(&self, client: &Client) -> Result<(), postgres::Error> {
        if self.second.is_new() {
            self.second.exists_since(client::wal_end(client).await?);
        }
        Ok(())
    }

    /// Leaves out tables that can't be given their topics, and reads again those that now can.
    async fn settle_topics(
        &self,
        client: &Client,
        look: &mut Look,
        seen: &mut Seen,
    ) -> Result<(), postgres::Error> {
        let settled = self.look_at_topics(client, look).await?;
        seen.settled.retain(|oid| settled.iter().any(|table| table.oid == *oid));
        let new: Vec<_> =
            settled.into_iter().filter(|table| seen.settled.insert(table.oid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let tables = manage::list(&new);
        if self.settings.snapshot.mode == SnapshotMode::Never {
            tracing::info!(tables, "tables have topics again: publishing their changes");
            let tables = new.iter().map(|table| table.oid).collect();
            self.control.ask(Command::Admit { tables });
        } else {
            tracing::info!(tables, "tables have topics again: reading their rows");
            let exactly = |table: &Named| TablePattern::exact(&table.schema, &table.name);
            let names = new.iter().map(exactly).collect();
            let request = Request::new(names, None, SnapshotReason::Added);
            let asked = |Named { schema, name, .. }| TableName { schema, name };
            self.rows_asked(&new.into_iter().map(asked).collect::<Vec<_>>(), &request.id);
            self.control.ask(Command::Take(request));
        }
        Ok(())
    }
}

/// Logs an error that each check may repeat, but not each time.
fn tell_repeated(error: &Error, what: &str, repeats: &mut Repeats) {
    if let Some(folded) = repeats.again(Instant::now()) {
        tracing::warn!(error = error.told(), folded, "{what}");
    }
}

/// Whether this state checks for tables that lost their identity. New tables are checked for only
/// while streaming.
///
/// `guards` is whether this process has set up the publications: then they stay so while the slot
/// is created and between a failed session and the next. In standby another copy has the slot, and
/// it is not known which publications its stream names.
const fn looks_in(state: State, guards: bool) -> bool {
    match state {
        State::Streaming | State::Snapshot => true,
        State::Preflight | State::Backoff | State::Draining => guards,
        State::Standby | State::Stopped => false,
    }
}

/// Whether to request the rows of a table of which more is captured from now on. Not while they are
/// being read: changes that were missed may come after what was read, and a second request would be
/// dropped. And only once, unless the table was read and then removed from the publication again.
fn is_to_be_asked(snapshots: &[SnapshotStatus], table: &TableName, was_asked: bool) -> bool {
    let name = table.to_string();
    let of_it = || snapshots.iter().filter(|status| status.table == name);
    if of_it().any(|status| !status.state.is_end()) {
        return false;
    }
    let decided = |status: &&SnapshotStatus| status.state != SnapshotState::Stopped;
    let last = of_it().rfind(decided);
    !was_asked || last.is_some_and(|status| status.state == SnapshotState::Done)
}

/// Limits how long queries of this connection wait for a lock: DDL of the application must not
/// queue up behind it.
async fn limit_locks(client: &Client) -> Result<(), postgres::Error> {
    let limit = format!("SET lock_timeout = {}", PATIENCE.as_millis());
    client
        .batch_execute(&limit)
        .await
        .map_err(|source| postgres::Error::Sql { doing: "limit waits for locks", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_asked_for_once_they_are_read_no_more_and_again_where_that_was_in_vain() {
        use SnapshotState::{Done, Failed, Paused, Running, Stopped, Waiting};
        let table = TableName { schema: "public".to_owned(), name: "rides".to_owned() };
        let status = |table: &str, state| SnapshotStatus {
            id: "a".to_owned(),
            table: table.to_owned(),
            reason: SnapshotReason::Added,
            condition: None,
            state,
            rows: 0,
            rows_estimated: None,
            note: None,
        };
        let cases: [(&[SnapshotState], bool, bool); 9] = [
            // The outcomes of its snapshots in turn; whether to request a first, and a second one.
            (&[], true, false),
            (&[Waiting], false, false),
            (&[Running], false, false),
            (&[Paused], false, false),
            (&[Done], true, true),
            (&[Done, Running], false, false),
            (&[Done, Failed], true, false),
            (&[Failed], true, false),
            // A request that was dropped because another was running.
            (&[Done, Stopped], true, true),
        ];
        for (states, first, second) in cases {
            let mut all: Vec<_> =
                states.iter().map(|state| status("public.rides", *state)).collect();
            all.push(status("public.others", Running));
            assert_eq!(is_to_be_asked(&all, &table, false), first, "{states:?}");
            assert_eq!(is_to_be_asked(&all, &table, true), second, "{states:?}");
        }
    }
}
