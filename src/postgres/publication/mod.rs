//! The publication: which tables the server decodes for the bridge.
//!
//! It is made for the tables that the configured patterns match, with the columns, rows and
//! operations that are asked for, and altered when any of these changes (`plan`). A publication
//! that somebody made for all tables or whole schemas is left as it is.
//!
//! One thing must never happen: that a table is published which Postgres would then refuse to
//! UPDATE or DELETE in, for want of a replica identity, so that the bridge breaks the application.
//! Such a table is left out and named, unless the configuration names it exactly: for a table that
//! only ever grows, that is right. Filters that would do the same harm are found in `filters`.

pub mod forgetful;
mod identity;
mod plan;
pub mod streamed;

pub use self::identity::{Leaf, Part, Refusal, UsableIndex};
pub use self::plan::{PublicationChange, TableChange, Wanted, plan};

use std::collections::BTreeMap;
use std::fmt;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::Error;
use crate::config::Operation;

const TABLES: &str = include_str!("../../../sql/tables.sql");
const TABLE_AND_ANCESTORS: &str = include_str!("../../../sql/table_and_ancestors.sql");
const TABLE_NAME: &str = include_str!("../../../sql/table_name.sql");
const PUBLICATION: &str = include_str!("../../../sql/publication.sql");
const PUBLICATION_TABLES: &str = include_str!("../../../sql/publication_tables.sql");
const PUBLICATION_TABLES_14: &str = include_str!("../../../sql/publication_tables_14.sql");
const PUBLISHED_PART: &str = include_str!("../../../sql/published_part.sql");
const PUBLISHED_PART_14: &str = include_str!("../../../sql/published_part_14.sql");
const PUBLICATION_SCHEMAS: &str = include_str!("../../../sql/publication_schemas.sql");

/// The first version whose publications can hold whole schemas, column lists and row filters.
pub(super) const FILTERS_SINCE: u32 = 150_000;

/// Longest wait for the lock of a table that is put in or altered: longer than an autovacuum takes to
/// give way.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '5s'";

/// A table's full name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl TableName {
    /// The name as it stands in SQL.
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

/// What of a table is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The columns, in the table's order; none for all, also those to come.
    pub columns: Option<Vec<String>>,
    /// The row filter as the server writes it; none for all rows.
    pub condition: Option<String>,
}

/// A table that could be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The table's OID, which a rename leaves as it is.
    pub oid: u32,
    /// The table.
    pub table: TableName,
    /// Whether the role may put it into a publication.
    pub is_owned: bool,
    /// Whose it is.
    pub owner: String,
    /// What holds its rows: itself, or its partitions and it.
    pub leaves: Vec<Leaf>,
}

impl Candidate {
    /// What holds rows that Postgres would refuse to update or delete, were this part published;
    /// each with why.
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
    /// Whether it names tables one by one; else it is for all, or for whole schemas.
    pub is_by_table: bool,
    /// Whether the role may alter it.
    pub is_owned: bool,
    /// Whose it is.
    pub owner: String,
    /// The operations it publishes, in the order of [`Operation::ALL`].
    pub operations: Vec<Operation>,
    /// Whether changes of partitions are published as their root's.
    pub via_root: bool,
    /// The tables it names, and what of each it publishes.
    pub tables: BTreeMap<TableName, Published>,
}

/// The tables that could be published.
///
/// # Errors
/// When the query fails.
pub async fn candidates(client: &Client) -> Result<Vec<Candidate>, Error> {
    let failed = |source| Error::Sql { doing: "ask for the tables", source };
    let rows = client.query(TABLES, &[]).await.map_err(failed)?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for row in &rows {
        let oid = row.get(0);
        // The rows of one table follow each other.
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

/// One table, if it could be published.
///
/// # Errors
/// When the query fails.
pub async fn candidate(client: &Client, oid: u32) -> Result<Option<Candidate>, Error> {
    let failed = |source| Error::Sql { doing: "ask for a table", source };
    let row = client.query_opt(TABLE_NAME, &[&oid]).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let table = TableName { schema: row.get(0), name: row.get(1) };
    Ok(candidates(client).await?.into_iter().find(|candidate| candidate.table == table))
}

/// A table and what it is a partition of; nothing where there is no such table.
///
/// # Errors
/// When the query fails.
pub async fn with_ancestors(client: &Client, table: &TableName) -> Result<Vec<TableName>, Error> {
    let failed = |source| Error::Sql { doing: "ask what a table is a partition of", source };
    let rows = client.query(TABLE_AND_ANCESTORS, &[&table.schema, &table.name]).await;
    let name = |row: &tokio_postgres::Row| TableName { schema: row.get(0), name: row.get(1) };
    Ok(rows.map_err(failed)?.iter().map(name).collect())
}

/// The publication as it is, if there is one.
///
/// # Errors
/// When a query fails.
pub async fn find(
    client: &Client,
    name: &str,
    server_version: u32,
) -> Result<Option<Publication>, Error> {
    let failed = |source| Error::Sql { doing: "ask for the publication", source };
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
    let tables = client.query(query, &[&name]).await.map_err(failed)?;
    let table = |row: &tokio_postgres::Row| {
        let table = TableName { schema: row.get(0), name: row.get(1) };
        (table, Published { columns: row.get(2), condition: row.get(3) })
    };
    let operations = Operation::ALL.into_iter().zip(3..);
    Ok(Some(Publication {
        is_by_table: !row.get::<_, bool>(0) && schemas == 0,
        is_owned: row.get(1),
        owner: row.get(2),
        operations: operations.filter(|(_, at)| row.get(*at)).map(|(found, _)| found).collect(),
        via_root: row.get(7),
        tables: tables.iter().map(table).collect(),
    }))
}

/// What a publication has of a table, in effect and by whatever way; none where it does not have it.
///
/// # Errors
/// When the query fails.
pub async fn part(
    client: &Client,
    name: &str,
    table: &TableName,
    server_version: u32,
) -> Result<Option<Published>, Error> {
    let failed = |source| Error::Sql { doing: "ask for a table of the publication", source };
    let query = if server_version >= FILTERS_SINCE { PUBLISHED_PART } else { PUBLISHED_PART_14 };
    let found = client.query_opt(query, &[&name, &table.schema, &table.name]).await;
    let part = |row: tokio_postgres::Row| Published { columns: row.get(0), condition: row.get(1) };
    Ok(found.map_err(failed)?.map(part))
}

/// The publication and the tables that it could have, as of one moment: a table that is renamed
/// between two looks is neither new nor gone.
///
/// # Errors
/// When a query fails; the client is in a failed transaction then, and not to be used any more.
pub async fn survey(
    client: &Client,
    name: &str,
    server_version: u32,
) -> Result<(Option<Publication>, Vec<Candidate>), Error> {
    let failed = |source| Error::Sql { doing: "look at the publication", source };
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    client.batch_execute(begin).await.map_err(failed)?;
    let publication = find(client, name, server_version).await?;
    let candidates = candidates(client).await?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    Ok((publication, candidates))
}

/// Carries a change out, as a whole or not at all.
///
/// # Errors
/// When the server refuses it.
pub async fn apply(client: &Client, name: &str, change: &PublicationChange) -> Result<(), Error> {
    // Several statements in one simple query are one transaction. Who holds a table for long, as
    // CREATE INDEX CONCURRENTLY does, is not waited for: the next try is.
    let statements = [vec![LOCK_TIMEOUT.to_owned()], change.sql(name)].concat();
    client
        .batch_execute(&statements.join("; "))
        .await
        .map_err(|source| Error::Sql { doing: "change the publication", source })
}

/// Drops a publication; one that is not there is no error.
///
/// Returns whether there was one.
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
