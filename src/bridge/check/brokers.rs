//! The brokers' side of a check: addresses, login, replicas, the checkpoint topic.

use super::Reached;
use crate::bridge::checkpointing::blocking;
use crate::bridge::{Bridge, fresh_client_config};
use crate::check::Finding;
use crate::error::Error;
use crate::kafka::reach::{self, Address};
use crate::kafka::{self, Brokers, Checkpoints, ClientConfig};

impl Bridge {
    /// Checks what can be known without the database. Returns what the other questions need; none
    /// where no broker answers.
    pub(super) async fn check_brokers(&self, findings: &mut Vec<Finding>) -> Option<Reached> {
        let config = match fresh_client_config(&self.settings).await {
            Ok(config) => config,
            Err(error) => {
                findings.push(self.refused("kafka.settings", error).await);
                return None;
            }
        };
        let configured = reach::configured(&self.settings.brokers);
        let tried = reach::connect(configured.clone()).await;
        findings.extend(tried.iter().filter_map(unreachable));
        // The client would try for as long, and say less.
        if tried.iter().all(|address| address.failure.is_some()) {
            return None;
        }
        let brokers = match kafka::brokers(&config).await {
            Ok(brokers) => brokers,
            Err(error) => {
                findings.push(self.refused_brokers(&config, error).await);
                return None;
            }
        };
        let count = brokers.advertised.len();
        let names: Vec<&str> = brokers.advertised.iter().map(|(_, name)| name.as_str()).collect();
        findings.push(Finding::ok(
            "kafka.connection",
            format!("{}: {}", answering(count), names.join(", ")),
        ));
        let others = brokers.advertised.iter().map(|(_, name)| name.clone());
        let advertised = reach::connect(others.filter(|name| !configured.contains(name))).await;
        findings
            .extend(advertised.iter().filter_map(|address| hidden(address, &brokers, &configured)));
        findings.extend(self.replicas(count));
        // Every other question goes to one of these addresses.
        if !advertised.is_empty() && advertised.iter().all(|address| address.failure.is_some()) {
            return None;
        }
        let checkpoint = self.check_checkpoint(&config, &brokers, findings).await;
        Some(Reached { config, topics: brokers.topics, checkpoint })
    }

    /// Why no broker answers, although an address can be connected to.
    async fn refused_brokers(&self, config: &ClientConfig, error: kafka::Error) -> Finding {
        let told = Error::from(error);
        let text = told.told();
        let protocol = config.get("security.protocol").unwrap_or("plaintext").to_lowercase();
        let fix = mismatch(&text, &protocol);
        let finding = self.refused("kafka.connection", told).await;
        Finding { fix: fix.or(finding.fix), ..finding }
    }

    /// Too few brokers for the replicas that are asked for.
    fn replicas(&self, count: usize) -> Option<Finding> {
        let wanted = self.settings.topics.replication_factor;
        let is_short = usize::try_from(wanted).is_ok_and(|wanted| wanted > count);
        is_short.then(|| {
            Finding::error(
                "kafka.replicas",
                format!("topics.replication_factor is {wanted}, and {}", answering(count)),
                Some(format!(
                    "start the missing brokers, or set topics.replication_factor = {count}"
                )),
            )
        })
    }

    /// The checkpoint of the pipeline, and whether its topic can be read.
    async fn check_checkpoint(
        &self,
        config: &ClientConfig,
        brokers: &Brokers,
        findings: &mut Vec<Finding>,
    ) -> Option<crate::checkpoint::Checkpoint> {
        let topic = &self.settings.topics.checkpoints;
        if !brokers.topics.contains(topic) {
            return None;
        }
        let checkpoints = Checkpoints::new(config, &self.settings);
        match blocking(move || checkpoints.glance()).await {
            Ok(Some(found)) => {
                let through = found.progress.through_lsn;
                let text = format!("{topic} has one of this pipeline: published through {through}");
                findings.push(Finding::ok("kafka.checkpoint", text));
                Some(found)
            }
            Ok(None) => {
                let text = format!("{topic} has none of this pipeline yet");
                findings.push(Finding::ok("kafka.checkpoint", text));
                None
            }
            Err(error) => {
                findings.push(self.refused("kafka.checkpoint", error).await);
                None
            }
        }
    }
}

fn answering(count: usize) -> String {
    if count == 1 { "1 broker answers".to_owned() } else { format!("{count} brokers answer") }
}

/// A configured address that can't be connected to.
fn unreachable(Address { name, failure }: &Address) -> Option<Finding> {
    let failure = failure.as_ref()?;
    Some(Finding::error(
        "kafka.address",
        format!("{name}, of kafka.brokers, can't be connected to: {failure}"),
        Some(
            "correct kafka.brokers, or start the broker; see whether a firewall is between"
                .to_owned(),
        ),
    ))
}

/// An address that a broker advertises and that can't be connected to from here.
fn hidden(
    Address { name, failure }: &Address,
    brokers: &Brokers,
    configured: &[String],
) -> Option<Finding> {
    let failure = failure.as_ref()?;
    let (id, _) = brokers.advertised.iter().find(|(_, other)| other == name)?;
    let asked = configured.first().map_or("", String::as_str);
    Some(Finding::error(
        "kafka.advertised",
        format!(
            "{asked} answers, but broker {id} advertises {name}, which can't be connected to from \
             here: {failure}"
        ),
        Some(format!(
            "set advertised.listeners of broker {id} to a name and port that this host reaches, or open \
             the way from this host to {name}"
        )),
    ))
}

/// What to set where client and listener speak different protocols, as the client library guesses it.
fn mismatch(text: &str, protocol: &str) -> Option<String> {
    let has_sasl = protocol.starts_with("sasl");
    let set = |to: &str| Some(format!("set kafka.properties.\"security.protocol\" = \"{to}\""));
    if text.contains("connecting to a SSL listener") || text.contains("SSL listener?") {
        return set(if has_sasl { "sasl_ssl" } else { "ssl" });
    }
    if text.contains("PLAINTEXT broker listener") || text.contains("wrong version number") {
        return set(if has_sasl { "sasl_plaintext" } else { "plaintext" });
    }
    // The address was connected to, and a listener that wants a login closes the connection at the
    // first question, without a word.
    (!has_sasl && !text.contains("SSL handshake")).then(|| {
        "the address can be connected to, and answers no question of Kafka's: see whether the broker is \
         overloaded, or its listener asks for a login; then set kafka.properties.\"security.protocol\" = \
         \"sasl_ssl\" (or \"sasl_plaintext\"), \"sasl.mechanism\", \"sasl.username\" and \
         \"sasl.password\""
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_does_not_fit_is_named_with_the_one_that_does() {
        let fix = |text: &str, protocol: &str| mismatch(text, protocol).unwrap_or_default();
        let ssl = "Disconnected while requesting ApiVersion: might be caused by incorrect \
                   security.protocol configuration (connecting to a SSL listener?)";
        assert!(fix(ssl, "plaintext").ends_with("= \"ssl\""));
        assert!(fix(ssl, "sasl_plaintext").ends_with("= \"sasl_ssl\""));
        let plain =
            "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?";
        assert!(fix(plain, "ssl").ends_with("= \"plaintext\""));
        assert!(fix(plain, "sasl_ssl").ends_with("= \"sasl_plaintext\""));
        assert!(fix("Timed out", "plaintext").contains("sasl.username"));
        assert_eq!(mismatch("Timed out", "sasl_ssl"), None);
    }
}
