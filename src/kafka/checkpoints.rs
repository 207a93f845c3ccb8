//! The topic of the checkpoints: created compacted, read to its end at a start, cleared by a
//! teardown.
//!
//! Reading must not miss the newest checkpoint, or changes would be published again. A reader of
//! committed records stops at the first open transaction, which may be another pipeline's: so it
//! waits until everything in the topic can be read. Our own transactions are settled before,
//! because taking over a transactional id ends its open transaction.
//!
//! `pipeline` writes the checkpoint like any record; what is stored about tables is written here.
//! Not here: the content of either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::error::Error;
use super::error_table::passes;
use super::properties::{creation_error, without_producer};
use super::quiet::Quiet;
use crate::checkpoint::{Checkpoint, RecordError, Remembered};
use crate::config::Resolved;
use crate::route::TopicPlan;

/// The only partition: one order for all checkpoints.
pub const PARTITION: i32 = 0;

/// Longest wait for one response of the brokers.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for the end: more than a transaction may be open.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long to wait for another's transaction before logging it.
const TELL: Duration = Duration::from_secs(2);

/// Longest wait for the acknowledgement of a record.
const DELIVERY: Duration = Duration::from_secs(30);

/// Most records in flight.
const AT_A_TIME: usize = 10_000;

/// How the topic is created. Small segments, so that compaction, which skips the newest one, keeps
/// the rest short; a lag, so that what a copy wrote after it was replaced can still be seen
/// together with what replaced it.
#[must_use]
pub fn checkpoint_topic(settings: &Resolved) -> TopicPlan {
    let set = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "4194304"),
        ("segment.ms", "600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("min.compaction.lag.ms", "600000"),
    ];
    let settings_of_topic: BTreeMap<String, String> =
        set.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    TopicPlan {
        name: settings.topics.checkpoints.as_str().into(),
        partitions: 1,
        replication_factor: settings.topics.replication_factor,
        settings: settings_of_topic,
    }
}

/// Receives key, value and offset of a record.
type Take<'a> = dyn FnMut(&[u8], Option<&[u8]>, i64) + 'a;

/// What the topic contains for one pipeline.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// What is stored about tables, by OID.
    pub remembered: BTreeMap<u32, Remembered>,
}

/// The checkpoint, and the records of tables by OID, each with its offset.
type Gathered = (Result<Option<Checkpoint>, Error>, BTreeMap<u32, (Vec<u8>, i64)>);

/// Reads, extends and clears what the topic contains for one pipeline.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    config: ClientConfig,
    topic: Arc<str>,
    pipeline: String,
}

impl Checkpoints {
    /// Access for this pipeline; `config` is the producer's.
    #[must_use]
    pub fn new(config: &ClientConfig, settings: &Resolved) -> Self {
        Self {
            config: without_producer(config),
            topic: settings.topics.checkpoints.as_str().into(),
            pipeline: settings.name.clone(),
        }
    }

    /// What the topic contains for the pipeline. Blocks.
    ///
    /// # Errors
    /// When the topic can't be read to its end, or a record is invalid.
    pub fn read(&self) -> Result<Found, Error> {
        let (newest, remembered) = self.gather()?;
        let remembered = remembered.into_iter().map(|(oid, (value, offset))| {
            let read = Remembered::read(&value).map_err(|source| self.malformed(offset, source))?;
            Ok((oid, Remembered { oid, ..read }))
        });
        Ok(Found { checkpoint: newest?, remembered: remembered.collect::<Result<_, Error>>()? })
    }

    /// Removes unreadable records of the pipeline from the topic.
    ///
    /// # Errors
    /// When the topic can't be read, or the brokers do not accept the tombstones.
    pub async fn remove_unreadable(&self) -> Result<(), Error> {
        let asked = self.clone();
        let gathered = tokio::task::spawn_blocking(move || asked.gather()).await;
        let (newest, remembered) = gathered.unwrap_or_else(|_| Err(self.too_slow()))?;
        let of_tables =
            remembered.into_iter().filter(|(_, (value, _))| Remembered::read(value).is_err());
        let of_tables = of_tables.map(|(oid, _)| Remembered::key(&self.pipeline, oid));
        let own = newest.is_err().then(|| self.pipeline.clone());
        let tombstones: Vec<_> = own.into_iter().chain(of_tables).map(|key| (key, None)).collect();
        self.put(&tombstones).await
    }

    /// The newest records of the pipeline. Blocks.
    fn gather(&self) -> Result<Gathered, Error> {
        let mut newest = Ok(None);
        let mut remembered = BTreeMap::new();
        self.each(&mut |key, value, offset| {
            if key == self.pipeline.as_bytes() {
                newest = self.newer(std::mem::replace(&mut newest, Ok(None)), value, offset);
            } else if let Some(oid) = Remembered::oid_of_key(&self.pipeline, key) {
                match value {
                    // Parsed at the end: a later record may be readable.
                    Some(value) => drop(remembered.insert(oid, (value.to_vec(), offset))),
                    None => drop(remembered.remove(&oid)),
                }
            }
        })?;
        Ok((newest, remembered))
    }

    /// The keys of all records of the pipeline, readable or not; empty if there is no topic.
    /// Blocks.
    ///
    /// # Errors
    /// When the topic can't be read to its end.
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let mut keys = BTreeSet::new();
        let read = self.each(&mut |key, value, _| {
            let is_ours = key == self.pipeline.as_bytes()
                || Remembered::oid_of_key(&self.pipeline, key).is_some();
            let key = String::from_utf8_lossy(key).into_owned();
            match value {
                Some(_) if is_ours => drop(keys.insert(key)),
                _ => drop(keys.remove(&key)),
            }
        });
        match read {
            Ok(()) => Ok(keys.into_iter().collect()),
            Err(Error::CheckpointRead { source, .. }) if is_missing(&source) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Passes on key, value and offset of every record that has a key.
    fn each(&self, take: &mut Take<'_>) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let end = self.range(&self.consumer("read_uncommitted")?)?.1;
        let consumer = self.consumer("read_committed")?;
        self.wait_until_committed(&consumer, end, deadline)?;
        // Where there is nothing, too: else a right to read that is missing would be found by the next
        // start only.
        self.each_of(&consumer, deadline, take)
    }

    /// As [`each`](Self::each), from the first offset to the last that the consumer can read.
    fn each_of(
        &self,
        consumer: &BaseConsumer<Quiet>,
        deadline: Instant,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let mut at_beginning = TopicPartitionList::new();
        at_beginning
            .add_partition_offset(&self.topic, PARTITION, Offset::Beginning)
            .and_then(|()| consumer.assign(&at_beginning))
            .map_err(|source| self.failed(source))?;
        loop {
            match consumer.poll(ANSWER.min(deadline.saturating_duration_since(Instant::now()))) {
                Some(Ok(message)) => {
                    if let Some(key) = message.key() {
                        take(key, message.payload(), message.offset());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if !is_passing(&error) => return Err(self.failed(error)),
                Some(Err(_)) | None if Instant::now() < deadline => {}
                Some(Err(_)) | None => return Err(self.too_slow()),
            }
        }
    }

    /// The newest checkpoint, as [`read`](Self::read) finds it; `None` without a topic. Blocks.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_if_any(&self) -> Result<Option<Checkpoint>, Error> {
        match self.read() {
            Err(Error::CheckpointRead { source, .. }) if is_missing(&source) => Ok(None),
            read => Ok(read?.checkpoint),
        }
    }

    /// The newest checkpoint that can be read without waiting for a transaction to end. It
    /// identifies the checkpoint's owner; its position may be outdated. Blocks.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn glance(&self) -> Result<Option<Checkpoint>, Error> {
        let consumer = self.consumer("read_committed")?;
        let (first, end) = self.range(&consumer)?;
        if end <= first {
            return Ok(None);
        }
        let mut newest = Ok(None);
        self.each_of(&consumer, Instant::now() + PATIENCE, &mut |key, value, offset| {
            if key == self.pipeline.as_bytes() {
                newest = self.newer(std::mem::replace(&mut newest, Ok(None)), value, offset);
            }
        })?;
        newest
    }

    /// Removes all records of the pipeline, so that a later start is a first start.
    ///
    /// # Errors
    /// When the topic can't be read, or the brokers do not accept the tombstones.
    pub async fn remove(&self) -> Result<(), Error> {
        let asked = self.clone();
        let keys = tokio::task::spawn_blocking(move || asked.keys()).await;
        let keys = keys.unwrap_or_else(|_| Ok(vec![self.pipeline.clone()]))?;
        let tombstones: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
        self.put(&tombstones).await
    }

    /// Writes records (tombstones if without a value), and waits until they are durable. They are
    /// not part of a Kafka transaction: each is complete on its own.
    ///
    /// # Errors
    /// When the brokers do not accept one of them.
    pub async fn put(&self, records: &[(String, Option<Vec<u8>>)]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.notes()?.put(records).await
    }

    /// Writes records as [`put`](Self::put) does, over one client: for few records at a time,
    /// often.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn notes(&self) -> Result<Notes, Error> {
        let mut config = self.config.clone();
        // Each is awaited.
        config.set("enable.idempotence", "true").set("linger.ms", "0");
        let producer = config.create().map_err(creation_error)?;
        Ok(Notes { producer, topic: Arc::clone(&self.topic) })
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Quiet>, Error> {
        let mut config = self.config.clone();
        config
            // Needed for an assignment, but never joined and never committed to.
            .set("group.id", "rowcast")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            // The end is reported with an empty response, which a broker delays for this long.
            .set("fetch.wait.max.ms", "10")
            .set("isolation.level", isolation);
        config.create_with_context(Quiet::CHECKPOINTS).map_err(creation_error)
    }

    /// First and last offset that the consumer can read.
    fn range(&self, consumer: &BaseConsumer<Quiet>) -> Result<(i64, i64), Error> {
        let range = consumer.fetch_watermarks(&self.topic, PARTITION, ANSWER);
        range.map_err(|source| self.failed(source))
    }

    /// Waits until everything before `end` is committed or aborted.
    fn wait_until_committed(
        &self,
        consumer: &BaseConsumer<Quiet>,
        end: i64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut told = false;
        loop {
            let (_, readable) = self.range(consumer)?;
            if readable >= end {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.too_slow());
            }
            if !told && started.elapsed() >= TELL {
                told = true;
                let topic = &*self.topic;
                tracing::info!(topic, "waiting for another pipeline's transaction to end");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn newer(
        &self,
        before: Result<Option<Checkpoint>, Error>,
        value: Option<&[u8]>,
        offset: i64,
    ) -> Result<Option<Checkpoint>, Error> {
        // A tombstone also replaces an unreadable record.
        let Some(value) = value else { return Ok(None) };
        let before = before?;
        let read = Checkpoint::read(value).map_err(|source| self.malformed(offset, source))?;
        Ok(match before {
            Some(before) if !read.is_newer_than(&before) => Some(before),
            _ => Some(read),
        })
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::CheckpointRead { topic: self.topic.to_string(), source }
    }

    fn malformed(&self, offset: i64, source: RecordError) -> Error {
        Error::CheckpointRecord { topic: self.topic.to_string(), offset, source }
    }

    fn too_slow(&self) -> Error {
        Error::CheckpointSlow { topic: self.topic.to_string(), after: PATIENCE }
    }
}

/// Writes records of one pipeline, over one client.
pub struct Notes {
    producer: FutureProducer,
    topic: Arc<str>,
}

impl Notes {
    /// As [`Checkpoints::put`].
    ///
    /// # Errors
    /// When the brokers do not accept one of them.
    pub async fn put(&self, records: &[(String, Option<Vec<u8>>)]) -> Result<(), Error> {
        let producer = &self.producer;
        let undelivered = |source| Error::Undelivered {
            topic: self.topic.to_string(),
            partition: PARTITION,
            source,
        };
        for records in records.chunks(AT_A_TIME) {
            let mut sent = Vec::with_capacity(records.len());
            for (key, value) in records {
                let mut record: FutureRecord<'_, str, [u8]> =
                    FutureRecord::to(&self.topic).key(key.as_str()).partition(PARTITION);
                record.payload = value.as_deref();
                sent.push(producer.send_result(record).map_err(|(source, _)| undelivered(source))?);
            }
            for delivery in sent {
                let delivered = tokio::time::timeout(DELIVERY, delivery).await;
                let silent = || KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                let canceled = || KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue);
                delivered
                    .map_err(|_| undelivered(silent()))?
                    .map_err(|_| undelivered(canceled()))?
                    .map_err(|(source, _)| undelivered(source))?;
            }
        }
        Ok(())
    }
}

/// Whether the client continues on its own after this.
fn is_passing(error: &KafkaError) -> bool {
    is_missing(error) || error.rdkafka_error_code().is_some_and(passes)
}

/// Whether the brokers do not know the topic (yet).
fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}
