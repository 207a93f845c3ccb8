//! Every type a server has takes a form under both profiles, on every Postgres.

use rowcast::config::{Format, TypeProfile};
use rowcast::postgres::{Catalog, ConnInfo, ConnectOptions};
use rowcast::types::{Forms, codec_for};
use serde_json::{Value, json};
use tokio_postgres::SimpleQueryMessage;

use crate::support::postgres::for_each_postgres;

/// Types that the columns of the table need.
const SETUP: &str = "
CREATE EXTENSION hstore;
CREATE EXTENSION ltree;
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('calm', 'so \"so\"');
CREATE DOMAIN price AS numeric(8,2);
CREATE DOMAIN list_price AS price;
CREATE DOMAIN tags AS text[];
CREATE TYPE address AS (street text, zip int);
CREATE TYPE floatrange AS RANGE (subtype = float8);
";

/// As the session of a stream is.
const SESSION: &str =
    "SET IntervalStyle = iso_8601; SET TimeZone = UTC; SET extra_float_digits = 3";

/// Types with a value, each in SQL.
const COLUMNS: &[(&str, &str)] = &[
    ("bit(3)[]", "{101}"),
    ("varbit", "0000000101"),
    ("\"char\"", "\\001"),
    ("name", "n"),
    ("oid", "4294967295"),
    ("xid", "7"),
    ("cid", "8"),
    ("tid", "(1,2)"),
    ("regclass", "pg_class"),
    ("regproc", "now"),
    ("regtype[]", "{int4,text}"),
    ("int2vector", "4 5"),
    ("oidvector", "1 2 3"),
    ("int2vector[]", "{\"4 5\",6}"),
    ("oidvector[]", "{\"1 2\"}"),
    ("pg_lsn", "16/B374D848"),
    ("txid_snapshot", "10:20:10,14,15"),
    ("jsonpath", "$.a[*]"),
    ("tsvector[]", "{\"a:1 b\"}"),
    ("tsquery", "a & b"),
    ("money[]", "{3.5,-1234567.89}"),
    ("interval[]", "{1 day,-1 month}"),
    ("name[]", "{n}"),
    ("xml[]", "{<a/>}"),
    ("point[]", "{\"(1,2)\"}"),
    ("box[]", "{(1,1),(0,0);(3,3),(2,2)}"),
    ("lseg", "[(0,0),(1,1.5)]"),
    ("path", "[(0,0),(1,1)]"),
    ("polygon[]", "{\"((0,0),(1,1))\"}"),
    ("circle", "<(1,2),3.5>"),
    ("line", "{1,-2.5,3}"),
    ("inet[]", "{10.0.0.1,::1}"),
    ("macaddr8", "08:00:2b:01:02:03:04:05"),
    ("int4range[]", "{\"[1,5)\",empty}"),
    ("floatrange", "[1.5,2.5)"),
    ("int4multirange[]", "{\"{[1,2)}\"}"),
    ("mood", "so \"so\""),
    ("mood[]", "{calm,NULL}"),
    ("list_price", "16.5"),
    ("list_price[]", "{16.5,-1}"),
    ("tags", "{a,b}"),
    ("tags[]", "{\"{a,b}\"}"),
    ("address", "(\"x y\",1)"),
    ("address[]", "{\"(x,1)\"}"),
    ("hstore", "b=>1, a=>NULL"),
    ("hstore[]", "{\"\\\"k\\\"=>\\\"v\\\"\"}"),
    ("ltree[]", "{a.b,NULL}"),
    ("citext[]", "{Ab}"),
    ("numeric(3,0)[]", "{1,NaN}"),
    ("timetz", "24:00:00-02"),
    ("timestamptz", "4713-01-01 00:00:00+00 BC"),
    ("int[]", "[0:1][1:2]={{1,2},{3,NULL}}"),
];

/// What these become under `readable` and under `debezium`.
fn expected(type_name: &str) -> Option<(Value, Value)> {
    Some(match type_name {
        "bit(3)[]" => (json!(["101"]), json!(["BQ=="])),
        "xid" => (json!(7), json!("7")),
        "int2vector" => (json!([4, 5]), json!([4, 5])),
        "int2vector[]" => (json!([[4, 5], [6]]), json!([[4, 5], [6]])),
        "money[]" => (json!(["$3.50", "-$1,234,567.89"]), json!(["AV4=", "+KQy6w=="])),
        "interval[]" => {
            (json!(["P1D", "P-1M"]), json!([86_400_000_000_i64, -2_629_800_000_000_i64]))
        }
        "box[]" => {
            let boxes = json!(["(1,1),(0,0)", "(3,3),(2,2)"]);
            (boxes.clone(), boxes)
        }
        "mood[]" => (json!(["calm", null]), json!(["calm", null])),
        "list_price" => (json!("16.50"), json!("BnI=")),
        "list_price[]" => (json!(["16.50", "-1.00"]), json!(["BnI=", "nA=="])),
        "tags[]" => (json!([["a", "b"]]), json!([["a", "b"]])),
        "hstore" => (json!({"a": null, "b": "1"}), json!("{\"a\":null,\"b\":\"1\"}")),
        "timetz" => (json!("24:00:00-02:00"), json!("02:00:00Z")),
        "timestamptz" => (json!("-4712-01-01T00:00:00Z"), json!("-4712-01-01T00:00:00.000000Z")),
        "int[]" => (json!([[1, 2], [3, null]]), json!([[1, 2], [3, null]])),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_takes_a_form_under_both_profiles() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let columns: Vec<String> =
            COLUMNS.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name}")).collect();
        let values: Vec<String> = COLUMNS
            .iter()
            .map(|(name, value)| format!("'{}'::{name}", value.replace('\'', "''")))
            .collect();
        client.batch_execute(SETUP).await.expect("make the types");
        let create = format!("CREATE TABLE t ({})", columns.join(", "));
        client.batch_execute(&create).await.expect("make the table");
        let insert = format!("INSERT INTO t SELECT {}", values.join(", "));
        client.batch_execute(&insert).await.expect("insert");
        let attributes = "SELECT atttypid, atttypmod FROM pg_attribute
                          WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum";
        let attributes = client.query(attributes, &[]).await.expect("ask for the columns");
        let attributes: Vec<(u32, i32)> =
            attributes.iter().map(|row| (row.get(0), row.get(1))).collect();
        let types: Vec<u32> = attributes.iter().map(|(oid, _)| *oid).collect();

        let info = ConnInfo::parse(&database.unix_url, &|_| None).expect("a URL");
        let mut catalog =
            Catalog::connect(&info, &ConnectOptions::default()).await.expect("connect");
        let facts = catalog.relation(0, &types).await.expect("facts");
        let rows = catalog.client().await.expect("a client");
        rows.batch_execute(SESSION).await.expect("set the session");
        let rows = rows.simple_query("SELECT * FROM public.t").await.expect("read the row");
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.expect("a row");
        for profile in [TypeProfile::Readable, TypeProfile::Debezium] {
            let forms = Forms::of(&Format { types: profile, ..Format::default() });
            for (at, ((name, _), (oid, typmod))) in COLUMNS.iter().zip(&attributes).enumerate() {
                let codec = codec_for(*oid, *typmod, &facts.types, &forms);
                let text = row.get(at).expect(name);
                let mut out = Vec::new();
                if *name == "numeric(3,0)[]" && profile == TypeProfile::Debezium {
                    let error = codec.write_json(text.as_bytes(), &mut out).unwrap_err();
                    assert!(error.to_string().contains("decimal_handling_mode"), "{error}");
                    continue;
                }
                codec
                    .write_json(text.as_bytes(), &mut out)
                    .unwrap_or_else(|error| panic!("{name} under {profile:?}: {error}: {text}"));
                let found: Value = serde_json::from_slice(&out).expect(name);
                if let Some((readable, debezium)) = expected(name) {
                    let expected =
                        if profile == TypeProfile::Readable { readable } else { debezium };
                    assert_eq!(found, expected, "{name} under {profile:?} of {text}");
                }
            }
        }
    })
    .await;
}
