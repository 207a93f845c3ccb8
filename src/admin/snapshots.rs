//! Snapshots over HTTP: requests, lists, pauses, resumes and stops them.
//!
//! | request | does |
//! |---|---|
//! | `POST /snapshots` with `{"tables": [...], "where": "..."}` | requests one: 202 with its ID |
//! | `GET /snapshots` | lists running snapshots and those that ended recently |
//! | `POST /snapshots/{id}/pause`, `/resume`, `/stop` | pauses, resumes or stops one: 202 |
//!
//! Such a request can have every row of the published tables sent to Kafka again. So it must come
//! from this host (the endpoint listens on loopback) or carry the token of `admin.token_file`; if a
//! token is set, it is always required. A request that a browser makes for another page names its
//! origin and is refused. A condition is SQL that runs with rowcast's rights, so it requires a
//! token, from this host too. Requests are bounded in size and number: 413 and 429.
//!
//! A refusal has the cause and the fix as JSON: `{"error": ..., "fix": ...}`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Observed;
use super::guard::brings;
use crate::checkpoint::SnapshotReason;
use crate::config::Secret;
use crate::config::condition::ConditionError;
use crate::snapshot::progress::Report;
use crate::snapshot::{
    Action, Asked, Command, Control, Full, Request, SignalError, SnapshotState, SnapshotStatus,
};
use crate::state::State;

/// Returns the tables that a request selects, or why it is refused; queries the server.
pub type Judge = Arc<dyn Fn(Asked) -> Judged + Send + Sync>;

/// The result of a [`Judge`].
pub type Judged = Pin<Box<dyn Future<Output = Result<Vec<String>, Refusal>> + Send>>;

/// Takes snapshot requests, and decides who may make them.
#[derive(Clone)]
pub struct Desk {
    /// Where requests are stored.
    pub control: Arc<Control>,
    /// Validates requests.
    pub judge: Judge,
    /// The token that a change requires.
    pub token: Option<Secret>,
    /// Whether only this host reaches the endpoint.
    pub is_local: bool,
}

/// Why a request is refused, and the fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The status code.
    #[serde(skip)]
    pub code: u16,
    /// The cause.
    pub error: String,
    /// What fixes it.
    pub fix: Option<String>,
}

/// One snapshot in the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Its status.
    #[serde(flatten)]
    pub status: SnapshotStatus,
    /// Percentage published; `None` before it is read and if its size is unknown.
    pub percent: Option<f64>,
    /// Rows per second in the last half minute.
    pub rows_per_second: Option<u64>,
    /// Seconds left at this rate.
    pub eta_seconds: Option<u64>,
}

/// The response of `GET /snapshots`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// One entry for each table of each request.
    pub snapshots: Vec<Listed>,
    /// The total.
    pub progress: Report,
}

/// The response of `POST /snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The request's ID.
    pub id: String,
    /// The tables that it selects at this moment.
    #[serde(default)]
    pub tables: Vec<String>,
}

impl Refusal {
    /// A refusal with this status code.
    #[must_use]
    pub fn new(code: u16, error: impl Into<String>, fix: &str) -> Self {
        let fix = (!fix.is_empty()).then(|| fix.to_owned());
        Self { code, error: error.into(), fix }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, Json(self)).into_response()
    }
}

#[derive(Clone)]
struct Served {
    observed: Observed,
    desk: Desk,
}

pub(super) fn routes(observed: Observed, desk: Desk) -> Router {
    Router::new()
        .route("/snapshots", get(list).post(take))
        .route("/snapshots/{id}/{action}", post(act))
        .with_state(Served { observed, desk })
}

async fn list(Extract(Served { observed, desk }): Extract<Served>) -> Json<List> {
    let progress = observed.progress.snapshot();
    let listed = |status: SnapshotStatus| {
        let same = |table: &&crate::snapshot::progress::TableReport| {
            table.snapshot == status.id && table.table == status.table
        };
        let table = progress.tables.iter().find(same);
        let running = table.filter(|_| status.state == SnapshotState::Running);
        Listed {
            percent: table.and_then(|table| table.percent),
            rows_per_second: running.map(|table| table.rows_per_second),
            eta_seconds: running.and_then(|table| table.eta_seconds),
            status,
        }
    };
    Json(List { snapshots: desk.control.shown().into_iter().map(listed).collect(), progress })
}

async fn take(
    Extract(Served { observed, desk }): Extract<Served>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    desk.admit(&headers)?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let fix = r#"send {"tables": ["schema.table"], "where": "a condition, if any"}"#;
        Refusal::new(400, format!("reading the request: {error}"), fix)
    })?;
    desk.admit_condition(&asked)?;
    asked.check().map_err(|error| Refusal::new(code_of(&error), error.to_string(), ""))?;
    flows(&observed)?;
    let tables = (desk.judge)(asked.clone()).await?;
    let request = Request::new(asked.tables, asked.condition, SnapshotReason::Asked);
    let id = request.id.clone();
    let named: Vec<&str> = tables.iter().take(NAMED).map(String::as_str).collect();
    let count = tables.len();
    desk.control.try_ask(vec![Command::Take(request)]).map_err(full)?;
    tracing::info!(id, count, tables = named.join(", "), "snapshot requested over HTTP");
    Ok((StatusCode::ACCEPTED, Json(Accepted { id, tables })))
}

async fn act(
    Extract(Served { observed, desk }): Extract<Served>,
    Path((id, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    desk.admit(&headers)?;
    let action = match action.as_str() {
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "stop" => Action::Stop,
        _ => {
            let error = format!("unknown action {action:?}");
            return Err(Refusal::new(404, error, "use pause, resume or stop"));
        }
    };
    flows(&observed)?;
    let shown = desk.control.shown();
    let mut own = shown.iter().filter(|status| status.id == id).peekable();
    if own.peek().is_none() {
        let error = format!("there is no snapshot {id:?}");
        return Err(Refusal::new(404, error, "GET /snapshots lists them"));
    }
    if own.all(|status| status.state.is_end()) {
        let error = format!("the snapshot {id:?} has already ended");
        return Err(Refusal::new(409, error, "request a new one"));
    }
    desk.control.try_ask(vec![action.on(id.clone())]).map_err(full)?;
    tracing::info!(id, action = ?action, "requested over HTTP");
    Ok((StatusCode::ACCEPTED, Json(Accepted { id, tables: Vec::new() })))
}

/// Most tables that a log line names.
const NAMED: usize = 5;

fn full(full: Full) -> Refusal {
    Refusal::new(
        429,
        full.to_string(),
        "try again when GET /snapshots lists fewer waiting snapshots",
    )
}

/// 413 for what exceeds a bound, 400 for all else.
const fn code_of(error: &SignalError) -> u16 {
    match error {
        SignalError::TooManyTables { .. }
        | SignalError::TooManyGlobs { .. }
        | SignalError::LongName { .. }
        | SignalError::Condition(ConditionError::TooLong { .. }) => 413,
        SignalError::Condition(_) => 422,
        _ => 400,
    }
}

/// Refuses while no session runs: a stored request would be lost with the process.
fn flows(observed: &Observed) -> Result<(), Refusal> {
    let status = observed.status.borrow();
    match status.state {
        State::Streaming | State::Snapshot => Ok(()),
        _ => {
            let error = format!("the bridge accepts no requests now: {}", status.line());
            Err(Refusal::new(503, error, "try again when /readyz returns 200"))
        }
    }
}

impl Desk {
    /// Whether the sender may have SQL run: not every user of this host may.
    fn admit_condition(&self, asked: &Asked) -> Result<(), Refusal> {
        if asked.condition.is_some() && self.token.is_none() {
            let error = "a condition is SQL that runs with rowcast's rights, so it requires a \
                         token, on a loopback address too";
            let fix = "set admin.token_file, and send Authorization: Bearer with the token in it";
            return Err(Refusal::new(403, error, fix));
        }
        Ok(())
    }

    /// Whether the sender may change something.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.contains_key(header::ORIGIN) {
            let error = "a web page may not request this";
            return Err(Refusal::new(403, error, "send the request without the header Origin"));
        }
        match &self.token {
            None if self.is_local => Ok(()),
            None => Err(Refusal::new(
                403,
                "admin.listen is not a loopback address, so a token is required",
                "set admin.token_file, and send Authorization: Bearer with the token in it",
            )),
            Some(token) if brings(headers, token) => Ok(()),
            Some(_) => Err(Refusal::new(
                401,
                "this requires the token of admin.token_file",
                "send Authorization: Bearer with the token in it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(token: Option<&str>, is_local: bool) -> Desk {
        Desk {
            control: Arc::default(),
            judge: Arc::new(|asked| Box::pin(async { Ok(asked.tables) })),
            token: token.map(|token| Secret::from(token.to_owned())),
            is_local,
        }
    }

    #[tokio::test]
    async fn while_nothing_streams_nothing_is_taken_and_the_reason_is_told() {
        let status = tokio::sync::watch::Sender::new(crate::state::Status::default());
        let metrics = Arc::<crate::metrics::Metrics>::default();
        let progress = Arc::new(crate::snapshot::progress::Book::new(Arc::clone(&metrics)));
        let observed =
            Observed { status: status.subscribe(), metrics, progress, left_out: Arc::default() };
        let desk = desk(None, true);
        let control = Arc::clone(&desk.control);
        let served = Served { observed, desk };
        let ask = async || {
            let body = Bytes::from_static(br#"{"tables": ["public.rides"]}"#);
            take(Extract(served.clone()), HeaderMap::new(), body).await
        };
        for state in
            [State::Preflight, State::Standby, State::Backoff, State::Draining, State::Stopped]
        {
            status.send_modify(|status| {
                status.state = state;
                status.reason = Some("who knows why".to_owned());
            });
            let refused = ask().await.expect_err("it is refused");
            assert_eq!(refused.code, 503, "{state:?}");
            let wanted = format!("accepts no requests now: {}: who knows why", state.word());
            assert!(refused.error.ends_with(&wanted), "{refused:?}");
            assert!(refused.fix.is_some_and(|fix| fix.contains("/readyz")));
            let path = Path(("7".to_owned(), "pause".to_owned()));
            let refused = act(Extract(served.clone()), path, HeaderMap::new()).await;
            assert_eq!(refused.expect_err("so is this").code, 503, "{state:?}");
            assert!(control.shown().is_empty(), "nothing is left behind");
        }
        for state in [State::Snapshot, State::Streaming] {
            status.send_modify(|status| status.state = state);
            assert!(ask().await.is_ok(), "{state:?}");
        }
        assert_eq!(control.shown().len(), 2);
    }

    fn answer(desk: &Desk, pairs: &[(header::HeaderName, &'static str)]) -> u16 {
        let value = |(name, value): &(header::HeaderName, &'static str)| {
            (name.clone(), header::HeaderValue::from_static(value))
        };
        desk.admit(&pairs.iter().map(value).collect()).map_or_else(|refusal| refusal.code, |()| 202)
    }

    #[test]
    fn only_this_host_or_who_has_the_token_changes_anything() {
        let right = [(header::AUTHORIZATION, "Bearer s3cret")];
        let wrong = [(header::AUTHORIZATION, "Bearer other")];
        let origin = [(header::ORIGIN, "http://127.0.0.1:9464"), right[0].clone()];
        for (token, is_local, headers, code) in [
            (None, true, &[][..], 202),
            (None, false, &[], 403),
            (None, false, &right, 403),
            (Some("s3cret"), true, &[], 401),
            (Some("s3cret"), false, &[], 401),
            (Some("s3cret"), false, &wrong, 401),
            (Some("s3cret"), false, &right, 202),
            (Some("s3cret"), true, &right, 202),
            (Some("s3cret"), true, &origin, 403),
        ] {
            let desk = desk(token, is_local);
            assert_eq!(answer(&desk, headers), code, "{token:?} {is_local} {headers:?}");
        }
    }

    #[test]
    fn a_refusal_says_cause_and_fix() {
        let refusal = Refusal::new(404, "none", "make one");
        let json = serde_json::to_string(&refusal).unwrap();
        assert_eq!(json, r#"{"error":"none","fix":"make one"}"#);
    }
}
