//! Snapshots on real servers.

mod triggers;
