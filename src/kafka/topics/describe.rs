//! Queries the settings of existing topics, many in one request, and compares them with the
//! configuration.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;

use crate::backoff::Backoff;
use crate::kafka::quiet::Quiet;
use crate::route::TopicPlan;

/// Longest wait for a description: rows wait for it, but can do without.
const DESCRIPTION: Duration = Duration::from_secs(3);

/// The topic setting that bounds a batch.
pub(super) const LARGEST: &str = "max.message.bytes";

/// The settings of topics, by name. Best effort: a user without the right to describe a topic can
/// still write to it.
pub(super) async fn describe(
    admin: &AdminClient<Quiet>,
    topics: &[&str],
) -> HashMap<String, ConfigResource> {
    let options = AdminOptions::new().request_timeout(Some(DESCRIPTION));
    let asked = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    let mut described = HashMap::with_capacity(topics.len());
    let mut left = topics.to_vec();
    while !left.is_empty() {
        let resources: Vec<ResourceSpecifier<'_>> =
            left.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answers = match admin.describe_configs(&resources, &options).await {
            Ok(answers) => answers,
            Err(error) => {
                let topic = left.first();
                tracing::debug!(topic, error = %error, "the settings of topics can't be read");
                break;
            }
        };
        let mut unknown = Vec::new();
        // The client library returns results in the order of the request.
        for (topic, answer) in left.iter().zip(answers) {
            match answer {
                Ok(settings) => {
                    described.insert((*topic).to_owned(), settings);
                }
                // A broker knows a new topic a little later than the controller.
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) if asked.elapsed() < DESCRIPTION => {
                    unknown.push(*topic);
                }
                Err(code) => {
                    tracing::debug!(topic, error = %code, "the topic's settings can't be read");
                }
            }
        }
        left = unknown;
        if !left.is_empty() {
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }
    described
}

/// The largest batch, from a topic's settings.
pub(super) fn largest(described: Option<&ConfigResource>) -> Option<String> {
    described?.get(LARGEST)?.value.clone()
}

/// Logs differences of an existing topic from the configuration.
pub(super) fn report_differences(
    plan: &TopicPlan,
    partitions: usize,
    described: Option<&ConfigResource>,
) {
    let topic = &*plan.name;
    if usize::try_from(plan.partitions) != Ok(partitions) {
        let configured = plan.partitions;
        tracing::info!(topic, partitions, configured, "topic exists and keeps its partitions");
    }
    let Some(described) = described else { return };
    for (name, configured) in &plan.settings {
        let value = described.get(name).and_then(|entry| entry.value.as_deref());
        if value != Some(configured) {
            tracing::warn!(
                topic,
                setting = name,
                value,
                configured,
                "topic exists and keeps its setting"
            );
        }
    }
}
