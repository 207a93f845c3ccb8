//! Which of the server's processes serves a connection, so that it can be told from any other.
//!
//! Not here: what becomes of it; see `slot` and the bridge's standby.

/// The server process of one connection. The two together name it among all that the server ever
/// had: ids come again, but not started at the same microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walsender {
    /// Its process id.
    pub pid: i32,
    /// When it was started, as the server writes it.
    pub started: String,
}
