//! What the server makes of row filters, and when it is asked.
//!
//! The server is asked by a check constraint on a temporary table, in a transaction that is rolled back.
//! That takes a transaction ID, writes WAL, locks the table for reading and runs the event triggers of
//! the application. So it is asked when what is published is settled as a whole; who looks more often
//! uses the last answer, for as long as the table has the same columns.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Client;

use crate::postgres::publication::{Candidate, PATIENCE, TableName, lock_is_taken};
use crate::postgres::{Error, search_path};

const PROBE: &str = include_str!("../../../sql/row_filter_probe.sql");

/// What the server makes of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    /// As the server writes it.
    pub(super) condition: String,
    /// The columns that it looks at.
    pub(super) columns: Vec<String>,
}

/// The same, or the server's own words where it refuses the condition.
type Meaning = Result<Probed, String>;

/// Which tables' conditions the server is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Asked {
    /// All of them; a table that somebody has locked is an error.
    #[default]
    All,
    /// All of them; of a table that somebody has locked nothing is known.
    Unlocked,
    /// Those of these tables; one that somebody has locked is an error.
    Of(Vec<TableName>),
    /// None: of those that were not asked about before, nothing is known.
    Nothing,
}

/// What the server makes of the conditions of tables.
#[derive(Debug, Default)]
pub struct Probes {
    asked: Asked,
    /// By the table's OID.
    known: BTreeMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    condition: String,
    /// The table's columns at that time.
    columns: Vec<String>,
    meaning: Meaning,
}

impl Probes {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self { asked, ..Self::default() }
    }

    /// From now on the server is asked about these. What is known is forgotten where all are.
    pub fn ask(&mut self, asked: Asked) {
        if matches!(asked, Asked::All | Asked::Unlocked) {
            self.known.clear();
        }
        self.asked = asked;
    }

    /// What the server makes of a condition on a table with these columns; none if that is not known.
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
        let patience = (self.asked == Asked::Unlocked).then_some(PATIENCE);
        let meaning = match probe(client, &candidate.table, condition, patience).await {
            Ok(meaning) => meaning,
            Err(error) if self.asked == Asked::Unlocked && lock_is_taken(&error) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (condition, columns) = (condition.to_owned(), columns.to_vec());
        let known = Known { condition, columns, meaning: meaning.clone() };
        self.known.insert(candidate.oid, known);
        Ok(Some(meaning))
    }
}

/// Asks the server what it makes of a condition on a table; its own words where it refuses it. A lock
/// that somebody has is waited for no longer than `patience`, or as long as it takes.
async fn probe(
    client: &Client,
    table: &TableName,
    condition: &str,
    patience: Option<Duration>,
) -> Result<Meaning, Error> {
    let limit = patience.map_or_else(String::new, |patience| {
        format!("SET LOCAL lock_timeout = {}; ", patience.as_millis())
    });
    // The line break ends a comment that the condition may end with.
    let statements = format!(
        "BEGIN; {limit}CREATE TEMPORARY TABLE rowcast_probe (LIKE {}); {}; \
         ALTER TABLE pg_temp.rowcast_probe ADD CONSTRAINT rowcast_probe CHECK ({condition}\n); {}",
        table.sql(),
        search_path::OWN,
        search_path::SAFE
    );
    let failed = |source| Error::Sql { doing: "ask what a row filter means", source };
    let made = client.batch_execute(&statements).await.map_err(failed);
    let row = match made {
        Ok(()) => client.query_one(PROBE, &[]).await.map(Ok).map_err(failed),
        // Whoever has the lock gives it back: that says nothing of the condition.
        Err(error) if lock_is_taken(&error) => Err(error),
        Err(Error::Sql { source, doing }) => match source.as_db_error() {
            Some(refusal) => Ok(Err(refusal.message().to_owned())),
            None => Err(Error::Sql { source, doing }),
        },
        Err(error) => Err(error),
    };
    let undone = client.batch_execute("ROLLBACK").await;
    let row = row?;
    undone.map_err(failed)?;
    Ok(row.map(|row| Probed { condition: row.get(0), columns: row.get(1) }))
}
