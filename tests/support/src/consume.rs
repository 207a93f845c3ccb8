//! Reads topics back, from their beginning, as a test wants to look at them.
//!
//! Partitions are assigned, not subscribed to: no group, no join delay, and the mock broker does it
//! too. The end of a topic is never guessed from watermarks (transactions leave gaps there): the
//! test says what it waits for, and a record too many shows by [`RecordReader::until_quiet`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rowcast::checkpoint::Checkpoint;

use super::PATIENCE;
use super::kafka::client_config;
use super::process::pause;
use super::witness::{Clocks, Witness};

/// A record as it stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// `None` is a record without a key; an empty key is `Some`.
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone; an empty value is `Some`.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl OwnedRecord {
    fn from_message(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let owned =
                |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
            headers.iter().map(|header| owned(header.key, header.value)).collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    /// The key as text.
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().map(|key| std::str::from_utf8(key).expect("a key in UTF-8"))
    }

    /// The value as JSON; `None` for a tombstone.
    pub fn json(&self) -> Option<serde_json::Value> {
        self.value.as_deref().map(|value| serde_json::from_slice(value).expect("a value in JSON"))
    }
}

/// A client that has read nothing for so long is replaced. One that was told of a partition without
/// a leader, as when its only broker is shut down, now and then never reads it again:
/// confluentinc/librdkafka#5430.
const DEAF: Duration = Duration::from_secs(10);

/// Reads some topics from their beginning on.
pub struct RecordReader {
    consumer: BaseConsumer,
    config: ClientConfig,
    /// When a record last came, or the client was made.
    heard: Instant,
    topics: Vec<String>,
    /// All records read so far, in order of arrival.
    pub records: Vec<OwnedRecord>,
    /// Asked when this gives up.
    pub witness: Option<Witness>,
    /// The last thing that the client complained of, and when.
    complaint: Option<(KafkaError, Instant)>,
}

impl RecordReader {
    /// Waits until the topics exist, and stands at their beginning.
    ///
    /// # Panics
    ///
    /// When one of them does not exist after `deadline`.
    pub fn open(brokers: &str, topics: &[&str], deadline: Duration) -> Self {
        Self::open_with(&mut reader_config(brokers), topics, deadline)
    }

    fn open_with(config: &mut ClientConfig, topics: &[&str], deadline: Duration) -> Self {
        let reader = Self {
            consumer: config.create().expect("a consumer"),
            config: config.clone(),
            heard: Instant::now(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            records: Vec::new(),
            witness: None,
            complaint: None,
        };
        let started = Instant::now();
        // One answer tells of all topics; asking once a topic takes minutes where there are thousands.
        let partitions = loop {
            let partitions = reader.all_partitions();
            let missing = reader.topics.iter().find(|topic| !partitions.contains_key(*topic));
            let Some(missing) = missing else { break partitions };
            assert!(started.elapsed() < deadline, "no topic {missing} after {deadline:?}");
            pause();
        };
        let mut assignment = TopicPartitionList::new();
        for topic in &reader.topics {
            for partition in &partitions[topic] {
                assignment
                    .add_partition_offset(topic, *partition, Offset::Beginning)
                    .expect("an offset that exists");
            }
        }
        reader.consumer.assign(&assignment).expect("assign partitions");
        reader
    }

    /// The partitions of a topic that was opened; no broker is asked again.
    fn partitions(&self, topic: &str) -> Vec<i32> {
        let assigned = self.consumer.assignment().expect("an assignment");
        assigned.elements_for_topic(topic).iter().map(|element| element.partition()).collect()
    }

    /// The partitions of all topics that have some; none while the broker does not answer.
    fn all_partitions(&self) -> BTreeMap<String, Vec<i32>> {
        let metadata = self.consumer.fetch_metadata(None, Duration::from_secs(1));
        let Ok(metadata) = metadata else { return BTreeMap::new() };
        let topics = metadata.topics().iter().map(|topic| {
            let ids = topic.partitions().iter().map(|partition| partition.id()).collect();
            (topic.name().to_owned(), ids)
        });
        topics.filter(|(_, ids): &(_, Vec<i32>)| !ids.is_empty()).collect()
    }

    /// Records in a topic now, for a topic that no transaction leaves gaps in.
    pub fn count(&self, topic: &str) -> usize {
        let partitions = self.partitions(topic).into_iter();
        let counts = partitions.map(|partition| {
            let range = self.consumer.fetch_watermarks(topic, partition, Duration::from_secs(10));
            let (low, high) = range.expect("the partition's range");
            usize::try_from(high - low).expect("a count")
        });
        counts.sum()
    }

    /// Reads on until `enough` says so.
    ///
    /// # Panics
    ///
    /// When `deadline` passes before; the message tells what has come, and how things stand.
    pub fn until(
        &mut self,
        enough: impl FnMut(&[OwnedRecord]) -> bool,
        deadline: Duration,
    ) -> &[OwnedRecord] {
        self.wait(enough, "what was asked for", deadline)
    }

    /// Reads on until there are so many records.
    ///
    /// # Panics
    ///
    /// As [`RecordReader::until`].
    pub fn until_count(&mut self, count: usize, deadline: Duration) -> &[OwnedRecord] {
        self.wait(|records| records.len() >= count, &format!("{count} records"), deadline)
    }

    fn wait(
        &mut self,
        mut enough: impl FnMut(&[OwnedRecord]) -> bool,
        expected: &str,
        deadline: Duration,
    ) -> &[OwnedRecord] {
        let mut clocks = Clocks::start();
        let started = Instant::now();
        while !enough(&self.records) {
            assert!(
                started.elapsed() < deadline,
                "no {expected} after {deadline:?}, but {} from {:?}, the last: {:?}\n{}{}",
                self.records.len(),
                self.topics,
                self.records.last(),
                clocks.statement(),
                self.statement(),
            );
            self.poll(Duration::from_millis(50));
            clocks.look();
        }
        &self.records
    }

    /// The offset of the last record that was read of a partition.
    fn last_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let mut last = self.records.iter().rev();
        let last = last.find(|record| record.topic == topic && record.partition == partition);
        last.map(|record| record.offset)
    }

    /// How the topics and this reader stand, and what the witness says.
    fn statement(&self) -> String {
        let mut text = String::new();
        let position = self.consumer.position().ok();
        for topic in &self.topics {
            for partition in self.partitions(topic) {
                let limit = Duration::from_secs(5);
                let ends = self.consumer.fetch_watermarks(topic, partition, limit);
                let position =
                    position.as_ref().and_then(|all| all.find_partition(topic, partition));
                let _ = writeln!(
                    text,
                    "broker, {topic}[{partition}]: watermarks {ends:?}, read up to {:?}, position {:?}",
                    self.last_offset(topic, partition),
                    position.map(|at| at.offset()),
                );
            }
        }
        if let Some((error, when)) = &self.complaint {
            let _ = writeln!(text, "consumer, {:?} ago: {error}", when.elapsed());
        }
        text + &self.witness.as_ref().map(Witness::statement).unwrap_or_default()
    }

    /// Reads on until nothing has come for `quiet`, to see what should not be there.
    pub fn until_quiet(&mut self, quiet: Duration) -> &[OwnedRecord] {
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            if self.poll(Duration::from_millis(20)) {
                last = Instant::now();
            }
        }
        &self.records
    }

    /// Whether a record came. Errors of a broker that is away are librdkafka's to retry.
    fn poll(&mut self, timeout: Duration) -> bool {
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => {
                self.records.push(OwnedRecord::from_message(&message));
                self.heard = Instant::now();
                return true;
            }
            Some(Err(error)) => self.complaint = Some((error, Instant::now())),
            None => {}
        }
        if self.heard.elapsed() >= DEAF {
            println!("{:?}: silent for {DEAF:?}, another client reads on", self.topics);
            self.read_on_anew();
        }
        false
    }

    /// Goes on with another client, where this one is.
    pub fn read_on_anew(&mut self) {
        // A list of the old client's own would keep it from ending.
        let mut assignment = TopicPartitionList::new();
        for topic in &self.topics {
            for partition in self.partitions(topic) {
                let last = self.last_offset(topic, partition);
                let next = last.map_or(Offset::Beginning, |last| Offset::Offset(last + 1));
                assignment
                    .add_partition_offset(topic, partition, next)
                    .expect("an offset that exists");
            }
        }
        self.consumer = self.config.create().expect("a consumer");
        self.consumer.assign(&assignment).expect("assign partitions");
        self.heard = Instant::now();
    }
}

fn reader_config(brokers: &str) -> ClientConfig {
    let mut config = client_config(brokers);
    // Needed to make a consumer at all; nothing is ever committed under it.
    config.set("group.id", "rowcast-test");
    config.set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest");
    config.set("fetch.wait.max.ms", "20");
    config
}

/// Every topic of a pipeline that there is.
pub fn topics_of(brokers: &str, pipeline: &str) -> Vec<String> {
    let consumer: BaseConsumer = client_config(brokers).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|topic| topic.starts_with(&format!("{pipeline}."))).collect()
}

/// All that a topic holds now, to the end that the broker tells: of transactions, what was
/// committed before the first that is open.
///
/// # Panics
///
/// When the end has not come after `deadline`.
pub fn read_whole(brokers: &str, topic: &str, deadline: Duration) -> Vec<OwnedRecord> {
    let started = Instant::now();
    let config = &mut reader_config(brokers);
    let mut reader =
        RecordReader::open_with(config.set("enable.partition.eof", "true"), &[topic], deadline);
    let mut open = reader.partitions(topic);
    while !open.is_empty() {
        assert!(started.elapsed() < deadline, "{topic}: no end of {open:?} after {deadline:?}");
        match reader.consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => reader.records.push(OwnedRecord::from_message(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|id| *id != partition),
            Some(Err(_)) | None => {}
        }
    }
    reader.records
}

/// The checkpoint of a pipeline that is in the topic now, if there is one; blocks.
///
/// # Panics
///
/// As [`read_whole`]; and when what is there is no checkpoint.
pub fn checkpoint(brokers: &str, pipeline: &str) -> Option<Checkpoint> {
    let records = read_whole(brokers, "rowcast.checkpoints", PATIENCE);
    let is_own = |record: &&OwnedRecord| record.key.as_deref() == Some(pipeline.as_bytes());
    let value = records.iter().rfind(is_own)?.value.as_deref()?;
    Some(Checkpoint::read(value).expect("a checkpoint"))
}

/// Reads topics from their beginning until `enough` says so, and gives what has come until then.
///
/// # Panics
///
/// When `deadline` passes before, or a topic does not come to exist.
pub async fn consume(
    brokers: &str,
    topics: &[&str],
    enough: impl FnMut(&[OwnedRecord]) -> bool + Send + 'static,
    deadline: Duration,
) -> Vec<OwnedRecord> {
    let brokers = brokers.to_owned();
    let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
    let reading = tokio::task::spawn_blocking(move || {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut reader = RecordReader::open(&brokers, &topics, deadline);
        reader.until(enough, deadline);
        reader.records
    });
    match reading.await {
        Ok(records) => records,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// For [`consume`]: at least `count` records.
pub fn at_least(count: usize) -> impl FnMut(&[OwnedRecord]) -> bool + Send + 'static {
    move |records| records.len() >= count
}
