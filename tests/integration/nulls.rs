//! A null stays a null under a schema, whatever the catalog says of its column; and a column that may
//! hold nulls keys nothing.

use serde_json::{Value, json};

use crate::scenario::{Event, Scenario};
use crate::support::postgres::for_every_postgres;

const WITH_SCHEMAS: &str = "[format]\nvalue = \"debezium-schema\"\n";

/// Key and row of an event, without their schemas.
fn payloads(event: &Event) -> Value {
    let key = event.key.as_ref().map(|key| key["payload"].clone());
    let value = event.value.as_ref().map(|value| &value["payload"]);
    json!([key, value.map(|value| &value["op"]), value.map(|value| &value["after"])])
}

fn all(events: &[Event]) -> Value {
    events.iter().map(payloads).collect()
}

/// Whether a column may be null, by the schema of the row after the change.
fn optional<'a>(event: &'a Event, column: &str) -> &'a Value {
    let rows = event.value.as_ref().expect("a value")["schema"]["fields"].as_array();
    let after = rows.and_then(|rows| rows.iter().find(|row| row["field"] == "after"));
    let columns = after.expect("rows after")["fields"].as_array().expect("columns");
    let column = columns.iter().find(|field| field["field"] == column);
    &column.expect("the column")["optional"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_is_not_valid_is_believed_once_it_is() {
    for_every_postgres(async |server| {
        if server.major() < 18 {
            return;
        }
        // From 19 on, an index identifies rows only once its constraints are valid.
        let is_refused = server.major() >= 19;
        let identity = if is_refused { "FULL" } else { "USING INDEX by_index_id" };
        let setup = format!(
            "CREATE TABLE t (id int, code text, day date, n int);
             INSERT INTO t VALUES (NULL, NULL, NULL, 1), (NULL, NULL, NULL, 2), (7, 'x', '2024-03-01', 3);
             ALTER TABLE t ADD NOT NULL id NOT VALID, ADD NOT NULL code NOT VALID,
                           ADD NOT NULL day NOT VALID;
             CREATE UNIQUE INDEX t_id ON t (id);
             CREATE TABLE by_index (LIKE t);
             ALTER TABLE by_index ALTER id DROP NOT NULL, ALTER code DROP NOT NULL,
                                  ALTER day DROP NOT NULL;
             INSERT INTO by_index SELECT * FROM t;
             ALTER TABLE by_index ADD CONSTRAINT late NOT NULL id NOT VALID;
             CREATE UNIQUE INDEX by_index_id ON by_index (id);
             ALTER TABLE t REPLICA IDENTITY FULL;
             ALTER TABLE by_index REPLICA IDENTITY {identity}"
        );
        let tables = ["public.t", "public.by_index"];
        let scenario = Scenario::start(server, WITH_SCHEMAS, &setup, &tables).await;
        scenario.sql("DELETE FROM t WHERE n = 1; DELETE FROM by_index WHERE n = 1").await;
        let rows = json!([
            [null, "r", {"id": null, "code": null, "day": null, "n": 1}],
            [null, "r", {"id": null, "code": null, "day": null, "n": 2}],
            [null, "r", {"id": 7, "code": "x", "day": "2024-03-01", "n": 3}],
            [null, "d", null],
        ]);
        for table in tables {
            let events = scenario.events(table).await;
            assert_eq!(all(&events), rows, "{table}");
            for column in ["id", "code", "day", "n"] {
                assert_eq!(optional(&events[0], column), true, "{table}.{column}");
            }
        }
        let log = scenario.log();
        assert_eq!(log.contains("VALIDATE CONSTRAINT"), !is_refused, "log:\n{log}");

        // Once no nulls are left and the server has seen that, the index keys rows.
        scenario
            .sql(
                "DELETE FROM by_index WHERE id IS NULL;
                 ALTER TABLE by_index VALIDATE CONSTRAINT late;
                 ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id;
                 INSERT INTO by_index (id, n) VALUES (8, 4)",
            )
            .await;
        let events = scenario.events("public.by_index").await;
        let last = events.last().expect("an event");
        assert_eq!(payloads(last)[0], json!({"id": 8}));
        assert_eq!((optional(last, "id"), optional(last, "code")), (&json!(false), &json!(true)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_that_the_catalog_rules_out_stay_nulls() {
    for_every_postgres(async |server| {
        let setup = "CREATE DOMAIN sure AS int NOT NULL;
             CREATE TABLE t (id int PRIMARY KEY, code text, day date DEFAULT '2024-01-01', held sure);
             CREATE TABLE keyed_late (id int, n int);
             ALTER TABLE keyed_late REPLICA IDENTITY FULL";
        let tables = ["public.t", "public.keyed_late"];
        let mut scenario = Scenario::start(server, WITH_SCHEMAS, setup, &tables).await;
        scenario.sql("INSERT INTO t VALUES (1, 'a', '2024-03-01', 1)").await;
        scenario.sql("INSERT INTO t VALUES (2, 'b', '2024-03-01', (SELECT held FROM t LIMIT 0))").await;
        assert_eq!(scenario.events("public.t").await.len(), 2);
        scenario.stop();
        // Read after the constraints were made, written before.
        scenario
            .sql(
                "INSERT INTO t VALUES (3, NULL, NULL, 3);
                 INSERT INTO keyed_late VALUES (NULL, 1);
                 DELETE FROM t WHERE id = 3; DELETE FROM keyed_late;
                 ALTER TABLE t ALTER code SET NOT NULL, ALTER day SET NOT NULL;
                 ALTER TABLE keyed_late ADD PRIMARY KEY (id)",
            )
            .await;
        scenario.run();
        let events = scenario.events("public.t").await;
        assert_eq!(
            all(&events[..3]),
            json!([
                [{"id": 1}, "c", {"id": 1, "code": "a", "day": "2024-03-01", "held": 1}],
                [{"id": 2}, "c", {"id": 2, "code": "b", "day": "2024-03-01", "held": null}],
                [{"id": 3}, "c", {"id": 3, "code": null, "day": null, "held": 3}],
            ])
        );
        assert_eq!(optional(&events[0], "held"), false, "as long as no null was met");
        assert_eq!(optional(&events[1], "held"), true);
        assert_eq!(optional(&events[2], "code"), true);

        let events = scenario.events("public.keyed_late").await;
        let key = events[0].key.as_ref().expect("the key of now");
        assert_eq!(key["payload"], json!({"id": null}));
        assert_eq!(key["schema"]["fields"][0]["optional"], true);
        assert_eq!(payloads(&events[0])[2], json!({"id": null, "n": 1}));
    })
    .await;
}
