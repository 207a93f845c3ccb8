//! `[admin]`: the HTTP endpoint for health, metrics and snapshots.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The HTTP endpoint for health and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Serve `/livez`, `/readyz`, `/status`, `/metrics` and `/snapshots`.
    pub enabled: bool,
    /// Where to listen. Only this host can reach the default. On an address that is not loopback,
    /// `/livez`, `/readyz` and `/metrics` are open, and the rest requires the token.
    pub listen: SocketAddr,
    /// Host names that requests to the endpoint may use, in addition to IP addresses and
    /// `localhost`: that of a container or a service, without a port. A request that names another
    /// host is refused, so that no web page can read the endpoint under a name of its own (DNS
    /// rebinding).
    pub hosts: Vec<String>,
    /// A file whose first line is a token. HTTP requests to take, pause, resume or stop a snapshot
    /// must send it (`Authorization: Bearer ...`; `rowcast snapshot` and `rowcast status` do).
    /// Without a token these requests are open to every user who reaches a loopback address, and
    /// refused on any other address.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9464));
        Self { enabled: true, listen, hosts: Vec::new(), token_file: None }
    }
}
