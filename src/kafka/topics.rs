//! Makes topics on first need, and never alters one that is there.
//!
//! Which topics exist is asked once, without naming any, since naming an unknown topic makes some
//! brokers create it with their own defaults. A topic that exists with other partitions or
//! settings than configured is somebody's decision: the difference is logged, nothing is changed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::error::Error;
use super::properties::{BATCH_BYTES, creation_error, without_producer};
use super::reach;
use crate::backoff::Backoff;
use crate::config;
use crate::route::TopicPlan;

/// The topic's setting that bounds a batch.
const LARGEST: &str = "max.message.bytes";

/// Longest wait for a description: rows wait for it, and can do without.
const DESCRIPTION: Duration = Duration::from_secs(3);

/// Longest wait for one answer of the brokers.
const ANSWER: Duration = Duration::from_secs(10);

/// Knows which topics exist.
pub struct Topics {
    config: ClientConfig,
    create: bool,
    describe: bool,
    admin: OnceLock<Arc<AdminClient<Quiet>>>,
    /// Partitions of each topic that is known to exist.
    known: HashMap<String, usize>,
    listed: bool,
}

/// A topic that exists.
struct Described {
    /// It was not there before.
    is_new: bool,
    /// None where they are not asked for, or not told.
    settings: Option<ConfigResource>,
}

impl Topics {
    /// Knows nothing yet, and asks when it must.
    #[must_use]
    pub fn new(config: ClientConfig, settings: &config::Topics) -> Self {
        Self {
            config,
            create: settings.create,
            describe: settings.describe,
            admin: OnceLock::new(),
            known: HashMap::new(),
            listed: false,
        }
    }

    /// Makes sure that the topic exists. Gives the largest batch that it takes, in bytes, where the
    /// brokers tell that.
    ///
    /// # Errors
    /// When the brokers can't be asked, or refuse to make the topic, or it must not be made.
    pub async fn ensure(&mut self, plan: &TopicPlan) -> Result<Option<usize>, Error> {
        let described = self.found_or_made(plan).await?;
        // A broker that has just made a topic may still tell its own defaults.
        let planned = plan.settings.get(LARGEST).filter(|_| described.is_new).cloned();
        Ok(self.limit(plan, planned.or_else(|| setting(described.settings.as_ref()))))
    }

    /// Makes sure that the topic exists, and describes it.
    async fn found_or_made(&mut self, plan: &TopicPlan) -> Result<Described, Error> {
        if !self.listed {
            self.reach().await?;
        }
        if let Some(&partitions) = self.known.get(&*plan.name) {
            let settings = self.described(&plan.name).await?;
            report_differences(plan, partitions, settings.as_ref());
            return Ok(Described { is_new: false, settings });
        }
        if !self.create {
            return Err(Error::TopicMissing { topic: plan.name.to_string() });
        }
        create(&self.admin()?, plan).await?;
        self.known.insert(plan.name.to_string(), usize::try_from(plan.partitions).unwrap_or(0));
        Ok(Described { is_new: true, settings: self.described(&plan.name).await? })
    }

    /// The largest batch that the topic takes; warns where the client makes larger ones.
    fn limit(&self, plan: &TopicPlan, setting: Option<String>) -> Option<usize> {
        let topic = &*plan.name;
        let limit: usize = setting?.parse().ok()?;
        let batch = self.config.get("batch.size").and_then(|bytes| bytes.parse().ok());
        if limit < batch.unwrap_or(BATCH_BYTES) {
            tracing::warn!(
                topic,
                max_message_bytes = limit,
                fix = format!("set kafka.properties.\"batch.size\" to {limit} or less"),
                "the topic takes smaller batches than are made: one that does not compress is refused"
            );
        }
        Some(limit)
    }

    /// Makes sure that the topic of the checkpoints exists and keeps them.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure); and when it has a cleanup policy that lets checkpoints expire.
    pub async fn ensure_compacted(&mut self, plan: &TopicPlan) -> Result<(), Error> {
        let described = self.found_or_made(plan).await?;
        // A broker that has just made a topic may still tell its own defaults.
        let settings = described.settings.filter(|_| !described.is_new);
        let entry = settings.as_ref().and_then(|topic| topic.get("cleanup.policy"));
        match entry.and_then(|entry| entry.value.clone()) {
            Some(policy) if policy != "compact" => {
                return Err(Error::NotCompacted { topic: plan.name.to_string(), policy });
            }
            // Who may not ask is taken at their word.
            _ => {}
        }
        Ok(())
    }

    /// A topic's settings; none where they are not asked for, or not told.
    async fn described(&self, topic: &str) -> Result<Option<ConfigResource>, Error> {
        if !self.describe {
            return Ok(None);
        }
        Ok(describe(&*self.admin()?, topic).await)
    }

    /// Whether the topic was there when it was last looked.
    #[must_use]
    pub fn knows(&self, topic: &str) -> bool {
        self.known.contains_key(topic)
    }

    /// Asks a broker for anything at all.
    ///
    /// # Errors
    /// When none answers.
    pub async fn reach(&mut self) -> Result<(), Error> {
        self.known = reach::topics(&self.config).await?;
        self.listed = true;
        Ok(())
    }

    fn admin(&self) -> Result<Arc<AdminClient<Quiet>>, Error> {
        if let Some(admin) = self.admin.get() {
            return Ok(Arc::clone(admin));
        }
        let config = without_producer(&self.config);
        let admin = AdminClient::from_config_and_context(&config, Quiet).map_err(creation_error)?;
        Ok(Arc::clone(self.admin.get_or_init(|| Arc::new(admin))))
    }
}

async fn create(admin: &Arc<AdminClient<Quiet>>, plan: &TopicPlan) -> Result<(), Error> {
    let mut topic = NewTopic::new(
        &plan.name,
        plan.partitions,
        TopicReplication::Fixed(plan.replication_factor),
    );
    for (name, value) in &plan.settings {
        topic = topic.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
    let answers = admin
        .create_topics([&topic], &options)
        .await
        .map_err(|source| Error::TopicRequest { topic: plan.name.to_string(), source })?;
    for answer in answers {
        match answer {
            Ok(name) => tracing::info!(
                topic = name,
                partitions = plan.partitions,
                settings = ?plan.settings,
                "topic created"
            ),
            // Another copy, or another tool, was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::TopicRefused { topic, code }),
        }
    }
    let (admin, topic, partitions) = (Arc::clone(admin), plan.name.to_string(), plan.partitions);
    let waited = tokio::task::spawn_blocking(move || await_logs(&admin, &topic, partitions));
    // Only a panic in the client library keeps it from ending, and records can do without.
    let _ = waited.await;
    Ok(())
}

/// Waits until every partition of a topic that was just made has its log, at most [`ANSWER`]. Blocks.
///
/// A topic is told of before its leaders have made their logs. Until then they refuse records, one
/// batch perhaps and not the next, and what `delivery` does about that repeats records.
fn await_logs(admin: &AdminClient<Quiet>, topic: &str, partitions: i32) {
    let until = Instant::now() + ANSWER;
    for partition in 0..partitions {
        let left = until.saturating_duration_since(Instant::now());
        if let Err(error) = admin.inner().fetch_watermarks(topic, partition, left) {
            tracing::debug!(topic, partition, error = %error, "a partition's log is not seen");
            return;
        }
    }
}

/// The largest batch, as a topic's settings have it.
fn setting(described: Option<&ConfigResource>) -> Option<String> {
    described?.get(LARGEST)?.value.clone()
}

/// A topic's settings. Best effort: a user without the right to describe a topic can still write to
/// it.
async fn describe(admin: &AdminClient<Quiet>, topic: &str) -> Option<ConfigResource> {
    let options = AdminOptions::new().request_timeout(Some(DESCRIPTION));
    let asked = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    loop {
        let answer = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        let error = match answer.map(|answers| answers.into_iter().next()) {
            Ok(Some(Ok(described))) => return Some(described),
            // A broker hears of a new topic a little later than the controller.
            Ok(Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)))
                if asked.elapsed() < DESCRIPTION =>
            {
                tokio::time::sleep(backoff.next_wait()).await;
                continue;
            }
            Ok(Some(Err(code))) => code.to_string(),
            Ok(None) => "no answer".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::debug!(topic, error, "the topic's settings can't be read");
        return None;
    }
}

/// Logs where an existing topic is not as configured.
fn report_differences(plan: &TopicPlan, partitions: usize, described: Option<&ConfigResource>) {
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

/// A client context that logs as the producer's does.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The producer has the same connection trouble and reports it.
        tracing::debug!(error = %error, reason, "kafka admin connection");
    }
}
