//! What a snapshot reads is what the stream would bring: tables as the stream describes them, values
//! in the same text, the publication's columns and rows. On every server.

use std::collections::BTreeMap;

use rowcast::change::{KeyChoice, RelationFacts};
use rowcast::config::{Table as Settings, TableFilter, TableSettings};
use rowcast::pgoutput::{Datum, Message, decode};
use rowcast::postgres::{ConnInfo, ConnectOptions, CopySession};
use rowcast::snapshot::pages::{self, PageRange};
use rowcast::snapshot::plan::{self, Plan, PlannedTable, Scope};
use rowcast::snapshot::{DonePages, RowReader};
use tokio_postgres::Client;

use crate::support::postgres::{TestDatabase, for_each_postgres};

/// Tables of every shape.
const TABLES: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN fee AS numeric(8,2) NOT NULL DEFAULT 1; CREATE SCHEMA "Other ""s""";
    CREATE TABLE plain (id bigint, at timestamp(3), fare numeric(8,2), note varchar(10), gone int,
        moods mood[], PRIMARY KEY (note, id));
    ALTER TABLE plain DROP gone;
    CREATE TABLE whole (id int PRIMARY KEY, d fee, p pair, j jsonb, raw bytea, f float8,
        i interval, tz timestamptz, e text, n text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, more int);
    CREATE UNIQUE INDEX by_index_code ON by_index (code) INCLUDE (more);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
    CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE keyless (v text);
    CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE empty_rows ();
    CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, v text);
    CREATE TABLE "Other ""s"""."Tab le" ("I d" int PRIMARY KEY, "a""b" text);
    CREATE TABLE days (id int, day date, n int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE days_2 (n int, day date NOT NULL, id int NOT NULL, PRIMARY KEY (day, id));
    ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (more int) INHERITS (parent);
    ALTER TABLE child ADD PRIMARY KEY (id);
    CREATE TABLE partly (id int PRIMARY KEY, secret text, v text)"#;

/// A row for each, with something in every column, or what COPY has to escape.
const ROWS: &str = r#"
    INSERT INTO plain VALUES (1, '2024-01-02 03:04:05.678', 16.5, E'a\tb\\c\nd', '{sad,ok}');
    INSERT INTO whole VALUES (1, 2.5, (1, 'x "y"'), '{"a": "\"b\\n"}', '\x00ff5c', 0.1,
        '1 year 2 days 03:04:05', '2024-01-02 03:04:05+02', '', NULL);
    INSERT INTO by_index VALUES (1, 'c', 2); INSERT INTO nothing VALUES (1);
    INSERT INTO keyless VALUES ('\N'); INSERT INTO late VALUES (1);
    INSERT INTO empty_rows DEFAULT VALUES; INSERT INTO computed VALUES (4, DEFAULT, 'x');
    INSERT INTO "Other ""s"""."Tab le" VALUES (1, 'q');
    INSERT INTO days VALUES (1, '2026-01-05', 7), (2, '2026-02-05', 8);
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3);
    INSERT INTO partly VALUES (1, 's', 'a'), (2, 't', 'b')"#;

/// Texts of the stream, as the bridge asks for them.
const FORMS: &str = "SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'UTC';
    SET extra_float_digits = 3; SET bytea_output = 'hex'";

const NAMED: &str =
    "plain, whole, by_index, nothing, keyless, late, empty_rows, computed, days, parent";

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Everything that the stream says: descriptions by OID, and the tuples of each table.
async fn streamed(
    client: &Client,
    slot: &str,
    publication: &str,
) -> BTreeMap<u32, (Vec<u8>, Vec<Vec<u8>>)> {
    let sql = "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
        'proto_version', '1', 'publication_names', $2)";
    let mut tables: BTreeMap<u32, (Vec<u8>, Vec<Vec<u8>>)> = BTreeMap::new();
    for row in client.query(sql, &[&slot, &publication]).await.expect("the stream") {
        let data: Vec<u8> = row.get(0);
        match decode(&data).expect("a message") {
            Message::Relation(body) => tables.entry(body.oid).or_default().0 = data.clone(),
            // Letter, OID, kind; then the tuple.
            Message::Insert { relation, .. } => {
                tables.entry(relation).or_default().1.push(data[6..].to_vec());
            }
            _ => {}
        }
    }
    tables
}

async fn planned(client: &Client, publication: &str, settings: &TableSettings) -> Plan {
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .await
        .expect("a version")
        .get(0);
    let captured = TableFilter::parse(&["*.*".to_owned()], &[]).expect("a pattern");
    let scope = Scope {
        publications: [publication, ""],
        server_version: u32::try_from(version).expect("positive"),
        captured: &captured,
        is_limited: false,
        settings,
        signals: None,
    };
    plan::plan(client, &scope).await.expect("a plan")
}

async fn session(database: &TestDatabase) -> CopySession {
    let info = ConnInfo::parse(&database.unix_url, &|_| None).expect("a URL");
    CopySession::connect(&info, &ConnectOptions::default()).await.expect("connects")
}

/// All rows of a table by ranges of `step` pages, as the bytes of their tuples.
async fn read(session: &mut CopySession, table: &PlannedTable, step: u32) -> Vec<Vec<u8>> {
    let facts = RelationFacts::default();
    let relation = table.description.relation(facts, &KeyChoice::default()).expect("a relation");
    let mut reader = RowReader::default();
    let mut rows = Vec::new();
    for leaf in &table.leaves {
        let mut done = DonePages::default();
        for range in pages::ranges(leaf.pages, step) {
            let mut copy = session.copy_out(&table.copy(leaf, range, None)).await.expect("COPY");
            while let Some(chunk) = copy.next().await.expect("rows") {
                for line in chunk.rows() {
                    let row = reader.read(line, &relation).expect("a row");
                    let mut bytes =
                        u16::try_from(row.tuple().len()).unwrap().to_be_bytes().to_vec();
                    for datum in row.tuple() {
                        match datum {
                            Datum::Text(text) => {
                                bytes.push(b't');
                                bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                                bytes.extend(text);
                            }
                            _ => bytes.push(b'n'),
                        }
                    }
                    rows.push(bytes);
                }
            }
            done.insert(range);
        }
        assert_eq!(done.missing(), []);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_described_and_rows_read_as_the_stream_has_them() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        run(&client, FORMS).await;
        run(&client, TABLES).await;
        let filtered = if server.major() >= 15 { "partly (id, v) WHERE (id > 1)" } else { "partly" };
        run(
            &client,
            &format!(
                "CREATE PUBLICATION roots FOR TABLE {NAMED}, \"Other \"\"s\"\"\".\"Tab le\", {filtered}
                     WITH (publish_via_partition_root = true);
                 CREATE PUBLICATION leaves FOR ALL TABLES"
            ),
        )
        .await;
        let mut publications = vec!["roots", "leaves"];
        if server.major() >= 18 {
            run(
                &client,
                "ALTER TABLE computed ADD seen int GENERATED ALWAYS AS (7) VIRTUAL;
                 CREATE PUBLICATION stored FOR TABLE computed
                     WITH (publish_generated_columns = stored)",
            )
            .await;
            publications.push("stored");
        }
        let slot = format!("seen_{}", database.name);
        let made = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        client.query(made, &[&slot]).await.expect("a slot");
        run(&client, ROWS).await;
        let mut session = session(&database).await;
        for publication in publications {
            let streamed = streamed(&client, &slot, publication).await;
            let plan = planned(&client, publication, &TableSettings::default()).await;
            assert!(plan.shortfalls.is_empty() && plan.skipped.is_empty(), "{plan:?}");
            // A partition is described beside its root, though no row is its own.
            let with_rows = streamed.values().filter(|(_, tuples)| !tuples.is_empty()).count();
            assert_eq!(plan.tables.len(), with_rows, "tables of {publication}");
            for table in &plan.tables {
                let name = format!("{} of {publication}", table.name);
                let (message, tuples) = &streamed[&table.description.oid()];
                let described = (decode(table.description.message()), decode(message));
                assert_eq!(table.description.message(), message, "{name}: {described:?}");
                let (mut rows, mut tuples) = (read(&mut session, table, 1).await, tuples.clone());
                rows.sort();
                tuples.sort();
                assert!(!rows.is_empty(), "{name}");
                assert_eq!(rows, tuples, "{name}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_holds_for_the_snapshot_and_one_that_is_wrong_is_told_by_its_key() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        run(
            &client,
            "CREATE TABLE rides (id int PRIMARY KEY, day date, filler text);
             INSERT INTO rides SELECT g, '2026-01-01'::date + g, repeat('x', 500)
                 FROM generate_series(1, 3000) g;
             ANALYZE rides; CREATE PUBLICATION p FOR TABLE rides",
        )
        .await;
        let with = |condition: &str| {
            let table =
                Settings { snapshot_where: Some(condition.to_owned()), ..Settings::default() };
            TableSettings::parse(&BTreeMap::from([("public.*".to_owned(), table)])).expect("parses")
        };
        let plan = planned(&client, "p", &with("id <= 1234 -- and no more")).await;
        let [table] = &plan.tables[..] else { panic!("{plan:?}") };
        assert_eq!(table.rows(), Some(3000));
        assert!(table.pages() > 100, "{table:?}");
        let mut session = session(&database).await;
        for step in [1, 17, 1000] {
            assert_eq!(read(&mut session, table, step).await.len(), 1234);
        }
        // The table grows behind the plan.
        run(
            &client,
            "INSERT INTO rides SELECT -g, 'today', repeat('y', 9000)
             FROM generate_series(1, 3000) g",
        )
        .await;
        let last = pages::ranges(table.leaves[0].pages, 17).last().expect("one");
        assert_eq!(last.to, pages::END);
        let sql = table.copy(&table.leaves[0], last, Some("id < 0"));
        let mut copy = session.copy_out(&sql).await.expect("COPY");
        while copy.next().await.expect("rows").is_some() {}
        assert!(copy.rows() > 2900, "{}", copy.rows());
        let range = PageRange { from: 0, to: 3 };
        assert_eq!(
            table.copy(&table.leaves[0], range, None),
            "COPY (SELECT \"id\", \"day\", \"filler\" FROM ONLY \"public\".\"rides\" WHERE ctid \
             OPERATOR(pg_catalog.>=) '(0,0)'::pg_catalog.tid AND ctid OPERATOR(pg_catalog.<) \
             '(3,0)'::pg_catalog.tid AND (id <= 1234 -- and no more\n)) TO STDOUT"
        );
        for (wrong, reason) in [
            ("id <", "syntax error"),
            ("idd = 1", "column \"idd\" does not exist"),
            ("id", "must be type boolean"),
            ("id = $1", "has a parameter"),
            ("true); DROP TABLE rides; SELECT (1", "closes a bracket"),
        ] {
            let plan = planned(&client, "p", &with(wrong)).await;
            let [shortfall] = &plan.shortfalls[..] else { panic!("{wrong}: {plan:?}") };
            let head = "the server does not accept tables.\"public.*\".snapshot_where as a condition \
                        on public.rides: ";
            assert!(shortfall.cause.starts_with(head), "{shortfall}");
            assert!(shortfall.cause.contains(reason), "{shortfall}");
            assert_eq!(shortfall.fix, "correct tables.\"public.*\".snapshot_where");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn what_cannot_be_read_is_told_with_its_reason_and_its_grant() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let role = format!("reader_{}", database.name);
        run(
            &client,
            &format!(
                "CREATE FOREIGN DATA WRAPPER dummy; CREATE SERVER far FOREIGN DATA WRAPPER dummy;
                 CREATE TABLE rides (id int PRIMARY KEY, secret text);
                 CREATE TABLE days (id int, day date) PARTITION BY RANGE (day);
                 CREATE TABLE days_1 PARTITION OF days
                     FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
                 CREATE FOREIGN TABLE days_2 PARTITION OF days
                     FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') SERVER far;
                 CREATE TABLE hidden (id int PRIMARY KEY);
                 ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
                 CREATE SCHEMA closed; CREATE TABLE closed.box (id int PRIMARY KEY);
                 CREATE VIEW a_view AS SELECT 1 AS id;
                 CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id;
                 CREATE FOREIGN TABLE far_table (id int) SERVER far;
                 CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
                 CREATE PUBLICATION p FOR TABLE rides, days, hidden, closed.box
                     WITH (publish_via_partition_root = true);
                 CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role};
                 GRANT SELECT (id) ON rides TO {role}; GRANT SELECT ON days, hidden TO {role};
                 GRANT SELECT ON ALL TABLES IN SCHEMA closed TO {role}; SET ROLE {role}"
            ),
        )
        .await;
        let version = server.major() * 10_000;
        let captured = TableFilter::parse(&["*.*".to_owned(), "public.a_view".to_owned()], &[]);
        let captured = captured.expect("patterns");
        let settings = TableSettings::default();
        let scope = Scope {
            publications: ["p", ""],
            server_version: version,
            captured: &captured,
            is_limited: false,
            settings: &settings,
            signals: None,
        };
        let plan = plan::plan(&client, &scope).await;
        run(&client, &format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await;
        let plan = plan.expect("a plan");
        let fixes: Vec<&str> = plan.shortfalls.iter().map(|short| short.fix.as_str()).collect();
        let mut expected = vec![
            format!("GRANT SELECT ON \"public\".\"rides\" TO \"{role}\";"),
            format!("GRANT SELECT ON \"public\".\"days_1\" TO \"{role}\";"),
            format!("ALTER ROLE \"{role}\" BYPASSRLS;"),
            format!("GRANT USAGE ON SCHEMA \"closed\" TO \"{role}\";"),
            "remove public.a_view from postgres.tables".to_owned(),
        ];
        expected.sort();
        let mut sorted = fixes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{:?}", plan.shortfalls);
        let skipped: Vec<String> = plan.skipped.iter().map(ToString::to_string).collect();
        let reasons = [
            "public.days_2: it is a foreign table",
            "public.a_matview: it is a materialized view",
            "public.far_table: it is a foreign table",
            "public.scratch: it is unlogged",
        ];
        assert_eq!(skipped.len(), reasons.len(), "{skipped:?}");
        for reason in reasons {
            assert!(skipped.iter().any(|told| told.starts_with(reason)), "{reason}: {skipped:?}");
        }
    })
    .await;
}
