//! Signals as they come by in the stream: messages with the token, and new rows of the signal table.
//!
//! What asks for snapshots is noted with the end of its transaction, so that it can't be lost before
//! its tables are. A signal that can't be carried out is counted and logged, and ends nothing. Of a
//! message from a stranger nothing is repeated, and of a row no value; both are logged now and then
//! alone, for anybody who may write one can write any number of them.

use std::time::{Duration, Instant};

use super::orders::Edit;
use super::watermark::SIGNAL_PREFIX;
use crate::change::{Change, Data, Position, Relation};
use crate::metrics::Metrics;
use crate::pgoutput::Datum;
use crate::snapshot::signal_row::{Places, SignalRow};
use crate::snapshot::{Admitted, Control, Full, Signal, Signals};

/// Shortest time between two log lines about messages that do not count.
const STRANGERS: Duration = Duration::from_secs(60);
/// Shortest time between two log lines about rows that are no signals.
const ROWS: Duration = Duration::from_secs(1);

/// Who may give signals, and what was logged of those who may not.
#[derive(Debug, Default)]
pub(crate) struct Signaling {
    rules: Signals,
    strangers: Limit,
    rows: Limit,
    /// The signal table, once the stream has described it.
    table: Option<(u32, Places)>,
}

/// Lets one through, now and then.
#[derive(Debug, Default)]
struct Limit(Option<Instant>);

impl Limit {
    fn passes(&mut self, every: Duration) -> bool {
        let passes = self.0.is_none_or(|before| before.elapsed() >= every);
        if passes {
            self.0 = Some(Instant::now());
        }
        passes
    }
}

impl Signaling {
    pub(crate) fn new(rules: Signals) -> Self {
        Self { rules, ..Self::default() }
    }

    /// A table is described: is it the signal table?
    pub(crate) fn described(&mut self, relation: &Relation) {
        let Relation { oid, schema, table, .. } = relation;
        if self.table.is_some_and(|(known, _)| known == *oid) {
            self.table = None;
        }
        if !self.rules.table.as_ref().is_some_and(|of| of.is(schema, table)) {
            return;
        }
        match Places::of(relation.columns.iter().map(|column| column.name.as_str())) {
            Some(places) => self.table = Some((*oid, places)),
            None => tracing::error!(
                table = relation.full_name,
                fix = "give it the columns id, type and data, of text",
                "rows of the signal table are no signals: it has other columns"
            ),
        }
    }

    /// The places of the row's values, where a change is a new row of the signal table.
    #[inline]
    pub(crate) fn places(&self, change: &Change<'_>) -> Option<Places> {
        let (oid, places) = self.table?;
        matches!(change.data, Data::Insert { relation, .. } if relation.oid == oid)
            .then_some(places)
    }

    /// Carries out a row of the signal table; returns what is to be noted with its transaction.
    pub(crate) fn row(
        &mut self,
        (change, places): (&Change<'_>, Places),
        control: &Control,
        metrics: &Metrics,
    ) -> Vec<Edit> {
        let Data::Insert { relation, after } = change.data else { return Vec::new() };
        let values = places.all().map(|at| match after.datum(relation, at) {
            Datum::Text(text) => Some(text),
            Datum::Null | Datum::Unchanged | Datum::Binary(_) => None,
        });
        let position = change.position;
        let cause = match self.rules.read_row(&SignalRow::new(values), &name(position)) {
            Ok(None) => return Vec::new(),
            Ok(Some(signal)) => match carry_out(signal, control) {
                Ok(edits) => return edits,
                Err(full) => full.to_string(),
            },
            Err(error) => error.without_values(),
        };
        metrics.signals_refused.inc();
        if self.rows.passes(ROWS) {
            let commit_lsn = position.commit_lsn;
            tracing::error!(%commit_lsn, cause, "a row of the signal table is no signal");
        }
        Vec::new()
    }

    /// Carries out a message that is to be a signal; returns what is to be noted with its
    /// transaction.
    pub(crate) fn message(
        &mut self,
        (position, content): (Position, &[u8]),
        control: &Control,
        metrics: &Metrics,
    ) -> Vec<Edit> {
        let admitted = self.rules.admit(content);
        if admitted != Admitted::Yes {
            self.note_stranger(admitted, metrics);
            return Vec::new();
        }
        let (error, what) = match self.rules.read(content, &name(position)) {
            Ok(signal) => match carry_out(signal, control) {
                Ok(edits) => return edits,
                Err(full) => (full.to_string(), "a signal is refused"),
            },
            Err(error) => (error.to_string(), "a signal that says nothing"),
        };
        metrics.signals_refused.inc();
        tracing::error!(%error, prefix = SIGNAL_PREFIX, "{what}");
        Vec::new()
    }

    fn note_stranger(&mut self, admitted: Admitted, metrics: &Metrics) {
        let (reason, fix) = match admitted {
            Admitted::Yes | Admitted::Another => return,
            Admitted::Off => (
                "messages are no signals here",
                "set postgres.signal_token_file, and send the token; or ask over HTTP",
            ),
            Admitted::Stranger => (
                "it does not bring the token of postgres.signal_token_file",
                "send {\"type\": ..., \"token\": \"...\"}",
            ),
            Admitted::TooLong => ("it is too long", "name fewer tables, or use a glob"),
        };
        metrics.signals_refused.inc();
        if self.strangers.passes(STRANGERS) {
            tracing::warn!(reason, fix, prefix = SIGNAL_PREFIX, "a signal does not count");
        }
    }
}

/// Leaves a signal for whoever takes snapshots; returns the note of what it asks for.
fn carry_out(signal: Signal, control: &Control) -> Result<Vec<Edit>, Full> {
    let edits = match &signal {
        Signal::Take(requests) => requests.iter().cloned().map(Edit::Ask).collect(),
        Signal::Change { .. } | Signal::StopTables(_) => Vec::new(),
    };
    control.obey(signal)?;
    Ok(edits)
}

/// The ID of a request that has none: the same whenever it comes by.
fn name(position: Position) -> String {
    format!("{}-{}", position.commit_lsn, position.ordinal).replace('/', "-")
}
