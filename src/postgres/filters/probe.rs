//! Has the server interpret row filters, and caches the results.
//!
//! This uses a check constraint on a temporary table, in a transaction that is rolled back. That
//! takes a transaction ID, writes WAL, locks the table for reading and runs the application's event
//! triggers. So it is only done when all that is published is determined; more frequent checks use
//! the last result as long as the table has the same columns.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Client;

use crate::postgres::publication::{Candidate, LONG_PATIENCE, PATIENCE, TableName, lock_is_taken};
use crate::postgres::{Error, search_path};

const PROBE: &str = include_str!("../../../sql/row_filter_probe.sql");

/// The server's interpretation of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    /// As the server writes it.
    pub(super) condition: String,
    /// The columns that it uses.
    pub(super) columns: Vec<String>,
}

/// Why a condition is refused, with the server's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not a valid condition on this table.
    Condition(String),
    /// The role lacks the permission to check it.
    Rights(String),
}

/// The interpretation, or why it is refused.
type Meaning = Result<Probed, Refused>;

/// Which tables' conditions to check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Asked {
    /// All of them; one that can't be checked, such as that of a locked table, is an error.
    #[default]
    All,
    /// All of them; one that can't be checked is unknown.
    Unlocked,
    /// Those of these tables; one that can't be checked is an error.
    Of(Vec<TableName>),
    /// None: those that were not checked before are unknown.
    Nothing,
}

/// The server's interpretations of the tables' conditions.
#[derive(Debug, Default)]
pub struct Probes {
    asked: Asked,
    /// By the table's OID.
    known: BTreeMap<u32, Known>,
    /// What was logged about tables that could not be checked.
    unanswered: BTreeMap<u32, String>,
}

#[derive(Debug)]
struct Known {
    condition: String,
    /// The table's columns at that time.
    columns: Vec<String>,
    meaning: Meaning,
}

impl Probes {
    /// Without results yet.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Sets which conditions are checked from now on. If all, known results are forgotten.
    pub fn ask(&mut self, asked: Asked) {
        if matches!(asked, Asked::All | Asked::Unlocked) {
            self.known.clear();
        }
        self.asked = asked;
    }

    /// The server's interpretation of a condition on a table with these columns; `None` if unknown.
    pub(super) async fn meaning(
        &mut self,
        client: &Client,
        candidate: &Candidate,
        columns: &[String],
        condition: &str,
    ) -> Result<Option<Meaning>, Error> {
        let is_asked = match &self.asked {
            Asked::All | Asked::Unlocked => true,
            Asked::Of(tables) => tables.contains(&candidate.table),
            Asked::Nothing => false,
        };
        if !is_asked {
            let known = self.known.get(&candidate.oid);
            let same = known.filter(|k| k.condition == condition && k.columns == columns);
            return Ok(same.map(|known| known.meaning.clone()));
        }
        let is_look = self.asked == Asked::Unlocked;
        let patience = if is_look { PATIENCE } else { LONG_PATIENCE };
        let meaning = match probe(client, &candidate.table, condition, patience).await {
            Ok(meaning) => meaning,
            // Without a code, the connection failed.
            Err(error) if is_look && error.sqlstate().is_some() => {
                self.note_unanswered(candidate, &error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.unanswered.remove(&candidate.oid);
        let (condition, columns) = (condition.to_owned(), columns.to_vec());
        let known = Known { condition, columns, meaning: meaning.clone() };
        self.known.insert(candidate.oid, known);
        Ok(Some(meaning))
    }

    /// Logs that a table's condition could not be checked, once for each reason. A lock is
    /// temporary.
    fn note_unanswered(&mut self, candidate: &Candidate, error: &Error) {
        let Error::Sql { source, .. } = error else { return };
        let Some(answer) = source.as_db_error() else { return };
        let told = answer.message().to_owned();
        if lock_is_taken(error) || self.unanswered.get(&candidate.oid) == Some(&told) {
            return;
        }
        tracing::warn!(
            table = %candidate.table,
            error = told,
            "the row filter could not be checked: the table remains published as it is, and the \
             check is repeated"
        );
        self.unanswered.insert(candidate.oid, told);
    }
}

/// Whether an error is caused by the condition, and so the same each time: syntax, names and types
/// (42), what no constraint may have (0A), constants that are not values of their type (22), and
/// one that is too deep (54). Other errors (a lock, memory, a cancelled query, an event trigger of
/// the application) say nothing about it.
fn is_about_condition(sqlstate: &str) -> bool {
    ["42", "0A", "22", "54"].iter().any(|class| sqlstate.starts_with(class))
}

/// Has the server interpret a condition on a table; returns its error text if it refuses. Waits for
/// a lock no longer than `patience`.
async fn probe(
    client: &Client,
    table: &TableName,
    condition: &str,
    patience: Duration,
) -> Result<Meaning, Error> {
    let copied = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; CREATE TEMPORARY TABLE rowcast_probe (LIKE {}); {}",
        patience.as_millis(),
        table.sql(),
        search_path::OWN,
    );
    // The line break ends a comment that the condition may end with.
    let constrained = format!(
        "ALTER TABLE pg_temp.rowcast_probe ADD CONSTRAINT rowcast_probe CHECK ({condition}\n); {}",
        search_path::SAFE
    );
    let failed = |source| Error::Sql { doing: "check a row filter", source };
    let answer = match client.batch_execute(&copied).await.map_err(failed) {
        Ok(()) => match client.batch_execute(&constrained).await.map_err(failed) {
            Ok(()) => client.query_one(PROBE, &[]).await.map(Ok).map_err(failed),
            Err(error) => refused(error, is_about_condition, Refused::Condition),
        },
        // For a table that was dropped meanwhile this is not a refusal.
        Err(error) => refused(error, |code| code == "42501", Refused::Rights),
    };
    let undone = client.batch_execute("ROLLBACK").await;
    let row = answer?;
    undone.map_err(failed)?;
    Ok(row.map(|row| Probed { condition: row.get(0), columns: row.get(1) }))
}

/// The server's text if its code means a refusal, else the error.
fn refused<T>(
    error: Error,
    is_refusal: impl Fn(&str) -> bool,
    kind: fn(String) -> Refused,
) -> Result<Result<T, Refused>, Error> {
    let Error::Sql { source, .. } = &error else { return Err(error) };
    match source.as_db_error() {
        Some(answer) if is_refusal(answer.code().code()) => {
            Ok(Err(kind(answer.message().to_owned())))
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_condition_refuses_it() {
        // undefined_column, feature_not_supported, invalid_text_representation, statement_too_complex
        for code in
            ["42703", "42601", "42883", "42804", "42501", "0A000", "22P02", "22012", "54001"]
        {
            assert!(is_about_condition(code), "{code}");
        }
        // lock_not_available, query_canceled, admin_shutdown, out_of_memory, raise_exception, internal
        for code in ["55P03", "40P01", "57014", "57P01", "53200", "P0001", "XX000", "25006", ""] {
            assert!(!is_about_condition(code), "{code}");
        }
    }
}
