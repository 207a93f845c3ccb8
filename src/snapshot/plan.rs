//! Plans a snapshot: which tables, which files of each, and the statement for some pages.
//!
//! The publication determines what is read, so that a snapshot has the same tables, columns and
//! rows as the stream:
//!
//! | in the publication | read |
//! |---|---|
//! | a table | itself, without those that inherit from it |
//! | a partitioned table as its root | each partition at the end of its tree, described as the root |
//! | partitions by themselves | each, as itself |
//! | a column list, a row filter | these columns, these rows |
//!
//! Rows that `tables."...".snapshot_where` excludes are left out of the snapshot only.
//!
//! Nothing is left out silently: a matching table that can't be read is reported with the reason,
//! and one that the role may not read is a shortfall with the grant that fixes it. Row security
//! would hide rows; the session refuses to read if it is active, and that is reported here before.
//!
//! Pages are read by their position in the file, and rows move when they are updated: a plan is
//! valid for one exported snapshot. Sizes are read after the snapshot was taken, so every row that
//! the snapshot shows is in these pages.
//!
//! Not here: who reads which pages when (`schedule`), and which were read (`pages`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::pages::{END, PAGE_BYTES, PageRange, RANGE_BYTES};
use super::relation::Description;
use crate::config::{SignalTable, TableFilter, TableSettings, condition};
use crate::postgres::preflight::Shortfall;
use crate::postgres::publication::streamed::{self, InEffect};
use crate::postgres::publication::{self, TableName};
use crate::postgres::{Error, search_path};

const TABLE_FILES: &str = include_str!("../../sql/table_files.sql");
const UNPUBLISHABLE: &str = include_str!("../../sql/unpublishable.sql");

/// What a plan covers.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The publication, and the one for inserts.
    pub publications: [&'a str; 2],
    /// The server's version, as `server_version_num`.
    pub server_version: u32,
    /// The tables that are captured.
    pub captured: &'a TableFilter,
    /// Whether the publication may have tables that are not captured and must be left out: it is
    /// for all tables, or for whole schemas.
    pub is_limited: bool,
    /// Settings of single tables.
    pub settings: &'a TableSettings,
    /// The signal table, whose rows are not read.
    pub signals: Option<&'a SignalTable>,
}

/// What a snapshot reads.
#[derive(Debug, Default)]
pub struct Plan {
    /// The tables, the largest first.
    pub tables: Vec<PlannedTable>,
    /// Tables that are not read, and why.
    pub skipped: Vec<Skipped>,
    /// Problems that must be fixed before anything can be read.
    pub shortfalls: Vec<Shortfall>,
}

/// A table that is read.
#[derive(Debug, Clone)]
pub struct PlannedTable {
    /// Its name, under which its rows are published.
    pub name: TableName,
    /// Its description as in the stream.
    pub description: Description,
    /// The publication's row filter.
    pub row_filter: Option<String>,
    /// A condition for this snapshot only.
    pub condition: Option<String>,
    /// Its files, the largest first.
    pub leaves: Vec<Leaf>,
}

/// A file of a table: the table itself, or a partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// OID of the table or the partition.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// The file; a new file has the rows in other places.
    pub filenode: u32,
    /// Pages in it.
    pub pages: u32,
    /// Rows in it by the server's statistics; an estimate.
    pub rows: Option<u64>,
    /// Bytes including TOAST, if it still exists.
    pub whole_bytes: Option<u64>,
}

impl Leaf {
    /// How many of its pages are read at a time, so that they are not too many bytes with TOAST.
    #[must_use]
    pub fn step(&self) -> u32 {
        let pages = u64::from(self.pages);
        let whole = self.whole_bytes.unwrap_or_default() / u64::from(PAGE_BYTES);
        let step = u64::from(RANGE_BYTES / PAGE_BYTES) * pages / whole.max(pages).max(1);
        u32::try_from(step).unwrap_or(u32::MAX).max(1)
    }
}

/// A table that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: TableName,
    /// Why its rows are not read.
    pub reason: &'static str,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl PlannedTable {
    /// Pages of all its files.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.leaves.iter().map(|leaf| u64::from(leaf.pages)).sum()
    }

    /// Rows of all its files, if known; an estimate that ignores conditions.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.leaves.iter().map(|leaf| leaf.rows).sum()
    }

    /// The statement that reads some pages of one of its files, in the order of the description's
    /// columns. `extra` is a condition in addition to those of the table.
    #[must_use]
    pub fn copy(&self, leaf: &Leaf, pages: PageRange, extra: Option<&str>) -> String {
        let columns: Vec<String> =
            self.description.columns().iter().map(|name| escape_identifier(name)).collect();
        let PageRange { from, to } = pages;
        let mut sql = format!(
            "COPY (SELECT {} FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.>=) \
             '({from},0)'::pg_catalog.tid",
            columns.join(", "),
            leaf.name.sql()
        );
        // The table may have grown.
        if to != END {
            sql += &format!(" AND ctid OPERATOR(pg_catalog.<) '({to},0)'::pg_catalog.tid");
        }
        for condition in [self.row_filter.as_deref(), self.condition.as_deref(), extra] {
            // The line break ends a comment that the condition may end with.
            sql.extend(condition.map(|condition| format!(" AND ({condition}\n)")));
        }
        sql + ") TO STDOUT"
    }
}

/// Plans reading the tables of a publication.
///
/// # Errors
/// When a query fails.
pub async fn plan(client: &Client, scope: &Scope<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let published = published(client, scope, &mut plan).await?;
    let files = files(client, &published).await?;
    let role = role(client).await?;
    let lists: Vec<(u32, Option<&[String]>)> =
        published.iter().map(|table| (table.oid, table.columns.as_deref())).collect();
    let mut described = Description::read_all(client, scope.server_version, &lists).await?;
    for table in published {
        let Published { oid, name, row_filter, .. } = table;
        // The table was dropped meanwhile.
        let Some(description) = described.remove(&oid) else { continue };
        let mut leaves = Vec::new();
        for file in files.get(&oid).into_iter().flatten() {
            if let Some(reason) = unreadable(&file.kind, "p") {
                plan.skipped.push(Skipped { name: file.leaf.name.clone(), reason });
                continue;
            }
            plan.shortfalls.extend(file.shortfalls(&description, &role));
            leaves.push(file.leaf.clone());
        }
        let condition = condition(client, scope, &name, &mut plan.shortfalls).await?;
        plan.tables.push(PlannedTable { name, description, row_filter, condition, leaves });
    }
    // Equal sizes are ordered by name, so that a plan is always the same.
    plan.tables.sort_by(|a, b| b.pages().cmp(&a.pages()).then_with(|| a.name.cmp(&b.name)));
    unpublishable(client, scope, &mut plan).await?;
    Ok(plan)
}

/// Why rows of such a relation can't be read; `None` if they can.
#[must_use]
pub fn unreadable(kind: &str, persistence: &str) -> Option<&'static str> {
    match (kind, persistence) {
        ("v", _) => Some("it is a view, and Postgres streams no changes of views; name its tables"),
        ("m", _) => Some(
            "it is a materialized view, and Postgres streams no changes of those; name its tables",
        ),
        ("f", _) => Some("it is a foreign table: its rows and their changes are on another server"),
        (_, "u") => {
            Some("it is unlogged, so its changes are in no WAL; ALTER TABLE ... SET LOGGED")
        }
        (_, "t") => Some("it is temporary: only its session sees its rows"),
        _ => None,
    }
}

/// A table of the publication.
struct Published {
    oid: u32,
    name: TableName,
    columns: Option<Vec<String>>,
    row_filter: Option<String>,
}

async fn published(
    client: &Client,
    scope: &Scope<'_>,
    plan: &mut Plan,
) -> Result<Vec<Published>, Error> {
    let mut found = streamed::in_effect(client, scope.publications, scope.server_version).await?;
    found.retain(|InEffect { table, kind, .. }| {
        if scope.signals.is_some_and(|signals| signals.hides(&table.schema, &table.name)) {
            return false;
        }
        if scope.is_limited && !scope.captured.matches(&table.schema, &table.name) {
            return false;
        }
        let reason = unreadable(kind, "p");
        plan.skipped.extend(reason.map(|reason| Skipped { name: table.clone(), reason }));
        reason.is_none()
    });
    let parts = streamed::parts(client, &found).await?;
    let tables = found.into_iter().zip(parts);
    let table = |(InEffect { oid, table: name, .. }, part): (InEffect, publication::Published)| {
        let publication::Published { columns, condition: row_filter } = part;
        Published { oid, name, columns, row_filter }
    };
    Ok(tables.map(table).collect())
}

/// A file with the role's permissions.
struct File {
    leaf: Leaf,
    kind: String,
    may_use_schema: bool,
    hidden: Vec<String>,
    has_row_security: bool,
}

async fn files(client: &Client, tables: &[Published]) -> Result<BTreeMap<u32, Vec<File>>, Error> {
    let failed = |source| Error::Sql { doing: "read the files of tables", source };
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut files = BTreeMap::<u32, Vec<File>>::new();
    for row in client.query(TABLE_FILES, &[&oids]).await.map_err(failed)? {
        // The server counts pages in 32 bits.
        let pages = u32::try_from(row.get::<_, i64>(6)).unwrap_or(END - 1);
        let leaf = Leaf {
            oid: row.get(1),
            name: TableName { schema: row.get(2), name: row.get(3) },
            filenode: row.get(5),
            pages,
            rows: estimated(row.get(7), row.get(8), pages),
            whole_bytes: row.get::<_, Option<i64>>(12).and_then(|bytes| bytes.try_into().ok()),
        };
        files.entry(row.get(0)).or_default().push(File {
            leaf,
            kind: row.get(4),
            may_use_schema: row.get(9),
            hidden: row.get(10),
            has_row_security: row.get(11),
        });
    }
    Ok(files)
}

/// Rows of a file, estimated from its last row and page counts. Negative means never counted.
fn estimated(rows: f64, pages_then: i64, pages: u32) -> Option<u64> {
    if pages == 0 {
        return Some(0);
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate of an estimate")]
    let scale = f64::from(pages) / pages_then as f64;
    let rows = rows * scale;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    (pages_then > 0 && (0.0..1e18).contains(&rows)).then_some(rows as u64)
}

impl File {
    /// What prevents the role from reading it.
    fn shortfalls(&self, description: &Description, role: &str) -> Vec<Shortfall> {
        let (name, sql) = (&self.leaf.name, self.leaf.name.sql());
        let mut shortfalls = Vec::new();
        if !self.may_use_schema {
            let schema = escape_identifier(&name.schema);
            shortfalls.push(Shortfall {
                cause: format!(
                    "the role {role} may not use the schema of {name}, which reading its rows \
                     requires"
                ),
                fix: format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
            });
        }
        let hidden: BTreeSet<&String> = self.hidden.iter().collect();
        if description.columns().iter().any(|column| hidden.contains(column)) {
            shortfalls.push(Shortfall {
                cause: format!(
                    "the role {role} may not read {name}, which the snapshot of its rows requires"
                ),
                fix: format!("GRANT SELECT ON {sql} TO {role};"),
            });
        }
        if self.has_row_security {
            shortfalls.push(Shortfall {
                cause: format!(
                    "row level security would hide rows of {name} from the role {role} that the \
                     stream contains"
                ),
                fix: format!("ALTER ROLE {role} BYPASSRLS;"),
            });
        }
        shortfalls
    }
}

async fn role(client: &Client) -> Result<String, Error> {
    let failed = |source| Error::Sql { doing: "read the role", source };
    let row = client.query_one("SELECT current_user::text", &[]).await.map_err(failed)?;
    Ok(escape_identifier(row.get(0)))
}

/// The configured condition of a table, after the server has checked it.
async fn condition(
    client: &Client,
    scope: &Scope<'_>,
    name: &TableName,
    shortfalls: &mut Vec<Shortfall>,
) -> Result<Option<String>, Error> {
    let settings = scope.settings.of(&name.schema, &name.name);
    let Some(condition) = settings.and_then(|table| table.snapshot_where.as_deref()) else {
        return Ok(None);
    };
    let Some(Refused { text: reason, .. }) = refusal(client, name, condition).await? else {
        return Ok(Some(condition.to_owned()));
    };
    let pattern = scope.settings.pattern(&name.schema, &name.name);
    let key =
        format!("tables.\"{}\".snapshot_where", pattern.map_or("", |pattern| pattern.as_str()));
    shortfalls.push(Shortfall {
        cause: format!("the server does not accept {key} as a condition on {name}: {reason}"),
        fix: format!("correct {key}"),
    });
    Ok(None)
}

/// Why the server refuses a condition.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The SQLSTATE; `None` if the reason is not the server's.
    pub sqlstate: Option<String>,
    /// The reason, for the author of the condition.
    pub text: String,
}

impl Refused {
    /// The reason without the server's text, for everyone.
    #[must_use]
    pub fn without_text(&self) -> String {
        match &self.sqlstate {
            Some(code) => format!("the server does not accept the condition (SQLSTATE {code})"),
            None => self.text.clone(),
        }
    }
}

/// Why the server refuses a condition on a table; `None` if it accepts it. Nothing is executed.
///
/// # Errors
/// When the server can't be queried.
pub async fn refusal(
    client: &Client,
    table: &TableName,
    condition: &str,
) -> Result<Option<Refused>, Error> {
    if let Err(error) = condition::check(condition) {
        return Ok(Some(Refused { sqlstate: None, text: error.to_string() }));
    }
    // The line break ends a comment that the condition may end with.
    let sql = format!("SELECT FROM {} WHERE ({condition}\n)", table.sql());
    let failed = |source| Error::Sql { doing: "check a condition", source };
    let begin = format!("BEGIN READ ONLY; {}", search_path::OWN);
    client.batch_execute(&begin).await.map_err(failed)?;
    let prepared = client.prepare(&sql).await;
    client.batch_execute("ROLLBACK").await.map_err(failed)?;
    let Err(source) = prepared else { return Ok(None) };
    match source.as_db_error() {
        Some(refusal) => {
            tracing::debug!(%table, reason = refusal.message(), "a condition is not accepted");
            let sqlstate = Some(refusal.code().code().to_owned());
            Ok(Some(Refused { sqlstate, text: refusal.message().to_owned() }))
        }
        None => Err(failed(source)),
    }
}

/// Reports configured tables that no publication can contain.
async fn unpublishable(client: &Client, scope: &Scope<'_>, plan: &mut Plan) -> Result<(), Error> {
    let failed = |source| Error::Sql { doing: "read views and foreign tables", source };
    for row in client.query(UNPUBLISHABLE, &[]).await.map_err(failed)? {
        let name = TableName { schema: row.get(0), name: row.get(1) };
        let Some(reason) = unreadable(row.get(2), row.get(3)) else { continue };
        if !scope.captured.matches(&name.schema, &name.name) {
            continue;
        }
        if scope.captured.names_exactly(&name.schema, &name.name) {
            plan.shortfalls.push(Shortfall {
                cause: format!("{name} can't be captured: {reason}"),
                fix: format!("remove {name} from postgres.tables"),
            });
        } else {
            plan.skipped.push(Skipped { name, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_fewer_pages_where_much_is_stored_outside_of_them() {
        let step = |pages: u32, whole_pages: Option<u64>| {
            let name = TableName { schema: "public".to_owned(), name: "rides".to_owned() };
            let whole_bytes = whole_pages.map(|pages| pages * u64::from(PAGE_BYTES));
            Leaf { oid: 7, name, filenode: 9, pages, rows: None, whole_bytes }.step()
        };
        assert_eq!(step(1_000, Some(1_000)), 256);
        assert_eq!(step(1_000, Some(16_000)), 16);
        assert_eq!(step(10, Some(1_000_000)), 1);
        // Nothing is known, or it was truncated meanwhile.
        assert_eq!((step(1_000, None), step(0, Some(0))), (256, 1));
    }
}
