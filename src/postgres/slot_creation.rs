//! Creates a slot, which waits until every running transaction has ended, however long that takes,
//! in every database of the server.
//!
//! The walsender that creates it sends nothing meanwhile, so a second connection queries what it
//! waits for. The same query distinguishes a wait from a dead connection: a walsender that is gone,
//! or that waits for us while we wait for it, will never respond. The second connection also holds
//! a lock that shows other copies that a client waits: without it, a walsender that is creating the
//! slot was left behind by a killed process ([`end_deserted`]).
//!
//! Not here: how the wait is reported, and what is done about an abandoned walsender; see the
//! bridge.

use std::fmt;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::conninfo::ConnInfo;
use super::replication::{CreatedSlot, ReplicationClient, SlotOptions};
use super::session::ConnectOptions;
use super::slot::Walsender;
use super::{Error, client};

const QUESTION: &str = include_str!("../../sql/slot_creation.sql");
const LOCK: &str = include_str!("../../sql/lock_slot_making.sql");
const END_MAKER: &str = include_str!("../../sql/end_slot_maker.sql");

/// Time between two checks.
const LOOK: Duration = Duration::from_secs(1);

/// Longest wait for one check, including its connection.
const ANSWER: Duration = Duration::from_secs(5);

/// Consecutive checks that fail, or find the walsender idle, before the connection counts as dead.
/// A response that was in transit during one has arrived by the next.
const LOOKS: u32 = 3;

const MAKING: &str = "creating the replication slot";

/// A transaction that a slot waits for. Its statements are not shown: they contain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocker {
    /// The server process that runs it; `None` for a prepared one.
    pub pid: Option<i32>,
    /// The name of a prepared one.
    pub gid: Option<String>,
    /// Its user, as far as the role may see it.
    pub user: Option<String>,
    /// Its application name.
    pub application: Option<String>,
    /// Its database, which may be another than the one being read.
    pub database: Option<String>,
    /// As in `pg_stat_activity`: `active`, `idle in transaction`.
    pub state: Option<String>,
    /// Time since it began, or was prepared.
    pub age: Option<Duration>,
    /// Time since its last statement began.
    pub query_age: Option<Duration>,
}

impl Blocker {
    /// The fix that ends the wait.
    #[must_use]
    pub fn fix(&self) -> String {
        use postgres_protocol::escape::escape_literal;
        match (&self.gid, self.pid) {
            (Some(gid), _) => {
                let gid = escape_literal(gid);
                format!("COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid}, in its database")
            }
            (None, Some(pid)) => {
                format!("end its transaction, or SELECT pg_terminate_backend({pid})")
            }
            (None, None) => "look at pg_prepared_xacts".to_owned(),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.gid, self.pid) {
            (Some(gid), _) => write!(f, "the prepared transaction {gid:?}")?,
            (None, Some(pid)) => write!(f, "the transaction of server process {pid}")?,
            (None, None) => f.write_str("a prepared transaction")?,
        }
        for (what, name) in [
            ("user", &self.user),
            ("application", &self.application),
            ("database", &self.database),
            ("state", &self.state),
        ] {
            if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
                write!(f, ", {what} {name:?}")?;
            }
        }
        if let Some(age) = self.age {
            write!(f, ", begun {} s ago", age.as_secs())?;
        }
        if let Some(age) = self.query_age {
            write!(f, ", last statement {} s ago", age.as_secs())?;
        }
        Ok(())
    }
}

/// The result of a check.
enum Sight {
    /// The walsender is gone.
    Gone,
    /// It is idle.
    Idle,
    /// It is creating the slot, and may wait for a transaction.
    AtWork(Option<Blocker>),
}

impl ReplicationClient {
    /// As [`create_slot`](Self::create_slot), for a slot that may have to wait: calls `waits` once
    /// a second with what it waits for, and for how long so far.
    ///
    /// The caller has called `walsender` on this connection.
    ///
    /// # Errors
    /// As there; and if the connection is dead, [`Error::Closed`] or [`Error::Timeout`].
    pub async fn create_slot_in_time(
        &mut self,
        name: &str,
        slot: SlotOptions,
        walsender: &Walsender,
        (info, options): (&ConnInfo, &ConnectOptions),
        waits: impl FnMut(Option<Blocker>, Duration),
    ) -> Result<CreatedSlot, Error> {
        let mut watch = Watch { slot: name, walsender, info, options, connected: None };
        // Before the creation begins, so that no one finds the slot without the lock. The first
        // check reports problems of the connection.
        let _ = tokio::time::timeout(ANSWER, watch.client()).await;
        tokio::select! {
            created = self.create_slot(name, slot) => created,
            error = watch.until_dead(waits) => Err(error),
        }
    }
}

/// Ends the server process `pid` if it is creating the slot for a process like this one that is
/// gone: same role and application name, and the lock is free. If that process is alive and only
/// lost a connection, it starts again.
///
/// Returns whether it was asked to end.
///
/// # Errors
/// When the query fails.
pub async fn end_deserted(client: &Client, slot: &str, pid: i32) -> Result<bool, Error> {
    let failed = |source| Error::Sql { doing: "cancel the creation of a slot", source };
    let row = client.query_opt(END_MAKER, &[&slot, &pid]).await.map_err(failed)?;
    Ok(row.and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false))
}

/// The second connection.
struct Watch<'a> {
    slot: &'a str,
    walsender: &'a Walsender,
    info: &'a ConnInfo,
    options: &'a ConnectOptions,
    connected: Option<Client>,
}

impl Watch<'_> {
    /// Checks periodically; returns what is wrong.
    async fn until_dead(&mut self, mut waits: impl FnMut(Option<Blocker>, Duration)) -> Error {
        let started = Instant::now();
        let mut bad = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let looked = match tokio::time::timeout(ANSWER, self.look()).await {
                Ok(looked) => looked,
                Err(_) => Err(Error::Timeout { doing: MAKING, after: started.elapsed() }),
            };
            let error = match looked {
                Ok(Sight::AtWork(blocker)) => {
                    bad = 0;
                    waits(blocker, started.elapsed());
                    continue;
                }
                Ok(Sight::Gone) => Error::Closed,
                Ok(Sight::Idle) => Error::Timeout { doing: MAKING, after: started.elapsed() },
                Err(error) => {
                    self.connected = None;
                    error
                }
            };
            bad += 1;
            if bad == LOOKS {
                return error;
            }
        }
    }

    /// The connection, with the lock.
    async fn client(&mut self) -> Result<&Client, Error> {
        let client = match self.connected.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let client = client::connect(self.info, self.options).await?;
                let failed = |source| Error::Sql { doing: "lock the name of the slot", source };
                client.query_one(LOCK, &[&self.slot]).await.map_err(failed)?;
                client
            }
        };
        Ok(self.connected.insert(client))
    }

    async fn look(&mut self) -> Result<Sight, Error> {
        let Walsender { pid, started } = self.walsender;
        let client = self.client().await?;
        let failed = |source| Error::Sql { doing: "read what the slot waits for", source };
        let Some(row) = client.query_opt(QUESTION, &[pid, started]).await.map_err(failed)? else {
            return Ok(Sight::Gone);
        };
        if !row.get::<_, bool>(0) {
            return Ok(Sight::Idle);
        }
        let age = |at: usize| {
            let seconds = row.get::<_, Option<i64>>(at)?;
            Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        };
        Ok(Sight::AtWork(row.get::<_, Option<i32>>(1).map(|pid| Blocker {
            pid: (pid != 0).then_some(pid),
            user: row.get(2),
            application: row.get(3),
            database: row.get(4),
            state: row.get(5),
            age: age(6),
            query_age: age(7),
            gid: row.get(8),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_named_as_far_as_it_may_be_seen_with_what_ends_it() {
        let hidden = Blocker { pid: Some(7), user: Some("app".to_owned()), ..Blocker::default() };
        assert_eq!(hidden.to_string(), "the transaction of server process 7, user \"app\"");
        assert!(hidden.fix().contains("pg_terminate_backend(7)"), "{}", hidden.fix());
        let whole = Blocker {
            application: Some("psql".to_owned()),
            database: Some("taxi".to_owned()),
            state: Some("idle in transaction".to_owned()),
            age: Some(Duration::from_secs(95)),
            query_age: Some(Duration::from_secs(40)),
            ..hidden
        };
        assert_eq!(
            whole.to_string(),
            "the transaction of server process 7, user \"app\", application \"psql\", \
             database \"taxi\", state \"idle in transaction\", begun 95 s ago, \
             last statement 40 s ago"
        );
        let prepared = Blocker { gid: Some("o'k".to_owned()), ..Blocker::default() };
        assert_eq!(prepared.to_string(), "the prepared transaction \"o'k\"");
        assert!(prepared.fix().contains("ROLLBACK PREPARED 'o''k'"), "{}", prepared.fix());
    }
}
