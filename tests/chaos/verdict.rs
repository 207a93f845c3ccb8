//! All that came of a run, read to its end and judged.

use std::collections::BTreeMap;
use std::path::Path;

use rowcast::lsn::Lsn;
use tokio_postgres::Client;

use crate::check::{Checkpoint, Kind, Mode, Problem, check, check_state};
use crate::evidence;
use crate::load::{self, TABLES};
use crate::support::consume::{OwnedRecord, read_whole};
use crate::support::{PATIENCE, eventually};
use crate::truth::{self, Expected};
use crate::watch::Watcher;

/// Problems that are printed of those that were found.
const PRINTED: usize = 20;

/// The topic in which the bridge says how far it is.
const CHECKPOINTS: &str = "rowcast.checkpoints";

/// What was found, and what it was found in.
pub(crate) struct Verdict {
    expected: Vec<Expected>,
    records: Vec<OwnedRecord>,
    watched: Vec<OwnedRecord>,
    /// Empty where nothing is said of them.
    checkpoints: Vec<OwnedRecord>,
    problems: Vec<Problem>,
    transactions: usize,
    pub(crate) repeats: usize,
}

impl Verdict {
    /// Reads the topics, once the bridge has ended, and holds them against the database.
    pub(crate) async fn reach(
        mode: Mode,
        client: &Client,
        brokers: &str,
        topics: &[String],
        watcher: Watcher,
    ) -> Self {
        let read = |topic: &String| read_whole(brokers, topic, PATIENCE);
        let records: Vec<OwnedRecord> =
            tokio::task::block_in_place(|| topics.iter().flat_map(read).collect());
        eventually(PATIENCE, "the watcher to have seen all", async || {
            (watcher.count() >= records.len()).then_some(())
        })
        .await;
        let watched = watcher.stop();
        let expected = truth::tell(client).await;
        let checkpoints = match mode {
            Mode::AtLeastOnce => Vec::new(),
            Mode::ExactlyOnce => {
                tokio::task::block_in_place(|| read_whole(brokers, CHECKPOINTS, PATIENCE))
            }
        };
        let told: Vec<Checkpoint> = checkpoints.iter().filter_map(checkpoint).collect();
        assert!(
            mode == Mode::AtLeastOnce || !told.is_empty(),
            "each Kafka transaction holds a checkpoint"
        );
        let findings = check(mode, &expected, &records, &told);
        let mut problems = findings.problems;
        for table in &TABLES {
            let rows = load::rows(client, table).await;
            problems.extend(check_state(table.name, &expected, &records, &rows));
        }
        if by_partition(&watched) != by_partition(&records) {
            let told = "who watched saw something else than who came later".to_owned();
            problems.push(Problem { kind: Kind::Altered, told });
        }
        let (transactions, repeats) = (findings.transactions, findings.repeats);
        Self { expected, records, watched, checkpoints, problems, transactions, repeats }
    }

    /// How much it was, on one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} transactions, {} records demanded, {} seen, {} of them repeats",
            self.transactions,
            self.expected.len(),
            self.records.len(),
            self.repeats
        )
    }

    /// The first of the problems; `None` when there is none.
    pub(crate) fn problems(&self) -> Option<String> {
        let first: Vec<String> =
            self.problems.iter().take(PRINTED).map(ToString::to_string).collect();
        let count = self.problems.len();
        (count > 0).then(|| format!("{count} problems, the first:\n{}", first.join("\n")))
    }

    /// Keeps what it is founded on.
    pub(crate) fn keep(&self, folder: &Path) {
        let lines = |records: &[OwnedRecord]| {
            records.iter().map(|record| format!("{record:?}\n")).collect::<String>()
        };
        evidence::keep(folder, "records", &lines(&self.records));
        evidence::keep(folder, "watched", &lines(&self.watched));
        evidence::keep(folder, "checkpoints", &lines(&self.checkpoints));
        let expected = self.expected.iter().map(|expected| format!("{expected:?}\n"));
        evidence::keep(folder, "expected", &expected.collect::<String>());
        let problems = self.problems.iter().map(|problem| format!("{problem}\n"));
        evidence::keep(folder, "problems", &problems.collect::<String>());
    }
}

/// What a record of [`CHECKPOINTS`] says; `None` for one before any change.
fn checkpoint(record: &OwnedRecord) -> Option<Checkpoint> {
    let json = record.json()?;
    let lsn: Lsn = json["commit_lsn"].as_str()?.parse().expect("an LSN");
    let ordinal = json["ordinal"].as_u64().expect("a count");
    (ordinal > 0).then_some(Checkpoint { commit_lsn: lsn.as_u64(), ordinal })
}

/// A partition's records, with what a reader sees of them.
type Sights<'a> = Vec<(i64, Option<&'a [u8]>, Option<&'a [u8]>)>;

fn by_partition(records: &[OwnedRecord]) -> BTreeMap<(&str, i32), Sights<'_>> {
    let mut partitions: BTreeMap<_, Sights<'_>> = BTreeMap::new();
    for record in records {
        let sight = (record.offset, record.key.as_deref(), record.value.as_deref());
        partitions.entry((record.topic.as_str(), record.partition)).or_default().push(sight);
    }
    partitions
}
