//! Creates topics, many in one request, and waits until their leaders have created their logs.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::ANSWER;
use crate::backoff::Backoff;
use crate::kafka::error::Error;
use crate::kafka::properties::without_producer;
use crate::kafka::quiet::Quiet;
use crate::route::TopicPlan;

/// Creates these topics, in one request. An existing one is not changed: another copy, or another
/// tool, was faster.
///
/// # Errors
/// When the brokers do not respond, or refuse one of them. The others may have been created.
pub(super) async fn create(admin: &AdminClient<Quiet>, plans: &[&TopicPlan]) -> Result<(), Error> {
    let Some(first) = plans.first() else { return Ok(()) };
    let topics: Vec<NewTopic<'_>> = plans.iter().map(|plan| new_topic(plan)).collect();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
    let answers = admin
        .create_topics(&topics, &options)
        .await
        .map_err(|source| Error::TopicRequest { topic: first.name.to_string(), source })?;
    for answer in answers {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::TopicRefused { topic, code }),
        }
    }
    Ok(())
}

fn new_topic(plan: &TopicPlan) -> NewTopic<'_> {
    let topic = NewTopic::new(
        &plan.name,
        plan.partitions,
        TopicReplication::Fixed(plan.replication_factor),
    );
    plan.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
}

/// Waits until every partition of a topic that was just created has its log, at most [`ANSWER`]. Blocks.
///
/// A topic is in the metadata before its leaders have created their logs. Until then they refuse
/// records, perhaps one batch and not the next, and how `delivery` handles that repeats records.
pub(super) fn await_logs(admin: &AdminClient<Quiet>, topic: &str, partitions: i32) {
    let until = Instant::now() + ANSWER;
    for partition in 0..partitions {
        let left = until.saturating_duration_since(Instant::now());
        if let Err(error) = admin.inner().fetch_watermarks(topic, partition, left) {
            tracing::debug!(topic, partition, error = %error, "waiting for a partition's log \
                                                               failed");
            return;
        }
    }
}

/// Waits for the logs of many topics: queries each leader once for all of its partitions.
pub(super) struct Logs(BaseConsumer<Quiet>);

impl Logs {
    /// A client of its own; `None` if it can't be created, which records can do without.
    pub(super) fn new(config: &ClientConfig) -> Option<Self> {
        let client: Result<BaseConsumer<Quiet>, _> =
            without_producer(config).create_with_context(Quiet::ADMIN);
        client
            .inspect_err(|error| {
                tracing::debug!(error = %error, "creating a client for partition logs failed")
            })
            .ok()
            .map(Self)
    }

    /// Waits for the logs of these topics, by their names and partitions, at most [`ANSWER`]. Blocks.
    pub(super) fn wait(&self, topics: &[(String, i32)]) {
        let mut asked = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                // "End of the log" is a time, too.
                let _ = asked.add_partition_offset(topic, partition, Offset::End);
            }
        }
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let until = Instant::now() + ANSWER;
        while let Err(error) = self.0.offsets_for_times(asked.clone(), ANSWER) {
            if Instant::now() >= until {
                tracing::debug!(error = %error, "waiting for the logs of new topics failed");
                return;
            }
            std::thread::sleep(backoff.next_wait());
        }
    }
}
