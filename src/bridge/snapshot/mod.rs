//! When the rows of tables are read, and by whom.
//!
//! `incremental` are the snapshots that are taken beside the stream.

mod incremental;

pub(super) use self::incremental::Coordinator;
