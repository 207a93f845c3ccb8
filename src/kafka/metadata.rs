//! Asks the brokers which topics there are, and why when nobody answers.
//!
//! The client library reconnects by itself and says only that time ran out. The reason (a refused
//! login, a certificate, a name that is not known) comes as an event of its own, so this client
//! lives for one question and listens for it: a refused login then ends the bridge in a second
//! instead of being tried again for ever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

use super::error::Error;
use super::error_table;
use super::properties::creation_error;

/// Waits for an answer, one after the other: short at first, as a refusal is heard between them.
const ANSWERS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// The number of partitions of every topic there is.
///
/// # Errors
/// When no broker answers.
pub(super) async fn topics(config: &ClientConfig) -> Result<HashMap<String, usize>, Error> {
    let config = config.clone();
    let asked = tokio::task::spawn_blocking(move || {
        crate::failpoint::reach("kafka-metadata");
        ask(&config)
    });
    // A panic in the client library would be a canceled question, to be asked again.
    let canceled = || Error::Unreachable {
        brokers: String::new(),
        source: Box::new(KafkaError::Canceled),
        reason: None,
    };
    asked.await.unwrap_or_else(|_| Err(canceled()))
}

/// The names of the topics that there are, as far as the principal may see them.
///
/// # Errors
/// When no broker answers.
pub async fn topic_names(config: &ClientConfig) -> Result<Vec<String>, Error> {
    Ok(topics(config).await?.into_keys().collect())
}

/// Whether a broker answers at all.
///
/// # Errors
/// When none does.
pub async fn answers(config: &ClientConfig) -> Result<(), Error> {
    topics(config).await.map(drop)
}

fn ask(config: &ClientConfig) -> Result<HashMap<String, usize>, Error> {
    let client: BaseProducer<Hearing> =
        config.create_with_context(Hearing::default()).map_err(creation_error)?;
    let mut source = KafkaError::Canceled;
    for wait in ANSWERS {
        match client.client().fetch_metadata(None, wait) {
            Ok(metadata) => {
                let topics = metadata.topics().iter();
                let count = |topic: &rdkafka::metadata::MetadataTopic| topic.partitions().len();
                return Ok(topics.map(|topic| (topic.name().to_owned(), count(topic))).collect());
            }
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

/// Keeps the last trouble, unless a refusal was heard before.
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
        // That no broker is left says less than what became of each.
        if !is_refused && code != RDKafkaErrorCode::AllBrokersDown {
            *heard = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Hearing {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
