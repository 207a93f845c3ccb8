//! Describes a table as the stream would, before the stream has described it.
//!
//! Rows of a snapshot need the same columns, key and types as rows of the stream, or one table
//! would have two kinds of records. So the catalog is read as pgoutput reads it, a Relation message
//! is written, and that message is processed like one of the stream: the same parser, the same
//! choice of the key, the same rules.
//!
//! | a column that is | pgoutput sends it |
//! |---|---|
//! | dropped | never |
//! | in the publication's column list | always |
//! | generated, no column list | stored ones from PostgreSQL 18 on, if the publication says so |
//! | any other | without a column list, always |
//!
//! `pg_publication_tables` shows this from PostgreSQL 15 on, except for generated columns, which
//! version 15 lists although it sends none; before, there are no lists.
//!
//! Not here: what of a table is published (`plan` asks), and what types are (`postgres::catalog`).

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::Error;
use crate::change::{KeyChoice, Relation, RelationFacts, Relations};
use crate::pgoutput::{self, DecodeError, Message};
use crate::postgres::{self, catalog};

const DESCRIBED_TABLE: &str = include_str!("../../sql/described_table.sql");

/// The first version that can publish generated columns.
const GENERATED_SINCE: u32 = 180_000;

/// A table's Relation message, as the stream would send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    oid: u32,
    columns: Vec<String>,
    types: Vec<u32>,
    message: Vec<u8>,
}

/// A column, as in a Relation message.
struct Column<'a> {
    in_identity: bool,
    name: &'a str,
    type_oid: u32,
    typmod: i32,
}

impl Description {
    /// Reads a table from the catalog; `None` if it is gone. `published` are the published columns,
    /// `None` for the default ones.
    ///
    /// # Errors
    /// When the query fails.
    pub async fn read(
        client: &Client,
        server_version: u32,
        oid: u32,
        published: Option<&[String]>,
    ) -> Result<Option<Self>, postgres::Error> {
        let mut read = Self::read_all(client, server_version, &[(oid, published)]).await?;
        Ok(read.remove(&oid))
    }

    /// Reads several tables, by OID, each with its published columns; those that are gone are left
    /// out.
    ///
    /// # Errors
    /// When a query fails.
    pub async fn read_all(
        client: &Client,
        server_version: u32,
        tables: &[(u32, Option<&[String]>)],
    ) -> Result<HashMap<u32, Self>, postgres::Error> {
        let failed =
            |source| postgres::Error::Sql { doing: "read how tables are described", source };
        let sends_generated = server_version >= GENERATED_SINCE;
        let mut read = HashMap::with_capacity(tables.len());
        for tables in tables.chunks(catalog::BATCH) {
            let oids: Vec<u32> = tables.iter().map(|(oid, _)| *oid).collect();
            let list = |columns: &[String]| serde_json::Value::from(columns.to_vec()).to_string();
            let lists: Vec<Option<String>> =
                tables.iter().map(|(_, published)| published.map(list)).collect();
            let rows = client.query(DESCRIBED_TABLE, &[&oids, &lists, &sends_generated]).await;
            for row in rows.map_err(failed)? {
                let described = Self::of(&row);
                read.insert(described.oid, described);
            }
        }
        Ok(read)
    }

    fn of(row: &Row) -> Self {
        let (oid, identity): (u32, &str) = (row.get(0), row.get(3));
        let columns: Vec<String> = row.get(4);
        let types: Vec<u32> = row.get(5);
        let typmods: Vec<i32> = row.get(6);
        let in_identity: Vec<bool> = row.get(7);
        let described = columns.iter().zip(&types).zip(typmods.iter().zip(&in_identity));
        let described = described.map(|((name, &type_oid), (&typmod, &in_identity))| Column {
            in_identity,
            name,
            type_oid,
            typmod,
        });
        let message = write(oid, [row.get(1), row.get(2)], identity, described);
        Self { oid, columns, types, message }
    }

    /// The table's OID.
    #[must_use]
    pub const fn oid(&self) -> u32 {
        self.oid
    }

    /// The columns in the order of a row's values.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The columns' types, whose catalog facts [`Description::relation`] needs.
    #[must_use]
    pub fn types(&self) -> &[u32] {
        &self.types
    }

    /// The bytes of the message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The table from the message and the catalog's facts, like one of the stream.
    ///
    /// # Errors
    /// When the configured key does not match it.
    pub fn relation(
        &self,
        facts: RelationFacts,
        choice: &KeyChoice<'_>,
    ) -> Result<Arc<Relation>, Error> {
        match pgoutput::decode(&self.message)? {
            Message::Relation(body) => Ok(Relations::default().insert(&body, facts, choice)?),
            // The message's tag was written by this module.
            _ => Err(Error::Decode(DecodeError::Empty)),
        }
    }
}

/// Writes a Relation message.
fn write<'a>(
    oid: u32,
    [schema, table]: [&str; 2],
    identity: &str,
    columns: impl ExactSizeIterator<Item = Column<'a>>,
) -> Vec<u8> {
    // The server sends an empty name for `pg_catalog`.
    let schema = if schema == "pg_catalog" { "" } else { schema };
    let mut message = vec![b'R'];
    message.extend_from_slice(&oid.to_be_bytes());
    for name in [schema, table] {
        put_text(name, &mut message);
    }
    message.extend(identity.bytes().take(1));
    // A table has at most 1600 columns.
    let count = u16::try_from(columns.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&count.to_be_bytes());
    for column in columns {
        message.push(u8::from(column.in_identity));
        put_text(column.name, &mut message);
        message.extend_from_slice(&column.type_oid.to_be_bytes());
        message.extend_from_slice(&column.typmod.to_be_bytes());
    }
    message
}

fn put_text(text: &str, message: &mut Vec<u8>) {
    message.extend_from_slice(text.as_bytes());
    message.push(0);
}
