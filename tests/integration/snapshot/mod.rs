//! Snapshots on real servers.

mod incremental;
mod triggers;
