//! Checks configured keys against the tables, before the first row.
//!
//! A key that is not known for every change of a row fails late: with the first DELETE, which can't
//! be keyed and ends the stream, or silently, with an UPDATE of the key that leaves the row under
//! its old key forever. So it is checked when a table is added:
//!
//! | a column of the key | result |
//! |---|---|
//! | is not a column that is published | refused |
//! | is not part of the replica identity, of the table or a partition, and updates or deletes are published | refused, with the SQL |
//! | the same, and `errors.on_error` sends such a DELETE to the dead letters | a warning with the SQL |
//! | the same, and there is no identity at all, so that the table is insert-only | nothing: there are no updates and deletes |
//! | may be null | a warning: a row with a null there has no key |
//!
//! Not here: the tables' own keys, which are chosen so that this can't happen (`change::key`).

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::Error;
use super::preflight::Shortfall;
use super::publication::{Publication, TableName};
use crate::config::{OnError, Operation, Resolved, nearest};

const CONFIGURED_KEYS: &str = include_str!("../../sql/configured_keys.sql");

/// The first version that can publish generated columns.
const GENERATED_SINCE: u32 = 180_000;

/// Problems with the configured keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyFaults {
    /// Tables whose key is impossible, by the name under which their rows are configured.
    pub refused: BTreeMap<TableName, Shortfall>,
    /// What to log.
    pub notes: Vec<String>,
}

/// A table as the stream describes it, and a table that holds its rows.
#[derive(Debug, Clone)]
struct Member {
    table: TableName,
    member: TableName,
    columns: Vec<String>,
    nullable: Vec<String>,
    /// Empty without a replica identity: such a table is insert-only.
    identity: Vec<String>,
}

/// Compares the configured keys of these tables with the tables as they are.
///
/// # Errors
/// When the query fails.
pub async fn check<'a>(
    client: &Client,
    settings: &Resolved,
    present: Option<&Publication>,
    tables: impl Iterator<Item = &'a TableName>,
    server_version: u32,
) -> Result<KeyFaults, Error> {
    if !settings.tables.has_keys() {
        return Ok(KeyFaults::default());
    }
    let captured = &settings.captured;
    let tables: Vec<&TableName> =
        tables.filter(|table| captured.matches(&table.schema, &table.name)).collect();
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let has_generated = server_version >= GENERATED_SINCE;
    let rows = client
        .query(CONFIGURED_KEYS, &[&schemas, &names, &settings.via_root, &has_generated])
        .await
        .map_err(|source| Error::Sql { doing: "read the columns of configured keys", source })?;
    let member = |row: &tokio_postgres::Row| Member {
        table: TableName { schema: row.get(0), name: row.get(1) },
        member: TableName { schema: row.get(2), name: row.get(3) },
        columns: row.get(4),
        nullable: row.get(5),
        identity: row.get(6),
    };
    let members: Vec<Member> = rows.iter().map(member).collect();
    let mut faults = KeyFaults::default();
    for members in members.chunk_by(|one, next| one.table == next.table) {
        judge(settings, publishes_old_rows(settings, present), members, &mut faults);
    }
    Ok(faults)
}

/// Whether updates or deletes are in the stream, and published.
fn publishes_old_rows(settings: &Resolved, present: Option<&Publication>) -> bool {
    // A publication that rowcast does not manage has its own operations.
    let foreign = present.filter(|publication| !settings.manage || !publication.is_by_table);
    [Operation::Update, Operation::Delete].iter().any(|operation| {
        !settings.skipped.contains(operation)
            && foreign.is_none_or(|publication| publication.operations.contains(operation))
    })
}

/// One table, by the members that hold its rows.
fn judge(settings: &Resolved, has_old_rows: bool, members: &[Member], faults: &mut KeyFaults) {
    let Some(Member { table, columns, nullable, .. }) = members.first() else { return };
    let TableName { schema, name } = table;
    let configured = settings.tables.of(schema, name).and_then(|table| table.key.as_deref());
    let (Some(key), Some(pattern)) = (configured, settings.tables.pattern(schema, name)) else {
        return;
    };
    let setting = format!("tables.\"{}\".key", pattern.as_str());
    if let Some(column) = key.iter().find(|column| !columns.contains(column)) {
        let fault = no_such_column(table, &setting, column, columns);
        faults.refused.insert(table.clone(), fault);
        return;
    }
    let can_change = members.iter().any(|member| !member.identity.is_empty());
    let lacks = |member: &&Member| key.iter().any(|column| !member.identity.contains(column));
    let lacking: Vec<&Member> = members.iter().filter(lacks).collect();
    if has_old_rows && can_change && !lacking.is_empty() {
        let fault = outside_identity(table, &setting, key, &lacking);
        if settings.errors.on_error == Some(OnError::SkipWithDeadLetter) {
            faults.notes.push(format!(
                "{}; errors.on_error sends it to the dead letter topic instead; {}",
                fault.cause, fault.fix
            ));
        } else {
            faults.refused.insert(table.clone(), fault);
            return;
        }
    }
    let loose: Vec<&str> =
        key.iter().filter(|column| nullable.contains(column)).map(String::as_str).collect();
    if !loose.is_empty() {
        faults.notes.push(format!(
            "{setting} has columns of {table} that may be null, {loose:?}: a row with a null \
             there has no key and is handled by errors.on_error; ALTER TABLE {} ALTER COLUMN ... \
             SET NOT NULL prevents that",
            table.sql()
        ));
    }
}

fn no_such_column(table: &TableName, setting: &str, column: &str, columns: &[String]) -> Shortfall {
    let near = nearest(column, columns.iter().cloned());
    Shortfall {
        cause: format!("{setting} names {column:?}, which is not a published column of {table}"),
        fix: match near {
            Some(near) => format!("write {near:?} in {setting}, if that was meant"),
            None => format!("name columns of {table} in {setting}: {}", columns.join(", ")),
        },
    }
}

fn outside_identity(
    table: &TableName,
    setting: &str,
    key: &[String],
    lacking: &[&Member],
) -> Shortfall {
    let has = |column: &&String| lacking.iter().all(|member| member.identity.contains(column));
    let outside: BTreeSet<&String> = key.iter().filter(|column| !has(column)).collect();
    let statements: Vec<String> = lacking
        .iter()
        .map(|member| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", member.member.sql()))
        .collect();
    Shortfall {
        cause: format!(
            "{setting} has columns that are not part of the replica identity of {table}, \
             {outside:?}: an UPDATE of these columns would leave the row under its old key, and a \
             DELETE could not be keyed and would stop the stream"
        ),
        fix: format!("{} or leave these columns out of {setting}", statements.join(" ")),
    }
}
