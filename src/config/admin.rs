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
    /// Where to listen. Only this host can reach the default.
    pub listen: SocketAddr,
    /// A file whose first line is a token. Whoever asks for a snapshot over HTTP, or pauses, resumes
    /// or stops one, must send it (`Authorization: Bearer ...`; `rowcast snapshot` does). Without
    /// one that is open to whoever reaches a loopback address, and closed on every other.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9464));
        Self { enabled: true, listen, token_file: None }
    }
}
