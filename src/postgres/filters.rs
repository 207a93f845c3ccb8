//! Checks column and row filters against the tables as they are.
//!
//! A filter that Postgres accepts may still break the application: it accepts a column list without
//! the replica identity, or a row filter on columns outside of it, and then refuses every UPDATE
//! and DELETE of the table. So this is checked here, before anything is changed:
//!
//! | filter | replica identity | result |
//! |---|---|---|
//! | columns | a key | the identity's and the key's columns are added to the list |
//! | columns | FULL | Postgres allows no list; the columns are dropped in the bridge |
//! | rows | without a column of the condition | a new table: refused at the start, with the fix; else only inserts are published |
//!
//! If the server can't filter columns (before PostgreSQL 15, or in a publication that the bridge
//! may not change), the encoder does, as it always does: an excluded column never gets into a
//! value. Rows are filtered by the server or not at all, so a row filter is refused in these cases.
//!
//! The server itself interprets a condition, as a check constraint on a temporary table: how it
//! writes the condition (so that an equal one is recognised) and which columns it uses.

mod probe;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

pub use self::probe::{Asked, Probes};
use self::probe::{Probed, Refused};
use super::Error;
use super::preflight::Shortfall;
use super::publication::{
    Candidate, FILTERS_SINCE, Leaf, Part, Present, PublicationChange, Published, TableChange,
    TableName, needs_identity,
};
use crate::config::{ColumnLists, ColumnRules, Resolved};

const TABLE_COLUMNS: &str = include_str!("../../sql/table_columns.sql");

/// What is published of the tables that have filters, and problems with it.
#[derive(Debug, Default)]
pub struct Filters {
    /// What to publish of each table; a table that is not here is published completely.
    pub published: BTreeMap<TableName, Published>,
    /// The columns that row filters use.
    pub conditions: BTreeMap<TableName, Vec<String>>,
    /// What can't be done as configured, with the table.
    pub shortfalls: Vec<(TableName, Shortfall)>,
    /// Tables whose row filter could not be interpreted.
    pub unknown: BTreeSet<TableName>,
    /// What to log.
    pub notes: Vec<String>,
}

impl Filters {
    /// Whether a table can't be added to a publication now.
    #[must_use]
    pub fn keeps_out(&self, table: &TableName) -> bool {
        self.unknown.contains(table) || self.shortfalls.iter().any(|(other, _)| other == table)
    }

    /// Keeps a table's publication as it is.
    fn keep_published(&mut self, table: &TableName, present: Present<'_>) {
        match present.part(table) {
            Some(published) => self.published.insert(table.clone(), published.clone()),
            None => self.published.remove(table),
        };
        self.keep_conditions(table, present);
    }

    fn keep_conditions(&mut self, table: &TableName, present: Present<'_>) {
        match present.condition_columns(table) {
            Some(columns) => self.conditions.insert(table.clone(), columns.to_vec()),
            None => self.conditions.remove(table),
        };
    }
}

/// The server's side.
#[derive(Debug, Clone, Copy)]
pub struct ServerFacts<'a> {
    /// Its version, as `server_version_num`.
    pub version: u32,
    /// The publications as they are.
    pub present: Present<'a>,
    /// Whether to refuse a row filter of an unpublished table if Postgres would then refuse to
    /// update its rows; otherwise only its inserts are published, as for a published table.
    pub is_start: bool,
}

/// The facts about a table that filters depend on.
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
    /// Which of these columns old rows have. Postgres checks the tables that hold the rows; a
    /// partitioned table without partitions uses its own identity, which they will have.
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
    /// The server can't filter them, so the bridge does.
    InBridge,
    /// No column is left.
    Nothing,
}

/// The rows that the server should publish.
enum Rows {
    /// All rows, or it can't be done as configured.
    All,
    Some(Probed),
    Unknown,
}

/// Resolves the filters of all captured tables. A table whose filters are impossible, or whose
/// condition `probes` does not know, remains published as it is.
///
/// # Errors
/// When a query fails.
pub async fn settle(
    client: &Client,
    settings: &Resolved,
    candidates: &[Candidate],
    server: ServerFacts<'_>,
    probes: &mut Probes,
) -> Result<Filters, Error> {
    let mut filters = Filters::default();
    let is_by_table = server.present.main.is_none_or(|publication| publication.is_by_table);
    let captured: Vec<&Candidate> = candidates
        .iter()
        .filter(|c| !is_by_table || settings.captured.matches(&c.table.schema, &c.table.name))
        .collect();
    let hidden = captured
        .iter()
        .filter_map(|c| hidden(settings, &c.table).map(|found| (c.table.clone(), found)));
    filters.shortfalls.extend(hidden);
    let filtered: Vec<&Candidate> =
        captured.into_iter().filter(|c| has_filter(settings, &c.table)).collect();
    let facts = match filtered.is_empty() {
        true => BTreeMap::new(),
        false => facts(client, &filtered).await?,
    };
    for candidate in filtered {
        // The table was dropped meanwhile.
        let Some(facts) = facts.get(&candidate.table) else { continue };
        if server.present.is_unread(&candidate.table) {
            filters.unknown.insert(candidate.table.clone());
            filters.keep_published(&candidate.table, server.present);
            continue;
        }
        let table = Settling { settings, server, is_by_table, candidate, facts };
        table.settle(client, probes, &mut filters).await?;
    }
    let faulty: Vec<TableName> =
        filters.shortfalls.iter().map(|(table, _)| table.clone()).collect();
    for table in &faulty {
        filters.keep_published(table, server.present);
    }
    Ok(filters)
}

/// One table's filters, being resolved.
struct Settling<'a> {
    settings: &'a Resolved,
    server: ServerFacts<'a>,
    is_by_table: bool,
    candidate: &'a Candidate,
    facts: &'a TableFacts,
}

impl Settling<'_> {
    async fn settle(
        &self,
        client: &Client,
        probes: &mut Probes,
        filters: &mut Filters,
    ) -> Result<(), Error> {
        let (table, present) = (&self.candidate.table, self.server.present);
        let columns = self.columns(filters);
        let rows = match self.condition() {
            Some(condition) => self.rows(client, condition, probes, &columns, filters).await?,
            None => Rows::All,
        };
        let condition = match rows {
            Rows::All => None,
            Rows::Some(Probed { condition, columns }) => {
                filters.conditions.insert(table.clone(), columns);
                Some(condition)
            }
            Rows::Unknown => {
                filters.unknown.insert(table.clone());
                filters.keep_conditions(table, present);
                present.part(table).and_then(|part| part.condition.clone())
            }
        };
        let published = Published { columns, condition };
        if published != Published::default() {
            filters.published.insert(table.clone(), published);
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

    /// Whether the server would refuse updates of rows whose identity is not published completely.
    fn needs_identity(&self) -> bool {
        // Without an identity it always refuses them.
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
                let cause = format!("no column of {schema}.{name} is left by its column filter");
                let fix = format!(
                    "correct {} or {}, or leave the table out with postgres.exclude_tables",
                    self.key("columns"),
                    self.key("exclude_columns")
                );
                let shortfall = Shortfall { cause, fix };
                filters.shortfalls.push((self.candidate.table.clone(), shortfall));
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
            _ if self.settings.column_lists == ColumnLists::None => None,
            ColumnList::InBridge => {
                let why = "Postgres allows no column list with REPLICA IDENTITY FULL";
                filters.notes.push(in_bridge(why));
                None
            }
            ColumnList::Some(columns) => Some(columns),
        }
    }

    /// The condition as the server writes it, if possible.
    async fn rows(
        &self,
        client: &Client,
        condition: &str,
        probes: &mut Probes,
        columns: &Option<Vec<String>>,
        filters: &mut Filters,
    ) -> Result<Rows, Error> {
        Ok(self.probed(client, condition, probes, columns).await?.unwrap_or_else(|shortfall| {
            filters.shortfalls.push((self.candidate.table.clone(), shortfall));
            Rows::All
        }))
    }

    /// The same; the reason and its fix where the publication can't have the condition.
    async fn probed(
        &self,
        client: &Client,
        condition: &str,
        probes: &mut Probes,
        columns: &Option<Vec<String>>,
    ) -> Result<Result<Rows, Shortfall>, Error> {
        if let Some(shortfall) = self.without_row_filters() {
            return Ok(Err(shortfall));
        }
        let meaning =
            probes.meaning(client, self.candidate, &self.facts.columns, condition).await?;
        let (table, key) = (&self.candidate.table, self.key("where"));
        let probed = match meaning {
            None => return Ok(Ok(Rows::Unknown)),
            Some(Ok(probed)) => probed,
            Some(Err(Refused::Rights(reason))) => {
                return Ok(Err(Shortfall {
                    cause: format!("checking {key} on {table} failed: {reason}"),
                    fix: "grant the role what the message names: GRANT TEMPORARY ON DATABASE, or \
                          GRANT SELECT ON the table"
                        .to_owned(),
                }));
            }
            Some(Err(Refused::Condition(reason))) => {
                return Ok(Err(Shortfall {
                    cause: format!(
                        "the server does not accept {key} as a condition on {table}: {reason}"
                    ),
                    fix: format!("correct {key}"),
                }));
            }
        };
        let refused = self.outside_identity(&probed).or_else(|| self.missing(&probed, columns));
        Ok(refused.map_or(Ok(Rows::Some(probed)), Err))
    }

    /// Why this server, or this publication, has no row filters at all.
    fn without_row_filters(&self) -> Option<Shortfall> {
        let (table, key) = (&self.candidate.table, self.key("where"));
        if self.server.version < FILTERS_SINCE {
            return Some(Shortfall {
                cause: format!(
                    "{key} selects rows of {table}, which requires PostgreSQL 15; this server \
                     has version {}",
                    self.server.version / 10_000
                ),
                fix: format!("remove {key}, and filter in the consumer; or upgrade the server"),
            });
        }
        (!self.is_by_table).then(|| Shortfall {
            cause: format!(
                "{key} selects rows of {table}, but the publication {:?} is for all tables or whole \
                 schemas, which can't have row filters",
                self.settings.publication
            ),
            fix: "let rowcast create a publication of its own (postgres.publication, \
                  postgres.manage = true), or remove the key"
                .to_owned(),
        })
    }

    /// A condition on a column outside the replica identity would have Postgres refuse statements of
    /// the application.
    fn outside_identity(&self, probed: &Probed) -> Option<Shortfall> {
        let (table, key) = (&self.candidate.table, self.key("where"));
        let is_new = self.server.is_start && !self.server.present.has(table);
        if !is_new || !self.needs_identity() {
            return None;
        }
        let is_outside = |column: &&String| !self.facts.common_identity.contains(*column);
        let column = probed.columns.iter().find(is_outside)?;
        Some(Shortfall {
            cause: format!(
                "{key} uses the column {column:?}, which is not part of the replica identity of \
                 {table}: Postgres would refuse every UPDATE and DELETE of its rows"
            ),
            fix: format!(
                "ALTER TABLE {} REPLICA IDENTITY FULL; (of each partition, too); or a {key} without \
                 the column",
                table.sql()
            ),
        })
    }

    /// A publication that somebody else manages must have the condition already.
    fn missing(&self, probed: &Probed, columns: &Option<Vec<String>>) -> Option<Shortfall> {
        let (table, key) = (&self.candidate.table, self.key("where"));
        let present = self.server.present.part(table);
        let is_there = present.is_some_and(|p| p.condition.as_ref() == Some(&probed.condition));
        // Without a publication, preflight lists all of it.
        if self.settings.manage || self.server.present.main.is_none() || is_there {
            return None;
        }
        let condition = Some(probed.condition.clone());
        let published = Published { columns: columns.clone(), condition };
        let change = vec![TableChange { table: table.clone(), published }];
        let change = match present {
            Some(_) => PublicationChange { alter: change, ..Default::default() },
            None => PublicationChange { add: change, ..Default::default() },
        };
        Some(Shortfall {
            cause: format!(
                "{key} selects rows of {table}, but the publication {:?} has another filter, and \
                 postgres.manage is false",
                self.settings.publication
            ),
            fix: change.sql(&self.settings.publication).join(";\n") + ";",
        })
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
/// | part of the replica identity, if updates or deletes are published | in the list: the server would refuse them otherwise |
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
        .map_err(|source| Error::Sql { doing: "read the columns of tables", source })?;
    let facts = rows.iter().filter_map(|row| {
        let name = TableName { schema: row.get(0), name: row.get(1) };
        let candidate = tables.iter().find(|candidate| candidate.table == name)?;
        let facts = TableFacts::new(row.get(2), row.get(3), &candidate.leaves);
        Some((name, facts))
    });
    Ok(facts.collect())
}

#[cfg(test)]
mod tests;
