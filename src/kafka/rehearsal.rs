//! Checks with the brokers whether topics could be created, without creating any.
//!
//! A start that fails at its first topic already has a replication slot, which holds back the
//! server's WAL. Permissions, replicas and settings are what mostly fails, and the brokers check
//! all of them in a validate-only request.
//!
//! Not here: the permission to write to an existing topic, which no request reveals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::error::Error;
use super::metadata;
use super::properties::{creation_error, without_producer};
use super::quiet::Quiet;
use crate::few::few;
use crate::route::TopicPlan;

/// Longest wait for one response of the brokers.
const ANSWER: Duration = Duration::from_secs(10);

/// Topics in one request.
const BATCH: usize = 200;

/// Checks that each of these topics exists or could be created; if topics must not be created, that
/// each exists. Brokers that do not support validation pass.
///
/// # Errors
/// When the brokers would refuse a topic, or topics are missing.
pub async fn rehearse(
    config: &ClientConfig,
    create: bool,
    plans: &[TopicPlan],
) -> Result<(), Error> {
    let existing = metadata::topics(config).await?;
    let mut seen = BTreeSet::new();
    let missing: Vec<&TopicPlan> = plans
        .iter()
        .filter(|plan| !existing.contains_key(&*plan.name) && seen.insert(Arc::clone(&plan.name)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !create {
        let names: Vec<&str> = missing.iter().map(|plan| &*plan.name).collect();
        return Err(Error::TopicMissing { topic: few(&names) });
    }
    let admin = AdminClient::from_config_and_context(&without_producer(config), Quiet::ADMIN)
        .map_err(creation_error)?;
    for batch in missing.chunks(BATCH) {
        validate(&admin, batch).await?;
    }
    Ok(())
}

async fn validate(admin: &AdminClient<Quiet>, plans: &[&TopicPlan]) -> Result<(), Error> {
    let topics: Vec<NewTopic<'_>> = plans.iter().map(|plan| new_topic(plan)).collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(ANSWER))
        .request_timeout(Some(ANSWER))
        .validate_only(true);
    let answers = match admin.create_topics(&topics, &options).await {
        Ok(answers) => answers,
        Err(error) => {
            tracing::debug!(%error, "checking whether topics could be created failed");
            return Ok(());
        }
    };
    let refused: Vec<(String, Code)> = answers
        .into_iter()
        .filter_map(Result::err)
        .map(|(topic, code)| match code {
            // A principal that does not see the topic may not describe it, and so not write to it.
            Code::TopicAlreadyExists => (topic, Code::TopicAuthorizationFailed),
            code => (topic, code),
        })
        .collect();
    let Some(&(_, code)) = refused.iter().find(|(_, code)| is_refusal(*code)) else {
        return Ok(());
    };
    let same = refused.iter().filter(|(_, other)| *other == code).map(|(topic, _)| topic.as_str());
    Err(Error::TopicRefused { topic: few(&same.collect::<Vec<_>>()), code })
}

/// Whether creating the topic would fail in the same way.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidPartitions
            | Code::InvalidConfig
            | Code::InvalidTopic
            | Code::PolicyViolation
    )
}

fn new_topic(plan: &TopicPlan) -> NewTopic<'_> {
    let replication = TopicReplication::Fixed(plan.replication_factor);
    let topic = NewTopic::new(&plan.name, plan.partitions, replication);
    plan.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
}
