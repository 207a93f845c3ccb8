//! Queries the brokers' topics, and finds out why if no broker responds.
//!
//! The client library reconnects on its own and only reports a timeout. The reason (a refused
//! login, a certificate, an unknown host name) is a separate event, so this client lives for one
//! request and listens for it: a refused login then ends the bridge within a second instead of
//! being retried forever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataBroker};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

use super::error::Error;
use super::error_table;
use super::properties::creation_error;

/// Successive waits for a response: short at first, because a refusal is noticed between them.
const ANSWERS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// The same where somebody waits for the answer.
const QUICK: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(2)];

/// The brokers as they describe themselves.
#[derive(Debug)]
pub struct Brokers {
    /// The number of each, and the address that it advertises.
    pub advertised: Vec<(i32, String)>,
    /// The names of all topics that the principal may see.
    pub topics: Vec<String>,
}

/// The number of partitions of every topic.
///
/// # Errors
/// When no broker responds.
pub(super) async fn topics(config: &ClientConfig) -> Result<HashMap<String, usize>, Error> {
    let config = config.clone();
    let asked = tokio::task::spawn_blocking(move || {
        crate::failpoint::reach("kafka-metadata");
        ask(&config, &ANSWERS, |metadata| {
            let topics = metadata.topics().iter();
            topics.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect()
        })
    });
    asked.await.unwrap_or_else(|_| Err(canceled()))
}

/// The names of the topics that the principal may see.
///
/// # Errors
/// When no broker responds.
pub async fn topic_names(config: &ClientConfig) -> Result<Vec<String>, Error> {
    Ok(topics(config).await?.into_keys().collect())
}

/// Whether any broker responds.
///
/// # Errors
/// When no broker responds.
pub async fn answers(config: &ClientConfig) -> Result<(), Error> {
    topics(config).await.map(drop)
}

/// Asks the brokers who they are. Takes up to 5 s where nobody answers.
///
/// # Errors
/// When no broker answers, with what the connections failed for.
pub async fn brokers(config: &ClientConfig) -> Result<Brokers, Error> {
    let config = config.clone();
    let asked = tokio::task::spawn_blocking(move || {
        ask(&config, &QUICK, |metadata| {
            let brokers = metadata.brokers().iter();
            let address =
                |of: &MetadataBroker| (of.id(), format!("{}:{}", bracketed(of.host()), of.port()));
            let topics = metadata.topics().iter().map(|topic| topic.name().to_owned());
            Brokers { advertised: brokers.map(address).collect(), topics: topics.collect() }
        })
    });
    asked.await.unwrap_or_else(|_| Err(canceled()))
}

/// A host as written before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// A panic in the client library would be a canceled question, to be asked again.
fn canceled() -> Error {
    let source = Box::new(KafkaError::Canceled);
    Error::Unreachable { brokers: String::new(), source, reason: None }
}

/// Asks all brokers for all topics, with these waits, and takes out of the answer what is wanted.
fn ask<T>(
    config: &ClientConfig,
    waits: &[Duration],
    wanted: impl FnOnce(&Metadata) -> T,
) -> Result<T, Error> {
    let client: BaseProducer<Hearing> =
        config.create_with_context(Hearing::default()).map_err(creation_error)?;
    let mut source = KafkaError::Canceled;
    for wait in waits {
        match client.client().fetch_metadata(None, *wait) {
            Ok(metadata) => return Ok(wanted(&metadata)),
            Err(error) => source = error,
        }
        client.poll(Duration::ZERO);
        if let Some((code, reason)) = client.context().heard()
            && !error_table::passes(code)
        {
            return Err(Error::Fatal { code, reason });
        }
    }
    let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
    let reason = client.context().heard().map(|(_, reason)| reason);
    Err(Error::Unreachable { brokers, source: Box::new(source), reason })
}

/// Keeps the last connection error, unless a refused login was reported before.
#[derive(Default)]
struct Hearing(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Hearing {
    fn heard(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = heard.as_ref().is_some_and(|(code, _)| !error_table::passes(*code));
        // "All brokers down" says less than the errors of each.
        if !is_refused && code != RDKafkaErrorCode::AllBrokersDown {
            *heard = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Hearing {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
