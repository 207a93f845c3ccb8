//! A panic, which is a bug of ours, in any thread or task: it ends the process at once and says so,
//! instead of a pipeline that waits for ever for who is gone.

use super::{create_table, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, unique};

/// The threads and tasks of a bridge, and whether they are those of a first snapshot.
const PLACES: [(&str, bool); 11] = [
    ("snapshot", true),
    ("snapshot-0", true),
    ("reader", false),
    ("worker", false),
    ("kafka-delivery", false),
    ("kafka-send", false),
    ("coordinator", false),
    ("watchdog", false),
    ("guard", false),
    ("admin", false),
    ("progress", false),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_thread_ends_the_process_with_70_and_its_text() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("panics"), kafka.brokers());
    for (n, (place, is_first)) in (0..).zip(PLACES) {
        // There is something to do for each.
        write(&client, 100 * n + 1..=100 * n + 100).await;
        // What reads a first snapshot is there once a pipeline.
        let name = if is_first { format!("{name}_{n}") } else { name.clone() };
        let env = [("TEST_ROWCAST_PANIC_IN", place)];
        let url = &database.tcp_url;
        let mut bridge = Bridge::start_telling(&name, url, &brokers, "", (None, &env));
        let status = bridge.wait(PATIENCE);
        let log = bridge.log();
        assert_eq!(status.code(), Some(70), "{place}; log:\n{log}");
        let text = format!("a test asked for it in {place}");
        assert!(log.contains("error: the thread ") && log.contains(&text), "log:\n{log}");
        assert!(log.contains("fix: please report this"), "log:\n{log}");
        let slot = format!("rowcast_{name}");
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                    WHERE slot_name = $1 AND NOT active";
        if is_first {
            client.query(drop, &[&slot]).await.expect("drop the slot");
        }
    }
}
