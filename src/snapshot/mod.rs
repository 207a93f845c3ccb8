//! Reads the rows that were there before the stream.
//!
//! `control` is where snapshots are asked for and shown.
//!
//! Not here: publishing (`worker`), and when a snapshot is taken (`bridge`).

mod control;

pub use self::control::{Command, Control, Request, SnapshotState, SnapshotStatus};
