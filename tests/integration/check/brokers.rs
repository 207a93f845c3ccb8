//! What is broken on the brokers' side.

use super::Check;
use crate::support::kafka::{KafkaNode, RelayedPort, kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::process::free_port;
use crate::support::{report_skipped, unique};

async fn database() -> TestDatabase {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("a table");
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_can_not_be_reached_are_named_each() {
    let kafka = kafka_or_skip!().brokers();
    let database = database().await;
    let free = free_port();
    let down = format!("127.0.0.1:{free}");
    let said = Check::new(&database.unix_url, &down, "").fails("kafka.address", &down);
    // The database is asked all the same.
    assert!(!said.of("postgres.tables", "ok").is_empty(), "{}", said.text);
    let half = format!("{down},no-such-host.invalid:9092,{kafka}");
    let said = Check::new(&database.unix_url, &half, "").fails("kafka.address", &down);
    assert_eq!(said.of("kafka.address", "error").len(), 2, "{}", said.text);
    assert!(!said.of("kafka.topics", "ok").is_empty(), "{}", said.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_broker_advertises_and_nobody_reaches_is_named() {
    // The node's second port advertises one on which nobody listens.
    let relay = RelayedPort { port: free_port(), advertised: free_port() };
    let kafka = match KafkaNode::start_behind(relay) {
        Ok(node) => node,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = database().await;
    let brokers = format!("127.0.0.1:{}", relay.port);
    let words = format!("advertises 127.0.0.1:{}", relay.advertised);
    Check::new(&database.unix_url, &brokers, "").fails("kafka.advertised", &words);
    Check::new(&database.unix_url, &kafka.brokers(), "").passes("by its own port");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_the_brokers_can_not_keep_are_named() {
    let kafka = kafka_or_skip!().brokers();
    let database = database().await;
    let toml = "[topics]\nreplication_factor = 3\n";
    Check::new(&database.unix_url, &kafka, toml).fails("kafka.replicas", "1 broker answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_protocols_and_rights_are_named_and_the_block_of_rights_gives_them() {
    let kafka = match KafkaNode::start_guarded() {
        Ok(node) => node,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = database().await;
    let guarded = kafka.guarded_brokers();
    let login = |protocol: &str, password: &str| {
        format!(
            "[kafka.properties]\n\"security.protocol\" = \"{protocol}\"\n\"sasl.mechanism\" = \
             \"PLAIN\"\n\"sasl.username\" = \"bridge\"\n\"sasl.password\" = \"{password}\"\n"
        )
    };
    let url = &database.unix_url;
    Check::new(url, &guarded, &login("sasl_plaintext", "wrong"))
        .fails("kafka.connection", "Authentication failed");
    Check::new(url, &guarded, "").fails("kafka.connection", "sasl.username");
    Check::new(url, &guarded, &login("sasl_ssl", "secret"))
        .fails("kafka.connection", "sasl_plaintext");
    Check::new(url, &kafka.brokers(), "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n")
        .fails("kafka.connection", "plaintext");

    for delivery in ["at-least-once", "exactly-once"] {
        let name = unique("rights");
        let toml = format!(
            "delivery = \"{delivery}\"\n[topics]\nprefix = \"{name}\"\ncheckpoints = \"{name}.checkpoints\"\n{}",
            login("sasl_plaintext", "secret")
        );
        let check = Check::new(url, &guarded, &toml);
        let said = check.fails("kafka.topics", "");
        let block = said.report["kafka"].as_str().unwrap_or_default().to_owned();
        assert!(!block.contains("secret"), "{block}");
        for command in block.lines() {
            let (_, rights) = command.split_once(" --allow-principal User:bridge ").expect("whose");
            let rights: Vec<&str> = rights.split_whitespace().collect();
            kafka.allow(&[&["--add"], &rights[..]].concat());
        }
        check.passes(delivery);
    }
}
