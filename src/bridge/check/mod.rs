//! Asks both systems for everything that a start needs, and creates nothing: `rowcast check`.
//!
//! The questions are those of a start ([`setup`](super::setup)), so that what passes here is not refused
//! there; what a start would only find row by row, or address by address, is asked for besides. Nothing
//! ends at the first fault: each part that can still be asked is asked.

mod brokers;
mod database;

use std::time::Duration;

use super::Bridge;
use crate::check::{Finding, Level, Report};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Severity};
use crate::kafka::{ClientConfig, rehearse};
use crate::postgres::{ConnectOptions, client};
use crate::route::{Router, TopicPlan};

/// Longest wait for all questions to one system.
const PATIENCE: Duration = Duration::from_secs(12);

/// What was learned of the brokers for the questions that follow.
struct Reached {
    config: ClientConfig,
    /// The names of the topics that the principal may see.
    topics: Vec<String>,
    /// The checkpoint of this pipeline, if it has one.
    checkpoint: Option<Checkpoint>,
}

impl Bridge {
    /// Checks every precondition at once. Creates and alters nothing, in neither system.
    pub async fn check(&self) -> Report {
        let options = ConnectOptions::of(&self.settings);
        let (mut findings, mut brokers) = (Vec::new(), Vec::new());
        let (reached, connected) = tokio::join!(
            within("kafka.connection", Box::pin(self.check_brokers(&mut brokers))),
            within("postgres.connection", client::connect(&self.conninfo, &options)),
        );
        let reached = noted(reached, &mut brokers).flatten();
        let mut plans = None;
        match noted(connected, &mut findings) {
            Some(Ok(client)) => {
                // It holds all that a start looks at.
                let asked = Box::pin(self.check_database(&client, reached.as_ref(), &mut findings));
                let asked = within("postgres.connection", asked).await;
                plans = noted(asked, &mut findings).flatten();
            }
            Some(Err(error)) => {
                findings.push(self.refused("postgres.connection", error.into()).await);
            }
            None => {}
        }
        findings.append(&mut brokers);
        if let Some(reached) = &reached {
            let asked = within("kafka.topics", Box::pin(self.check_topics(reached, plans))).await;
            let topics = asked.unwrap_or_else(|silent| silent);
            findings.push(topics);
        }
        Report::new(findings)
    }

    /// What else keeps a start from working, besides the error that ended it: so that nobody finds one
    /// fault with each start. Empty once something was streamed, and after an error that may pass.
    pub async fn check_besides(&self, error: &Error) -> Vec<Finding> {
        if self.has_streamed() || error.severity() != Severity::Operator {
            return Vec::new();
        }
        let told = error.told();
        let mut findings = self.check().await.findings;
        findings.retain(|of| of.level == Level::Error && !told.contains(&of.found));
        findings
    }

    /// Whether all topics exist or could be created, and how those that exist are set.
    async fn check_topics(&self, reached: &Reached, plans: Option<Vec<TopicPlan>>) -> Finding {
        let settings = &self.settings;
        let router = Router::new(settings, self.conninfo.database());
        let mut all = router.own_plans();
        let count = plans.as_ref().map_or(0, Vec::len);
        all.extend(plans.unwrap_or_default());
        let exists = |plan: &&TopicPlan| reached.topics.iter().any(|topic| **topic == *plan.name);
        let existing = all.iter().filter(exists).count();
        match rehearse(&reached.config, settings.topics.create, &all).await {
            Ok(()) => Finding::ok(
                "kafka.topics",
                format!(
                    "{count} for the tables, {} of rowcast's own; {existing} exist, and the others can \
                     be created",
                    all.len() - count
                ),
            ),
            Err(error) => self.refused("kafka.topics", error.into()).await,
        }
    }

    /// A finding of an error, with its fix, and all rights where one is missing.
    async fn refused(&self, check: &'static str, error: Error) -> Finding {
        let error = self.with_rights(error).await;
        Finding::error(check, error.told(), error.fix())
    }
}

/// Asks for no longer than is bearable.
///
/// # Errors
/// The finding that nobody answers.
async fn within<T>(check: &'static str, asked: impl Future<Output = T>) -> Result<T, Finding> {
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
        let found = format!("it does not answer within {} s", PATIENCE.as_secs());
        let fix = "see whether a firewall drops packets on the way, or the server is overloaded";
        Finding::error(check, found, Some(fix.to_owned()))
    })
}

/// What was answered; that nobody did is noted.
fn noted<T>(answer: Result<T, Finding>, findings: &mut Vec<Finding>) -> Option<T> {
    answer.map_err(|silent| findings.push(silent)).ok()
}
