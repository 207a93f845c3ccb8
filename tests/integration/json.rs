//! JSON that readers refuse is published so that they don't: half of a surrogate pair.

use serde_json::json;

use crate::scenario::Scenario;
use crate::support::postgres::for_every_postgres;

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_surrogate_pair_is_replaced_counted_and_said_once_per_column() {
    for_every_postgres(async |server| {
        let setup = r#"CREATE TABLE t (id int PRIMARY KEY, j json, many json[], fine jsonb);
            INSERT INTO t VALUES (1, '{"a":"\ud800"}', NULL, '{"a":"\ud83d\ude00"}')"#;
        let scenario = Scenario::start(server, "", setup, &["public.t"]).await;
        scenario
            .sql(
                r#"INSERT INTO t VALUES
                    (2, '["\udc00\ud83d\ude00\\ud800"]', ARRAY['"x\ud800"', '"\uDBFFy\udfff"']::json[], NULL),
                    (3, '{"\ud800":1,"big":1e999999,"zero":"\u0000"}', NULL, NULL)"#,
            )
            .await;
        let records = scenario.records("public.t").await;
        let rows: Vec<_> = records
            .iter()
            .take(2)
            .map(|record| record.json().expect("a parser takes it")["after"].clone())
            .collect();
        assert_eq!(
            rows,
            [
                json!({"id": 1, "j": {"a": "\u{fffd}"}, "many": null, "fine": {"a": "\u{1f600}"}}),
                json!({"id": 2, "j": ["\u{fffd}\u{1f600}\\ud800"],
                       "many": ["x\u{fffd}", "\u{fffd}y\u{fffd}"], "fine": null}),
            ]
        );
        // Numbers and escapes of characters stay as they are: what they mean is the reader's.
        let third = String::from_utf8(records[2].value.clone().expect("a value")).expect("UTF-8");
        let nested = r#""j":{"\ufffd":1,"big":1e999999,"zero":"\u0000"}"#;
        assert!(third.contains(nested), "{third}");

        let page = scenario.metrics();
        let line = "rowcast_json_surrogates_replaced_total 6";
        assert!(page.lines().any(|found| found == line), "{page}");
        let log = scenario.log();
        assert_eq!(log.matches("JSON with a lone surrogate").count(), 2, "log:\n{log}");
    })
    .await;
}
