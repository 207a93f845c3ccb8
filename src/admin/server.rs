//! The connections of the admin endpoint: how many, and how long each may take.
//!
//! The endpoint shares the process's file descriptors with the connections to Postgres and Kafka,
//! so it never holds more than [`MAX_CONNECTIONS`]. When one more arrives, the oldest that has not
//! sent a complete request is closed: a probe is answered at once, however many clients hold idle
//! connections. Each connection ends after [`CONNECTION`] at the latest, so a client that does not
//! read its response does not hold one for long either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt as _;

/// Most connections at a time: several probes and scrapers, each with a kept-alive connection.
pub const MAX_CONNECTIONS: usize = 32;

/// Longest wait for the header of a request, from the first byte or the last response on.
const HEADER: Duration = Duration::from_secs(5);

/// Longest life of a connection. A scraper opens a new one.
const CONNECTION: Duration = Duration::from_secs(60);

/// Largest header. A token, a host and what a proxy adds are well below it.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Most header fields.
const MAX_FIELDS: usize = 64;

/// Wait after the system refused a connection, until it may have free descriptors.
const REFUSED: Duration = Duration::from_millis(100);

/// The open connections, the oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<Connection>,
}

struct Connection {
    /// Whether it sent a complete request.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Serves until it is dropped; open connections end with it.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(stream, &router),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(error = %error, "the admin endpoint can't accept a connection");
                connections.close_one();
                tokio::time::sleep(REFUSED).await;
            }
        }
    }
}

/// Whether the client closed the connection before it was accepted.
fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Connections {
    fn add(&mut self, stream: TcpStream, router: &Router) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|connection| !connection.task.is_finished());
        while self.open.len() >= MAX_CONNECTIONS {
            self.close_one();
        }
        let has_asked = Arc::<AtomicBool>::default();
        let task = self.tasks.spawn(attend(stream, router.clone(), Arc::clone(&has_asked)));
        self.open.push_back(Connection { has_asked, task });
    }

    /// Closes the oldest that has sent no request, or else the oldest.
    fn close_one(&mut self) {
        let silent = |connection: &Connection| !connection.has_asked.load(Ordering::Relaxed);
        let at = self.open.iter().position(silent).unwrap_or(0);
        if let Some(connection) = self.open.remove(at) {
            connection.task.abort();
        }
    }
}

async fn attend(stream: TcpStream, router: Router, has_asked: Arc<AtomicBool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION, served).await {
        Ok(Ok(())) => {}
        // Only at debug level: clients can cause as many of these errors as they like.
        Ok(Err(error)) => tracing::debug!(error = %error, "a connection to the admin endpoint \
                                                           failed"),
        Err(_) => tracing::debug!("a connection to the admin endpoint was closed for its age"),
    }
}
