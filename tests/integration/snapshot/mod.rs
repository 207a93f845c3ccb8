//! Snapshots on real servers.

mod incremental;
mod incremental_cases;
mod incremental_keyless;
mod triggers;
