//! What Debezium publishes for the same SQL, record by record.
//!
//! Debezium 3.6 runs in a Kafka Connect worker of its own (`scripts/fetch-debezium`), one connector
//! a configuration, and reads what the [`script`] does to a PostgreSQL server. Its records are kept
//! as [`golden`] files.

#[path = "../support/mod.rs"]
mod support;

mod configurations;
mod connect;
mod golden;
mod json;
mod record;
mod run;
mod script;

use std::fmt::Write as _;

use crate::configurations::{ALL, Configuration};
use crate::connect::Connect;
use crate::run::{PREPARE, Runner};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{PostgresServer, TestDatabase};

fn properties(
    configuration: &Configuration,
    server: &PostgresServer,
    database: &TestDatabase,
    prefix: &str,
) -> Vec<(String, String)> {
    let port = server.port().to_string();
    let schemas = configuration.schemas.to_string();
    let publication = if configuration.by_root { "roots" } else { "leaves" };
    let mut properties = vec![
        ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
        ("tasks.max", "1"),
        ("database.hostname", "127.0.0.1"),
        ("database.port", &port),
        ("database.user", "postgres"),
        ("database.dbname", &database.name),
        ("topic.prefix", prefix),
        ("plugin.name", "pgoutput"),
        ("slot.name", prefix),
        ("publication.name", publication),
        ("publication.autocreate.mode", "disabled"),
        ("snapshot.mode", "no_data"),
        ("poll.interval.ms", "10"),
        ("errors.max.retries", "0"),
        ("key.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("key.converter.schemas.enable", &schemas),
        ("value.converter.schemas.enable", &schemas),
        ("topic.creation.default.replication.factor", "1"),
        ("topic.creation.default.partitions", "1"),
    ];
    properties.extend(configuration.connector);
    properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_files_are_what_debezium_publishes() {
    let kafka = kafka_or_skip!();
    let jars = match connect::jars() {
        Ok(jars) => jars,
        Err(reason) => return support::report_skipped(module_path!(), &reason),
    };
    let server = PostgresServer::shared();
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute(PREPARE).await.expect("prepare");
    let mut parts = script::parts(server.major());
    let setup = parts.remove(0);
    for step in setup.steps {
        if let script::Step::Run(sql) = step {
            client.batch_execute(&sql).await.expect(&sql);
        }
    }
    let prefixes: Vec<String> =
        ALL.iter().map(|configuration| format!("dbz_{}", configuration.name)).collect();
    let connectors: Vec<_> = ALL
        .iter()
        .zip(&prefixes)
        .map(|(configuration, prefix)| {
            (prefix.clone(), properties(configuration, server, &database, prefix))
        })
        .collect();
    let brokers = kafka.brokers();
    let mut tables = script::tables(&parts);
    tables.push(format!("public.{}", run::BARRIER));
    run::create_topics(&brokers, &prefixes, &tables).await;
    let mut connect = Some(Connect::start(&jars, &brokers, &connectors));
    for prefix in &prefixes {
        let query = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
        support::eventually(std::time::Duration::from_secs(120), "slot to be active", async || {
            if let Some(connect) = &mut connect {
                connect.assert_healthy();
            }
            let row = client.query_opt(query, &[&prefix]).await.expect("ask for the slot")?;
            row.get::<_, bool>(0).then_some(())
        })
        .await;
    }
    let mut runner = Runner::new(&client, &brokers, &prefixes);
    runner.run(&parts, &mut connect).await;
    let mut wrong = String::new();
    for (configuration, prefix) in ALL.iter().zip(&prefixes) {
        let lines = golden::lines(&run::parse(&runner.records(prefix), prefix));
        if golden::is_update() {
            golden::write(configuration.name, &lines);
        }
        if let Some(differences) = golden::differences(&golden::read(configuration.name), &lines) {
            writeln!(wrong, "{}: {differences}", configuration.name).expect("write to a text");
        }
    }
    assert!(wrong.is_empty(), "Debezium publishes something else than the golden files: {wrong}");
}
