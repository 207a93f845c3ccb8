//! Parses requests: the content of a logical message in the stream, or an HTTP body.
//!
//! ```json
//! {"type": "snapshot", "tables": ["public.trips"], "where": "fare > 100"}
//! {"type": "pause", "id": "..."}
//! ```
//!
//! `pause`, `resume` and `stop` without an ID apply to all. Debezium's signals are supported too,
//! so that existing senders need not change: `execute-snapshot`, `pause-snapshot`,
//! `resume-snapshot`, `stop-snapshot`. Unsupported parts of them are refused with an error, never
//! ignored.
//!
//! Every role of the database can write a logical message, and a message does not name its author.
//! So a message counts only if signals are configured ([`Signals`](super::Signals)): it must have a
//! token, and otherwise only the token is read. Everything is bounded in size and number before it
//! is processed.
//!
//! Not here: whether the table exists, and whether the server accepts the condition.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::{MAX_GLOBS, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_NAMES, SignalError};
use super::control::{Action, Command, Control, Full, Request};
use super::names::{TableNames, compared, is_pattern, of_debezium};
use crate::checkpoint::SnapshotReason;
use crate::config::condition;

/// A parsed signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Snapshots, one for each condition.
    Take(Vec<Request>),
    /// Stop the snapshots of these tables.
    StopTables(Vec<String>),
    /// An action on requested snapshots.
    Change {
        /// The action.
        action: Action,
        /// The request; `None` for all.
        id: Option<String>,
    },
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    data: Value,
}

/// A request with all its possible fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Take {
    #[serde(rename = "type")]
    _kind: String,
    #[serde(default, rename = "id")]
    _id: Option<String>,
    #[serde(default, rename = "token")]
    _token: Option<String>,
    #[serde(default, rename = "pipeline")]
    _pipeline: Option<String>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default, rename = "where")]
    condition: Option<String>,
}

/// The requested rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The tables, as `schema.table` or globs of it.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Only rows for which this SQL condition holds.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Debezium {
    data_collections: Vec<String>,
    r#type: Option<String>,
    additional_conditions: Vec<AdditionalCondition>,
    /// Debezium's form before 2.3.
    additional_condition: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AdditionalCondition {
    data_collection: String,
    filter: String,
}

impl Asked {
    /// Checks what can be checked without the server.
    ///
    /// # Errors
    /// When no table is named, a name or the condition is invalid, or a bound is exceeded.
    pub fn check(&self) -> Result<TableNames, SignalError> {
        if let Some(condition) = &self.condition {
            condition::check(condition)?;
        }
        TableNames::parse(&self.tables)
    }
}

impl Signal {
    /// Parses a logical message's content. `name` is the ID of a request without one.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn read(content: &[u8], name: &str) -> Result<Self, SignalError> {
        let Typed { kind, id, data } = serde_json::from_slice(content)?;
        let id = id.filter(|id| !id.trim().is_empty());
        if let Some(long) = id.as_ref().filter(|id| id.len() > MAX_ID_BYTES) {
            return Err(SignalError::LongId { bytes: long.len() });
        }
        let change = |action, id| Ok(Self::Change { action, id });
        match kind.as_str() {
            "snapshot" => {
                let Take { tables, condition, .. } = serde_json::from_slice(content)?;
                let asked = Asked { tables, condition };
                asked.check()?;
                let id = id.unwrap_or_else(|| name.to_owned());
                Ok(Self::Take(vec![request(id, asked)]))
            }
            "pause" => change(Action::Pause, id),
            "resume" => change(Action::Resume, id),
            "stop" => change(Action::Stop, id),
            "execute-snapshot" => {
                let id = id.unwrap_or_else(|| name.to_owned());
                Ok(Self::Take(debezium(serde_json::from_value(data)?, &id)?))
            }
            // In Debezium the ID is the signal's own, not a snapshot's: it applies to all.
            "pause-snapshot" => change(Action::Pause, None),
            "resume-snapshot" => change(Action::Resume, None),
            "stop-snapshot" => match stopped(data)? {
                tables if tables.is_empty() => change(Action::Stop, None),
                tables => Ok(Self::StopTables(tables)),
            },
            _ => Err(SignalError::Type { found: kind.chars().take(MAX_ID_BYTES).collect() }),
        }
    }
}

impl Control {
    /// Stores the commands of a signal. Without an ID they are for every unfinished snapshot.
    ///
    /// # Errors
    /// When too many are waiting already; then none of it is stored.
    pub fn obey(&self, signal: Signal) -> Result<(), Full> {
        match signal {
            Signal::Take(requests) => {
                self.try_ask(requests.into_iter().map(Command::Take).collect())?;
            }
            Signal::StopTables(tables) => self.try_ask(vec![Command::StopTables { tables }])?,
            Signal::Change { action, id: Some(id) } => self.try_ask(vec![action.on(id)])?,
            Signal::Change { action, id: None } => {
                let mut ids: Vec<String> = Vec::new();
                for status in self.shown().into_iter().filter(|status| !status.state.is_end()) {
                    if !ids.contains(&status.id) {
                        ids.push(status.id);
                    }
                }
                self.try_ask(ids.into_iter().map(|id| action.on(id)).collect())?;
            }
        }
        Ok(())
    }
}

fn request(id: String, asked: Asked) -> Request {
    let Asked { tables, condition } = asked;
    Request { id, tables, condition, reason: SnapshotReason::Asked, partition: None }
}

/// The requests of an `execute-snapshot`: tables with the same condition are one.
fn debezium(data: Debezium, id: &str) -> Result<Vec<Request>, SignalError> {
    let count = data.data_collections.len().max(data.additional_conditions.len());
    if count > MAX_NAMES {
        return Err(SignalError::TooManyTables { count });
    }
    // Both publish the rows; here the stream does not have to wait for that.
    match data.r#type.as_deref().map(str::to_lowercase).as_deref() {
        None | Some("incremental") => {}
        Some("blocking") if data.additional_conditions.is_empty() => {}
        Some("blocking") => return Err(SignalError::BlockingFilter),
        Some(other) => {
            return Err(SignalError::SnapshotType {
                found: other.chars().take(MAX_ID_BYTES).collect(),
            });
        }
    }
    let asked = by_condition(data)?;
    if asked.is_empty() {
        return Err(SignalError::NoTable);
    }
    for asked in &asked {
        asked.check()?;
    }
    let several = asked.len() > 1;
    let named = |(n, asked): (usize, Asked)| {
        let id = if several { format!("{id}-{}", n + 1) } else { id.to_owned() };
        request(id, asked)
    };
    Ok(asked.into_iter().enumerate().map(named).collect())
}

/// The tables of an `execute-snapshot`, those with the same condition together. The table of a
/// condition is compared with their names, and never compiled.
fn by_condition(data: Debezium) -> Result<Vec<Asked>, SignalError> {
    let Debezium { data_collections, additional_conditions, additional_condition, .. } = data;
    check_patterns(additional_conditions.iter().map(|own| &own.data_collection))?;
    let tables = names_of(&data_collections)?;
    let words: Vec<String> = data_collections.iter().map(|name| compared(name)).collect();
    let conditions: Vec<(String, String)> = additional_conditions
        .into_iter()
        .map(|own| (compared(&own.data_collection), own.filter))
        .collect();
    if let Some((alone, _)) = conditions.iter().find(|(table, _)| !words.contains(table)) {
        let table = alone.chars().take(MAX_NAME_BYTES).collect();
        return Err(SignalError::ConditionAlone { table });
    }
    let mut asked: Vec<Asked> = Vec::new();
    for (table, words) in tables.into_iter().zip(&words) {
        let own = conditions.iter().find(|(table, _)| table == words);
        let condition =
            own.map(|(_, filter)| filter.clone()).or_else(|| additional_condition.clone());
        match asked.iter_mut().find(|asked| asked.condition == condition) {
            Some(same) => same.tables.push(table),
            None => asked.push(Asked { tables: vec![table], condition }),
        }
    }
    Ok(asked)
}

/// The tables whose snapshots a `stop-snapshot` ends; `None` for all.
fn stopped(data: Value) -> Result<Vec<String>, SignalError> {
    let Debezium { data_collections, .. } = match data {
        Value::Null => return Ok(Vec::new()),
        data => serde_json::from_value(data)?,
    };
    if data_collections.len() > MAX_NAMES {
        return Err(SignalError::TooManyTables { count: data_collections.len() });
    }
    let tables = names_of(&data_collections)?;
    if !tables.is_empty() {
        TableNames::parse(&tables)?;
    }
    Ok(tables)
}

/// Tables as Debezium names them. The number of patterns is checked before any is compiled.
fn names_of(names: &[String]) -> Result<Vec<String>, SignalError> {
    check_patterns(names.iter())?;
    names.iter().map(|name| of_debezium(name)).collect()
}

/// Checks that there are not too many patterns to compile.
fn check_patterns<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), SignalError> {
    let count = names.filter(|name| is_pattern(name)).count();
    if count > MAX_GLOBS { Err(SignalError::TooManyGlobs { count }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::control::{SnapshotState, SnapshotStatus};

    fn read(text: &str) -> Signal {
        Signal::read(text.as_bytes(), "given").unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn taken(text: &str) -> Vec<(String, Vec<String>, Option<String>)> {
        match read(text) {
            Signal::Take(requests) => {
                requests.into_iter().map(|r| (r.id, r.tables, r.condition)).collect()
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    fn row(id: &str, tables: &[&str], condition: &str) -> (String, Vec<String>, Option<String>) {
        let tables = tables.iter().map(|&table| table.to_owned()).collect();
        let condition = (!condition.is_empty()).then(|| condition.to_owned());
        (id.to_owned(), tables, condition)
    }

    #[test]
    fn a_request_says_tables_and_condition_and_may_have_an_id() {
        let text = r#"{"type":"snapshot","tables":["public.trips","a.*"],"where":"fare > 1"}"#;
        assert_eq!(taken(text), [row("given", &["public.trips", "a.*"], "fare > 1")]);
        let text = r#"{"type":"snapshot","id":"mine","tables":["public.trips"]}"#;
        assert_eq!(taken(text), [row("mine", &["public.trips"], "")]);
        for none in ["null", "\"\"", "\" \""] {
            let text = format!(r#"{{"type":"snapshot","id":{none},"tables":["public.trips"]}}"#);
            assert_eq!(taken(&text), [row("given", &["public.trips"], "")], "{none}");
        }
    }

    #[test]
    fn patterns_are_counted_before_any_is_compiled_and_those_of_conditions_never_are() {
        // None of these has a character that only globs have.
        for kind in ["^public.t#$", "public\\dt#", "public.t#{2}"] {
            let many: Vec<String> =
                (0..MAX_NAMES).map(|n| kind.replace('#', &n.to_string())).collect();
            let filter =
                |name: &String| serde_json::json!({"data-collection": name, "filter": "x"});
            let filters: Vec<Value> = many.iter().map(filter).collect();
            for data in [
                serde_json::json!({"data-collections": many, "additional-conditions": filters}),
                serde_json::json!({"data-collections": many}),
                serde_json::json!({"data-collections": ["a.b"], "additional-conditions": filters}),
            ] {
                let text = serde_json::json!({"type": "execute-snapshot", "data": data});
                let error = Signal::read(text.to_string().as_bytes(), "given").expect_err(kind);
                assert!(
                    matches!(error, SignalError::TooManyGlobs { count: MAX_NAMES }),
                    "{kind}: {error}"
                );
            }
        }
        let text = r#"{"type":"execute-snapshot","data":{"data-collections":["public.a"],
            "additional-conditions":[{"data-collection":"public.a(","filter":"x"}]}}"#;
        let error = Signal::read(text.as_bytes(), "given").expect_err("of no table");
        assert!(matches!(error, SignalError::ConditionAlone { .. }), "{error}");
        let text = r#"{"id":"1","type":"execute-snapshot","data":{
            "data-collections":["public.t{2}"],"additional-conditions":[{"data-collection":"public.t{2}","filter":"x > 1"}]}}"#;
        assert_eq!(taken(text), [row("1", &["/public.t{2}/"], "x > 1")]);
    }

    #[test]
    fn one_request_or_all_are_paused_resumed_and_stopped() {
        for (word, action) in
            [("pause", Action::Pause), ("resume", Action::Resume), ("stop", Action::Stop)]
        {
            let one = read(&format!(r#"{{"type":"{word}","id":"7"}}"#));
            assert_eq!(one, Signal::Change { action, id: Some("7".to_owned()) });
            let all = Signal::Change { action, id: None };
            assert_eq!(read(&format!(r#"{{"type":"{word}"}}"#)), all);
            let debezium = format!(r#"{{"id":"sig","type":"{word}-snapshot","data":{{}}}}"#);
            assert_eq!(read(&debezium), all);
        }
    }

    #[test]
    fn debeziums_form_is_understood_with_a_condition_a_table() {
        let text = r#"{"id":"ad-hoc","type":"execute-snapshot","data":{
            "data-collections":["public.a","public.b","public.c"],"type":"incremental",
            "additional-conditions":[{"data-collection":"public.b","filter":"color = 'blue'"}]}}"#;
        let wanted = [
            row("ad-hoc-1", &["public.a", "public.c"], ""),
            row("ad-hoc-2", &["public.b"], "color = 'blue'"),
        ];
        assert_eq!(taken(text), wanted);
        let text = r#"{"type":"execute-snapshot","data":{"data-collections":["public.a"],
            "additional-condition":"id > 3"}}"#;
        assert_eq!(taken(text), [row("given", &["public.a"], "id > 3")]);
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (text, told) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (r#"{"tables":["public.a"]}"#, "missing field `type`"),
            (r#"{"type":"snapshto","tables":["public.a"]}"#, "use snapshot, pause"),
            (r#"{"type":"snapshot"}"#, "no table is named"),
            (r#"{"type":"snapshot","tables":["trips"]}"#, "write \"public.trips\""),
            (r#"{"type":"snapshot","tables":["public.a"],"where":" "}"#, "the condition is empty"),
            (r#"{"type":"snapshot","tables":["public.a"],"wehre":"x"}"#, "unknown field `wehre`"),
            (r#"{"type":"execute-snapshot","data":{}}"#, "no table is named"),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.(?!t).*"]}}"#,
                "regular expression",
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.a"],
                "type":"full"}}"#,
                "use incremental or blocking",
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.a"],
                "type":"blocking","additional-conditions":[
                {"data-collection":"public.a","filter":"SELECT * FROM public.a"}]}}"#,
                "what would follow WHERE",
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.a"],
                "additional-conditions":[{"data-collection":"public.b","filter":"x"}]}}"#,
                "which data-collections do not",
            ),
        ] {
            let error = Signal::read(text.as_bytes(), "given").expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn debeziums_names_are_regular_expressions_and_a_stop_may_name_tables() {
        let text = r#"{"id":"1","type":"execute-snapshot","data":{"type":"BLOCKING",
            "data-collections":["public\\.(a|b)","public.c"]}}"#;
        assert_eq!(taken(text), [row("1", &["/public\\.(a|b)/", "public.c"], "")]);
        let text = r#"{"id":"1","type":"execute-snapshot","data":{
            "data-collections":["public\\.a","public.b"],"additional-conditions":[
            {"data-collection":"public.a","filter":"x > 1"}]}}"#;
        let wanted = [row("1-1", &["public.a"], "x > 1"), row("1-2", &["public.b"], "")];
        assert_eq!(taken(text), wanted);
        let stop = r#"{"type":"stop-snapshot","data":{"type":"incremental",
            "data-collections":["public\\.a","public.b.*"]}}"#;
        let tables = ["public.a", "/public.b.*/"].map(str::to_owned).to_vec();
        assert_eq!(read(stop), Signal::StopTables(tables));
        let many = vec!["public.t.*"; MAX_GLOBS + 1];
        for kind in ["execute-snapshot", "stop-snapshot"] {
            let text = serde_json::json!({"type": kind, "data": {"data-collections": many}});
            let error = Signal::read(text.to_string().as_bytes(), "given").expect_err(kind);
            assert!(matches!(error, SignalError::TooManyGlobs { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_signal_for_all_is_for_those_that_are_not_at_their_end() {
        let control = Control::default();
        let request = |id: &str| Request {
            id: id.to_owned(),
            ..Request::new(vec!["a.b".to_owned(), "a.c".to_owned()], None, SnapshotReason::Asked)
        };
        control.obey(Signal::Take(vec![request("1"), request("2")])).unwrap();
        let done = |status| SnapshotStatus { state: SnapshotState::Done, ..status };
        let shown = control.shown();
        control.show(shown.into_iter().map(|s| if s.id == "1" { done(s) } else { s }).collect());
        control.obey(Signal::Change { action: Action::Pause, id: None }).unwrap();
        control.obey(Signal::Change { action: Action::Stop, id: Some("1".to_owned()) }).unwrap();
        assert_eq!(control.next().await, Command::Take(request("1")));
        assert_eq!(control.next().await, Command::Take(request("2")));
        assert_eq!(control.next().await, Command::Pause { id: "2".to_owned() });
        assert_eq!(control.next().await, Command::Stop { id: "1".to_owned() });
    }
}
