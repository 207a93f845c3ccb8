//! Logical messages: any role may write one, so none stops the pipeline unless the configuration says
//! so, and a pipeline that wants none still hears those that are its own.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::scenario::{Event, Scenario};
use crate::support::bridge::{TOKEN, signal};
use crate::support::postgres::{for_each_postgres, for_every_postgres};
use crate::support::{PATIENCE, eventually};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY)";
const TOPICS: [&str; 4] = ["public.t", "message", "dead-letter", "transaction"];

/// More than Kafka takes, by content, by prefix, and what it takes.
const TOO_LARGE: &str = "
    SELECT pg_logical_emit_message(true, 'large', repeat('x', 2000000));
    SELECT pg_logical_emit_message(false, 'large', repeat('x', 2000000));
    SELECT pg_logical_emit_message(true, repeat('p', 2000000), 'x');
    SELECT pg_logical_emit_message(true, 'small', 'x');
    INSERT INTO t VALUES (1)";

fn metric(scenario: &Scenario, name: &str) -> u64 {
    let page = scenario.metrics();
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect(name)
}

fn prefixes(events: &[Event]) -> Vec<&Value> {
    events
        .iter()
        .map(|event| &event.value.as_ref().expect("a value")["message"]["prefix"])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_for_kafka_written_by_anyone_does_not_stop_the_stream() {
    for_every_postgres(async |server| {
        let config = "[format]\ntransaction_metadata = true\n";
        let mut scenario = Scenario::prepare(server, config, TABLE, &TOPICS).await;
        scenario.run();
        // A role with no right to anything.
        let role = crate::support::unique("anyone");
        scenario.sql(&format!("CREATE ROLE {role}; GRANT INSERT ON t TO {role}")).await;
        scenario.sql(&format!("SET ROLE {role}; {TOO_LARGE}; RESET ROLE")).await;
        assert_eq!(scenario.events("public.t").await.len(), 1, "log:\n{}", scenario.log());
        assert_eq!(prefixes(&scenario.events("message").await), ["small"]);

        let letters = scenario.events("dead-letter").await;
        assert_eq!(letters.len(), 3, "log:\n{}", scenario.log());
        let keys: Vec<_> = letters.iter().map(|letter| letter.key.clone()).collect();
        let large = Some(json!({"prefix": "large"}));
        // One that is in no transaction comes when it is written, before the transaction ends.
        assert_eq!(keys, [large.clone(), large, None]);
        let transactional = letters[1].value.as_ref().expect("a value");
        let [bytes, limit] = ["bytes", "limit"].map(|name| transactional[name].as_u64());
        assert!(bytes > Some(2_000_000) && limit == Some(1_000_000), "{transactional}");
        assert_eq!(transactional["content_bytes"], 2_000_000);
        assert_eq!((&transactional["op"], &transactional["ordinal"]), (&json!("m"), &json!(1)));
        assert_eq!(transactional["table"], json!(null));
        let long = letters[2].value.as_ref().expect("a value");
        assert_eq!((&long["prefix_bytes"], &long["prefix"]), (&json!(2_000_000), &json!(null)));
        let error = letters[0].header("rowcast.error").expect("the reason");
        assert!(error.contains("logical message") && error.contains("1000000"), "{error}");
        assert_eq!(metric(&scenario, "rowcast_oversize_total"), 3);
        assert_eq!(metric(&scenario, "rowcast_dead_letters_total"), 3);
        let log = scenario.log();
        assert_eq!(log.matches("sent to the dead letter topic").count(), 1, "log:\n{log}");
        // Of the transaction's events only those count that were published.
        let ends = scenario.events("transaction").await;
        let end = ends.iter().rev().find_map(|event| {
            let value = event.value.as_ref()?;
            (value["status"] == "END" && value["event_count"] != 0).then_some(value)
        });
        assert_eq!(end.expect("an end")["event_count"], 2);
        scenario.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_stop_the_stream_where_that_is_asked_for_and_are_left_out_where_that_is() {
    for_every_postgres(async |server| {
        let config = "[errors]\non_oversize = \"fail\"\n";
        let mut scenario = Scenario::prepare(server, config, TABLE, &TOPICS).await;
        scenario.run();
        scenario.sql("INSERT INTO t VALUES (0)").await;
        assert_eq!(scenario.events("public.t").await.len(), 1);
        scenario.sql(TOO_LARGE).await;
        assert_eq!(scenario.ended(), Some(69), "log:\n{}", scenario.log());
        let log = scenario.log();
        for text in ["a logical message is larger than", "postgres.skipped_operations"] {
            assert!(log.contains(text), "{text}: log:\n{log}");
        }

        // Fixed as it says. What is rowcast's own is still heard.
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), TOKEN).expect("write the token");
        scenario.configure(&format!(
            "[postgres]\nskipped_operations = [\"truncate\", \"message\"]\n\
             signal_token_file = \"{}\"\n[errors]\non_oversize = \"fail\"\n",
            token.path().display()
        ));
        scenario.run();
        let signal = signal(&json!({"type": "snapshot", "tables": ["public.t"]}));
        scenario
            .sql(&format!(
                "SELECT pg_logical_emit_message(true, 'small', 'x');
                 SELECT pg_logical_emit_message(true, 'rowcast.signal', '{signal}')"
            ))
            .await;
        eventually(PATIENCE, "the snapshot that was asked for", async || {
            scenario.log().contains("snapshot done").then_some(())
        })
        .await;
        let events = scenario.events("public.t").await;
        let ops: Vec<_> =
            events.iter().map(|event| &event.value.as_ref().expect("a value")["op"]).collect();
        assert_eq!(ops, ["c", "c", "r", "r"]);
        assert_eq!(scenario.events("message").await, []);
        assert_eq!(scenario.events("dead-letter").await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_prefix_is_no_text_is_a_dead_letter_unless_it_shall_stop_the_stream() {
    const ANY_BYTES: &str = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    for_each_postgres(async |server| {
        let mut scenario = Scenario::prepare_in(server, ANY_BYTES, "", TABLE, &TOPICS).await;
        scenario.run();
        let emit = "SELECT pg_logical_emit_message(true,
                        convert_from('\\xff68'::bytea, 'SQL_ASCII'), 'content');
                    INSERT INTO t VALUES (1)";
        scenario.sql(emit).await;
        assert_eq!(scenario.events("public.t").await.len(), 1, "log:\n{}", scenario.log());
        let letters = scenario.events("dead-letter").await;
        let letter = letters[0].value.as_ref().expect("a value");
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        assert_eq!(letter["prefix"], json!({"base64": base64(b"\xffh")}));
        assert_eq!(letter["content"], json!({"base64": base64(b"content")}));
        assert_eq!((letters.len(), &letters[0].key), (1, &None));

        scenario.stop();
        scenario.configure("[errors]\non_error = \"fail\"\n");
        scenario.run();
        scenario.sql(&emit.replace("(1)", "(2)")).await;
        assert_eq!(scenario.ended(), Some(69), "log:\n{}", scenario.log());
        assert!(scenario.log().contains("prefix is not UTF-8"), "log:\n{}", scenario.log());
    })
    .await;
}
