//! The connection to a walsender: its commands.
//!
//! There are few commands, and all end before the stream begins; from then on the connection
//! belongs to [`ReplicationStream`]. Only this module quotes names and texts for them.
//!
//! Commands: <https://www.postgresql.org/docs/current/protocol-replication.html>

use std::time::Duration;

use super::Error;
use super::conninfo::ConnInfo;
use super::session::{ConnectOptions, Session};
use super::slot::Walsender;
use super::startup::Purpose;
use super::stream::ReplicationStream;
use super::wire::{self, WRONG_ANSWER, text};
use crate::lsn::Lsn;

/// Which cluster this is and how far it has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's identifier, the same on its standbys.
    pub system_id: String,
    /// Counts failovers.
    pub timeline: u32,
    /// The end of flushed WAL.
    pub wal_position: Lsn,
    /// The database connected to.
    pub database: String,
}

/// Options of a new slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotOptions {
    /// Drop it when the connection ends.
    pub temporary: bool,
    /// Synchronise it to standbys. Ignored before PostgreSQL 17, which does not have such slots.
    pub failover: bool,
    /// What to do with the snapshot of the slot's start.
    pub snapshot: SlotSnapshot,
}

/// What to do with a new slot's snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotSnapshot {
    /// Other connections may import it, until this one runs its next command.
    Export,
    /// None is exported.
    #[default]
    Nothing,
}

/// A new slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The stream contains every transaction that commits after it, and the snapshot all before.
    pub consistent_point: Lsn,
    /// The exported snapshot.
    pub snapshot_name: Option<String>,
}

/// What to stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The publications whose tables are streamed.
    pub publications: Vec<String>,
    /// Also stream logical messages (`pg_logical_emit_message`); from PostgreSQL 14 on.
    pub messages: bool,
    /// After how long without a byte the connection counts as dead. Default: twice the server's
    /// `wal_sender_timeout`.
    pub silent_after: Option<Duration>,
}

/// A connection to a walsender.
#[derive(Debug)]
pub struct ReplicationClient {
    session: Session,
    address: String,
    status_interval: Duration,
    answer_timeout: Duration,
}

impl ReplicationClient {
    /// Connects to the first host that will do and logs in.
    ///
    /// # Errors
    /// When no host will do, or the login is refused.
    pub async fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Self, Error> {
        let session = Session::open(info, options, Purpose::Replication).await?;
        let address = session.host.to_string();
        let ConnectOptions { status_interval, answer_timeout, .. } = *options;
        Ok(Self { session, address, status_interval, answer_timeout })
    }

    /// The host that was connected to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server's version as a number: 15.19 is 150019. Zero when it reported none.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.session.server_version()
    }

    /// Which cluster this is and how far it has written.
    ///
    /// # Errors
    /// When the connection is lost, or no valid response arrives in time.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        let rows = self.ask("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_id: text(&rows, 0)?.to_owned(),
            timeline: text(&rows, 1)?.parse().map_err(|_| WRONG_ANSWER)?,
            wal_position: text(&rows, 2)?.parse().map_err(|_| WRONG_ANSWER)?,
            database: text(&rows, 3)?.to_owned(),
        })
    }

    /// The timelines before this one, each with the position where it ended.
    ///
    /// # Errors
    /// When the server no longer has the history, or no valid response arrives in time.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>, Error> {
        let command = format!("TIMELINE_HISTORY {timeline}");
        let rows = self.ask("TIMELINE_HISTORY", &command).await?;
        history(text(&rows, 1)?).ok_or(WRONG_ANSWER)
    }

    /// Creates a logical slot for pgoutput, once all running transactions have ended, however long
    /// that takes; see `slot_creation`.
    ///
    /// # Errors
    /// [`Error::SlotExists`], [`Error::TooManySlots`], or what the server reports.
    pub async fn create_slot(
        &mut self,
        name: &str,
        options: SlotOptions,
    ) -> Result<CreatedSlot, Error> {
        let command = create_slot_command(name, options, self.server_version());
        let rows = wire::query(&mut self.session.wire, &command).await;
        let rows = rows.map_err(|error| error.about_slot(name))?;
        Ok(CreatedSlot {
            consistent_point: text(&rows, 1)?.parse().map_err(|_| WRONG_ANSWER)?,
            snapshot_name: text(&rows, 2).ok().map(ToOwned::to_owned),
        })
    }

    /// Drops a slot.
    ///
    /// # Errors
    /// [`Error::SlotMissing`], [`Error::SlotActive`], or what the server reports.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        let command = format!("DROP_REPLICATION_SLOT {}", identifier(name));
        let dropped = wire::query(&mut self.session.wire, &command).await;
        dropped.map(drop).map_err(|error| error.about_slot(name))
    }

    /// Begins to stream from `start`, or from the slot's confirmed position if that is later.
    ///
    /// # Errors
    /// [`Error::SlotActive`], [`Error::SlotMissing`], [`Error::WalRemoved`], what the server
    /// reports, or [`Error::Timeout`]. A publication that does not exist is found only later, in the
    /// stream.
    pub async fn start_replication(
        mut self,
        slot: &str,
        start: Lsn,
        options: &StreamOptions,
    ) -> Result<ReplicationStream, Error> {
        let (timeout, walsender) = self.served_by().await?;
        self.in_time("SET client_encoding", async |client| {
            client.session.take_bytes_as_they_are().await
        })
        .await?;
        let version = self.server_version();
        let command = start_command(slot, start, options, version);
        let begun = self.in_time("START_REPLICATION", async |client| client.begin(&command).await);
        begun.await.map_err(|error| error.about_slot(slot))?;
        let slot = slot.to_owned();
        let silence = options.silent_after.or_else(|| Some(timeout? * 2));
        let stream =
            ReplicationStream::new(self.session.wire, slot, start, self.status_interval, timeout);
        Ok(stream.served_by(walsender, version).with_silence(silence))
    }

    async fn begin(&mut self, command: &str) -> Result<(), Error> {
        postgres_protocol::message::frontend::query(command, &mut self.session.wire.outgoing)
            .map_err(|source| Error::Io { doing: "writing a command", source })?;
        self.session.wire.flush().await?;
        loop {
            let message = self.session.wire.expect().await?;
            match message.tag {
                b'W' => return Ok(()),
                b'S' => {}
                tag => {
                    let doing = "starting replication";
                    return Err(Error::Unexpected { tag: char::from(tag), doing });
                }
            }
        }
    }

    /// The server process of this connection.
    ///
    /// # Errors
    /// When the connection is lost, or no valid response arrives in time.
    pub async fn walsender(&mut self) -> Result<Walsender, Error> {
        Ok(self.served_by().await?.1)
    }

    /// After how long the server ends the connection of a silent reader (`None` if never), and the
    /// server process of this connection.
    async fn served_by(&mut self) -> Result<(Option<Duration>, Walsender), Error> {
        const QUERY: &str = include_str!("../../sql/walsender.sql");
        let rows = self.ask("the query which walsender this is", QUERY).await?;
        let ms: u64 = text(&rows, 0)?.parse().map_err(|_| WRONG_ANSWER)?;
        let pid = text(&rows, 1)?.parse().map_err(|_| WRONG_ANSWER)?;
        let walsender = Walsender { pid, started: text(&rows, 2)?.to_owned() };
        Ok(((ms > 0).then(|| Duration::from_millis(ms)), walsender))
    }

    /// Sends a query that the server answers at once.
    async fn ask(
        &mut self,
        doing: &'static str,
        query: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.in_time(doing, async |client| wire::query(&mut client.session.wire, query).await).await
    }

    /// Limits the wait for a response that should be immediate: a connection that swallows all
    /// bytes looks like a busy server.
    async fn in_time<T>(
        &mut self,
        doing: &'static str,
        done: impl AsyncFnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let after = self.answer_timeout;
        let done = tokio::time::timeout(after, done(self)).await;
        done.unwrap_or(Err(Error::Timeout { doing, after }))
    }
}

/// A history file: lines with a timeline, where it ended, and why, with comments between.
fn history(file: &str) -> Option<Vec<(u32, Lsn)>> {
    let lines =
        file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect()
}

/// A name in a replication command or in a list of publications.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in a replication command, whose grammar knows no backslashes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn create_slot_command(name: &str, options: SlotOptions, version: u32) -> String {
    let name = identifier(name);
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let export = options.snapshot == SlotSnapshot::Export;
    // The grammar with parentheses came in version 15.
    let tail = if version < 150_000 {
        if export { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" }.to_owned()
    } else {
        let failover = options.failover && version >= 170_000 && !options.temporary;
        let snapshot = if export { "export" } else { "nothing" };
        let failover = if failover { ", FAILOVER true" } else { "" };
        format!("(SNAPSHOT '{snapshot}'{failover})")
    };
    format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {tail}")
}

fn start_command(slot: &str, start: Lsn, options: &StreamOptions, version: u32) -> String {
    let publications: Vec<_> = options.publications.iter().map(|name| identifier(name)).collect();
    let publications = literal(&publications.join(","));
    // Version 1 of the protocol: a transaction is sent complete, after its commit.
    let mut tail = format!("\"proto_version\" '1', \"publication_names\" {publications}");
    if options.messages && version >= 140_000 {
        tail.push_str(", \"messages\" 'true'");
    }
    format!("START_REPLICATION SLOT {} LOGICAL {start} ({tail})", identifier(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_is_read_as_servers_write_it() {
        let file = "1\t0/3000148\tno recovery target specified\n\n# by hand\n2\t16/B3000000\t\n";
        let expected = vec![(1, Lsn::from(0x300_0148)), (2, Lsn::from(0x16_B300_0000))];
        assert_eq!(history(file), Some(expected));
        assert_eq!(history(""), Some(Vec::new()));
        assert_eq!(history("1 of nothing"), None);
    }

    #[test]
    fn names_cannot_break_out_of_a_command() {
        let options = StreamOptions {
            publications: vec!["a".into(), "b\"'c".into()],
            messages: true,
            ..StreamOptions::default()
        };
        assert_eq!(
            start_command("s\"x", Lsn::from(0x1_0000_0002), &options, 150_000),
            "START_REPLICATION SLOT \"s\"\"x\" LOGICAL 1/2 (\"proto_version\" '1', \
             \"publication_names\" '\"a\",\"b\"\"''c\"', \"messages\" 'true')"
        );
        assert!(!start_command("s", Lsn::ZERO, &options, 130_000).contains("messages"));
    }

    #[test]
    fn each_version_is_asked_for_a_slot_in_its_own_grammar() {
        let export = SlotSnapshot::Export;
        let options = SlotOptions { temporary: false, failover: true, snapshot: export };
        let command = |version| create_slot_command("s", options, version);
        let head = "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput ";
        assert_eq!(command(140_000), format!("{head}EXPORT_SNAPSHOT"));
        assert_eq!(command(150_000), format!("{head}(SNAPSHOT 'export')"));
        assert_eq!(command(170_000), format!("{head}(SNAPSHOT 'export', FAILOVER true)"));
        let temporary = SlotOptions { temporary: true, ..SlotOptions::default() };
        assert_eq!(
            create_slot_command("s", temporary, 150_000),
            "CREATE_REPLICATION_SLOT \"s\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"
        );
    }
}
