//! Handles signals in the stream: messages with the token, and new rows of the signal table.
//!
//! A snapshot request is noted with the end of its transaction, so that it can't be lost before its
//! tables are noted. An invalid signal is counted and logged, and does not end the stream. No text
//! of an unauthorised message is logged, and no value of a row; the number of log lines is limited,
//! because their authors can write any number of them.

use std::time::{Duration, Instant};

use super::orders::Edit;
use super::watermark::SIGNAL_PREFIX;
use crate::change::{Change, Data, Position, Relation};
use crate::metrics::Metrics;
use crate::pgoutput::Datum;
use crate::snapshot::signal_row::{Places, SignalRow};
use crate::snapshot::{Admitted, Control, Full, Signal, Signals};

/// Shortest time between two log lines about unauthorised messages.
const STRANGERS: Duration = Duration::from_secs(60);
/// Shortest time between two log lines about invalid rows.
const ROWS: Duration = Duration::from_secs(1);

/// Which signals are accepted, and when rejected ones were last logged.
#[derive(Debug, Default)]
pub(crate) struct Signaling {
    rules: Signals,
    strangers: Limit,
    rows: Limit,
    /// The signal table, once the stream has described it.
    table: Option<(u32, Places)>,
}

/// Limits the rate of log lines.
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

    /// A table is described: checks whether it is the signal table.
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
                fix = "it needs the columns id, type and data, of type text",
                "rows of the signal table are ignored: it has other columns"
            ),
        }
    }

    /// The positions of the row's values, if a change is a new row of the signal table.
    #[inline]
    pub(crate) fn places(&self, change: &Change<'_>) -> Option<Places> {
        let (oid, places) = self.table?;
        matches!(change.data, Data::Insert { relation, .. } if relation.oid == oid)
            .then_some(places)
    }

    /// Carries out a row of the signal table; returns what to note with its transaction.
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
            tracing::error!(%commit_lsn, cause, "ignoring an invalid row of the signal table");
        }
        Vec::new()
    }

    /// Carries out a signal message; returns what to note with its transaction.
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
                Err(full) => (full.to_string(), "signal refused"),
            },
            Err(error) => (error.to_string(), "ignoring invalid signal"),
        };
        metrics.signals_refused.inc();
        tracing::error!(%error, prefix = SIGNAL_PREFIX, "{what}");
        Vec::new()
    }

    fn note_stranger(&mut self, admitted: Admitted, metrics: &Metrics) {
        let (reason, fix) = match admitted {
            Admitted::Yes | Admitted::Another => return,
            Admitted::Off => (
                "signals by message are not enabled",
                "set postgres.signal_token_file, and send the token; or use HTTP",
            ),
            Admitted::Stranger => (
                "it does not have the token of postgres.signal_token_file",
                "send {\"type\": ..., \"token\": \"...\"}",
            ),
            Admitted::TooLong => ("it is too long", "name fewer tables, or use a glob"),
        };
        metrics.signals_refused.inc();
        if self.strangers.passes(STRANGERS) {
            tracing::warn!(reason, fix, prefix = SIGNAL_PREFIX, "ignoring a signal");
        }
    }
}

/// Stores a signal for the coordinator; returns the note of its request.
fn carry_out(signal: Signal, control: &Control) -> Result<Vec<Edit>, Full> {
    let edits = match &signal {
        Signal::Take(requests) => requests.iter().cloned().map(Edit::Ask).collect(),
        Signal::Change { .. } | Signal::StopTables(_) => Vec::new(),
    };
    control.obey(signal)?;
    Ok(edits)
}

/// The ID of a request without one: the same each time it is streamed.
fn name(position: Position) -> String {
    format!("{}-{}", position.commit_lsn, position.ordinal).replace('/', "-")
}
