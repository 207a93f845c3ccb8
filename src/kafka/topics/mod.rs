//! Creates topics when first needed, and never alters an existing one.
//!
//! The existing topics are queried once, without naming any, because naming an unknown topic makes
//! some brokers create it with their own defaults. If a topic exists with other partitions or
//! settings than configured, that is taken as intended: the difference is logged, nothing is
//! changed.
//!
//! If many are needed at once, as at a first start, [`Topics::ensure_all`] creates many in one
//! request: one by one, two thousand took two minutes.

mod create;
mod describe;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, ConfigResource};
use rdkafka::config::FromClientConfigAndContext;

use self::create::Logs;
use self::describe::{LARGEST, report_differences};
use super::error::Error;
use super::metadata;
use super::properties::{batch_bytes, creation_error, without_producer};
use super::quiet::Quiet;
use crate::config;
use crate::route::TopicPlan;

/// Longest wait for one answer of the brokers.
const ANSWER: Duration = Duration::from_secs(10);

/// Topics in one request: few enough that the response is small and arrives in time.
const BATCH: usize = 100;

/// If more topics than this are created, they do not get a log line each.
const LISTED: usize = 20;

/// The known topics.
pub struct Topics {
    config: ClientConfig,
    create: bool,
    describe: bool,
    admin: OnceLock<Arc<AdminClient<Quiet>>>,
    /// Partitions of each topic that is known to exist.
    known: HashMap<String, usize>,
    /// The largest batch of each topic that was ensured with others; removed when the topic is
    /// requested.
    limits: HashMap<String, Option<usize>>,
    /// Topics that were created together and whose logs are not confirmed yet: in batches, with the
    /// partitions of each. Brokers create the logs in this order.
    unseen: VecDeque<Vec<(String, i32)>>,
    /// Queries these logs.
    logs: Option<Arc<Logs>>,
    listed: bool,
}

/// An existing topic.
struct Described {
    /// It was created just now.
    is_new: bool,
    /// `None` if they are not queried, or unknown.
    settings: Option<ConfigResource>,
}

impl Topics {
    /// Starts without known topics, and queries them when needed.
    #[must_use]
    pub fn new(config: ClientConfig, settings: &config::Topics) -> Self {
        Self {
            config,
            create: settings.create,
            describe: settings.describe,
            admin: OnceLock::new(),
            known: HashMap::new(),
            limits: HashMap::new(),
            unseen: VecDeque::new(),
            logs: None,
            listed: false,
        }
    }

    /// Ensures that the topic exists. Returns the largest batch that it accepts, in bytes, if the
    /// brokers report it.
    ///
    /// # Errors
    /// When the brokers do not respond, or refuse to create the topic, or it must not be created.
    pub async fn ensure(&mut self, plan: &TopicPlan) -> Result<Option<usize>, Error> {
        if let Some(limit) = self.limits.remove(&*plan.name) {
            self.see_logs(&plan.name).await;
            return Ok(limit);
        }
        let described = self.found_or_made(plan).await?;
        Ok(self.limit(plan, &described))
    }

    /// Ensures that all of these topics exist, so that [`ensure`](Self::ensure) need not query them
    /// one by one; `ensure` still waits for the logs of new ones, while rows of other tables are
    /// read. `progress` receives how many of the missing ones are created, and of how many.
    ///
    /// # Errors
    /// As `ensure`, for the first that fails; those before it exist.
    pub async fn ensure_all(
        &mut self,
        plans: &[TopicPlan],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(), Error> {
        if !self.listed {
            self.reach().await?;
        }
        // Tables that share a topic have the same plan, or the first one applies.
        let mut seen = HashSet::new();
        let plans: Vec<&TopicPlan> =
            plans.iter().filter(|plan| seen.insert(Arc::clone(&plan.name))).collect();
        let missing: Vec<&TopicPlan> =
            plans.iter().copied().filter(|plan| !self.knows(&plan.name)).collect();
        if let Some(plan) = missing.first()
            && !self.create
        {
            return Err(Error::TopicMissing { topic: plan.name.to_string() });
        }
        let new: HashSet<Arc<str>> = missing.iter().map(|plan| Arc::clone(&plan.name)).collect();
        let mut created = 0;
        for batch in missing.chunks(BATCH) {
            progress(created, missing.len());
            create::create(&*self.admin()?, batch).await?;
            self.note_created(batch);
            self.unseen.push_back(batch.iter().map(|plan| logs_of(plan)).collect());
            created += batch.len();
            report_created(batch, missing.len());
        }
        if created > 0 {
            progress(created, missing.len());
        }
        for batch in plans.chunks(BATCH) {
            let names: Vec<&str> = batch.iter().map(|plan| &*plan.name).collect();
            let mut described = match self.describe {
                true => describe::describe(&*self.admin()?, &names).await,
                false => HashMap::new(),
            };
            for plan in batch {
                let settings = described.remove(&*plan.name);
                let is_new = new.contains(&plan.name);
                if let Some(&partitions) = self.known.get(&*plan.name).filter(|_| !is_new) {
                    report_differences(plan, partitions, settings.as_ref());
                }
                let limit = self.limit(plan, &Described { is_new, settings });
                self.limits.insert(plan.name.to_string(), limit);
            }
        }
        Ok(())
    }

    /// Waits for the logs of a topic that was created with others, and of those that brokers create
    /// before it.
    async fn see_logs(&mut self, topic: &str) {
        let holds = |batch: &Vec<(String, i32)>| batch.iter().any(|(name, _)| name == topic);
        let Some(last) = self.unseen.iter().position(holds) else { return };
        for batch in self.unseen.drain(..=last).collect::<Vec<_>>() {
            let logs = match &self.logs {
                Some(logs) => Arc::clone(logs),
                // Without a client, records can do without waiting.
                None => match Logs::new(&self.config) {
                    Some(logs) => Arc::clone(self.logs.insert(Arc::new(logs))),
                    None => return,
                },
            };
            // It fails to end only if the client library panics.
            let _ = tokio::task::spawn_blocking(move || logs.wait(&batch)).await;
        }
        if self.unseen.is_empty() {
            self.logs = None;
        }
    }

    fn note_created(&mut self, plans: &[&TopicPlan]) {
        for plan in plans {
            self.known.insert(plan.name.to_string(), usize::try_from(plan.partitions).unwrap_or(0));
        }
    }

    /// Ensures that the topic exists, and describes it.
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
        let admin = self.admin()?;
        create::create(&admin, &[plan]).await?;
        let (topic, partitions) = logs_of(plan);
        let wait = move || create::await_logs(&admin, &topic, partitions);
        // It fails to end only if the client library panics, and records can do without waiting.
        let _ = tokio::task::spawn_blocking(wait).await;
        self.note_created(&[plan]);
        report_created(&[plan], 1);
        Ok(Described { is_new: true, settings: self.described(&plan.name).await? })
    }

    /// The largest batch that the topic accepts; warns if the client creates larger ones.
    fn limit(&self, plan: &TopicPlan, described: &Described) -> Option<usize> {
        let topic = &*plan.name;
        // A broker that has just created a topic may still report its own defaults.
        let planned = plan.settings.get(LARGEST).filter(|_| described.is_new).cloned();
        let setting = planned.or_else(|| describe::largest(described.settings.as_ref()));
        let limit: usize = setting?.parse().ok()?;
        if limit < batch_bytes(&self.config) {
            tracing::warn!(
                topic,
                max_message_bytes = limit,
                fix = format!("set kafka.properties.\"batch.size\" to {limit} or less"),
                "the topic accepts only smaller batches than rowcast creates: a batch that does \
                 not compress may be refused"
            );
        }
        Some(limit)
    }

    /// Ensures that the topic of the checkpoints exists and keeps them.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure); and when it has a cleanup policy that lets checkpoints expire.
    pub async fn ensure_compacted(&mut self, plan: &TopicPlan) -> Result<(), Error> {
        let described = self.found_or_made(plan).await?;
        // A broker that has just created a topic may still report its own defaults.
        let settings = described.settings.filter(|_| !described.is_new);
        let entry = settings.as_ref().and_then(|topic| topic.get("cleanup.policy"));
        match entry.and_then(|entry| entry.value.clone()) {
            Some(policy) if policy != "compact" => {
                return Err(Error::NotCompacted { topic: plan.name.to_string(), policy });
            }
            // Without the permission to query the policy, it is not checked.
            _ => {}
        }
        Ok(())
    }

    /// A topic's settings; `None` if they are not queried, or unknown.
    async fn described(&self, topic: &str) -> Result<Option<ConfigResource>, Error> {
        if !self.describe {
            return Ok(None);
        }
        Ok(describe::describe(&*self.admin()?, &[topic]).await.remove(topic))
    }

    /// The largest batch that a topic accepts, in bytes; `None` if not queried, or unknown.
    pub async fn largest_batch(&self, topic: &str) -> Option<usize> {
        describe::largest(self.described(topic).await.ok()?.as_ref())?.parse().ok()
    }

    /// Whether the topic existed at the last query.
    #[must_use]
    pub fn knows(&self, topic: &str) -> bool {
        self.known.contains_key(topic)
    }

    /// Forgets a topic that no table has any more: its limit is queried again if a table gets it.
    /// That it exists is still known.
    pub fn forget(&mut self, topic: &str) {
        self.limits.remove(topic);
    }

    /// The topics that existed at the last query.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Checks that a broker responds.
    ///
    /// # Errors
    /// When none responds.
    pub async fn reach(&mut self) -> Result<(), Error> {
        self.known = metadata::topics(&self.config).await?;
        self.listed = true;
        Ok(())
    }

    fn admin(&self) -> Result<Arc<AdminClient<Quiet>>, Error> {
        if let Some(admin) = self.admin.get() {
            return Ok(Arc::clone(admin));
        }
        let config = without_producer(&self.config);
        let admin =
            AdminClient::from_config_and_context(&config, Quiet::ADMIN).map_err(creation_error)?;
        Ok(Arc::clone(self.admin.get_or_init(|| Arc::new(admin))))
    }
}

/// A topic and how many logs it has.
fn logs_of(plan: &TopicPlan) -> (String, i32) {
    (plan.name.to_string(), plan.partitions)
}

/// Logs the created topics, of `missing` ones.
fn report_created(plans: &[&TopicPlan], missing: usize) {
    if missing > LISTED {
        let (first, last) =
            (plans.first().map(|plan| &*plan.name), plans.last().map(|plan| &*plan.name));
        tracing::info!(topics = plans.len(), of = missing, first, last, "topics created");
        return;
    }
    for plan in plans {
        let (topic, partitions) = (&*plan.name, plan.partitions);
        tracing::info!(topic, partitions, settings = ?plan.settings, "topic created");
    }
}
