//! Health, status and metrics over HTTP.
//!
//! | path | response |
//! |---|---|
//! | `/livez` | 200 as long as the process responds at all |
//! | `/readyz` | 200 while rows flow, else 503; the body is the state's word and the reason |
//! | `/readyz?standby` | the same, and 200 for a copy that waits to take over |
//! | `/status` | the state as JSON |
//! | `/metrics` | the metrics in Prometheus' text form |
//! | `/snapshots` | lists and requests snapshots: see `snapshots` |
//!
//! All pages but `/snapshots` are read-only. `guard` decides which requests are accepted; `server`
//! bounds the connections.

mod guard;
mod server;
mod snapshots;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::guard::Guard;
pub use self::server::MAX_CONNECTIONS;
pub use self::snapshots::{Accepted, Desk, Judge, Judged, List, Listed, Refusal};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::login_notices;
use crate::snapshot::progress::Book;
use crate::state::{LeftOutList, State, Status};

/// The endpoint can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or is not an address of this host.
    #[error("listening on {address} (admin.listen): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether another process holds the address, perhaps only for a while.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let Self::Listen { source, .. } = self;
        source.kind() == std::io::ErrorKind::AddrInUse
    }
}

/// What the endpoint reports.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Name, state and last failure, as the bridge sets them.
    pub status: watch::Receiver<Status>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Progress of snapshots.
    pub progress: Arc<Book>,
    /// The tables that are left out.
    pub left_out: Arc<LeftOutList>,
}

impl Observed {
    /// The status with current numbers.
    #[must_use]
    pub fn status_now(&self) -> Status {
        crate::failpoint::reach("status");
        let metrics = &self.metrics;
        metrics.refresh();
        let snapshot = self.progress.snapshot();
        Status {
            snapshot: (snapshot.tables_total > 0).then_some(snapshot),
            received_lsn: Lsn::from(metrics.received_lsn.get()),
            confirmed_lsn: Lsn::from(metrics.confirmed_lsn.get()),
            records_in_flight: metrics.in_flight.get(),
            changes: metrics.changes.get(),
            records_acked: metrics.records_acked.get(),
            left_out: self.left_out.all(),
            login_warnings: login_notices(),
            ..self.status.borrow().clone()
        }
    }
}

/// How long to wait for an address that another process holds: a copy that was just killed or is
/// ending holds it a little longer.
const HELD: Duration = Duration::from_secs(5);

/// Time between two tries.
const RETRY: Duration = Duration::from_millis(100);

/// Binds the address, so that a clash is known before anything else starts.
///
/// # Errors
/// When the address can't be bound, or another process holds it for too long.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let deadline = Instant::now() + HELD;
    let mut is_logged = false;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(source) => Error::Listen { address, source },
        };
        if !error.is_held() || Instant::now() >= deadline {
            return Err(error);
        }
        if !std::mem::replace(&mut is_logged, true) {
            tracing::info!(%address, "another process still holds the address of admin.listen: \
                                      waiting for it");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, observed: Observed, desk: Desk, guard: Guard) {
    let serving = server::serve(listener, router(observed, desk, guard));
    crate::failpoint::within("admin", serving).await;
}

fn router(observed: Observed, desk: Desk, guard: Guard) -> Router {
    let snapshots = snapshots::routes(observed.clone(), desk);
    Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readyz))
        .route(
            "/status",
            get(|Extract(observed): Extract<Observed>| async move { Json(observed.status_now()) }),
        )
        .route("/metrics", get(metrics))
        .with_state(observed)
        .merge(snapshots)
        .layer(from_fn_with_state(Arc::new(guard), guard::guard))
}

/// A rolling update waits until the new copy is ready before it ends the old one, but the new one
/// is in standby until then. Such updates use `?standby`.
async fn readyz(
    Extract(observed): Extract<Observed>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let status = observed.status.borrow();
    let standby_will_do = query.is_some_and(|query| query == "standby");
    let ready = status.is_ready() || (standby_will_do && status.state == State::Standby);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{}\n", status.line()))
}

async fn metrics(Extract(observed): Extract<Observed>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], observed.metrics.render())
}
