//! Brokers that are not there, that lost a topic, or that let nobody in.

use std::time::Duration;

use super::{all_arrive, create_table, ends_with, metric, readyz, start_again, stop, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, private_kafka_or_skip};
use crate::support::postgres::{TestDatabase, confirmed};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

#[tokio::test(flavor = "multi_thread")]
async fn kafka_that_is_down_at_the_start_is_waited_for_and_a_topic_that_is_deleted_is_made_again() {
    let mut kafka = private_kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("down"), kafka.brokers());
    kafka.stop();
    let config = "[kafka.properties]\n\"topic.metadata.propagation.max.ms\" = \"1000\"\n";
    let mut bridge = Bridge::start(&name, &database.tcp_url, &brokers, config);
    readyz(&bridge, 503, "").await;
    // A slot that nobody drains would hold the server's WAL.
    let slots =
        client.query("SELECT FROM pg_replication_slots WHERE database = current_database()", &[]);
    assert_eq!(slots.await.expect("ask").len(), 0);
    kafka.start_again();
    readyz(&bridge, 200, "streaming").await;
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;

    // What is in flight when the topic goes may be anywhere, so nothing is.
    eventually(PATIENCE, "everything to be acknowledged", async || {
        (metric(&bridge, "rowcast_records_in_flight") == 0).then_some(())
    })
    .await;
    client.batch_execute("TRUNCATE rides").await.expect("empty the table");
    kafka.delete_topic(&format!("{name}.public.rides")).await;
    write(&client, 101..=200).await;
    eventually(PATIENCE, "the topic to be made again", async || {
        bridge.log().contains("the topic was deleted while in use").then_some(())
    })
    .await;
    all_arrive(&brokers, &name, &client).await;

    // An outage is reported long before the watchdog's minute is over.
    readyz(&bridge, 200, "streaming").await;
    kafka.stop();
    write(&client, 201..=300).await;
    readyz(&bridge, 503, "streaming: stalled, no broker can be reached, and ").await;
    kafka.start_again();
    readyz(&bridge, 200, "streaming").await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}

/// Runs the block that an end proposes, line by line as it is pasted, with Kafka's own tool.
fn paste(kafka: &KafkaNode, log: &str) {
    let (_, block) = log.rsplit_once("\nfix:\n").expect("a block");
    let commands = block.lines().filter(|line| line.starts_with("kafka-acls.sh "));
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() >= 3, "{block}");
    for command in commands {
        let (_, rights) = command.split_once(" --allow-principal User:bridge ").expect("whose");
        let rights: Vec<&str> = rights.split_whitespace().collect();
        kafka.allow(&[&["--add"], &rights[..]].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rights_that_are_missing_are_one_block_that_works_as_it_is_pasted() {
    let kafka = match KafkaNode::start_guarded() {
        Ok(node) => node,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    for delivery in ["at-least-once", "exactly-once"] {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        create_table(&client).await;
        let (name, brokers) = (unique("granted"), kafka.guarded_brokers());
        let config = format!(
            "delivery = \"{delivery}\"\n[topics]\ncheckpoints = \"{name}.state\"\n\
             [kafka.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\
             \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"bridge\"\n\
             \"sasl.password\" = \"secret\"\n"
        );
        let mut bridge = Bridge::start(&name, &database.tcp_url, &brokers, &config);
        assert_eq!(bridge.wait(PATIENCE).code(), Some(69), "{}", bridge.log());
        paste(&kafka, &bridge.log());
        // The first start finds at once what only the next one needs: the right to read what it wrote.
        let checkpoints = format!("{name}.state");
        let unread = ["--deny-principal", "User:bridge", "--operation", "Read"];
        let on = ["--topic", checkpoints.as_str()];
        kafka.change_rights(&[&["--add"], &unread[..], &on[..]].concat());
        bridge.start_again();
        ends_with(&mut bridge, &checkpoints, "Read and Describe on").await;
        kafka.change_rights(&[&["--remove", "--force"], &unread[..], &on[..]].concat());
        // That on the group is asked for by no start: it is never joined.
        kafka.change_rights(&[&["--add"], &unread[..], &["--group", "rowcast"]].concat());
        write(&client, 1..=10).await;
        start_again(&mut bridge);
        all_arrive(&kafka.brokers(), &name, &client).await;
        // Without the right to write, the cause is named, and it is not tried for ever.
        let topic = format!("{name}.public.rides");
        let rights = ["--operation", "Write", "--topic", &topic];
        let deny = ["--add", "--deny-principal", "User:bridge"];
        let undeny = ["--remove", "--force", "--deny-principal", "User:bridge"];
        kafka.change_rights(&[&deny, &rights[..]].concat());
        write(&client, 11..=20).await;
        ends_with(&mut bridge, &topic, "Create, Describe and Write on").await;
        kafka.change_rights(&[&undeny, &rights[..]].concat());
        start_again(&mut bridge);
        all_arrive(&kafka.brokers(), &name, &client).await;
        stop(&mut bridge);
        kafka.change_rights(
            &[&["--remove", "--force"], &unread[..], &["--group", "rowcast"]].concat(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_one_line_a_half_minute_that_says_what_it_means() {
    let mut kafka = private_kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("outage"), kafka.brokers());
    let config = "[postgres]\ndiscover_interval = \"1s\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    kafka.stop();
    write(&client, 101..=200).await;
    readyz(&bridge, 503, "streaming: stalled, no broker can be reached, and ").await;
    let log = async |lines: usize| {
        eventually(3 * PATIENCE, "the line of the outage", async || {
            let log = bridge.log();
            (log.matches("kafka still accepts nothing").count() >= lines).then_some(log)
        })
        .await
    };
    let before = log(1).await;
    let after = log(3).await;
    // A minute lies between.
    let lines: Vec<&str> = after.lines().skip(before.lines().count()).collect();
    println!("{}", lines.join("\n"));
    assert!(lines.len() <= 4, "{} lines:\n{}", lines.len(), lines.join("\n"));
    let last = lines.last().expect("the line of the outage");
    for said in
        ["waiting=", "folded=", "nothing is lost", " of WAL meanwhile, ", " more than last time"]
    {
        assert!(last.contains(said), "no {said:?} in {last}");
    }
    let first = before.lines().skip_while(|line| !line.contains("kafka connection")).count();
    assert!(first <= 12, "{first} lines of the first half minute:\n{before}");
    kafka.start_again();
    readyz(&bridge, 200, "streaming").await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_or_a_right_that_is_refused_ends_the_bridge_with_what_to_grant() {
    let kafka = match KafkaNode::start_guarded() {
        Ok(node) => node,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("guarded"), kafka.guarded_brokers());
    let config = |password: &str| {
        format!(
            "[kafka.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\
             \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"bridge\"\n\
             \"sasl.password\" = \"{password}\"\n"
        )
    };
    let mut bridge = Bridge::start(&name, &database.tcp_url, &brokers, &config("wrong"));
    ends_with(&mut bridge, "uthentication", "sasl.password").await;

    bridge.configure(&config("secret"));
    bridge.start_again();
    let checkpoints = "rowcast.checkpoints";
    let grant = |topic: &str| format!("Create, Describe and Write on {topic}");
    ends_with(&mut bridge, checkpoints, &grant(checkpoints)).await;
    let rights = ["--topic", checkpoints, "--group", "rowcast"];
    kafka.allow(&[&["--add", "--operation", "All"], &rights[..]].concat());
    write(&client, 1..=100).await;
    bridge.start_again();
    let topic = format!("{name}.public.rides");
    ends_with(&mut bridge, &topic, &grant(&topic)).await;
    assert_eq!(confirmed(&client, &name).await, None, "no slot was created for it");

    // That it may not write, it learns with the first row: the slot goes again.
    let rights = ["--operation", "Create", "--operation", "Describe"];
    kafka.allow(&[&["--add"], &rights[..], &["--topic", &topic]].concat());
    bridge.start_again();
    ends_with(&mut bridge, &topic, &grant(&topic)).await;
    let log = bridge.log();
    assert!(log.contains("dropped the slot that this start created"), "log:\n{log}");
    assert_eq!(confirmed(&client, &name).await, None);

    let rights = ["--operation", "Create", "--operation", "Describe", "--operation", "Write"];
    let on_topic = ["--topic", &topic];
    kafka.allow(&[&["--add"], &rights[..], &on_topic[..]].concat());
    start_again(&mut bridge);
    all_arrive(&kafka.brokers(), &name, &client).await;

    kafka.allow(&[&["--remove", "--force"], &rights[..], &on_topic[..]].concat());
    write(&client, 101..=200).await;
    ends_with(&mut bridge, &topic, &grant(&topic)).await;
    kafka.allow(&[&["--add"], &rights[..], &on_topic[..]].concat());
    start_again(&mut bridge);
    all_arrive(&kafka.brokers(), &name, &client).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_lose_their_identities_while_kafka_is_away_are_updated_again_within_moments() {
    let kafka = private_kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    for table in ["a", "b", "c"] {
        let create =
            format!("CREATE TABLE {table} (id int PRIMARY KEY); INSERT INTO {table} VALUES (1)");
        client.batch_execute(&create).await.expect("make a table");
    }
    let (name, brokers) = (unique("away"), kafka.brokers());
    let config = "[postgres]\ndiscover_interval = \"1s\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    write(&client, 1..=10).await;
    all_arrive(&brokers, &name, &client).await;
    kafka.freeze();
    // The next look for new tables notes its name in Kafka, and waits for that.
    client.batch_execute("CREATE TABLE newer (id int PRIMARY KEY)").await.expect("make a table");
    for table in ["a", "b", "c"] {
        let lose = format!("ALTER TABLE {table} DROP CONSTRAINT {table}_pkey");
        client.batch_execute(&lose).await.expect("lose the identity");
        let update = format!("UPDATE {table} SET id = id + 1");
        eventually(Duration::from_secs(12), &update, async || {
            client.batch_execute(&update).await.ok()
        })
        .await;
    }
    kafka.thaw();
    write(&client, 11..=20).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}
