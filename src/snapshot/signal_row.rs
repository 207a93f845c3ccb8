//! Parses a row of the signal table: `id`, `type` and `data`, as in Debezium.
//!
//! ```sql
//! INSERT INTO rowcast.signals (id, type, data) VALUES
//!     ('adhoc-1', 'execute-snapshot', '{"data-collections": ["public.trips"]}'),
//!     ('adhoc-2', 'snapshot', '{"tables": ["public.*"]}'),
//!     ('adhoc-3', 'stop', '{"id": "adhoc-2"}');
//! ```
//!
//! `id` is the ID of a snapshot request. For every other signal it only identifies the row, so the
//! target of `pause`, `resume` and `stop` is in `data`. `"pipeline"` in `data` names one of several
//! pipelines that read the same table.
//!
//! Every role that may insert a row may send a signal, so the table's grants decide. The cost of a
//! row is bounded before it is parsed.

use serde_json::{Map, Value};

use super::bounds::{MAX_BYTES, SignalError};
use super::signal::Signal;
use super::signals::Signals;

/// The columns, in the order of Debezium's table.
pub const COLUMNS: [&str; 3] = ["id", "type", "data"];

/// Rows that Debezium itself writes into the table while it takes a snapshot.
const WINDOWS: [&str; 2] = ["snapshot-window-open", "snapshot-window-close"];

/// The positions of the three columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places([usize; 3]);

/// A row, with text as it was sent; `None` for null.
#[derive(Debug, Clone, Copy)]
pub struct SignalRow<'a>([Option<&'a [u8]>; 3]);

impl Places {
    /// Finds the columns by their names or, as Debezium does, by their order if there are three.
    #[must_use]
    pub fn of<'a>(columns: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let place = |name: &str| columns.clone().position(|column| column == name);
        match COLUMNS.map(place) {
            [Some(id), Some(kind), Some(data)] => Some(Self([id, kind, data])),
            _ => (columns.count() == COLUMNS.len()).then_some(Self([0, 1, 2])),
        }
    }

    /// The positions of `id`, `type` and `data`.
    #[must_use]
    pub const fn all(self) -> [usize; 3] {
        self.0
    }
}

impl<'a> SignalRow<'a> {
    /// The values of `id`, `type` and `data`.
    #[must_use]
    pub const fn new(values: [Option<&'a [u8]>; 3]) -> Self {
        Self(values)
    }
}

impl Signals {
    /// Parses a row of the signal table. `name` is the ID of a request without one. `None` if the
    /// row is not for this pipeline, or not for rowcast.
    ///
    /// # Errors
    /// When it is invalid, or has a condition that is not allowed.
    pub fn read_row(&self, row: &SignalRow<'_>, name: &str) -> Result<Option<Signal>, SignalError> {
        let bytes = row.0.iter().flatten().map(|value| value.len()).sum();
        if bytes > MAX_BYTES {
            return Err(SignalError::TooLong { bytes });
        }
        let [id, kind, data] = row.0;
        let (id, kind, data) = (text(id)?, text(kind)?, text(data)?);
        if WINDOWS.contains(&kind) {
            return Ok(None);
        }
        let mut data: Map<String, Value> = match data {
            "" => Map::new(),
            data => serde_json::from_str(data)?,
        };
        if data.remove("pipeline").is_some_and(|named| named != self.pipeline.as_str()) {
            return Ok(None);
        }
        let content = serde_json::to_vec(&content(id, kind, data))?;
        self.read(&content, name).map(Some)
    }
}

/// A value's text; the empty one for null.
fn text(value: Option<&[u8]>) -> Result<&str, SignalError> {
    let text = std::str::from_utf8(value.unwrap_or_default()).map_err(|_| SignalError::NotText)?;
    Ok(text.trim())
}

/// The row in the form of a message.
fn content(id: &str, kind: &str, mut data: Map<String, Value>) -> Value {
    let kind = Value::from(kind);
    match kind.as_str() {
        Some("snapshot") => {
            data.entry("id").or_insert_with(|| Value::from(id));
        }
        Some("pause" | "resume" | "stop") => {}
        _ => {
            let id = ("id".to_owned(), Value::from(id));
            data = Map::from_iter([id, ("data".to_owned(), Value::from(data))]);
        }
    }
    data.insert("type".to_owned(), kind);
    Value::from(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::control::Action;

    fn read(values: [&str; 3]) -> Result<Option<Signal>, SignalError> {
        let signals = Signals { pipeline: "taxi".to_owned(), ..Signals::default() };
        let values = values.map(|value| (value != "NULL").then_some(value.as_bytes()));
        signals.read_row(&SignalRow::new(values), "given")
    }

    fn taken(values: [&str; 3]) -> Vec<(String, Vec<String>)> {
        match read(values) {
            Ok(Some(Signal::Take(requests))) => {
                requests.into_iter().map(|request| (request.id, request.tables)).collect()
            }
            other => panic!("{values:?}: {other:?}"),
        }
    }

    #[test]
    fn columns_are_found_by_name_or_by_their_order() {
        let places = |names: &[&str]| Places::of(names.iter().copied()).map(Places::all);
        assert_eq!(places(&["id", "type", "data"]), Some([0, 1, 2]));
        assert_eq!(places(&["at", "data", "type", "id"]), Some([3, 2, 1]));
        assert_eq!(places(&["a", "b", "c"]), Some([0, 1, 2]));
        for wrong in [&["id", "type"][..], &["id", "type", "payload", "at"], &[]] {
            assert_eq!(places(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn debeziums_rows_and_our_own_are_signals() {
        let tables = vec!["public.a".to_owned(), "public.b".to_owned()];
        let data = r#"{"data-collections":["public.a","public.b"],"type":"incremental"}"#;
        let of = |id: &str| vec![(id.to_owned(), tables.clone())];
        assert_eq!(taken(["ad-hoc-1", "execute-snapshot", data]), of("ad-hoc-1"));
        assert_eq!(taken(["NULL", "execute-snapshot ", data]), of("given"));
        let data = r#"{"tables":["public.a","public.b"]}"#;
        assert_eq!(taken(["mine", "snapshot", data]), of("mine"));
        let data = r#"{"tables":["public.a","public.b"],"id":"own","pipeline":"taxi"}"#;
        assert_eq!(taken(["row", "snapshot", data]), of("own"));
        let data = r#"{"tables":["public.a","public.b"]}"#;
        for none in ["NULL", "", " "] {
            assert_eq!(taken([none, "snapshot", data]), of("given"), "{none:?}");
        }
        for (kind, action) in
            [("pause", Action::Pause), ("resume", Action::Resume), ("stop", Action::Stop)]
        {
            let all = Some(Signal::Change { action, id: None });
            let debezium = format!("{kind}-snapshot");
            for kind in [kind, &debezium] {
                assert_eq!(read(["row", kind, "NULL"]).unwrap(), all, "{kind}");
                assert_eq!(read(["row", kind, "{}"]).unwrap(), all, "{kind}");
            }
            let one = Some(Signal::Change { action, id: Some("7".to_owned()) });
            assert_eq!(read(["row", kind, r#"{"id":"7"}"#]).unwrap(), one, "{kind}");
        }
    }

    #[test]
    fn what_is_for_another_or_for_debezium_alone_is_nothing() {
        let other = r#"{"tables":["public.a"],"pipeline":"other"}"#;
        for row in [
            ["1", "snapshot", other],
            ["1", "stop", r#"{"pipeline":7}"#],
            ["1-open", "snapshot-window-open", r#"{"openWindowTimestamp":"now"}"#],
            ["1-close", "snapshot-window-close", "NULL"],
        ] {
            assert_eq!(read(row).unwrap(), None, "{row:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_reported_without_a_value_of_the_row() {
        let names: Vec<String> = (0..1_001).map(|n| format!("hunter2.t{n}")).collect();
        let many = serde_json::json!({ "tables": names }).to_string();
        let long = "hunter2".repeat(10_000);
        let where_ = r#"{"tables":["public.a"],"where":"pw = 'hunter2'"}"#;
        for (row, reported) in [
            (["1", "hunter2", "{}"], "unknown"),
            (["1", "NULL", "NULL"], "unknown"),
            (["1", "snapshot", "hunter2"], "JSON"),
            (["1", "snapshot", "[\"hunter2\"]"], "JSON"),
            (["1", "snapshot", r#"{"hunter2":1}"#], "JSON"),
            (["1", "snapshot", r#"{"tables":"hunter2"}"#], "JSON"),
            (["1", "snapshot", r#"{"tables":["hunter2"]}"#], "schema.table"),
            (["1", "snapshot", r#"{"tables":["hunter2.[x"]}"#], "schema.table"),
            (["1", "snapshot", r#"{"tables":[]}"#], "no table is named"),
            (["1", "snapshot", &many], "the maximum is"),
            (["1", "snapshot", &long], "the maximum is"),
            (["1", "snapshot", where_], "postgres.signal_conditions"),
            (["1", "execute-snapshot", r#"{"data-collections":["hunter2.(?=x)"]}"#], "regular"),
            (
                [
                    "1",
                    "execute-snapshot",
                    r#"{"data-collections":["public.a"],
                    "additional-conditions":[{"data-collection":"hunter2","filter":"x"}]}"#,
                ],
                "data-collections",
            ),
            (
                ["1", "execute-snapshot", r#"{"data-collections":["public.a"],"type":"hunter2"}"#],
                "incremental",
            ),
        ] {
            let error = read(row).expect_err(row[2]).without_values();
            assert!(error.contains(reported), "{row:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
