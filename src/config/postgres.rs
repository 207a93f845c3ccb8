//! `[postgres]`: which database, which of its tables, and under which slot.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::delivery::OnGap;
use super::operations::Operation;
use super::secret::Secret;
use super::size::Size;

/// The database that is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// Connection string as libpq takes it: a URL or `key=value` pairs, several hosts allowed.
    /// Without a host, the server's socket directory is looked for, as libpq does.
    /// `DATABASE_URL` sets it too.
    pub url: Option<Secret>,
    /// A file whose first line is the password; it wins over one in the URL. Read at every connection,
    /// so a password that changes needs no restart.
    pub password_file: Option<PathBuf>,
    /// A program and its arguments, run without a shell, whose first line of output is the password;
    /// in place of `password_file`. Run for every connection, for at most 30 s: for tokens that live
    /// for minutes, as those of RDS, Cloud SQL, Azure and Vault.
    pub password_command: Option<Vec<String>>,
    /// Tables to capture, as globs of `schema.table`. `*` matches within one part.
    pub tables: Vec<String>,
    /// Tables to leave out although `tables` matches them.
    pub exclude_tables: Vec<String>,
    /// Kinds of changes that are not published: `insert`, `update`, `delete`, `truncate`, `message`,
    /// or Debezium's letters for them: `c`, `u`, `d`, `t`, `m`. The server does not even send those of
    /// rows where rowcast manages the publication. `[]` publishes TRUNCATE too, as an event with
    /// `op = "t"` and no key. Without logical messages, rowcast still hears its own and signals.
    pub skipped_operations: Vec<Operation>,
    /// Time between two looks for tables that `tables` matches and that are not published yet. Such a
    /// table is published, and its rows are read while the stream runs, see [snapshots](snapshots.md).
    /// Without `manage` nothing is looked for.
    #[serde(with = "humantime_serde")]
    pub discover_interval: Duration,
    /// The replication slot. Default: `rowcast_<name>`.
    pub slot: Option<String>,
    /// The publication. Default: `rowcast_<name>`.
    pub publication: Option<String>,
    /// Make the slot and the publication, and keep the publication's tables, filters and operations
    /// up to date. When false, both must exist and are only checked.
    pub manage: bool,
    /// Publish changes of partitions as their root's: one topic and one key for a partitioned table.
    /// When false, each partition is a table with its own name, topic and key. Kept up to date where
    /// rowcast manages the publication.
    pub publish_via_partition_root: bool,
    /// Who leaves columns out that `columns` or `exclude_columns` of a table leave out: the
    /// `publication`, by column lists, so that they do not leave the server (PostgreSQL 15 and later);
    /// or `none`: no column lists, rowcast receives these columns and drops them. Postgres refuses `DROP
    /// COLUMN` and `ALTER COLUMN ... TYPE` of a column in such a list; with `none` it does not.
    pub column_lists: ColumnLists,
    /// Make the slot a failover slot, which a synchronised standby keeps (PostgreSQL 17 and later;
    /// ignored with a log line before).
    pub failover: bool,
    /// The most WAL that the slot may hold back. Above it the slot is dropped, so that a bridge that
    /// makes no progress never fills the database's disk; rowcast then ends with exit code 65, and the
    /// changes that the slot held are not published. Default: no limit.
    pub slot_wal_limit: Option<Size>,
    /// What to do when changes were never published and can't be read any more (the slot was dropped
    /// or moved, another server stands in its place): `stop` and say which; `accept`: say which and
    /// go on without them; `snapshot`: say which, and read all rows again. Of rows that were deleted
    /// in the gap, `snapshot` publishes no delete. `rowcast run --accept-gap` accepts it once.
    pub on_gap: OnGap,
    /// A table whose new rows are signals, as `schema.table`: each asks for a snapshot, or pauses,
    /// resumes or stops one. Whoever may INSERT into it may do that. It has three columns of text,
    /// `id`, `type` and `data`, as that of Debezium's `signal.data.collection`, see
    /// [snapshots](snapshots.md#rows-of-a-table). Its rows are not published, unless `tables` names it
    /// without a glob. Default: no row is a signal.
    pub signal_table: Option<String>,
    /// A file whose first line is a token. A logical message with the prefix `rowcast.signal` asks for a
    /// snapshot, or pauses, resumes or stops one, only where it brings the token. Without one no
    /// message does: whoever may connect can write one, and it does not say who did.
    pub signal_token_file: Option<PathBuf>,
    /// Whether a signal may have a condition, which is SQL that runs with the rights of the role, or
    /// of `snapshot_role`.
    pub signal_conditions: bool,
    /// A role to read tables as where somebody asks for a snapshot with a condition. It needs SELECT on
    /// the tables and USAGE of their schemas, and rowcast's own role must be a member of it.
    pub snapshot_role: Option<String>,
    /// Longest time between two status updates to the server. Must stay well below the server's
    /// `wal_sender_timeout` (a minute by default).
    #[serde(with = "humantime_serde")]
    pub status_interval: Duration,
    /// Longest wait for a connection to one host.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
}

/// Who leaves columns out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ColumnLists {
    /// The publication, where it can, and the bridge in any case.
    #[default]
    Publication,
    /// The bridge alone.
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
            // Debezium leaves truncates out unless asked; its consumers may not know the event.
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
            // gives up.
            status_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
        }
    }
}
