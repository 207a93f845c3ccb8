//! `[postgres]`: the database, its tables, and the slot.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::delivery::OnGap;
use super::operations::Operation;
use super::secret::Secret;
use super::size::Size;

/// The database to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// Connection string as libpq takes it: a URL or `key=value` pairs, several hosts allowed.
    /// Without a host, the server's socket directory is used, as in libpq. `DATABASE_URL` sets it
    /// too.
    pub url: Option<Secret>,
    /// A file whose first line is the password; takes precedence over one in the URL. Read at every
    /// connection, so that a changed password needs no restart.
    pub password_file: Option<PathBuf>,
    /// A program and its arguments, run without a shell, whose first line of output is the
    /// password; in place of `password_file`. Run for every connection, for at most 30 s: for
    /// short-lived tokens, such as those of RDS, Cloud SQL, Azure and Vault.
    pub password_command: Option<Vec<String>>,
    /// Tables to capture, as globs of `schema.table`. `*` matches within one part.
    pub tables: Vec<String>,
    /// Tables to leave out although `tables` matches them.
    pub exclude_tables: Vec<String>,
    /// Kinds of changes that are not published: `insert`, `update`, `delete`, `truncate`,
    /// `message`, or Debezium's letters for them: `c`, `u`, `d`, `t`, `m`. If rowcast manages the
    /// publication, the server does not send skipped row changes at all. `[]` publishes TRUNCATE
    /// too, as an event with `op = "t"` and no key. Without logical messages, rowcast still
    /// receives its own messages and signals.
    pub skipped_operations: Vec<Operation>,
    /// Time between two checks for tables that match `tables` and are not published yet. Such a
    /// table is added to the publication, and its rows are read while the stream runs, see
    /// [snapshots](snapshots.md). Without `manage` there are no such checks.
    #[serde(with = "humantime_serde")]
    pub discover_interval: Duration,
    /// The replication slot. Default: `rowcast_<name>`.
    pub slot: Option<String>,
    /// The publication. Default: `rowcast_<name>`.
    pub publication: Option<String>,
    /// Create the slot and the publication, and keep the publication's tables, filters and
    /// operations up to date. If false, both must exist and are only checked.
    pub manage: bool,
    /// Publish changes of partitions as their root's: one topic and one key for a partitioned
    /// table. If false, each partition is a table with its own name, topic and key. Kept up to date
    /// if rowcast manages the publication.
    pub publish_via_partition_root: bool,
    /// Where columns are removed that `columns` or `exclude_columns` of a table leave out:
    /// `publication` uses column lists, so that they do not leave the server (PostgreSQL 15 and
    /// later); with `none` there are no column lists, and rowcast receives these columns and drops
    /// them. Postgres refuses `DROP COLUMN` and `ALTER COLUMN ... TYPE` of a column in such a list;
    /// with `none` it does not.
    pub column_lists: ColumnLists,
    /// Create the slot as a failover slot, which is synchronised to standbys (PostgreSQL 17 and
    /// later; ignored with a warning on older versions).
    pub failover: bool,
    /// The most WAL that the slot may hold back. Above this the slot is dropped, so that a bridge
    /// that makes no progress never fills the database's disk; rowcast then ends with exit code 65,
    /// and the changes that the slot held are not published. Default: no limit.
    pub slot_wal_limit: Option<Size>,
    /// What to do when changes were never published and can't be read any more (the slot was
    /// dropped or moved, or the server was replaced by another): `stop` and report them; `accept`:
    /// report them and continue without them; `snapshot`: report them and read all rows again.
    /// `snapshot` publishes no delete for rows that were deleted in the gap. `rowcast run
    /// --accept-gap` accepts a gap once.
    pub on_gap: OnGap,
    /// A table whose new rows are signals, as `schema.table`: each requests a snapshot, or pauses,
    /// resumes or stops one. Every role that may INSERT into it may do that. It has three text
    /// columns, `id`, `type` and `data`, like the table of Debezium's `signal.data.collection`, see
    /// [snapshots](snapshots.md#rows-of-a-table). Its rows are not published unless `tables` names
    /// it without a glob. Default: no signal table.
    pub signal_table: Option<String>,
    /// A file whose first line is a token. A logical message with the prefix `rowcast.signal`
    /// requests, pauses, resumes or stops a snapshot only if it carries the token. Without a token
    /// file, messages are never signals: every role that may connect can write one, and a message
    /// does not name its author.
    pub signal_token_file: Option<PathBuf>,
    /// Whether a signal may have a condition, which is SQL that runs with the rights of the role, or
    /// of `snapshot_role`.
    pub signal_conditions: bool,
    /// The role that reads tables for snapshots with a condition. It needs SELECT on the tables and
    /// USAGE on their schemas, and rowcast's own role must be a member of it.
    pub snapshot_role: Option<String>,
    /// Longest time between two status updates to the server. Must be well below the server's
    /// `wal_sender_timeout` (a minute by default).
    #[serde(with = "humantime_serde")]
    pub status_interval: Duration,
    /// Longest wait for a connection to one host.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
}

/// Where left-out columns are removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ColumnLists {
    /// In the publication, where possible, and always in the bridge.
    #[default]
    Publication,
    /// Only in the bridge.
    None,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: None,
            password_file: None,
            password_command: None,
            tables: vec!["*.*".to_owned()],
            exclude_tables: Vec::new(),
            // Debezium skips truncates by default; its consumers may not know the event.
            skipped_operations: vec![Operation::Truncate],
            discover_interval: Duration::from_secs(10),
            slot: None,
            publication: None,
            manage: true,
            publish_via_partition_root: true,
            column_lists: ColumnLists::Publication,
            failover: false,
            slot_wal_limit: None,
            on_gap: OnGap::Stop,
            signal_table: None,
            signal_token_file: None,
            signal_conditions: false,
            snapshot_role: None,
            // A sixth of wal_sender_timeout's default of 60 s: five may be lost before the server
            // ends the connection.
            status_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
        }
    }
}
