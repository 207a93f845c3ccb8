//! Makes smaller batches once a broker has refused one whose records may each be small enough.
//!
//! A topic's `max.message.bytes` bounds a batch, and it may be lowered while the bridge runs. The
//! client fails every record of a batch that is too large, so it is not known which one was; the
//! next session makes batches that the topic accepts. If one is refused then, it has a single
//! record, which is too large on its own.

use std::sync::atomic::Ordering;

use super::{Bridge, fresh_client_config};
use crate::error::Error;
use crate::kafka::{self, ClientConfig, Topics};

impl Bridge {
    /// The producer's settings for a session.
    pub(super) async fn producer_config(&self) -> Result<ClientConfig, Error> {
        let mut config = fresh_client_config(&self.settings).await?;
        let limit = self.batch_limit.load(Ordering::Acquire);
        if limit > 0 && limit < kafka::batch_bytes(&config) {
            kafka::set_batch_bytes(&mut config, limit);
        }
        Ok(config)
    }

    /// Whether the failure is a batch that was too large, so that the next session makes smaller
    /// ones.
    pub(super) async fn makes_smaller_batches(&self, error: &Error) -> bool {
        let topic = match error {
            Error::Delivery(error) => error.refused_for_size(),
            Error::Kafka(error) => error.refused_for_size(),
            _ => None,
        };
        let Some(topic) = topic else { return false };
        let Ok(config) = self.producer_config().await else { return false };
        let present = kafka::batch_bytes(&config);
        let topics = Topics::new(config, &self.settings.topics);
        // If the brokers do not report the limit, each record is sent alone.
        let limit = topics.largest_batch(topic).await.unwrap_or(1);
        if limit >= present {
            return false;
        }
        tracing::warn!(
            topic,
            refused_bytes = present,
            max_message_bytes = limit,
            "a batch was larger than the topic accepts: continuing with smaller batches"
        );
        self.batch_limit.store(limit, Ordering::Release);
        true
    }
}
