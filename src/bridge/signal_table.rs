//! Checks whether rows of `postgres.signal_table` can be signals; reports what is wrong with the
//! table, and the fix.
//!
//! At the first start of a process a problem ends it, because signals are expected to work. Later
//! it is caused by the application, such as a DROP or a rename: it is logged once until it changes,
//! and the stream continues.

use std::sync::PoisonError;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::Bridge;
use crate::config::{Operation, Resolved, SignalTable, toml_text};
use crate::postgres;
use crate::postgres::preflight::{self, Shortfall};
use crate::postgres::publication::manage::{self, Look};
use crate::postgres::publication::{Names, TableName, streamed};
use crate::postgres::signal_table::{self, SignalFacts};
use crate::snapshot::signal_row::{COLUMNS, Places};

/// What a check found about the signal table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Why its rows can't be signals.
    pub(super) shortfalls: Vec<Shortfall>,
    /// If every role may send signals, the statement that revokes it.
    open: Option<(String, String)>,
}

/// Checks the signal table, if one is configured.
///
/// # Errors
/// When the server can't be queried.
pub(super) async fn look(
    client: &Client,
    settings: &Resolved,
    look: &Look,
) -> Result<Found, postgres::Error> {
    let mut found = Found::default();
    let Some(SignalTable { schema, name, .. }) = &settings.signal_table else { return Ok(found) };
    let table = TableName { schema: schema.clone(), name: name.clone() };
    let facts = signal_table::look(client, &table).await?;
    let Some(facts) = facts else {
        let fix = create(client, settings, look, &table).await?;
        let cause = format!("the table {table}, which postgres.signal_table names, does not exist");
        found.shortfalls.push(Shortfall { cause, fix });
        return Ok(found);
    };
    if facts.is_open {
        let sql = format!("REVOKE INSERT ON {} FROM PUBLIC;", table.sql());
        found.open = Some((table.to_string(), sql));
    }
    found.shortfalls.extend(unfit(&table, &facts));
    if found.shortfalls.is_empty() {
        found.shortfalls.extend(unpublished(client, settings, look, &table).await?);
    }
    Ok(found)
}

impl Bridge {
    /// Logs what is new about the signal table.
    pub(super) fn note_signal_table(&self, found: Found) {
        let mut noted = self.signals_found.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *noted, found.clone());
        drop(noted);
        if let Some((table, fix)) = found.open.filter(|_| before.open.is_none()) {
            tracing::warn!(
                table,
                fix,
                "every role may write to the signal table, and so request, pause and stop \
                 snapshots"
            );
        }
        for Shortfall { cause, fix } in &found.shortfalls {
            if before.shortfalls.iter().all(|other| other.cause != *cause) {
                tracing::error!(cause, fix, "rows of the signal table are ignored");
            }
        }
    }
}

/// The statements that create the table so that it can be published at once.
async fn create(
    client: &Client,
    settings: &Resolved,
    look: &Look,
    table: &TableName,
) -> Result<String, postgres::Error> {
    let (schema, sql) = (escape_identifier(&table.schema), table.sql());
    let publish = match &look.survey.main {
        _ if manage::may_alter(settings, &look.survey) => {
            let role = escape_identifier(&preflight::role(client).await?.name);
            format!("ALTER TABLE {sql} OWNER TO {role};")
        }
        Some(main) if main.is_by_table => {
            let publication = escape_identifier(&settings.publication);
            format!("ALTER PUBLICATION {publication} ADD TABLE ONLY {sql};")
        }
        _ => String::new(),
    };
    Ok(format!(
        "-- or set postgres.signal_table to its new name, if it was renamed\n\
         CREATE SCHEMA IF NOT EXISTS {schema};\n\
         CREATE TABLE {sql} (id text PRIMARY KEY, type text NOT NULL, data text);\n{publish}"
    ))
}

/// What is wrong with the table itself.
fn unfit(table: &TableName, facts: &SignalFacts) -> Option<Shortfall> {
    let sql = table.sql();
    let of_its_own = || {
        let other = TableName { schema: table.schema.clone(), name: "rowcast_signals".to_owned() };
        format!(
            "-- then set postgres.signal_table = {}\n\
             CREATE TABLE {} (id text PRIMARY KEY, type text NOT NULL, data text);",
            toml_text(&other.to_string()),
            other.sql()
        )
    };
    let (cause, fix) = match facts.kind.as_str() {
        "p" => ("is partitioned", of_its_own()),
        "r" if facts.is_partition => ("is a partition", of_its_own()),
        "r" if facts.inherits => ("inherits from another table, or another from it", of_its_own()),
        "r" if facts.persistence != "p" => {
            ("is unlogged, so its rows are in no WAL", format!("ALTER TABLE {sql} SET LOGGED;"))
        }
        "r" => return wrong_columns(table, facts, of_its_own),
        _ => ("is not a table", "set postgres.signal_table to a table".to_owned()),
    };
    Some(Shortfall { cause: format!("{table}, which postgres.signal_table names, {cause}"), fix })
}

fn wrong_columns(
    table: &TableName,
    facts: &SignalFacts,
    of_its_own: impl FnOnce() -> String,
) -> Option<Shortfall> {
    let names = || facts.columns.iter().map(|(name, _)| name.as_str());
    let cause = match Places::of(names()) {
        None => {
            let names: Vec<&str> = names().collect();
            format!("has the columns {}, not {}", names.join(", "), COLUMNS.join(", "))
        }
        Some(places) => {
            let mut columns = places.all().into_iter().filter_map(|at| facts.columns.get(at));
            let (name, _) = columns.find(|(_, is_text)| !is_text)?;
            format!("has a column {name} that is not text")
        }
    };
    let cause = format!("{table}, which postgres.signal_table names, {cause}");
    Some(Shortfall { cause, fix: of_its_own() })
}

/// Whether the table will not be published, so that none of its rows ever arrives.
async fn unpublished(
    client: &Client,
    settings: &Resolved,
    look: &Look,
    table: &TableName,
) -> Result<Option<Shortfall>, postgres::Error> {
    let names = Names::of(settings);
    let may_alter = manage::may_alter(settings, &look.survey);
    let (main, inserts) = (&look.plan.main, &look.plan.inserts);
    let mut added = main.add.iter().chain(&inserts.add);
    if may_alter && added.any(|added| added.table == *table) {
        return Ok(None);
    }
    let publication = escape_identifier(names.main);
    let is_published = streamed::is_published(client, names, table, look.version).await?;
    let cannot = |cause: String, fix: String| Ok(Some(Shortfall { cause, fix }));
    if !is_published {
        let limited = look.plan.left_out.iter().find(|limited| limited.table == *table);
        if let Some(limited) = limited.filter(|_| may_alter) {
            let fix = limited.fix.clone();
            return cannot(format!("the signal table {limited}"), fix);
        }
        return cannot(
            format!("the publication {:?} does not have the signal table {table}", names.main),
            format!("ALTER PUBLICATION {publication} ADD TABLE ONLY {};", table.sql()),
        );
    }
    if let Some(main) = look.survey.main.as_ref().filter(|_| !may_alter)
        && !main.operations.contains(&Operation::Insert)
    {
        return cannot(
            format!(
                "the publication {:?} does not publish inserts, and signals are inserts",
                names.main
            ),
            format!("ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete');"),
        );
    }
    Ok(None)
}
