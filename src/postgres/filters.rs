//! Column and row filters, settled against the tables as they are.
//!
//! A filter that Postgres takes may still break the application: it accepts a column list without
//! the replica identity, or a row filter on columns outside of it, and then refuses every UPDATE
//! and DELETE of the table. So that is found here, before anything is changed:
//!
//! | filter | replica identity | what happens |
//! |---|---|---|
//! | columns | a key | the identity's and the key's columns are put into the list |
//! | columns | FULL | Postgres allows no list; the columns are dropped in the bridge |
//! | rows | without a column of the condition | a new table: refused at the start, with the fix; else only inserts are published |
//!
//! Where the server can't filter columns (before PostgreSQL 15, or in a publication that is not
//! the bridge's to change), the encoder does, as it does in any case: a column that is not wanted
//! never gets into a value. Rows are filtered by the server or not at all, and so refused there.
//!
//! The server itself says what a condition means, by a check constraint on a temporary table: how
//! it writes the condition (so that an equal one is known as such) and which columns it looks at.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::Error;
use super::preflight::Shortfall;
use super::publication::{
    Candidate, FILTERS_SINCE, Leaf, Part, Present, Publication, PublicationChange, Published,
    TableChange, TableName, needs_identity,
};
use super::search_path;
use crate::config::{ColumnRules, Resolved};

const TABLE_COLUMNS: &str = include_str!("../../sql/table_columns.sql");
const PROBE: &str = include_str!("../../sql/row_filter_probe.sql");

/// What is published of the tables that have filters, and what speaks against it.
#[derive(Debug, Default)]
pub struct Filters {
    /// What of each table is to be published; a table that is not here is published whole.
    pub published: BTreeMap<TableName, Published>,
    /// The columns that row filters look at.
    pub conditions: BTreeMap<TableName, Vec<String>>,
    /// What can't be done as configured.
    pub shortfalls: Vec<Shortfall>,
    /// What is worth a line in the log.
    pub notes: Vec<String>,
}

/// The server's side.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Its version, as `server_version_num`.
    pub version: u32,
    /// The publications as they are.
    pub present: Present<'a>,
    /// Whether a row filter of a table that is not published yet is refused, if Postgres would then
    /// refuse to update its rows; else only its inserts are published, as of one that is.
    pub is_start: bool,
}

/// A table as far as filters must heed it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TableFacts {
    /// The columns that can be published, in order.
    columns: Vec<String>,
    /// Columns that may key a row.
    key: Vec<String>,
    /// Whether old rows of the table, or of a partition, have every column.
    is_full: bool,
    /// Columns that old rows have, in the table or in any of its partitions.
    identity: Vec<String>,
    /// Columns that old rows have in the table and in each of its partitions.
    common_identity: Vec<String>,
}

impl TableFacts {
    /// What old rows have of these columns. Postgres looks at what holds the rows; of a partitioned
    /// table without partitions yet, its own identity is what they will have.
    fn new(columns: Vec<String>, key: Vec<String>, leaves: &[Leaf]) -> Self {
        let with_rows: Vec<&Leaf> = leaves.iter().filter(|leaf| leaf.has_rows).collect();
        let members = if with_rows.is_empty() { leaves.iter().collect() } else { with_rows };
        let has = |leaf: &Leaf, column: &String| {
            leaf.identity().is_none_or(|identity| identity.contains(column))
        };
        let of_any = |column: &&String| members.iter().any(|leaf| has(leaf, column));
        let of_all = |column: &&String| members.iter().all(|leaf| has(leaf, column));
        Self {
            is_full: members.iter().any(|leaf| leaf.is_full),
            identity: columns.iter().filter(of_any).cloned().collect(),
            common_identity: columns.iter().filter(of_all).cloned().collect(),
            columns,
            key,
        }
    }
}

/// The columns to ask the server for.
#[derive(Debug, PartialEq, Eq)]
enum ColumnList {
    All,
    Some(Vec<String>),
    /// Not to be had from the server, so left to the bridge.
    InBridge,
    /// Nothing is left of the table.
    Nothing,
}

/// Settles the filters of all captured tables.
///
/// # Errors
/// When a query fails.
pub async fn settle(
    client: &Client,
    settings: &Resolved,
    candidates: &[Candidate],
    server: Server<'_>,
) -> Result<Filters, Error> {
    let mut filters = Filters::default();
    let is_by_table = server.present.main.is_none_or(|publication| publication.is_by_table);
    let captured: Vec<&Candidate> = candidates
        .iter()
        .filter(|c| !is_by_table || settings.captured.matches(&c.table.schema, &c.table.name))
        .collect();
    let hidden = captured.iter().filter_map(|c| hidden(settings, &c.table));
    filters.shortfalls.extend(hidden);
    let filtered: Vec<&Candidate> =
        captured.into_iter().filter(|c| has_filter(settings, &c.table)).collect();
    if filtered.is_empty() {
        return Ok(filters);
    }
    let facts = facts(client, &filtered).await?;
    for candidate in filtered {
        // A table that was dropped in between.
        let Some(facts) = facts.get(&candidate.table) else { continue };
        let table = Settling { settings, server, is_by_table, candidate, facts };
        table.settle(client, &mut filters).await?;
    }
    Ok(filters)
}

/// One table's filters, being settled.
struct Settling<'a> {
    settings: &'a Resolved,
    server: Server<'a>,
    is_by_table: bool,
    candidate: &'a Candidate,
    facts: &'a TableFacts,
}

impl<'a> Settling<'a> {
    async fn settle(&self, client: &Client, filters: &mut Filters) -> Result<(), Error> {
        let columns = self.columns(filters);
        let condition = match self.condition() {
            Some(condition) => self.rows(client, condition, &columns, filters).await?,
            None => None,
        };
        let condition = condition.map(|probed| {
            filters.conditions.insert(self.candidate.table.clone(), probed.columns);
            probed.condition
        });
        let published = Published { columns, condition };
        if published != Published::default() {
            filters.published.insert(self.candidate.table.clone(), published);
        }
        Ok(())
    }

    fn condition(&self) -> Option<&str> {
        let TableName { schema, name } = &self.candidate.table;
        self.settings.tables.of(schema, name)?.r#where.as_deref()
    }

    /// The key's name in messages.
    fn key(&self, name: &str) -> String {
        let TableName { schema, name: table } = &self.candidate.table;
        let pattern = self.settings.tables.pattern(schema, table);
        format!("tables.\"{}\".{name}", pattern.map_or("", |pattern| pattern.as_str()))
    }

    /// Whether the server would refuse updates of rows whose identity is not published whole.
    fn needs_identity(&self) -> bool {
        // Without an identity it refuses them in any case.
        needs_identity(&self.settings.skipped)
            && self.candidate.refused(Part::default(), self.server.version).next().is_none()
    }

    fn columns(&self, filters: &mut Filters) -> Option<Vec<String>> {
        let TableName { schema, name } = &self.candidate.table;
        let filter = self.settings.tables.columns(schema, name)?;
        let pattern = self.settings.tables.pattern(schema, name);
        if pattern.is_some_and(|pattern| pattern.is_exact()) {
            filters.notes.extend(filter.unknown(&self.facts.columns).map(|column| {
                format!("the settings of {schema}.{name} name {column:?}, which is not one of its columns")
            }));
        }
        let configured_key = self.settings.tables.of(schema, name).and_then(|t| t.key.as_deref());
        let list = column_list(
            self.facts,
            filter,
            configured_key.unwrap_or_default(),
            self.needs_identity(),
        );
        let in_bridge = |why: &str| {
            format!(
                "columns of {schema}.{name} are dropped in the bridge, not by the server: {why}"
            )
        };
        match list {
            ColumnList::Nothing => {
                filters.shortfalls.push(Shortfall {
                    cause: format!("no column of {schema}.{name} is left by its column filter"),
                    fix: format!(
                        "mend {} or {}, or leave the table out by postgres.exclude_tables",
                        self.key("columns"),
                        self.key("exclude_columns")
                    ),
                });
                None
            }
            ColumnList::All => None,
            _ if self.server.version < FILTERS_SINCE => {
                filters.notes.push(in_bridge("PostgreSQL has column lists from version 15 on"));
                None
            }
            _ if !self.is_by_table => {
                filters.notes.push(in_bridge("the publication does not name its tables"));
                None
            }
            ColumnList::InBridge => {
                let why = "Postgres allows no column list where old rows are published whole \
                           (REPLICA IDENTITY FULL)";
                filters.notes.push(in_bridge(why));
                None
            }
            ColumnList::Some(columns) => Some(columns),
        }
    }

    /// The condition as the server writes it, if it can be had.
    async fn rows(
        &self,
        client: &Client,
        condition: &str,
        columns: &Option<Vec<String>>,
        filters: &mut Filters,
    ) -> Result<Option<Probed>, Error> {
        let table = &self.candidate.table;
        let key = self.key("where");
        let mut refuse = |cause: String, fix: String| {
            filters.shortfalls.push(Shortfall { cause, fix });
            Ok(None)
        };
        if self.server.version < FILTERS_SINCE {
            return refuse(
                format!(
                    "{key} asks for some rows of {table}, which PostgreSQL can publish from version \
                     15 on; this server has version {}",
                    self.server.version / 10_000
                ),
                format!("remove {key}, and filter in the consumer; or upgrade the server"),
            );
        }
        if !self.is_by_table {
            return refuse(
                format!(
                    "{key} asks for some rows of {table}, but the publication {:?} is for all \
                     tables or whole schemas, and takes no row filters",
                    self.settings.publication
                ),
                "let rowcast make a publication of its own (postgres.publication, \
                 postgres.manage = true), or remove the key"
                    .to_owned(),
            );
        }
        let probed = match probe(client, table, condition).await? {
            Ok(probed) => probed,
            Err(reason) => {
                return refuse(
                    format!("the server does not take {key} as a condition on {table}: {reason}"),
                    format!("mend {key}"),
                );
            }
        };
        let mut outside =
            probed.columns.iter().filter(|column| !self.facts.common_identity.contains(column));
        let is_new = self.server.is_start && !self.server.present.has(table);
        if is_new
            && self.needs_identity()
            && let Some(column) = outside.next()
        {
            return refuse(
                format!(
                    "{key} looks at the column {column:?}, which is not part of the replica \
                     identity of {table}: Postgres would refuse every UPDATE and DELETE of its rows"
                ),
                format!(
                    "ALTER TABLE {} REPLICA IDENTITY FULL; (of each partition, too); or publish \
                     inserts alone: postgres.skipped_operations = [\"update\", \"delete\", \
                     \"truncate\"]",
                    table.sql()
                ),
            );
        }
        let Present { main, inserts } = self.server.present;
        let part = |publication: Option<&'a Publication>| publication?.tables.get(table);
        let present = part(main).or_else(|| part(inserts));
        let is_there = present.is_some_and(|p| p.condition.as_ref() == Some(&probed.condition));
        // Without a publication, preflight asks for all of it.
        if !self.settings.manage && main.is_some() && !is_there {
            let published =
                Published { columns: columns.clone(), condition: Some(probed.condition) };
            let change = vec![TableChange { table: table.clone(), published }];
            let change = match present {
                Some(_) => PublicationChange { alter: change, ..Default::default() },
                None => PublicationChange { add: change, ..Default::default() },
            };
            return refuse(
                format!(
                    "{key} asks for some rows of {table}, the publication {:?} does not filter \
                     them so, and postgres.manage is false",
                    self.settings.publication
                ),
                change.sql(&self.settings.publication).join(";\n") + ";",
            );
        }
        Ok(Some(probed))
    }
}

fn has_filter(settings: &Resolved, TableName { schema, name }: &TableName) -> bool {
    settings.tables.columns(schema, name).is_some()
        || settings.tables.of(schema, name).is_some_and(|table| table.r#where.is_some())
}

fn hidden(settings: &Resolved, table: &TableName) -> Option<Shortfall> {
    let hidden = settings.tables.hidden(&table.schema, &table.name)?;
    Some(Shortfall { cause: format!("{table}: {hidden}"), fix: hidden.fix() })
}

/// The columns to ask the server for.
///
/// | | |
/// |---|---|
/// | wanted | in the list |
/// | part of the replica identity, where updates or deletes are published | in the list: the server would refuse them else |
/// | part of what may become the key | in the list: a key is never cut |
/// | any other | left out |
fn column_list(
    facts: &TableFacts,
    filter: &ColumnRules,
    configured_key: &[String],
    needs_identity: bool,
) -> ColumnList {
    let is_wanted = |column: &&String| filter.publishes(column);
    if !facts.columns.iter().any(|column| is_wanted(&column)) {
        return ColumnList::Nothing;
    }
    let is_needed = |column: &&String| {
        is_wanted(column)
            || facts.key.contains(column)
            || configured_key.contains(column)
            || (needs_identity && facts.identity.contains(column))
    };
    if facts.columns.iter().all(|column| is_wanted(&column)) {
        return ColumnList::All;
    }
    if needs_identity && facts.is_full {
        return ColumnList::InBridge;
    }
    let list: Vec<String> = facts.columns.iter().filter(is_needed).cloned().collect();
    if list.len() == facts.columns.len() { ColumnList::All } else { ColumnList::Some(list) }
}

async fn facts(
    client: &Client,
    tables: &[&Candidate],
) -> Result<BTreeMap<TableName, TableFacts>, Error> {
    let schemas: Vec<&str> = tables.iter().map(|c| c.table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|c| c.table.name.as_str()).collect();
    let rows = client
        .query(TABLE_COLUMNS, &[&schemas, &names])
        .await
        .map_err(|source| Error::Sql { doing: "ask for the columns of tables", source })?;
    let facts = rows.iter().filter_map(|row| {
        let name = TableName { schema: row.get(0), name: row.get(1) };
        let candidate = tables.iter().find(|candidate| candidate.table == name)?;
        let facts = TableFacts::new(row.get(2), row.get(3), &candidate.leaves);
        Some((name, facts))
    });
    Ok(facts.collect())
}

/// What the server makes of a condition.
struct Probed {
    condition: String,
    columns: Vec<String>,
}

/// Asks the server what it makes of a condition on a table; its own words where it refuses it.
async fn probe(
    client: &Client,
    table: &TableName,
    condition: &str,
) -> Result<Result<Probed, String>, Error> {
    // The line break ends a comment that the condition may end with.
    let statements = format!(
        "BEGIN; CREATE TEMPORARY TABLE rowcast_probe (LIKE {}); {}; \
         ALTER TABLE pg_temp.rowcast_probe ADD CONSTRAINT rowcast_probe CHECK ({condition}\n); {}",
        table.sql(),
        search_path::OWN,
        search_path::SAFE
    );
    let failed = |source| Error::Sql { doing: "ask what a row filter means", source };
    let made = client.batch_execute(&statements).await;
    let row = match made {
        Ok(()) => client.query_one(PROBE, &[]).await.map(Ok),
        Err(error) => match error.as_db_error() {
            Some(refusal) => Ok(Err(refusal.message().to_owned())),
            None => Err(error),
        },
    };
    let undone = client.batch_execute("ROLLBACK").await;
    let row = row.map_err(failed)?;
    undone.map_err(failed)?;
    Ok(row.map(|row| Probed { condition: row.get(0), columns: row.get(1) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Table, TableSettings};

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    fn facts(identity: &[&str], is_full: bool) -> TableFacts {
        TableFacts {
            columns: owned(&["id", "name", "ssn", "card"]),
            key: owned(&["id"]),
            is_full,
            identity: owned(identity),
            common_identity: owned(identity),
        }
    }

    fn without(excluded: &[&str]) -> ColumnRules {
        let table = Table { exclude_columns: Some(owned(excluded)), ..Table::default() };
        let tables = [("*.*".to_owned(), table)].into_iter().collect();
        TableSettings::parse(&tables).unwrap().columns("a", "b").cloned().unwrap_or_default()
    }

    #[test]
    fn a_list_holds_the_identity_and_the_key_whatever_is_excluded() {
        let list = |excluded: &[&str], identity: &[&str], key: &[&str], needed: bool| {
            column_list(&facts(identity, false), &without(excluded), &owned(key), needed)
        };
        let some = |columns: &[&str]| ColumnList::Some(owned(columns));
        assert_eq!(list(&["ssn"], &["id"], &[], true), some(&["id", "name", "card"]));
        assert_eq!(list(&["ssn", "id"], &["id"], &[], true), some(&["id", "name", "card"]));
        assert_eq!(list(&["ssn", "card"], &["card"], &[], true), some(&["id", "name", "card"]));
        assert_eq!(list(&["ssn", "card"], &["card"], &[], false), some(&["id", "name"]));
        assert_eq!(list(&["ssn", "card"], &["id"], &["ssn"], true), some(&["id", "name", "ssn"]));
        assert_eq!(list(&["ssn"], &["id"], &["ssn"], true), ColumnList::All);
        assert_eq!(list(&["x*"], &["id"], &[], true), ColumnList::All);
        assert_eq!(list(&["*"], &["id"], &[], true), ColumnList::Nothing);
    }

    #[test]
    fn full_old_rows_leave_the_dropping_to_the_bridge() {
        let full = facts(&["id", "name", "ssn", "card"], true);
        assert_eq!(column_list(&full, &without(&["ssn"]), &[], true), ColumnList::InBridge);
        let inserts_alone = column_list(&full, &without(&["ssn"]), &[], false);
        assert_eq!(inserts_alone, ColumnList::Some(owned(&["id", "name", "card"])));
    }

    proptest! {
        #[test]
        fn postgres_would_refuse_no_list(
            excluded in proptest::sample::subsequence(vec!["id", "name", "ssn", "card"], 0..4),
            identity in proptest::sample::subsequence(vec!["id", "name", "ssn", "card"], 0..4),
            key in proptest::sample::subsequence(vec!["id", "name", "ssn", "card"], 0..4),
        ) {
            let facts = facts(&identity, false);
            let filter = without(&excluded);
            match column_list(&facts, &filter, &owned(&key), true) {
                ColumnList::Some(list) => {
                    prop_assert!(identity.iter().chain(&key).all(|c| list.contains(&(*c).to_owned())));
                    let wanted = facts.columns.iter().filter(|c| filter.publishes(c));
                    prop_assert!(wanted.into_iter().all(|column| list.contains(column)));
                    prop_assert!(list.len() < facts.columns.len());
                    let in_order: Vec<_> =
                        facts.columns.iter().filter(|c| list.contains(c)).cloned().collect();
                    prop_assert_eq!(list, in_order);
                }
                ColumnList::All => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
