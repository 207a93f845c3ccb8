//! Events, printed as they arrive: the quickest way to see what a topic holds.
//!
//! `follow` reads, `envelope` understands, `line` and `json` show. Reading joins no consumer group
//! and leaves nothing at the broker.

pub mod envelope;
pub mod follow;
pub mod json;
pub mod line;

use std::io::{self, ErrorKind, Write};
use std::pin::pin;

use rdkafka::error::KafkaError;

pub use self::follow::{Event, Follower, Start};
pub use self::line::Look;

/// What to read, and how to show it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bootstrap brokers, `host:port`, comma separated.
    pub brokers: String,
    /// Topics, by name or glob. Empty: all but internal ones.
    pub topics: Vec<String>,
    /// Where to start.
    pub from: Start,
    /// End after so many records. `None`: when stopped.
    pub count: Option<u64>,
    /// How records are shown.
    pub format: Format,
    /// librdkafka properties (`security.protocol`, ...).
    pub properties: Vec<(String, String)>,
}

/// How records are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text(Look),
    /// A JSON object a line.
    Json,
}

impl Default for Format {
    fn default() -> Self {
        Self::Text(Look::default())
    }
}

impl Format {
    /// A record as it is shown, without the line's end.
    #[must_use]
    pub fn show(self, event: &Event) -> String {
        match self {
            Self::Text(look) => line::line(event, look),
            Self::Json => json::json(event),
        }
    }
}

/// Why topics could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// A pattern is no glob.
    #[error("read topic pattern {pattern:?}: {source}")]
    Glob {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// librdkafka refuses a property.
    #[error("set up the Kafka consumer: {source}")]
    Client {
        /// Why.
        source: KafkaError,
    },
    /// The brokers returned no list of topics.
    #[error("ask brokers {brokers} for their topics: {source}")]
    Discover {
        /// Who was asked.
        brokers: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Records cannot be read.
    #[error("read from Kafka: {source}")]
    Read {
        /// Why not.
        source: KafkaError,
    },
    /// The output is gone or full.
    #[error("write an event to the output: {source}")]
    Output {
        /// Why.
        source: io::Error,
    },
}

/// Prints records to `out` until the count is reached, `stop` completes or the reader of `out` goes
/// away (as `head` does). Returns how many were printed.
///
/// # Errors
///
/// When the brokers do not answer at start or refuse later, or `out` cannot be written.
pub async fn run(
    options: Options,
    out: &mut dyn Write,
    stop: impl Future<Output = ()>,
) -> Result<u64, TailError> {
    let mut stop = pin!(stop);
    let connect =
        Follower::connect(&options.brokers, &options.topics, options.from, &options.properties);
    let mut follower = tokio::select! {
        biased;
        () = &mut stop => return Ok(0),
        follower = connect => follower?,
    };
    let mut printed = 0;
    while options.count.is_none_or(|count| printed < count) {
        let event = tokio::select! {
            biased;
            () = &mut stop => break,
            event = follower.next() => event?,
        };
        match writeln!(out, "{}", options.format.show(&event)).and_then(|()| out.flush()) {
            Ok(()) => printed += 1,
            Err(source) if source.kind() == ErrorKind::BrokenPipe => break,
            Err(source) => return Err(TailError::Output { source }),
        }
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{FutureProducer, FutureRecord};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    async fn produce(brokers: &str, topic: &str, key: &str, value: Option<&str>) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let mut record = FutureRecord::<str, str>::to(topic).key(key).timestamp(1_767_610_800_123);
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record, DEADLINE).await.unwrap();
    }

    fn options(brokers: &str, topic: &str, count: u64) -> Options {
        Options {
            brokers: brokers.to_owned(),
            topics: vec![topic.to_owned()],
            from: Start::Beginning,
            count: Some(count),
            ..Options::default()
        }
    }

    #[tokio::test]
    async fn records_are_printed_in_order_up_to_the_count() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("rides", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        produce(&brokers, "rides", "1", Some(r#"{"op":"c","after":{"id":1}}"#)).await;
        produce(&brokers, "rides", "1", None).await;
        produce(&brokers, "rides", "2", Some("x")).await;

        let mut out = Vec::new();
        let run = run(options(&brokers, "rides", 2), &mut out, std::future::pending());
        let printed = tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap();
        assert_eq!(printed, 2);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "11:00:00.123 rides[0]@0 1 create id=1\n11:00:00.123 rides[0]@1 1 tombstone\n"
        );
    }

    #[tokio::test]
    async fn from_the_end_only_and_all_of_what_comes_later_is_read() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("rides", 2, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        produce(&brokers, "rides", "old", Some("old")).await;
        let mut follower = Follower::connect(&brokers, &[], Start::End, &[]).await.unwrap();
        produce(&brokers, "rides", "new", Some("new")).await;
        let event = tokio::time::timeout(DEADLINE, follower.next()).await.unwrap().unwrap();
        assert_eq!(event.value.as_deref(), Some(b"new".as_slice()));
    }

    #[tokio::test]
    async fn a_topic_made_later_is_read_from_its_beginning() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("first", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let mut follower =
            Follower::connect(&brokers, &["s*".to_owned()], Start::End, &[]).await.unwrap();
        cluster.create_topic("second", 1, 1).unwrap();
        produce(&brokers, "second", "1", Some("x")).await;
        let event = tokio::time::timeout(DEADLINE, follower.next()).await.unwrap().unwrap();
        assert_eq!((event.topic.as_str(), event.offset), ("second", 0));
    }

    #[tokio::test]
    async fn stopping_ends_it_at_once() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("rides", 1, 1).unwrap();
        let began = Instant::now();
        let printed = run(
            options(&cluster.bootstrap_servers(), "rides", 1),
            &mut Vec::new(),
            tokio::time::sleep(Duration::from_millis(100)),
        )
        .await
        .unwrap();
        assert_eq!(printed, 0);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
