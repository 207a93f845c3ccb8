//! When the rows of tables are read, and by whom.
//!
//! `first` is the snapshot with which a pipeline begins, `pages` the connections that read it;
//! `incremental` are the snapshots that are taken beside the stream.

mod first;
mod incremental;
mod pages;

pub(super) use self::first::First;
pub(super) use self::incremental::Coordinator;
