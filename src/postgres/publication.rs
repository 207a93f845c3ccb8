//! The publication: which tables the server decodes for the bridge.
//!
//! It is made for the tables that the configured patterns match, and altered when that set
//! changes. A publication that somebody made for all tables or whole schemas is left as it is.
//!
//! One thing must never happen: that a table is published which Postgres would then refuse to
//! UPDATE or DELETE in, for want of a replica identity, so that the bridge breaks the application.
//! Such a table is left out and named, unless the configuration names it exactly: for a table that
//! only ever grows, that is right.

use std::collections::BTreeSet;
use std::fmt;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::Error;
use crate::config::TableFilter;

const TABLES: &str = include_str!("../../sql/tables.sql");
const PUBLICATION: &str = include_str!("../../sql/publication.sql");
const PUBLICATION_TABLES: &str = include_str!("../../sql/publication_tables.sql");
const PUBLICATION_SCHEMAS: &str = include_str!("../../sql/publication_schemas.sql");

/// The first version whose publications can hold whole schemas.
const SCHEMAS_SINCE: u32 = 150_000;

/// A table's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// A table that could be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The table.
    pub table: TableName,
    /// Whether the role may put it into a publication.
    pub is_owned: bool,
    /// Whose it is.
    pub owner: String,
    /// Whether rows that are published can still be updated and deleted.
    pub has_identity: bool,
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
    /// The tables it names.
    pub tables: BTreeSet<TableName>,
}

/// What must be done so that the right tables are published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationChange {
    /// There is none yet.
    pub create: bool,
    /// Tables to put in.
    pub add: Vec<TableName>,
    /// Tables to take out.
    pub remove: Vec<TableName>,
    /// Tables that match and are left out, because publishing them would break UPDATE and DELETE.
    pub without_identity: Vec<TableName>,
    /// Tables to put in that the role does not own, with their owners.
    pub not_owned: Vec<(TableName, String)>,
}

impl PublicationChange {
    /// Whether the publication is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.create && self.add.is_empty() && self.remove.is_empty()
    }

    /// The statements that carry it out.
    #[must_use]
    pub fn sql(&self, name: &str) -> Vec<String> {
        let publication = escape_identifier(name);
        let list =
            |tables: &[TableName]| tables.iter().map(TableName::sql).collect::<Vec<_>>().join(", ");
        if self.create {
            let tables = match self.add.as_slice() {
                [] => String::new(),
                tables => format!(" FOR TABLE {}", list(tables)),
            };
            return vec![format!(
                "CREATE PUBLICATION {publication}{tables} WITH (publish_via_partition_root = true)"
            )];
        }
        let alter = |what: &str, tables: &[TableName]| {
            (!tables.is_empty())
                .then(|| format!("ALTER PUBLICATION {publication} {what} TABLE {}", list(tables)))
        };
        alter("ADD", &self.add).into_iter().chain(alter("DROP", &self.remove)).collect()
    }
}

/// The tables that could be published.
///
/// # Errors
/// When the query fails.
pub async fn candidates(client: &Client) -> Result<Vec<Candidate>, Error> {
    let failed = |source| Error::Sql { doing: "ask for the tables", source };
    let rows = client.query(TABLES, &[]).await.map_err(failed)?;
    let candidate = |row: &tokio_postgres::Row| Candidate {
        table: TableName { schema: row.get(0), name: row.get(1) },
        is_owned: row.get(2),
        owner: row.get(3),
        has_identity: row.get(4),
    };
    Ok(rows.iter().map(candidate).collect())
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
    let schemas: i64 = if server_version >= SCHEMAS_SINCE {
        client.query_one(PUBLICATION_SCHEMAS, &[&name]).await.map_err(failed)?.get(0)
    } else {
        0
    };
    let tables = client.query(PUBLICATION_TABLES, &[&name]).await.map_err(failed)?;
    Ok(Some(Publication {
        is_by_table: !row.get::<_, bool>(0) && schemas == 0,
        is_owned: row.get(1),
        owner: row.get(2),
        tables: tables
            .iter()
            .map(|row| TableName { schema: row.get(0), name: row.get(1) })
            .collect(),
    }))
}

/// What must change so that exactly the matching tables are published.
#[must_use]
pub fn plan(
    candidates: &[Candidate],
    filter: &TableFilter,
    present: Option<&Publication>,
) -> PublicationChange {
    let mut change = PublicationChange { create: present.is_none(), ..Default::default() };
    if present.is_some_and(|publication| !publication.is_by_table) {
        return change;
    }
    let mut wanted = BTreeSet::new();
    for candidate in candidates {
        let TableName { schema, name } = &candidate.table;
        if !filter.matches(schema, name) {
            continue;
        }
        if !candidate.has_identity && !filter.names_exactly(schema, name) {
            change.without_identity.push(candidate.table.clone());
            continue;
        }
        wanted.insert(&candidate.table);
        if present.is_some_and(|publication| publication.tables.contains(&candidate.table)) {
            continue;
        }
        change.add.push(candidate.table.clone());
        if !candidate.is_owned {
            change.not_owned.push((candidate.table.clone(), candidate.owner.clone()));
        }
    }
    if let Some(publication) = present {
        change.remove =
            publication.tables.iter().filter(|table| !wanted.contains(table)).cloned().collect();
    }
    change
}

/// Carries a change out, as a whole or not at all.
///
/// # Errors
/// When the server refuses it.
pub async fn apply(client: &Client, name: &str, change: &PublicationChange) -> Result<(), Error> {
    let statements = change.sql(name).join("; ");
    // Several statements in one simple query are one transaction.
    client
        .batch_execute(&statements)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TableName {
        let (schema, name) = text.split_once('.').unwrap();
        TableName { schema: schema.to_owned(), name: name.to_owned() }
    }

    fn candidate(text: &str) -> Candidate {
        Candidate { table: name(text), is_owned: true, owner: "app".to_owned(), has_identity: true }
    }

    fn filter(include: &[&str]) -> TableFilter {
        let include: Vec<String> = include.iter().map(|&text| text.to_owned()).collect();
        TableFilter::parse(&include, &[]).unwrap()
    }

    fn publication(tables: &[&str]) -> Publication {
        Publication {
            is_by_table: true,
            is_owned: true,
            owner: "app".to_owned(),
            tables: tables.iter().map(|text| name(text)).collect(),
        }
    }

    #[test]
    fn a_first_publication_names_the_matching_tables() {
        let all = [candidate("public.rides"), candidate("audit.log")];
        let change = plan(&all, &filter(&["public.*"]), None);
        assert_eq!(
            change.sql("p"),
            [
                r#"CREATE PUBLICATION "p" FOR TABLE "public"."rides" WITH (publish_via_partition_root = true)"#
            ]
        );
    }

    #[test]
    fn a_changed_set_is_added_and_dropped_by_name() {
        let all = [candidate("public.rides"), candidate("public.O\"Hare")];
        let present = publication(&["public.rides", "public.zones"]);
        let change = plan(&all, &filter(&["*.*"]), Some(&present));
        assert_eq!(
            change.sql("p"),
            [
                r#"ALTER PUBLICATION "p" ADD TABLE "public"."O""Hare""#,
                r#"ALTER PUBLICATION "p" DROP TABLE "public"."zones""#
            ]
        );
    }

    #[test]
    fn what_is_right_already_is_left_alone() {
        let all = [candidate("public.rides")];
        let change = plan(&all, &filter(&["*.*"]), Some(&publication(&["public.rides"])));
        assert!(change.is_empty() && change.sql("p").is_empty());
        let for_all = Publication { is_by_table: false, ..publication(&[]) };
        assert!(plan(&all, &filter(&["*.*"]), Some(&for_all)).is_empty());
    }

    #[test]
    fn a_table_whose_updates_would_be_refused_is_left_out_unless_named_exactly() {
        let all = [Candidate { has_identity: false, ..candidate("public.log") }];
        let by_glob = plan(&all, &filter(&["public.*"]), None);
        assert_eq!((by_glob.add.len(), by_glob.without_identity.len()), (0, 1));
        let by_name = plan(&all, &filter(&["public.log"]), None);
        assert_eq!((by_name.add.len(), by_name.without_identity.len()), (1, 0));
    }
}
