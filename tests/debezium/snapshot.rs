//! What both publish of the rows that are there when they begin.
//!
//! The newest and the oldest server get the rows that the script leaves, and some more
//! (`sql/snapshot`); then all readers begin, each with a slot of its own. A row written after
//! the last slot was made tells when a reader is through.
//!
//! Every record is compared, whole. What two snapshots can't agree on is taken out before:
//!
//! - the order of tables, and of rows that are in several files or ranges of pages: Debezium reads
//!   one after the other, rowcast several at once. Within one range it is the order of the file;
//! - of all rows, which is the `first` and which the `last`, for the same reason. That each says so
//!   of one row is asserted, and of every table its own first and last rows are compared;
//! - places in the WAL, transactions and times, since each has a slot and a moment of its own. That
//!   all rows of a snapshot have one place and transaction, and a time of the run, is asserted.
//!
//! There are no golden files of this: without Debezium nothing is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::connect::{self, Connect};
use crate::differences::{self, PARENTS};
use crate::golden;
use crate::json::Json;
use crate::reader::{self, Reader, Reads};
use crate::record::Record;
use crate::run::{
    BARRIER, LIMIT, ONE_WORKER, PREPARE, Published, Publisher, Runner, block_on, create_topics,
    join_all,
};
use crate::script::{self, Part, Step};
use crate::support::eventually;
use crate::support::kafka::KafkaNode;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};

/// The configurations that are compared: with schemas and partitions of their own, and with neither
/// and every switch turned. What the others turn is the encoder's alone, and seen in the changes.
const CONFIGURATIONS: [&str; 2] = ["schema", "texts"];

/// The table whose topic has several partitions.
pub(crate) const SPREAD: &str = "many";

/// Tables in several files, or several ranges of one.
const SEVERAL_RANGES: &[&str] = &[SPREAD, "parts", "zones"];

/// A server with a database that holds rows, and those that read it.
struct Filled {
    server: PostgresServer,
    database: TestDatabase,
    readers: Vec<Reader>,
    parts: Vec<Part>,
    rows: Part,
}

/// What every reader published, on the newest server and on the oldest; or why Debezium can't take
/// part.
pub(crate) fn read() -> &'static Result<Vec<Published>, String> {
    static READ: OnceLock<Option<Result<Vec<Published>, String>>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        // Servers end with their thread, by runtimes of their own: not those of the tests.
        let whole = std::thread::spawn(|| {
            if golden::is_update() {
                return Err("golden files are written, and rowcast takes no part".to_owned());
            }
            let jars = connect::jars()?;
            let kafka = KafkaNode::start()?;
            Ok(read_all(&kafka.brokers(), &jars))
        });
        whole.join().ok()
    });
    read.as_ref().expect("the run failed; its panic is printed above")
}

fn read_all(bootstrap: &str, jars: &Path) -> Vec<Published> {
    let _alone = ONE_WORKER.lock().unwrap_or_else(PoisonError::into_inner);
    let filled: Vec<Filled> = std::thread::scope(|scope| {
        let every = Binaries::every();
        let ends = every.iter().take(1).chain(every.iter().skip(1).last());
        join_all(ends.map(|binaries| scope.spawn(|| block_on(Filled::new(binaries)))))
    });
    let topics: Vec<_> = filled.iter().flat_map(Filled::topics).collect();
    block_on(create_topics(bootstrap, &topics));
    let connectors = filled.iter().flat_map(|filled| {
        let excluded = |reader: &Reader| filled.excluded(reader);
        reader::connectors(&filled.readers, filled.server.port(), &filled.database, excluded)
    });
    let connect = Connect::start(jars, bootstrap, &connectors.collect::<Vec<_>>());
    let connect = Mutex::new(connect);
    let read = std::thread::scope(|scope| {
        let reads = filled.iter().map(|filled| {
            let connect = &connect;
            scope.spawn(move || block_on(filled.read(bootstrap, connect)))
        });
        join_all(reads)
    });
    let mut read: Vec<Published> = read.into_iter().flatten().collect();
    read.sort_by_key(|read| read.major);
    read
}

impl Filled {
    async fn new(binaries: &Binaries) -> Self {
        let server = PostgresServer::start(binaries, &[]);
        let database = server.database().await;
        let client = database.client().await;
        client.batch_execute(PREPARE).await.expect("prepare");
        let mut parts = script::parts(server.major());
        let setup = parts.remove(0);
        let rows = script::rows(&parts, server.major());
        for part in [&setup].into_iter().chain(&parts).chain([&rows]) {
            for step in &part.steps {
                let Step::Run(sql) = step else { continue };
                let done = client.batch_execute(sql).await;
                done.unwrap_or_else(|error| panic!("{}: {error:?}: {sql}", part.name));
            }
        }
        let mut readers = reader::all(Reads::Rows, binaries, true);
        readers.retain(|reader| CONFIGURATIONS.contains(&reader.configuration.name));
        Self { server, database, readers, parts, rows }
    }

    /// The topics of all readers, with their partitions.
    fn topics(&self) -> Vec<(String, i32)> {
        let mut tables = script::tables(&self.parts);
        tables.extend(script::tables(std::slice::from_ref(&self.rows)));
        tables.push(format!("public.{BARRIER}"));
        tables.extend(["message", "transaction"].map(str::to_owned));
        let topic = |reader: &Reader, table: &String| {
            let is_spread = *table == format!("public.{SPREAD}");
            (format!("{}.{table}", reader.prefix), if is_spread { 3 } else { 1 })
        };
        let of_reader =
            |reader| tables.iter().map(|table| topic(reader, table)).collect::<Vec<_>>();
        self.readers.iter().flat_map(of_reader).collect()
    }

    /// Tables that end the one or the other: values that are refused, or that overflow.
    fn excluded(&self, reader: &Reader) -> Vec<String> {
        script::tables(reader.configuration.refused_parts(&self.parts))
    }

    /// Starts the readers, and gives what they published.
    async fn read(&self, bootstrap: &str, connect: &Mutex<Connect>) -> Vec<Published> {
        let began_ms = now_ms();
        let client = self.database.client().await;
        let mut runner = Runner::new(&client, bootstrap, &self.readers, Some(connect));
        let of_rowcast =
            self.readers.iter().filter(|reader| reader.publisher == Publisher::Rowcast);
        runner.bridges = of_rowcast
            .map(|reader| {
                let excluded = self.excluded(reader);
                (reader, reader.start_bridge(&self.database, bootstrap, &excluded))
            })
            .collect();
        let made = "SELECT count(*) FROM pg_replication_slots
                    WHERE database = current_database() AND confirmed_flush_lsn IS NOT NULL";
        let readers = i64::try_from(self.readers.len()).expect("a count");
        eventually(LIMIT, "all readers to have their slots", async || {
            runner.assert_healthy();
            let made: i64 = client.query_one(made, &[]).await.expect("ask").get(0);
            (made == readers).then_some(())
        })
        .await;
        runner.wait().await;
        let major = self.server.major();
        let read: Vec<Published> =
            self.readers.iter().map(|reader| runner.published(reader, major)).collect();
        for (read, reader) in read.iter().zip(&self.readers) {
            assert_of_one_moment(&read.records, &reader.prefix, began_ms);
        }
        read
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

/// All rows of a snapshot have one place and one transaction, and a time of the run; one is the
/// first of all, and one the last.
fn assert_of_one_moment(records: &[Record], prefix: &str, began_ms: u128) {
    let mut places = BTreeSet::new();
    let mut ends = BTreeMap::new();
    for event in records.iter().filter_map(Record::event) {
        if !matches!(event.field("op"), Some(Json::Text(op)) if op == "r") {
            continue;
        }
        let source = |name: &str| event.path(&["source", name]).cloned().unwrap_or(Json::Null);
        places.insert(["lsn", "txId", "sequence"].map(|name| source(name).to_string()));
        let time = source("ts_ms").to_string();
        let is_of_the_run =
            time.parse::<u128>().is_ok_and(|time| time >= began_ms && time <= now_ms());
        assert!(is_of_the_run, "{prefix}: a row is of {time}, the run of {began_ms} on");
        *ends.entry(source("snapshot").to_string()).or_insert(0) += 1;
    }
    assert_eq!(places.len(), 1, "{prefix}: places {places:?}");
    for end in ["\"first\"", "\"last\""] {
        assert_eq!(ends.get(end), Some(&1), "{prefix}: {end} among {ends:?}");
    }
}

/// The records as two snapshots of a publication can agree on them.
pub(crate) fn comparable(records: &[Record], publication: &str) -> Vec<Record> {
    let mut topics: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
    for record in records.iter().filter(|record| !differences::is_read_twice(record, publication)) {
        topics.entry(&record.topic).or_default().push(record.clone());
    }
    for (topic, records) in &mut topics {
        let count = records.len();
        records.iter_mut().for_each(Record::forget_run);
        if SEVERAL_RANGES.iter().any(|table| *topic == format!("taxi.public.{table}")) {
            assert_one_first_and_one_last(topic, records);
            records.sort_by_cached_key(|record| record.to_json().to_string());
        } else if PARENTS.iter().any(|(table, _)| *topic == format!("taxi.public.{table}")) {
            // Debezium's last row of it is one of those that were just left out.
            records.iter_mut().filter_map(marker).for_each(String::clear);
        } else {
            for (place, record) in records.iter_mut().enumerate() {
                settle_marker(record, place == 0, place + 1 == count);
            }
        }
    }
    topics.into_values().flatten().collect()
}

fn marker(record: &mut Record) -> Option<&mut String> {
    match record.event_mut()?.field_mut("source")?.field_mut("snapshot")? {
        Json::Text(marker) => Some(marker),
        _ => None,
    }
}

/// The first row of all is also the first of its table, and so with the last; a row that is alone
/// is called the last.
fn settle_marker(record: &mut Record, is_first: bool, is_last: bool) {
    let Some(marker) = marker(record) else { return };
    let settled = match marker.as_str() {
        "first" if is_first && is_last => "last_in_data_collection",
        "first" if is_first => "first_in_data_collection",
        "last" if is_last => "last_in_data_collection",
        _ => return,
    };
    settled.clone_into(marker);
}

/// Takes the markers out, once each table has a first and a last.
fn assert_one_first_and_one_last(topic: &str, records: &mut [Record]) {
    let mut markers = BTreeMap::new();
    for record in records {
        let marker = marker(record).expect("a row of a snapshot");
        *markers.entry(marker.replace("_in_data_collection", "")).or_insert(0) += 1;
        marker.clear();
    }
    let ends = [markers.get("first"), markers.get("last")];
    assert_eq!(ends, [Some(&1), Some(&1)], "{topic}: {markers:?}");
}
