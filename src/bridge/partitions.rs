//! Detects partitions that change without row changes: attached with rows, detached, dropped,
//! truncated.
//!
//! | event | consequence |
//! |---|---|
//! | `CREATE TABLE ... PARTITION OF` | nothing: all its rows arrive in the stream |
//! | `ATTACH` of a table, with its own partitions | its rows are read while the stream runs, as `r` |
//! | `ATTACH` of a table that `exclude_tables` matches | a warning; its rows are not read |
//! | `DETACH`, `DROP` of a partition | a warning: its rows remain in the topic |
//! | `TRUNCATE` of a partition | the same; if partitions have topics of their own, a `t` event there |
//!
//! Checked as soon as rows are streamed, and then every `postgres.discover_interval`. The
//! checkpoint holds what the last check saw and the requests that followed, so a partition that is
//! attached while rowcast is not running is read, too. Removed partitions are known only from the
//! previous check of this session.
//!
//! Not here: how the rows of one partition are read (`snapshot::incremental`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::Bridge;
use crate::backoff::Repeats;
use crate::checkpoint::Snapshots;
use crate::config::{Operation, Resolved, SnapshotMode, exactly};
use crate::error;
use crate::postgres::partitions::{self, Partition, Partitions};
use crate::postgres::publication::{self, TableName};
use crate::postgres::{self, ConnectOptions, client};
use crate::snapshot::{Command, Control, Request};

/// Longest wait for one check.
const ANSWER: Duration = Duration::from_secs(30);

/// How long after a TRUNCATE the server's statistics may not include it: an idle session reports
/// its statistics after ten seconds.
const COUNTS: Duration = Duration::from_secs(15);

/// Watches partitions, for one session.
pub(super) struct Watch {
    bridge: Bridge,
    /// What the last recorded check saw.
    seen: Option<String>,
    /// The partitions at the last check; `None` before the first.
    before: Option<Partitions>,
    suspects: Suspects,
}

/// Partitions with a new file whose row counts do not say why yet: each as it was, and for how many
/// more checks to wait for its count.
type Suspects = BTreeMap<u32, (Partition, u32)>;

/// Why rows of a partition are in a topic but not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// It was detached or dropped.
    Removed,
    /// Its rows were truncated.
    Emptied,
}

impl Watch {
    /// `stands` is the checkpoint's content at the start of the session.
    pub(super) fn new(bridge: &Bridge, stands: &Snapshots) -> Self {
        let seen = stands.partitions_seen.clone();
        Self { bridge: bridge.clone(), seen, before: None, suspects: BTreeMap::new() }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let (mut connected, mut repeats) = (None, Repeats::new());
        loop {
            match tokio::time::timeout(ANSWER, self.look(&mut connected)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    connected = None;
                    if let Some(folded) = repeats.again(Instant::now()) {
                        tracing::warn!(error = error::told(&error), folded, "checking partitions");
                    }
                }
                Err(_) => connected = None,
            }
            tokio::time::sleep(self.bridge.settings.discover_interval).await;
        }
    }

    async fn look(&mut self, connected: &mut Option<Client>) -> Result<(), postgres::Error> {
        let bridge = self.bridge.clone();
        let settings = &bridge.settings;
        let client = match connected.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => client::connect(&bridge.conninfo, &ConnectOptions::of(settings)).await?,
        };
        let client = connected.insert(client);
        let names = publication::Names::of(settings).both();
        let version = client::server_version(client).await?;
        let now = partitions::look(client, &names, self.seen.as_deref(), version).await?;
        self.came((client, version), settings, &bridge.control, &now).await?;
        // If each has a topic of its own, the event is in that topic.
        if settings.via_root
            && let Some(before) = self.before.take()
        {
            let interval = settings.discover_interval.as_millis().max(1);
            let patience = u32::try_from(COUNTS.as_millis() / interval).unwrap_or(u32::MAX);
            let is_told = !settings.skipped.contains(&Operation::Truncate);
            for (oid, partition, gone) in gone(&before, &now, &mut self.suspects, patience) {
                // A user who skips truncates does not want them logged.
                if gone == Gone::Emptied && !is_told {
                    continue;
                }
                let Some(root) = now.roots.get(&partition.root) else { continue };
                let is_there = publication::name(client, oid).await?.is_some();
                warn(root, &partition, gone, is_there);
            }
        }
        self.before = Some(now);
        Ok(())
    }

    /// Requests the rows of partitions that were attached.
    async fn came(
        &mut self,
        (client, version): (&Client, u32),
        settings: &Resolved,
        control: &Control,
        now: &Partitions,
    ) -> Result<(), postgres::Error> {
        let is_news = self.seen.is_none() || now.leaves.values().any(|leaf| leaf.is_new);
        if !is_news || settings.snapshot.mode == SnapshotMode::Never {
            return Ok(());
        }
        let mut requests = Vec::new();
        for (oid, partition) in now.leaves.iter().filter(|(_, leaf)| leaf.is_attached) {
            let Some(root) = now.roots.get(&partition.root) else { continue };
            if !settings.captured.matches(&root.schema, &root.name) {
                continue;
            }
            let TableName { schema, name } = &partition.name;
            if settings.captured.excludes(schema, name) {
                tracing::warn!(
                    table = %root,
                    partition = %partition.name,
                    fix = "ALTER TABLE ... DETACH PARTITION, or remove it from \
                           postgres.exclude_tables",
                    "a partition was attached that postgres.exclude_tables matches: its rows are \
                     not read; new changes of it are published as the table's, or cause the table \
                     to be left out"
                );
                continue;
            }
            tracing::info!(
                table = %root,
                partition = %partition.name,
                rows = partition.rows(),
                "a partition was attached: reading its rows"
            );
            requests.push(Request::of_partition(exactly(&root.schema, &root.name), *oid));
        }
        if !requests.is_empty() {
            for publication in publication::Names::of(settings).both() {
                if let Err(error) = partitions::remind(client, publication, version).await {
                    tracing::warn!(
                        publication,
                        error = error::told(&error),
                        fix = "restart rowcast, so that the server reads its catalog again",
                        "this version of Postgres may omit changes of partitions that were \
                         attached"
                    );
                }
            }
        }
        let seen = now.shows.clone();
        control.ask(Command::Attached { requests, seen: seen.clone() });
        self.seen = Some(seen);
        Ok(())
    }
}

/// The partitions whose rows the table no longer has, as they were.
fn gone(
    before: &Partitions,
    now: &Partitions,
    suspects: &mut Suspects,
    patience: u32,
) -> Vec<(u32, Partition, Gone)> {
    let mut gone = Vec::new();
    let mut earlier = std::mem::take(suspects);
    let whole = rewritten_as_a_whole(before, now);
    for (oid, was) in &before.leaves {
        let Some(is) = now.leaves.get(oid).filter(|is| is.root == was.root) else {
            gone.push((*oid, was.clone(), Gone::Removed));
            continue;
        };
        let suspect = earlier.remove(oid);
        let (was, looks) = match suspect {
            Some(suspect) => suspect,
            None if is.filenode == was.filenode || was.rows() == 0 => continue,
            None if whole.contains(&was.root) => continue,
            None => (was.clone(), patience),
        };
        // Other rewrites of a table keep its row counts, or count its rows again.
        let is_forgotten = was.counted > 0.0 && is.counted < 0.0;
        let is_less = is.live < was.live && is.counted < was.rows_counted() / 2.0;
        if is_forgotten || is_less {
            gone.push((*oid, was, Gone::Emptied));
        } else if looks > 0 {
            suspects.insert(*oid, (was, looks - 1));
        }
    }
    gone
}

/// Partitioned tables whose partitions all have new files: the table itself was truncated, which
/// the stream reports, or rewritten.
fn rewritten_as_a_whole(before: &Partitions, now: &Partitions) -> BTreeSet<u32> {
    let mut counts = BTreeMap::<u32, (u32, u32)>::new();
    for (oid, was) in &before.leaves {
        let (all, others) = counts.entry(was.root).or_default();
        *all += 1;
        *others += u32::from(now.leaves.get(oid).is_some_and(|is| is.filenode != was.filenode));
    }
    // With a single partition this can't be decided.
    let whole = counts.into_iter().filter(|(_, (all, others))| all == others && *all > 1);
    whole.map(|(root, _)| root).collect()
}

impl Partition {
    /// Numbers of rows, for comparing counts.
    fn rows_counted(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rows = self.rows() as f64;
        rows
    }
}

fn warn(root: &TableName, partition: &Partition, gone: Gone, is_there: bool) {
    let (what, next_time) = match (gone, is_there) {
        (Gone::Removed, true) => ("detached", "DELETE FROM it, then DETACH it"),
        (Gone::Removed, false) => ("dropped", "DELETE FROM it, then DROP it"),
        (Gone::Emptied, _) => ("truncated", "DELETE FROM it, and do not TRUNCATE it"),
    };
    tracing::warn!(
        table = %root,
        partition = %partition.name,
        rows = partition.rows(),
        fix = format!(
            "if the topic has to match the table: stop rowcast, delete the topic, start rowcast, \
             run `rowcast snapshot {}`; next time {next_time}, so that consumers get an event for \
             each row",
            quoted(&exactly(&root.schema, &root.name))
        ),
        "a partition was {what}: Postgres streams no deletes for that, so its rows remain in the \
         topic"
    );
}

/// Quoted as one shell word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(root: u32, filenode: u32, counted: f64, live: i64) -> Partition {
        let name = TableName { schema: "public".to_owned(), name: format!("f{filenode}") };
        let (is_new, is_attached) = (false, false);
        Partition { root, name, is_new, is_attached, filenode, counted, live }
    }

    fn with(leaves: &[(u32, Partition)]) -> Partitions {
        Partitions { leaves: leaves.iter().cloned().collect(), ..Partitions::default() }
    }

    /// What is found over several checks, as OIDs and reasons.
    fn found(looks: &[&[(u32, Partition)]]) -> Vec<Vec<(u32, Gone)>> {
        let mut suspects = BTreeMap::new();
        let looks: Vec<Partitions> = looks.iter().map(|leaves| with(leaves)).collect();
        let pairs = looks.windows(2);
        let mut ask = |pair: &[Partitions]| {
            let gone = gone(&pair[0], &pair[1], &mut suspects, 2);
            gone.into_iter().map(|(oid, _, gone)| (oid, gone)).collect()
        };
        pairs.map(&mut ask).collect()
    }

    #[test]
    fn a_name_is_one_word_of_a_shell() {
        assert_eq!(quoted("public.days"), "'public.days'");
        assert_eq!(quoted("a'; rm x"), r"'a'\''; rm x'");
    }

    #[test]
    fn what_is_no_partition_of_its_table_any_more_is_gone_once() {
        let leaf = partition(1, 5, 10.0, 10);
        let moved = Partition { root: 2, ..leaf.clone() };
        let all = [(5, leaf.clone()), (6, leaf.clone())];
        assert_eq!(
            found(&[&all, &[(5, moved.clone())], &[(5, moved)]]),
            [vec![(5, Gone::Removed), (6, Gone::Removed)], vec![]]
        );
    }

    #[test]
    fn a_truncate_is_told_from_what_only_rewrites_a_file() {
        let was = || partition(1, 5, 100.0, 100);
        let other = || (6, partition(1, 9, 5.0, 5));
        let then =
            |leaf: Partition| found(&[&[(5, was()), other()], &[(5, leaf), other()]]).remove(0);
        let emptied = [(5, Gone::Emptied)];
        assert_eq!(then(partition(1, 6, -1.0, 100)), emptied, "counts come later");
        assert_eq!(then(partition(1, 6, -1.0, 400)), emptied, "and rows came since");
        assert_eq!(then(partition(1, 6, 40.0, 40)), emptied, "and were counted");
        assert_eq!(then(partition(1, 6, 100.0, 100)), [], "VACUUM FULL");
        assert_eq!(then(partition(1, 6, 100.0, 98)), [], "VACUUM FULL, and a DELETE");
        assert_eq!(then(partition(1, 6, 100.0, 20)), [], "ALTER TABLE, and a DELETE");
        assert_eq!(then(partition(1, 5, 0.0, 0)), [], "DELETE and VACUUM");
    }

    #[test]
    fn counts_may_come_some_looks_later_and_no_later() {
        let look = |filenode, live| [(5, partition(1, filenode, -1.0, live))];
        let all = [look(5, 9), look(6, 9), look(6, 9), look(6, 0), look(6, 0)];
        let all: Vec<&[_]> = all.iter().map(<[_; 1]>::as_slice).collect();
        assert_eq!(found(&all), [vec![], vec![], vec![(5, Gone::Emptied)], vec![]]);
        let late = [look(5, 9), look(6, 9), look(6, 9), look(6, 9), look(6, 0)];
        let late: Vec<&[_]> = late.iter().map(<[_; 1]>::as_slice).collect();
        assert_eq!(found(&late), [vec![], vec![], vec![], vec![]], "rows were deleted");
    }

    #[test]
    fn a_table_that_is_truncated_as_a_whole_is_the_streams_to_tell() {
        let leaves =
            |files: [u32; 2], live| files.map(|file| (file % 10, partition(1, file, -1.0, live)));
        assert_eq!(found(&[&leaves([15, 16], 9), &leaves([25, 26], 0)]), [vec![]]);
        assert_eq!(
            found(&[&leaves([15, 16], 9), &leaves([25, 16], 0)]),
            [vec![(5, Gone::Emptied)]]
        );
    }
}
