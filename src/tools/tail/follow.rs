//! Reads topics from now on, or from their beginning, without a consumer group.
//!
//! A group's first join takes seconds and leaves state at the broker; an assignment takes one
//! request, so the first event is there within milliseconds. The price is that new topics and
//! partitions must be looked for here, by metadata every `REFRESH`; they are read from their
//! beginning, so that nothing published before they were noticed is missed.
//!
//! Holds: with [`Start::End`], every record written after [`Follower::connect`] returned is seen.
//! Not here: what a record means (`event`), how it is shown (`line`, `json`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::TailError;

/// How often new topics and partitions are looked for.
const REFRESH: Duration = Duration::from_millis(500);
/// Longest wait for an answer of the brokers.
const ANSWER: Duration = Duration::from_secs(10);

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record that is kept.
    Beginning,
    /// At what is written from now on.
    #[default]
    End,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order; a name may come more than once.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A reader of topics.
pub struct Follower {
    consumer: Arc<StreamConsumer>,
    wanted: GlobSet,
    assigned: HashSet<(String, i32)>,
    refresh: Interval,
    brokers: String,
}

impl Follower {
    /// Connects and starts to read the topics that match `topics` (names or globs; none: all but
    /// internal ones). `properties` are librdkafka's.
    ///
    /// # Errors
    ///
    /// When a glob or a property is malformed, or the brokers do not answer within ten seconds.
    pub async fn connect(
        brokers: &str,
        topics: &[String],
        start: Start,
        properties: &[(String, String)],
    ) -> Result<Self, TailError> {
        let wanted = globs(topics)?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            // Needed for an assignment, but never joined and never committed to.
            .set("group.id", "rowcast-tail")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            // A real broker answers a waiting fetch as soon as there is something; librdkafka's mock
            // waits the whole time out, and would make every event that late.
            .set("fetch.wait.max.ms", "20")
            .set("fetch.error.backoff.ms", "50");
        for (name, value) in properties {
            config.set(name, value);
        }
        let consumer: StreamConsumer =
            config.create().map_err(|source| TailError::Client { source })?;
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut follower = Self {
            consumer: Arc::new(consumer),
            wanted,
            assigned: HashSet::new(),
            refresh,
            brokers: brokers.to_owned(),
        };
        follower.discover(start).await?;
        Ok(follower)
    }

    /// The next record. May be dropped while waiting; no record is lost by it.
    ///
    /// # Errors
    ///
    /// When the broker refuses for good (no right to read, for instance). What passes, as a broker
    /// that is away, is waited out.
    pub async fn next(&mut self) -> Result<Event, TailError> {
        loop {
            let consumer = Arc::clone(&self.consumer);
            tokio::select! {
                biased;
                message = consumer.recv() => match message {
                    Ok(message) => return Ok(event(&message)),
                    Err(source) if is_passing(&source) => {
                        tracing::debug!(error = %source, "broker is away");
                    }
                    Err(source) => return Err(TailError::Read { source }),
                },
                _ = self.refresh.tick() => {
                    if let Err(error) = self.discover(Start::Beginning).await {
                        tracing::debug!(%error, "new topics are not looked for");
                    }
                }
            }
        }
    }

    /// Takes up the partitions that are not read yet.
    async fn discover(&mut self, start: Start) -> Result<(), TailError> {
        let (consumer, wanted) = (Arc::clone(&self.consumer), self.wanted.clone());
        let known = self.assigned.clone();
        // librdkafka's metadata calls block.
        let found =
            tokio::task::spawn_blocking(move || partitions(&consumer, &wanted, &known, start))
                .await
                .map_err(|source| TailError::Discover {
                    brokers: self.brokers.clone(),
                    source: Box::new(source),
                })?
                .map_err(|source| TailError::Discover {
                    brokers: self.brokers.clone(),
                    source: Box::new(source),
                })?;
        if found.count() > 0 {
            self.consumer
                .incremental_assign(&found)
                .map_err(|source| TailError::Read { source })?;
            for partition in found.elements() {
                self.assigned.insert((partition.topic().to_owned(), partition.partition()));
            }
        }
        Ok(())
    }
}

/// The partitions of wanted topics that are not known yet, with the offset to start at.
fn partitions(
    consumer: &StreamConsumer,
    wanted: &GlobSet,
    known: &HashSet<(String, i32)>,
    start: Start,
) -> Result<TopicPartitionList, KafkaError> {
    let metadata = consumer.fetch_metadata(None, ANSWER)?;
    let mut found = TopicPartitionList::new();
    for topic in metadata.topics() {
        if !wanted.is_match(topic.name()) {
            continue;
        }
        for partition in topic.partitions() {
            if known.contains(&(topic.name().to_owned(), partition.id())) {
                continue;
            }
            let offset = match start {
                Start::Beginning => Offset::Beginning,
                // A number, not "the end": that would be looked up later, past new records.
                Start::End => Offset::Offset(
                    consumer.fetch_watermarks(topic.name(), partition.id(), ANSWER)?.1,
                ),
            };
            found.add_partition_offset(topic.name(), partition.id(), offset)?;
        }
    }
    Ok(found)
}

/// What topic names must match; without any, all that do not begin with two underscores.
fn globs(topics: &[String]) -> Result<GlobSet, TailError> {
    let mut set = GlobSetBuilder::new();
    let all = ["[!_]*".to_owned(), "_[!_]*".to_owned(), "_".to_owned()];
    for pattern in if topics.is_empty() { &all[..] } else { topics } {
        let glob = Glob::new(pattern)
            .map_err(|source| TailError::Glob { pattern: pattern.clone(), source })?;
        set.add(glob);
    }
    set.build().map_err(|source| TailError::Glob { pattern: topics.join(" "), source })
}

/// Whether an error passes by itself, as librdkafka keeps trying.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}

fn event(message: &BorrowedMessage<'_>) -> Event {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    Event {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_patterns_all_topics_but_internal_ones_are_read() {
        let all = globs(&[]).unwrap();
        assert!(all.is_match("rides"));
        assert!(all.is_match("_private"));
        assert!(!all.is_match("__consumer_offsets"));
    }

    #[test]
    fn a_malformed_glob_is_named() {
        let error = globs(&["rides[".to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with("read topic pattern \"rides[\""), "{error}");
    }
}
