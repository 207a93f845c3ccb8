//! Lists the permissions that a pipeline needs on the brokers, as commands for Kafka's own tool.
//!
//! The brokers name one missing permission at a time, and the next only once that one is granted.
//! So if they refuse any, all are listed: each line grants what this configuration uses, and
//! nothing more.

use std::collections::BTreeSet;

use crate::config::{Delivery, Resolved};
use crate::route::Router;

/// Placeholder for our principal; only the brokers know it if no user name is sent.
const UNKNOWN: &str = "User:PRINCIPAL";

/// One command for each resource.
#[must_use]
pub fn acls(settings: &Resolved, database: &str) -> String {
    let user = settings.kafka.properties.get("sasl.username");
    let user = user.map_or_else(|| UNKNOWN.to_owned(), |user| format!("User:{}", user.expose()));
    let head = format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal {}",
        quoted(&settings.brokers),
        quoted(&user)
    );
    let topic = "--operation Create --operation Describe --operation DescribeConfigs \
                 --operation Write";
    let mut lines = vec![
        format!("{head} {topic} --operation Read --topic {}", quoted(&settings.topics.checkpoints)),
        format!("{head} --operation Read --group rowcast"),
    ];
    lines.extend(topics(settings, database).into_iter().map(|of| format!("{head} {topic} {of}")));
    lines.push(match settings.delivery {
        Delivery::ExactlyOnce => {
            let id = quoted(&format!("rowcast.{}", settings.name));
            format!("{head} --operation Describe --operation Write --transactional-id {id}")
        }
        // Brokers before 2.8 require it of an idempotent producer; later ones accept the permission
        // to write instead.
        Delivery::AtLeastOnce => format!("{head} --operation IdempotentWrite --cluster"),
    });
    lines.join("\n")
}

/// The topics of the tables, by their common prefix; then those without it.
fn topics(settings: &Resolved, database: &str) -> Vec<String> {
    let router = Router::new(settings, database);
    let (begin, is_whole) = router.beginning();
    let (begin, is_any) = (begin.as_str(), begin.is_empty());
    let mut topics = vec![match (is_any, is_whole) {
        (true, _) => "--topic '*'".to_owned(),
        (false, true) => format!("--topic {}", quoted(begin)),
        (false, false) => format!("--topic {} --resource-pattern-type prefixed", quoted(begin)),
    }];
    let own = router.own_topics(settings).into_iter();
    let mut others: BTreeSet<String> = own.map(|(name, _)| name.to_string()).collect();
    others.remove(&settings.topics.checkpoints);
    others.extend(settings.tables.topics().map(str::to_owned));
    others
        .retain(|name| !is_any && if is_whole { name != begin } else { !name.starts_with(begin) });
    topics.extend(others.iter().map(|name| format!("--topic {}", quoted(name))));
    topics
}

/// The text as one shell word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:,/".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret, TopicEscape};

    #[test]
    fn a_pipeline_is_granted_what_it_uses_and_nothing_else() {
        let mut config = Config::default();
        config.kafka.brokers = Some("a:1,b:2".to_owned());
        let user = Secret::from("it's".to_owned());
        config.kafka.properties.insert("sasl.username".to_owned(), user);
        config.delivery = Delivery::ExactlyOnce;
        config.name = Some("my taxi".to_owned());
        config.topics.prefix = Some("taxi".to_owned());
        let rides =
            crate::config::Table { topic: Some("all-rides".to_owned()), ..Default::default() };
        config.tables.insert("public.rides".to_owned(), rides);
        let block = |config: &Config| acls(&config.resolve("taxi").unwrap(), "taxi");
        let head =
            r"kafka-acls.sh --bootstrap-server a:1,b:2 --add --allow-principal 'User:it'\''s' ";
        let all = block(&config);
        let lines: Vec<&str> = all.lines().map(|line| line.strip_prefix(head).unwrap()).collect();
        let topic = "--operation Create --operation Describe --operation DescribeConfigs \
                     --operation Write";
        assert_eq!(
            lines,
            [
                &format!("{topic} --operation Read --topic rowcast.checkpoints"),
                "--operation Read --group rowcast",
                &format!("{topic} --topic taxi. --resource-pattern-type prefixed"),
                &format!("{topic} --topic all-rides"),
                "--operation Describe --operation Write --transactional-id 'rowcast.my taxi'",
            ]
        );
        config.delivery = Delivery::AtLeastOnce;
        let all = block(&config);
        assert!(all.ends_with(" --operation IdempotentWrite --cluster"), "{all}");
        assert!(!all.contains("--transactional-id"), "{all}");
        // The permission names the topic as the brokers do.
        config.topics.template = "{database}.{schema}.{table}".to_owned();
        let all = acls(&config.resolve("my db").unwrap(), "my db");
        assert!(all.contains("--topic my_db. --resource-pattern-type prefixed\n"), "{all}");
        config.topics.escape = TopicEscape::Unicode;
        let all = acls(&config.resolve("my db").unwrap(), "my db");
        assert!(all.contains("--topic my_u0020db. --resource-pattern-type prefixed\n"), "{all}");
        config.topics.escape = TopicEscape::Underscore;
        config.topics.template = "{schema}.{table}".to_owned();
        assert!(block(&config).contains("--topic '*'\n"));
        config.topics.template = "all".to_owned();
        assert!(block(&config).contains("--topic all\n"));
        assert!(block(&config).contains("--topic taxi.message\n"), "{}", block(&config));
    }
}
