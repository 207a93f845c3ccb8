//! `[admin]`: the HTTP endpoint for health and metrics.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The HTTP endpoint for health and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Serve `/livez`, `/readyz`, `/status` and `/metrics`.
    pub enabled: bool,
    /// Where to listen. Only this host can reach the default.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}
