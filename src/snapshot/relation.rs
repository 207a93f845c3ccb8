//! A table as the stream would describe it, before the stream has described it.
//!
//! Rows of a snapshot need the columns, the key and the types that rows of the stream have, or one
//! table would have two kinds of records. So the catalog is read as pgoutput reads it, a Relation
//! message is written, and the message goes the way of one that came: one reading, one choice of
//! the key, one set of rules.
//!
//! | of a column | pgoutput sends it |
//! |---|---|
//! | dropped | never |
//! | in the publication's column list | always |
//! | generated, no column list | stored ones from PostgreSQL 18 on, where the publication says so |
//! | any other | without a column list, always |
//!
//! `pg_publication_tables` knows it from PostgreSQL 15 on, but for generated columns, which version
//! 15 lists although it sends none; before, there are no lists.
//!
//! Not here: what of a table is published (`plan` asks), and what types are (`postgres::catalog`).

use std::sync::Arc;

use tokio_postgres::Client;

use super::Error;
use crate::change::{KeyChoice, Relation, RelationFacts, Relations};
use crate::pgoutput::{self, DecodeError, Message};
use crate::postgres;

const DESCRIBED_TABLE: &str = include_str!("../../sql/described_table.sql");

/// The first version that can publish generated columns.
const GENERATED_SINCE: u32 = 180_000;

/// A table's Relation message, as the stream would bring it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    oid: u32,
    columns: Vec<String>,
    types: Vec<u32>,
    message: Vec<u8>,
}

/// A column, as a Relation message has it.
struct Column<'a> {
    in_identity: bool,
    name: &'a str,
    type_oid: u32,
    typmod: i32,
}

impl Description {
    /// Reads a table from the catalog; none if it is gone. `published` are the columns that are
    /// published, none for those that are when nobody says which.
    ///
    /// # Errors
    /// When the query fails.
    pub async fn read(
        client: &Client,
        server_version: u32,
        oid: u32,
        published: Option<&[String]>,
    ) -> Result<Option<Self>, postgres::Error> {
        let failed =
            |source| postgres::Error::Sql { doing: "ask how a table is described", source };
        let sends_generated = server_version >= GENERATED_SINCE;
        let row = client.query_opt(DESCRIBED_TABLE, &[&oid, &published, &sends_generated]).await;
        let row = row.map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let columns: Vec<String> = row.get(3);
        let types: Vec<u32> = row.get(4);
        let typmods: Vec<i32> = row.get(5);
        let in_identity: Vec<bool> = row.get(6);
        let described = columns.iter().zip(&types).zip(typmods.iter().zip(&in_identity));
        let described = described.map(|((name, &type_oid), (&typmod, &in_identity))| Column {
            in_identity,
            name,
            type_oid,
            typmod,
        });
        let identity: &str = row.get(2);
        let message = write(oid, [row.get(0), row.get(1)], identity, described);
        Ok(Some(Self { oid, columns, types, message }))
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

    /// The columns' types, of which [`Description::relation`] wants to know what the catalog knows.
    #[must_use]
    pub fn types(&self) -> &[u32] {
        &self.types
    }

    /// The bytes of the message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The table, made of the message and what the catalog adds, as one of the stream is.
    ///
    /// # Errors
    /// When the configured key does not fit it.
    pub fn relation(
        &self,
        facts: RelationFacts,
        choice: &KeyChoice<'_>,
    ) -> Result<Arc<Relation>, Error> {
        match pgoutput::decode(&self.message)? {
            Message::Relation(body) => Ok(Relations::default().insert(&body, facts, choice)?),
            // The first letter was written here.
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
    // The server leaves out the name of its own schema.
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
