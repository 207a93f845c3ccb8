//! Finds the partitions of published tables, and which of them were attached with rows that were
//! never streamed.
//!
//! An `ATTACH` writes no row, so the rows of an attached partition are in no stream. The system
//! catalog shows an attached partition: the entry that makes it a partition names the transaction,
//! and a snapshot (`pg_current_snapshot()`) of an earlier check shows whether that is new. So only
//! that snapshot must be stored, over restarts too.

use std::collections::BTreeMap;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::Error;
use super::publication::{FILTERS_SINCE, TableName, find};

const PARTITIONS: &str =
    concat!(include_str!("../../sql/published.sql"), include_str!("../../sql/partitions.sql"));
const PARTITIONS_14: &str =
    concat!(include_str!("../../sql/published_14.sql"), include_str!("../../sql/partitions.sql"));

/// The first version whose walsender notices when a table of which it streamed nothing becomes a
/// partition of a streamed one.
const NOTICED_SINCE: u32 = 150_000;

/// The partitions of all published tables, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partitions {
    /// The visible transactions, as `pg_current_snapshot()` returns them.
    pub shows: String,
    /// The partitioned tables.
    pub roots: BTreeMap<u32, TableName>,
    /// The partitions that hold rows, by OID.
    pub leaves: BTreeMap<u32, Partition>,
}

/// A partition that holds rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// The partitioned table at the top.
    pub root: u32,
    /// Its name.
    pub name: TableName,
    /// Whether it is new since the earlier check.
    pub is_new: bool,
    /// Whether it was attached since then, and may have brought rows.
    pub is_attached: bool,
    /// The file that holds its rows.
    pub filenode: u32,
    /// The last row count; negative if never counted.
    pub counted: f64,
    /// Rows by the server's running count.
    pub live: i64,
}

impl Partition {
    /// Roughly how many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let counted = self.counted.max(0.0) as u64;
        counted.max(self.live.try_into().unwrap_or(0))
    }
}

/// Reads the partitions of the tables of these publications. `seen` is the snapshot of an earlier
/// check; if `None`, nothing counts as new. Does not wait for locks.
///
/// # Errors
/// When the query fails.
pub async fn look(
    client: &Client,
    publications: &[&str],
    seen: Option<&str>,
    server_version: u32,
) -> Result<Partitions, Error> {
    let failed = |source| Error::Sql { doing: "read the partitions of tables", source };
    let query = if server_version >= FILTERS_SINCE { PARTITIONS } else { PARTITIONS_14 };
    let rows = client.query(query, &[&publications, &seen]).await.map_err(failed)?;
    let mut found = Partitions::default();
    for row in &rows {
        found.shows = row.get(0);
        let Some(root) = row.get::<_, Option<u32>>(1) else { continue };
        found.roots.insert(root, TableName { schema: row.get(2), name: row.get(3) });
        let Some(oid) = row.get::<_, Option<u32>>(4) else { continue };
        let partition = Partition {
            root,
            name: TableName { schema: row.get(5), name: row.get(6) },
            is_new: row.get(7),
            is_attached: row.get(8),
            counted: row.get(9),
            filenode: row.get(10),
            live: row.get(11),
        };
        found.leaves.insert(oid, partition);
    }
    Ok(found)
}

/// Makes a walsender notice new partitions on versions where it does not: one that knows the table
/// already would continue to omit it. Does not change the publication, if there is one.
///
/// # Errors
/// When the server refuses it.
pub async fn remind(client: &Client, publication: &str, server_version: u32) -> Result<(), Error> {
    if server_version >= NOTICED_SINCE {
        return Ok(());
    }
    let Some(present) = find(client, publication, server_version).await? else { return Ok(()) };
    let (publication, via_root) = (escape_identifier(publication), present.via_root);
    let sql =
        format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = {via_root})");
    let failed = |source| Error::Sql { doing: "have the server notice new partitions", source };
    client.batch_execute(&sql).await.map_err(failed)
}
