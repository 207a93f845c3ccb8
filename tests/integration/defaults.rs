//! The default in a column's schema is what a row holds that takes it, whatever its literal says.

use serde_json::Value;

use crate::scenario::Scenario;
use crate::support::postgres::for_each_postgres;

/// Columns whose defaults their types change, and some that they leave alone.
const TABLE: &str = "CREATE TABLE d (id int PRIMARY KEY,
    rounded numeric(6,2) DEFAULT 12.345, below numeric(6,2) DEFAULT -12.345,
    filled numeric(6,2) DEFAULT 5, one numeric(4,1) DEFAULT '1e2', free numeric DEFAULT 12.345,
    whole int DEFAULT 1.6, small smallint DEFAULT -7.5, big bigint DEFAULT '7'::smallint, plain int DEFAULT 7,
    single real DEFAULT 0.123456789012, coarse real DEFAULT 16777217, wide float8 DEFAULT 0.1,
    second timestamp(0) DEFAULT '2023-12-31 23:59:59.6', milli timestamp(3) DEFAULT '2024-01-01 00:00:00.12345',
    zoned timestamptz(3) DEFAULT '2024-01-01 00:00:00.12345+02', noon time(0) DEFAULT '11:59:59.7',
    cut time(3) DEFAULT '08:15:30.123456', span interval(0) DEFAULT '1.6 s',
    fields interval hour to minute DEFAULT '1:02:03', day date DEFAULT '2024-01-01 10:00'::timestamp,
    word text DEFAULT 12, flag boolean DEFAULT 'yes')";

/// Columns that have a default under every format.
const NAMES: [&str; 22] = [
    "rounded", "below", "filled", "one", "free", "whole", "small", "big", "plain", "single",
    "coarse", "wide", "second", "milli", "zoned", "noon", "cut", "span", "fields", "day", "word",
    "flag",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_schemas_default_is_what_a_row_holds_that_takes_it() {
    for_each_postgres(async |server| {
        for format in [
            "types = \"readable\"",
            "decimal_handling_mode = \"double\"",
            "decimal_handling_mode = \"string\"\ntime_precision_mode = \"isostring\"",
            "types = \"debezium\"",
            "types = \"debezium\"\ntime_precision_mode = \"connect\"\ninterval_handling_mode = \"string\"",
        ] {
            let config = format!("[format]\nvalue = \"debezium-schema\"\n{format}\n");
            let scenario = Scenario::start(server, &config, TABLE, &["public.d"]).await;
            scenario.sql("INSERT INTO d (id) VALUES (1)").await;
            let events = scenario.events("public.d").await;
            let value = events[0].value.as_ref().expect("a value");
            let fields = value["schema"]["fields"][1]["fields"].as_array().expect("columns");
            for name in NAMES {
                let field = fields.iter().find(|field| field["field"] == name).expect(name);
                let held = &value["payload"]["after"][name];
                // Connect can't hold a struct as a default.
                let expected = if held.is_object() { &Value::Null } else { held };
                assert_eq!(&field["default"], expected, "{name} under {format}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_that_no_row_can_take_is_none_and_changes_no_other() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE d (id int PRIMARY KEY, over numeric(4,2) DEFAULT 12345.6,
                                     n numeric(6,2) DEFAULT 12.345)";
        let config = "[format]\nvalue = \"debezium-schema\"\n";
        let scenario = Scenario::start(server, config, setup, &["public.d"]).await;
        scenario.sql("INSERT INTO d VALUES (1, 2, 3)").await;
        let events = scenario.events("public.d").await;
        let fields = &events[0].value.as_ref().expect("a value")["schema"]["fields"][1]["fields"];
        assert_eq!((&fields[1]["default"], &fields[2]["default"]), (&Value::Null, &"12.35".into()));
    })
    .await;
}
