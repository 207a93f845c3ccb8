//! A table as it is to be read beside the stream: as the stream would describe it, and by which key.
//!
//! All of it is the catalog's word of one moment. Who reads a chunk asks again what the table is like,
//! in the very transaction that reads it: [`what_is_read`].

use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::keyset::{KeyColumn, Keyset};
use crate::change::{KeyChoice, Relation, RelationError, Relations};
use crate::pgoutput::{self, Message};
use crate::postgres::publication::Published;
use crate::postgres::{self, Catalog};

const TABLE: &str = include_str!("../../sql/table_to_read.sql");
const COLUMNS: &str = include_str!("../../sql/columns_to_read.sql");
const KEY: &str = include_str!("../../sql/key_to_read_by.sql");
const WHAT_IS_READ: &str = include_str!("../../sql/what_is_read.sql");

/// A table that can be read.
#[derive(Debug, Clone)]
pub struct Table {
    /// As the stream would describe it.
    pub relation: Arc<Relation>,
    /// How it is read in the order of a key; none where it has none that would do.
    pub keyset: Option<Keyset>,
    /// Schemas of the operators that compare the key.
    pub operator_schemas: Vec<String>,
    /// Tells the table from what an ALTER makes of it.
    pub shape: String,
    /// Rows, by the server's statistics.
    pub rows_estimated: u64,
    /// Pages, by the server's statistics.
    pub pages: u64,
}

impl Table {
    /// Its name, as it stands in SQL.
    #[must_use]
    pub fn name(&self) -> String {
        let Relation { schema, table, .. } = self.relation.as_ref();
        format!("{}.{}", escape_identifier(schema), escape_identifier(table))
    }
}

/// Why a table can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is not there.
    #[error("it does not exist")]
    Gone,
    /// It is no table.
    #[error("it is {kind}, and has no rows of its own whose changes could be streamed")]
    NoTable {
        /// What it is.
        kind: &'static str,
    },
    /// The configuration does not fit it.
    #[error(transparent)]
    Relation(#[from] RelationError),
    /// The catalog can't be asked.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
}

/// What of a table is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// What the publication has of it.
    pub published: &'a Published,
    /// Whether the publication has stored generated columns too (PostgreSQL 18).
    pub with_generated: bool,
    /// The configured key.
    pub key: Option<&'a [String]>,
    /// Only rows for which this SQL condition holds.
    pub condition: Option<&'a str>,
}

impl Wanted<'_> {
    fn name(&self) -> String {
        format!("{}.{}", escape_identifier(self.schema), escape_identifier(self.table))
    }

    fn publishes(&self, column: &str, generated: &str) -> bool {
        match &self.published.columns {
            Some(columns) => columns.iter().any(|published| published == column),
            None => generated.is_empty() || (self.with_generated && generated == "s"),
        }
    }
}

/// Asks what a table is like.
///
/// # Errors
/// [`TableError`] when it can't be read, or the catalog can't be asked.
pub async fn look(catalog: &mut Catalog, wanted: &Wanted<'_>) -> Result<Table, TableError> {
    let failed = |source| postgres::Error::Sql { doing: "ask for a table to read", source };
    // Before all else: a change after it is noticed.
    let client = catalog.client().await?;
    let shape = shape(client, &what_is_read(&wanted.name())).await.map_err(failed)?;
    let found = client.query_opt(TABLE, &[&wanted.schema, &wanted.table]).await.map_err(failed)?;
    let found = found.ok_or(TableError::Gone)?;
    let oid: u32 = found.get(0);
    let from = match found.get(1) {
        "r" => format!("ONLY {}", wanted.name()),
        // Its rows are those of its partitions.
        "p" => wanted.name(),
        kind => return Err(TableError::NoTable { kind: kind_of(kind) }),
    };
    let identity = found.get::<_, &str>(2).bytes().next().unwrap_or(b'n');
    let rows = client.query(COLUMNS, &[&oid]).await.map_err(failed)?;
    let columns: Vec<Column<'_>> = rows
        .iter()
        .map(Column::of)
        .filter(|column| wanted.publishes(column.name, column.generated))
        .collect();
    let (mut keyset, mut operator_schemas) = (None, Vec::new());
    if let Some(row) = client.query_opt(KEY, &[&oid]).await.map_err(failed)? {
        let (names, types): (Vec<String>, Vec<String>) = (row.get(0), row.get(1));
        let key = names.into_iter().zip(types).map(|(name, type_sql)| KeyColumn { name, type_sql });
        let key: Vec<KeyColumn> = key.collect();
        // What is not published can't be told from the stream.
        if key.iter().all(|key| columns.iter().any(|column| column.name == key.name)) {
            let conditions = [wanted.published.condition.as_deref(), wanted.condition];
            keyset = Some(Keyset {
                from,
                columns: columns.iter().map(|column| column.name.to_owned()).collect(),
                key,
                conditions: conditions.into_iter().flatten().map(str::to_owned).collect(),
            });
            operator_schemas = row.get(2);
        }
    }
    let message = described(oid, wanted, identity, &columns);
    let types: Vec<u32> = columns.iter().map(|column| column.type_oid).collect();
    let facts = catalog.relation(oid, &types).await?;
    let malformed = postgres::Error::Malformed { what: "a table's columns make no relation" };
    let Ok(Message::Relation(body)) = pgoutput::decode(&message) else {
        return Err(malformed.into());
    };
    let choice = KeyChoice { configured: wanted.key };
    let relation = Relations::default().insert(&body, facts, &choice)?;
    let number = |value: Option<i64>| value.and_then(|value| value.try_into().ok()).unwrap_or(0);
    Ok(Table {
        relation,
        keyset,
        operator_schemas,
        shape,
        rows_estimated: number(found.get(3)),
        pages: number(found.get(4)),
    })
}

/// Asks for the snapshot of the transaction and the shape of a table (its name in SQL), in this order.
#[must_use]
pub fn what_is_read(table: &str) -> String {
    WHAT_IS_READ.replace("$1", escape_literal(table).trim_start())
}

async fn shape(client: &Client, query: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let shape = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(1),
        _ => None,
    });
    Ok(shape.unwrap_or_default().to_owned())
}

fn kind_of(relkind: &str) -> &'static str {
    match relkind {
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        "S" => "a sequence",
        "i" | "I" => "an index",
        _ => "no ordinary table",
    }
}

struct Column<'a> {
    name: &'a str,
    type_oid: u32,
    typmod: i32,
    generated: &'a str,
    in_identity: bool,
}

impl<'a> Column<'a> {
    fn of(row: &'a tokio_postgres::Row) -> Self {
        Self {
            name: row.get(0),
            type_oid: row.get(1),
            typmod: row.get(2),
            generated: row.get(3),
            in_identity: row.get(4),
        }
    }
}

/// The message by which the stream would describe it.
fn described(oid: u32, wanted: &Wanted<'_>, identity: u8, columns: &[Column<'_>]) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend(oid.to_be_bytes());
    for name in [wanted.schema, wanted.table] {
        out.extend(name.as_bytes());
        out.push(0);
    }
    out.push(identity);
    out.extend(u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes());
    for column in columns {
        out.push(u8::from(column.in_identity));
        out.extend(column.name.as_bytes());
        out.push(0);
        out.extend(column.type_oid.to_be_bytes());
        out.extend(column.typmod.to_be_bytes());
    }
    out
}
