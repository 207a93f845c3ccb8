//! The publication: which tables the server decodes for the bridge.
//!
//! It is created for the tables that the configured patterns match, with the configured columns,
//! rows and operations, and altered when any of these changes (`plan`). An existing publication for
//! all tables or whole schemas is left as it is.
//!
//! One thing must never happen: publishing a table for which Postgres would then refuse UPDATE or
//! DELETE because it lacks a replica identity, so that the bridge breaks the application. Only
//! inserts of such a table are published, by a second publication for the same slot (`identity`
//! checks, `plan` decides). `filters` handles filters.

pub mod forgetful;
mod identity;
mod limited;
pub(crate) mod manage;
mod parts;
mod placing;
mod plan;
mod row_filters;
pub mod streamed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

pub use self::identity::{Leaf, Part, Refusal, UsableIndex};
pub use self::limited::Limited;
pub use self::placing::plan;
pub use self::plan::{
    Inserts, Plan, Present, PublicationChange, TableChange, Wanted, needs_identity,
};
use super::Error;
use crate::config::{Operation, Resolved};

const TABLES: &str = include_str!("../../../sql/tables.sql");
const TABLE_AND_ANCESTORS: &str = include_str!("../../../sql/table_and_ancestors.sql");
const TABLE_NAME: &str = include_str!("../../../sql/table_name.sql");
const PUBLICATION: &str = include_str!("../../../sql/publication.sql");
const PUBLICATION_TABLES: &str = include_str!("../../../sql/publication_tables.sql");
const PUBLICATION_TABLES_14: &str = include_str!("../../../sql/publication_tables_14.sql");
const MAY_CREATE: &str =
    "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
const PUBLICATION_SCHEMAS: &str = include_str!("../../../sql/publication_schemas.sql");

/// How long a change waits for a lock that an ALTER or VACUUM of a table holds. Writers of rows do
/// not queue behind it, but other DDL does. Shorter than `deadlock_timeout`, so that a deadlock
/// never ends the application's statement.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// The same after some tries: longer than `deadlock_timeout`, after which an automatic vacuum is
/// cancelled.
pub const LONG_PATIENCE: Duration = Duration::from_millis(1500);

/// The first version whose publications can hold whole schemas, column lists and row filters.
pub(super) const FILTERS_SINCE: u32 = 150_000;

/// A table's full name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl TableName {
    /// The name as an SQL identifier.
    #[must_use]
    pub fn sql(&self) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The names of the two publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names<'a> {
    /// The publication.
    pub main: &'a str,
    /// The one for tables of which only inserts are published.
    pub inserts: &'a str,
}

impl<'a> Names<'a> {
    /// The configured names.
    #[must_use]
    pub fn of(settings: &'a Resolved) -> Self {
        Self { main: &settings.publication, inserts: &settings.inserts_publication }
    }

    /// Both, for a query.
    #[must_use]
    pub const fn both(&self) -> [&'a str; 2] {
        [self.main, self.inserts]
    }
}

/// What is published of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The columns, in the table's order; `None` for all, including future ones.
    pub columns: Option<Vec<String>>,
    /// The row filter as the server writes it; `None` for all rows.
    pub condition: Option<String>,
}

/// A table that could be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The table's OID, which a rename does not change.
    pub oid: u32,
    /// The table.
    pub table: TableName,
    /// Whether the role may add it to a publication.
    pub is_owned: bool,
    /// Its owner.
    pub owner: String,
    /// The tables that hold its rows: itself, or its partitions and it.
    pub leaves: Vec<Leaf>,
}

impl Candidate {
    /// The tables whose rows Postgres would refuse to update or delete if this part were published;
    /// each with the reason.
    pub fn refused(
        &self,
        part: Part<'_>,
        server_version: u32,
    ) -> impl Iterator<Item = (&Leaf, Refusal)> {
        let refused = move |leaf: &Leaf| leaf.refusal(part, server_version);
        self.leaves.iter().filter_map(move |leaf| refused(leaf).map(|why| (leaf, why)))
    }
}

/// A publication as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whether it lists tables; otherwise it is for all, or for whole schemas.
    pub is_by_table: bool,
    /// Whether the role may alter it.
    pub is_owned: bool,
    /// Its owner.
    pub owner: String,
    /// The operations it publishes, in the order of [`Operation::ALL`].
    pub operations: Vec<Operation>,
    /// Whether changes of partitions are published as their root's.
    pub via_root: bool,
    /// Whether it publishes stored generated columns without a column list (PostgreSQL 18).
    pub generated: bool,
    /// The listed tables, and what it publishes of each.
    pub tables: BTreeMap<TableName, Published>,
    /// The columns that its row filters use.
    pub conditions: BTreeMap<TableName, Vec<String>>,
    /// The tables in the stream, if it does not list tables.
    pub covers: Option<BTreeSet<TableName>>,
    /// Tables whose row filters could not be read because the table is locked: they remain
    /// published as they are.
    pub unread: BTreeSet<TableName>,
}

impl Publication {
    /// What it publishes of a table, if anything: one for whole schemas may contain only some
    /// partitions, and one for all tables may exclude some (PostgreSQL 19).
    fn covered(&self, candidate: &Candidate) -> Option<Candidate> {
        let mut candidate = candidate.clone();
        if let Some(covers) = self.covers.as_ref().filter(|of| !of.contains(&candidate.table)) {
            candidate.leaves.retain(|leaf| covers.contains(&leaf.table));
        }
        (!candidate.leaves.is_empty()).then_some(candidate)
    }
}

/// The publications, and the tables that they could have.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The publication.
    pub main: Option<Publication>,
    /// The one for inserts.
    pub inserts: Option<Publication>,
    /// The tables.
    pub candidates: Vec<Candidate>,
    /// Whether the role may create a publication.
    pub may_create: bool,
}

impl Survey {
    /// The publications.
    #[must_use]
    pub fn present(&self) -> Present<'_> {
        Present { main: self.main.as_ref(), inserts: self.inserts.as_ref() }
    }

    /// What may be done with the publication for inserts, depending on whether the stream names it.
    #[must_use]
    pub fn inserts(&self, is_named: bool) -> Inserts {
        let may = match &self.inserts {
            Some(publication) => publication.is_owned && publication.is_by_table,
            None => self.may_create && self.main.as_ref().is_none_or(|main| main.is_by_table),
        };
        match (may, is_named) {
            (true, true) => Inserts::Used,
            (true, false) => Inserts::Prepared,
            (false, _) => Inserts::Untouched,
        }
    }
}

/// The tables that could be published.
///
/// # Errors
/// When the query fails.
pub async fn candidates(client: &Client) -> Result<Vec<Candidate>, Error> {
    candidates_of(client, None).await
}

/// The same for the table with this OID only, if set.
async fn candidates_of(client: &Client, oid: Option<u32>) -> Result<Vec<Candidate>, Error> {
    let failed = |source| Error::Sql { doing: "read the tables", source };
    let rows = client.query(TABLES, &[&oid]).await.map_err(failed)?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for row in &rows {
        let oid = row.get(0);
        // The rows of one table are consecutive.
        if candidates.last().is_none_or(|last| last.oid != oid) {
            candidates.push(Candidate {
                oid,
                table: TableName { schema: row.get(1), name: row.get(2) },
                is_owned: row.get(3),
                owner: row.get(4),
                leaves: Vec::new(),
            });
        }
        if let Some(candidate) = candidates.last_mut() {
            candidate.leaves.push(leaf(row));
        }
    }
    Ok(candidates)
}

fn leaf(row: &tokio_postgres::Row) -> Leaf {
    let usable = |name| UsableIndex { name, is_primary: row.get(13) };
    Leaf {
        table: TableName { schema: row.get(5), name: row.get(6) },
        has_rows: row.get(7),
        is_full: row.get(8),
        index: row.get(9),
        generated: row.get(10),
        has_virtual: row.get(11),
        usable: row.get::<_, Option<String>>(12).map(usable),
        has_deferrable_key: row.get(14),
    }
}

/// The name of the table with this OID, if it exists.
///
/// # Errors
/// When the query fails.
pub async fn name(client: &Client, oid: u32) -> Result<Option<TableName>, Error> {
    let failed = |source| Error::Sql { doing: "read the name of a table", source };
    let row = client.query_opt(TABLE_NAME, &[&oid]).await.map_err(failed)?;
    Ok(row.map(|row| TableName { schema: row.get(0), name: row.get(1) }))
}

/// A table and its partition ancestors; empty if the table does not exist.
///
/// # Errors
/// When the query fails.
pub async fn with_ancestors(client: &Client, table: &TableName) -> Result<Vec<TableName>, Error> {
    let failed = |source| Error::Sql { doing: "read what a table is a partition of", source };
    let rows = client.query(TABLE_AND_ANCESTORS, &[&table.schema, &table.name]).await;
    let name = |row: &tokio_postgres::Row| TableName { schema: row.get(0), name: row.get(1) };
    Ok(rows.map_err(failed)?.iter().map(name).collect())
}

/// The publication as it is, if present. Waits for locks only briefly.
///
/// # Errors
/// When a query fails. The client must have no transaction open.
pub async fn find(
    client: &Client,
    name: &str,
    server_version: u32,
) -> Result<Option<Publication>, Error> {
    match find_unread(client, name, server_version, None).await? {
        Some(unread) => unread.read(client).await.map(Some),
        None => Ok(None),
    }
}

/// A publication whose row filters are not read yet.
struct Unread {
    publication: Publication,
    /// The tables with row filters, by the entry of the publication.
    filtered: BTreeMap<u32, TableName>,
}

impl Unread {
    async fn read(self, client: &Client) -> Result<Publication, Error> {
        let Self { mut publication, filtered } = self;
        let entries: Vec<u32> = filtered.keys().copied().collect();
        let mut filters = row_filters::glance(client, &entries).await?;
        for (entry, table) in filtered {
            match (filters.remove(&entry), publication.tables.get_mut(&table)) {
                (Some(filter), Some(published)) => published.condition = Some(filter),
                _ => _ = publication.unread.insert(table),
            }
        }
        Ok(publication)
    }
}

async fn find_unread(
    client: &Client,
    name: &str,
    server_version: u32,
    oid: Option<u32>,
) -> Result<Option<Unread>, Error> {
    let failed = |source| Error::Sql { doing: "read the publication", source };
    let Some(row) = client.query_opt(PUBLICATION, &[&name]).await.map_err(failed)? else {
        return Ok(None);
    };
    let schemas: i64 = if server_version >= FILTERS_SINCE {
        client.query_one(PUBLICATION_SCHEMAS, &[&name]).await.map_err(failed)?.get(0)
    } else {
        0
    };
    let query =
        if server_version >= FILTERS_SINCE { PUBLICATION_TABLES } else { PUBLICATION_TABLES_14 };
    let tables = client.query(query, &[&name, &oid]).await.map_err(failed)?;
    let named = |row: &tokio_postgres::Row| TableName { schema: row.get(0), name: row.get(1) };
    let table = |row: &tokio_postgres::Row| {
        (named(row), Published { columns: row.get(2), condition: None })
    };
    let filtered = |row: &tokio_postgres::Row| Some((row.get::<_, Option<u32>>(3)?, named(row)));
    let condition = |row: &tokio_postgres::Row| {
        let columns: Vec<String> = row.get(4);
        (!columns.is_empty()).then(|| (named(row), columns))
    };
    let operations = Operation::ALL.into_iter().zip(3..);
    let publication = Publication {
        is_by_table: !row.get::<_, bool>(0) && schemas == 0,
        is_owned: row.get(1),
        owner: row.get(2),
        operations: operations.filter(|(_, at)| row.get(*at)).map(|(found, _)| found).collect(),
        via_root: row.get(7),
        generated: row.get(8),
        tables: tables.iter().map(table).collect(),
        conditions: tables.iter().filter_map(condition).collect(),
        covers: None,
        unread: BTreeSet::new(),
    };
    Ok(Some(Unread { publication, filtered: tables.iter().filter_map(filtered).collect() }))
}

/// The publications and the tables that they could have, as of one moment, so that a table that is
/// being renamed is neither new nor gone.
///
/// # Errors
/// When a query fails; the client then has a failed transaction and must not be used any more.
pub async fn survey(
    client: &Client,
    names: Names<'_>,
    server_version: u32,
) -> Result<Survey, Error> {
    survey_of(client, names, server_version, None).await
}

/// The same for the table with this OID only, if set: as if the publications had no other.
///
/// # Errors
/// As [`survey`].
pub async fn survey_of(
    client: &Client,
    names: Names<'_>,
    server_version: u32,
    oid: Option<u32>,
) -> Result<Survey, Error> {
    let failed = |source| Error::Sql { doing: "read the publications", source };
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    client.batch_execute(begin).await.map_err(failed)?;
    let mut main = find_unread(client, names.main, server_version, oid).await?;
    let inserts = find_unread(client, names.inserts, server_version, oid).await?;
    let candidates = candidates_of(client, oid).await?;
    if let Some(whole) = main.as_mut().filter(|of| oid.is_none() && !of.publication.is_by_table) {
        let covered = streamed::in_effect(client, [names.main; 2], server_version).await?;
        whole.publication.covers = Some(covered.into_iter().map(|of| of.table).collect());
    }
    let may_create = client.query_one(MAY_CREATE, &[]).await.map_err(failed)?.get(0);
    client.batch_execute("COMMIT").await.map_err(failed)?;
    let read = async |found: Option<Unread>| match found {
        Some(found) => found.read(client).await.map(Some),
        None => Ok(None),
    };
    let (main, inserts) = (read(main).await?, read(inserts).await?);
    Ok(Survey { main, inserts, candidates, may_create })
}

/// Carries out a plan completely or not at all. Waits for a lock that an ALTER or VACUUM of a table
/// holds no longer than `patience`.
///
/// # Errors
/// When the server refuses it; [`lock_is_taken`] says whether a lock was the reason.
pub async fn apply(
    client: &Client,
    names: Names<'_>,
    plan: &Plan,
    patience: Duration,
) -> Result<(), Error> {
    // Several statements in one simple query are one transaction.
    let mut statements = vec![format!("SET LOCAL lock_timeout = {}", patience.as_millis())];
    statements.extend(plan.sql(names));
    client
        .batch_execute(&statements.join("; "))
        .await
        .map_err(|source| Error::Sql { doing: "change the publication", source })
}

/// Whether a change failed because another session holds a lock.
#[must_use]
pub fn lock_is_taken(error: &Error) -> bool {
    // lock_not_available, and deadlock_detected.
    matches!(error.sqlstate(), Some("55P03" | "40P01"))
}

/// Drops a publication; a missing one is not an error.
///
/// Returns whether it existed.
///
/// # Errors
/// When the server refuses.
pub async fn drop(client: &Client, name: &str, server_version: u32) -> Result<bool, Error> {
    if find(client, name, server_version).await?.is_none() {
        return Ok(false);
    }
    client
        .batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", escape_identifier(name)))
        .await
        .map_err(|source| Error::Sql { doing: "drop the publication", source })?;
    Ok(true)
}
