//! Tables that come up while the bridge runs, or came up while it did not: those that
//! `postgres.tables` matches and the publication does not have.
//!
//! Looked for as soon as rows flow, and then every `postgres.discover_interval`, on a connection of
//! its own. Such a table has rows already, so it is asked for as a snapshot, and whoever takes that
//! puts it into the publication at the right moment; see `snapshot::incremental`. With
//! `snapshot.mode = "never"` it is only put into the publication.
//!
//! Partitions that come are looked for elsewhere (`partitions`). Without `postgres.manage` nothing is
//! put into the publication. What a table lacks to be published is told once, in words.
//!
//! A table whose topic another one has stays out (`topics`), and one that was left out for it and has
//! a topic now is read anew, as a new one is.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use tokio_postgres::Client;

use super::Bridge;
use super::setup::{self, connect_options};
use crate::admin::State;
use crate::checkpoint::SnapshotReason;
use crate::config::{SnapshotMode, TablePattern};
use crate::error;
use crate::postgres::publication::{self, PublicationChange, TableName};
use crate::postgres::{self, client};
use crate::route::Named;
use crate::snapshot::{Command, Request};

/// Longest wait for one look.
const ANSWER: Duration = Duration::from_secs(30);

/// What was asked for, or told, and is not to be again.
#[derive(Debug, Default)]
struct Seen {
    asked: BTreeSet<TableName>,
    /// Tables that were left out and are to be read anew, by OID.
    settled: BTreeSet<u32>,
    /// None before the first look: those of the start were told then.
    left_out: Option<BTreeSet<TableName>>,
}

impl Bridge {
    /// Looks again and again.
    pub(super) async fn discover(&self) -> Infallible {
        let mut status = self.status.subscribe();
        let (mut connected, mut seen) = (None, Seen::default());
        loop {
            let flows = |status: &crate::admin::Status| status.state == State::Streaming;
            if status.wait_for(flows).await.is_err() {
                std::future::pending::<()>().await;
            }
            let look = self.look_for_tables(&mut connected, &mut seen);
            match tokio::time::timeout(ANSWER, look).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    connected = None;
                    tracing::warn!(error = error::told(&error), "looking for new tables");
                }
                Err(_) => connected = None,
            }
            tokio::time::sleep(self.settings.discover_interval).await;
        }
    }

    async fn look_for_tables(
        &self,
        connected: &mut Option<Client>,
        seen: &mut Seen,
    ) -> Result<(), postgres::Error> {
        let settings = &self.settings;
        let client = match connected.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => client::connect(&self.conninfo, &connect_options(settings)).await?,
        };
        let client = connected.insert(client);
        let mut change = match settings.manage {
            true => setup::missing(client, settings).await?,
            false => PublicationChange::default(),
        };
        self.settle_topics(client, &mut change, seen).await?;
        let new: Vec<TableName> = change.add.iter().map(|added| added.table.clone()).collect();
        // One that was dropped and made again is new.
        seen.asked.retain(|table| new.contains(table));
        let asked: Vec<TableName> =
            new.into_iter().filter(|table| !seen.asked.contains(table)).collect();
        let left_out: BTreeSet<TableName> = change.without_identity.iter().cloned().collect();
        let told = seen.left_out.replace(left_out.clone()).unwrap_or_else(|| left_out.clone());
        for table in left_out.difference(&told) {
            tracing::warn!(
                table = %table,
                fix = setup::IDENTITY_FIX,
                "left out: Postgres would refuse to update or delete its rows once published"
            );
        }
        if asked.is_empty() {
            return Ok(());
        }
        let tables = setup::list(&asked);
        if settings.snapshot.mode == SnapshotMode::Never {
            let change = PublicationChange { add: change.add, ..PublicationChange::default() };
            publication::apply(client, &settings.publication, &change).await?;
            tracing::info!(tables, "new tables put into the publication");
        } else {
            tracing::info!(tables, "new tables: their rows are read, then their changes");
            let exactly = |table: &TableName| TablePattern::exact(&table.schema, &table.name);
            let names = asked.iter().map(exactly).collect();
            let request = Request::new(names, None, SnapshotReason::Added);
            self.control.ask(Command::Take(request));
        }
        seen.asked.extend(asked);
        Ok(())
    }

    /// Leaves out tables that can't have their topics, and reads anew those that can again.
    async fn settle_topics(
        &self,
        client: &Client,
        change: &mut PublicationChange,
        seen: &mut Seen,
    ) -> Result<(), postgres::Error> {
        let settled = self.look_at_topics(client, change).await?;
        seen.settled.retain(|oid| settled.iter().any(|table| table.oid == *oid));
        let new: Vec<_> =
            settled.into_iter().filter(|table| seen.settled.insert(table.oid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let tables = setup::list(&new);
        if self.settings.snapshot.mode == SnapshotMode::Never {
            tracing::info!(tables, "these tables have topics again: their changes are published");
            let tables = new.iter().map(|table| table.oid).collect();
            self.control.ask(Command::Admit { tables });
        } else {
            tracing::info!(tables, "these tables have topics again: their rows are read anew");
            let exactly = |table: &Named| TablePattern::exact(&table.schema, &table.name);
            let names = new.iter().map(exactly).collect();
            let request = Request::new(names, None, SnapshotReason::Added);
            self.control.ask(Command::Take(request));
        }
        Ok(())
    }
}
