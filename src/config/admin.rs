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
    /// `/livez`, `/readyz` and `/metrics` are open, and the rest needs the token.
    pub listen: SocketAddr,
    /// Names by which the endpoint is asked, besides IP addresses and `localhost`: that of a
    /// container or a service, without a port. A request that names another host is refused, so that
    /// no page in a browser can read the endpoint under a name of its own (DNS rebinding).
    pub hosts: Vec<String>,
    /// A file whose first line is a token. Whoever asks for a snapshot over HTTP, or pauses, resumes
    /// or stops one, must send it (`Authorization: Bearer ...`; `rowcast snapshot` and `rowcast status`
    /// do). Without one that is open to whoever reaches a loopback address, and closed on every other.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9464));
        Self { enabled: true, listen, hosts: Vec::new(), token_file: None }
    }
}
