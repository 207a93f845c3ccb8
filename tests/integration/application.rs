//! The promise that matters most: because rowcast runs, no statement of the application fails.
//!
//! The same statements run in two databases, one of them with rowcast; the outcome of each must be the
//! same, row counts and SQLSTATEs. Where a statement takes an identity away, Postgres refuses updates
//! until rowcast has looked, so that look is waited for; nothing else is.

use std::fmt::Write as _;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::insert_only::{held, limits, until_insert_only};
use crate::scenario::Scenario;
use crate::support::postgres::{PostgresServer, for_oldest_and_newest};

const SETUP: &str = "
    CREATE SCHEMA shop; CREATE SCHEMA attic;
    CREATE TABLE rides (id int PRIMARY KEY, code int NOT NULL, n int);
    CREATE UNIQUE INDEX rides_code ON rides (code);
    INSERT INTO rides SELECT i, i, 0 FROM generate_series(1, 5) i;
    CREATE TABLE log (n int); INSERT INTO log VALUES (1);
    CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int);
    INSERT INTO late VALUES (1, 0);
    CREATE TABLE nothing (id int PRIMARY KEY, n int); INSERT INTO nothing VALUES (1, 0);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE parent (id int PRIMARY KEY, n int); CREATE TABLE child (x int) INHERITS (parent);
    INSERT INTO parent VALUES (1, 0); INSERT INTO child VALUES (2, 0, 0);
    CREATE TABLE shop.orders (id int PRIMARY KEY, sum int GENERATED ALWAYS AS (id * 2) STORED);
    ALTER TABLE shop.orders REPLICA IDENTITY FULL; INSERT INTO shop.orders VALUES (1);
    CREATE TABLE days (id int, day int, n int, PRIMARY KEY (day, id)) PARTITION BY LIST (day);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
    CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2) PARTITION BY LIST (id);
    CREATE TABLE days_2a PARTITION OF days_2 FOR VALUES IN (1, 2, 3);
    INSERT INTO days VALUES (1, 1, 0), (1, 2, 0);
    CREATE TABLE bare (id int, day int, n int) PARTITION BY LIST (day);
    ALTER TABLE bare REPLICA IDENTITY FULL;
    CREATE TABLE bare_1 PARTITION OF bare FOR VALUES IN (1); INSERT INTO bare VALUES (1, 1, 0)";

/// What an application may do; and, behind the statement, the tables that are insert-only from then on.
const STATEMENTS: &[(&str, Option<&[&str]>)] = &[
    ("UPDATE rides SET n = n + 1", None),
    ("INSERT INTO rides VALUES (1, 9, 9)", None),
    ("INSERT INTO rides VALUES (6, 6, NULL)", None),
    ("DELETE FROM rides WHERE id = 6", None),
    ("UPDATE log SET n = 2; DELETE FROM log WHERE n = 1", None),
    ("UPDATE late SET n = 1; DELETE FROM late", None),
    ("UPDATE nothing SET n = 1; DELETE FROM nothing WHERE id = 2", None),
    ("UPDATE parent SET n = 1", None),
    ("DELETE FROM ONLY child WHERE id = 1; UPDATE child SET x = 1", None),
    ("UPDATE shop.orders SET id = 2", None),
    ("UPDATE days SET n = 1; DELETE FROM days WHERE id = 1 AND day = 1", None),
    ("UPDATE days_2a SET id = 2; UPDATE days SET day = 1 WHERE id = 2", None),
    ("UPDATE bare SET n = 1; DELETE FROM bare_1", None),
    ("TRUNCATE log, late, parent", None),
    (
        "MERGE INTO rides USING (VALUES (1)) v (id) ON rides.id = v.id WHEN MATCHED THEN UPDATE SET n = 7",
        None,
    ),
    ("INSERT INTO rides VALUES (1, 1, 1) ON CONFLICT (id) DO UPDATE SET n = 8", None),
    ("ALTER TABLE rides RENAME COLUMN n TO m; UPDATE rides SET m = 1", None),
    ("ALTER TABLE rides RENAME TO trips; UPDATE trips SET m = 2", None),
    ("ALTER TABLE trips SET SCHEMA attic; UPDATE attic.trips SET m = 3", None),
    ("ALTER TABLE attic.trips SET SCHEMA public; ALTER TABLE trips RENAME TO rides", None),
    ("UPDATE rides SET m = 4", None),
    ("ALTER TABLE rides REPLICA IDENTITY USING INDEX rides_code; UPDATE rides SET m = 5", None),
    ("DROP INDEX rides_code", Some(&["rides"])),
    ("UPDATE rides SET m = 6; DELETE FROM rides WHERE id = 5", None),
    ("ALTER TABLE rides REPLICA IDENTITY FULL; UPDATE rides SET m = 7", None),
    ("ALTER TABLE rides REPLICA IDENTITY DEFAULT; UPDATE rides SET m = 8", Some(&[])),
    ("ALTER TABLE rides DROP CONSTRAINT rides_pkey", Some(&["rides"])),
    ("UPDATE rides SET m = 9; DELETE FROM rides WHERE id = 4", None),
    ("ALTER TABLE rides ADD PRIMARY KEY (id); UPDATE rides SET m = 10", Some(&[])),
    ("ALTER TABLE rides REPLICA IDENTITY NOTHING", Some(&["rides"])),
    ("UPDATE rides SET m = 11", None),
    ("ALTER TABLE days DETACH PARTITION days_1; UPDATE days_1 SET n = 2", None),
    ("ALTER TABLE days ATTACH PARTITION days_1 FOR VALUES IN (1); UPDATE days SET n = 3", None),
    ("CREATE TABLE days_3 (LIKE days INCLUDING ALL); INSERT INTO days_3 VALUES (1, 3, 0)", None),
    ("ALTER TABLE days ATTACH PARTITION days_3 FOR VALUES IN (3); UPDATE days SET n = 4", None),
    ("ALTER TABLE days_2 DETACH PARTITION days_2a; DELETE FROM days_2a", None),
    ("CREATE TABLE bare_2 PARTITION OF bare FOR VALUES IN (2)", None),
    ("INSERT INTO bare VALUES (1, 2, 0); UPDATE bare SET n = 5; DELETE FROM bare", None),
    ("ALTER TABLE child NO INHERIT parent; UPDATE child SET x = 2; UPDATE parent SET n = 2", None),
    ("ALTER TABLE child INHERIT parent; UPDATE parent SET n = 3", None),
    ("CREATE TABLE grown (x int) INHERITS (child); UPDATE parent SET n = 4", None),
    ("DROP TABLE nothing; CREATE TABLE nothing (n int); INSERT INTO nothing VALUES (1)", None),
    ("UPDATE nothing SET n = 2; DELETE FROM nothing", None),
    ("CREATE TABLE fresh (n int); INSERT INTO fresh VALUES (1); UPDATE fresh SET n = 2", None),
    // Not the other way round: of a published table Postgres refuses that, as the manual says.
    (
        "CREATE UNLOGGED TABLE loose (n int); INSERT INTO loose VALUES (1); UPDATE loose SET n = 3",
        None,
    ),
    ("ALTER TABLE loose SET LOGGED; UPDATE loose SET n = 4", None),
    ("CREATE TABLE elder (id int, code int); ALTER TABLE rides INHERIT elder", None),
    ("UPDATE elder SET code = code + 100; INSERT INTO elder VALUES (50, 50)", None),
    ("DELETE FROM elder WHERE id = 50; ALTER TABLE rides NO INHERIT elder", None),
    (
        "CREATE TABLE hurried (id int PRIMARY KEY DEFERRABLE, n int); INSERT INTO hurried VALUES (1, 1);
         UPDATE hurried SET n = 2; DELETE FROM hurried",
        None,
    ),
    ("TRUNCATE days_1; INSERT INTO days VALUES (7, 1, 0); UPDATE days SET n = 6", None),
    ("ALTER TABLE days RENAME TO weeks; UPDATE weeks SET n = 7", None),
    ("ALTER TABLE weeks RENAME TO days; UPDATE days SET n = 8", None),
    ("ALTER TABLE days_1 SET SCHEMA attic; UPDATE days SET n = 9", None),
    ("UPDATE attic.days_1 SET n = 10; ALTER TABLE attic.days_1 SET SCHEMA public", None),
    ("ALTER TABLE days DETACH PARTITION days_3 CONCURRENTLY", None),
    ("DELETE FROM days_3", None),
    ("ALTER TABLE days ATTACH PARTITION days_3 FOR VALUES IN (3); DROP TABLE days_3", None),
    // What waits for every transaction that has begun, and what gives up soon.
    ("CREATE INDEX CONCURRENTLY rides_m ON rides (m)", None),
    ("REINDEX INDEX CONCURRENTLY rides_m", None),
    ("SET lock_timeout = '1s'", None),
    ("ALTER TABLE rides ADD COLUMN extra int; UPDATE rides SET extra = 1", None),
    ("ALTER TABLE rides RENAME COLUMN extra TO spare; UPDATE rides SET spare = 2", None),
    ("ALTER TABLE rides DROP COLUMN spare; DROP INDEX rides_m", None),
    ("VACUUM FULL rides", None),
    ("CLUSTER rides USING rides_pkey", None),
    ("RESET lock_timeout", None),
    (
        "DO $$ BEGIN
             EXECUTE 'CREATE ROLE app_' || current_database();
             CREATE TABLE owned (id int PRIMARY KEY); INSERT INTO owned VALUES (1);
             EXECUTE 'ALTER TABLE owned OWNER TO app_' || current_database();
         END $$",
        None,
    ),
    ("UPDATE owned SET id = 2", None),
    (
        "DO $$ BEGIN
             EXECUTE 'DROP OWNED BY app_' || current_database();
             EXECUTE 'DROP ROLE app_' || current_database();
         END $$",
        None,
    ),
    ("DROP TABLE days CASCADE; DROP TABLE bare; DROP SCHEMA shop CASCADE", None),
    ("UPDATE no_such_table SET n = 1", None),
];

/// What became of a statement: rows, or an error's code.
pub(crate) async fn outcome(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(messages) => {
            let mut rows = String::new();
            for message in messages {
                if let SimpleQueryMessage::CommandComplete(count) = message {
                    write!(rows, "{count} ").expect("a String");
                }
            }
            rows
        }
        Err(error) => {
            let error = error.as_db_error().expect("an error of the server");
            format!("{}: {}", error.code().code(), error.message())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_ends_as_it_does_without_rowcast() {
    for_oldest_and_newest(async |server| {
        for settings in ["", "publish_via_partition_root = false\nskipped_operations = []\n"] {
            compared(server, settings).await;
        }
    })
    .await;
}

async fn compared(server: &PostgresServer, settings: &str) {
    let without = server.database().await;
    let alone = without.client().await;
    alone.batch_execute(SETUP).await.expect("set up");
    let config = format!("[postgres]\ndiscover_interval = \"1s\"\n{settings}");
    let topics = ["rides", "trips", "log", "late", "nothing", "parent", "child", "grown", "fresh"];
    let later = ["elder", "hurried", "weeks", "owned"];
    let partitions = ["days", "days_1", "days_2", "days_2a", "days_3", "bare", "bare_1", "bare_2"];
    let topics =
        topics.iter().chain(&later).chain(&partitions).map(|table| format!("public.{table}"));
    let topics: Vec<String> =
        topics.chain(["attic.trips", "attic.days_1", "shop.orders"].map(str::to_owned)).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let scenario = Scenario::start(server, &config, SETUP, &topics).await;
    run_both(&alone, &scenario, STATEMENTS).await;
}

/// Runs statements here and there, and compares what becomes of each.
async fn run_both(alone: &Client, scenario: &Scenario, statements: &[(&str, Option<&[&str]>)]) {
    let before = held(scenario, "_inserts").await;
    for (sql, insert_only) in statements {
        let expected = outcome(alone, sql).await;
        let found = outcome(&scenario.client, sql).await;
        assert_eq!(found, expected, "{sql}\nlog:\n{}", scenario.log());
        if let Some(tables) = insert_only {
            let mut tables: Vec<&str> = tables.to_vec();
            tables.extend(before.iter().map(String::as_str));
            tables.sort_unstable();
            until_insert_only(scenario, &tables).await;
        }
    }
    let bridge = scenario.bridge.as_ref().expect("a bridge");
    let (status, body) = bridge.get("/readyz").expect("it answers");
    assert_eq!(status, 200, "{body}; log:\n{}", scenario.log());
}

const HIDDEN: &str = "
    CREATE TABLE riders (id int PRIMARY KEY, n int, note text, ssn text);
    INSERT INTO riders VALUES (1, 0, 'a', 'secret');
    CREATE TABLE cards (id int PRIMARY KEY, n int, kind text, pan text);
    INSERT INTO cards VALUES (1, 0, 'a', 'secret');
    CREATE TABLE days (id int, day int, note text, ssn text, PRIMARY KEY (day, id)) PARTITION BY LIST (day);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1); INSERT INTO days VALUES (1, 1, 'a', 'secret')";

/// What an application may do to tables of which columns are left out.
const OF_HIDDEN: &[(&str, Option<&[&str]>)] = &[
    ("ALTER TABLE riders DROP COLUMN note; UPDATE riders SET n = 1", None),
    ("ALTER TABLE riders ALTER COLUMN n TYPE bigint; UPDATE riders SET n = 2", None),
    (
        "ALTER TABLE riders ALTER COLUMN ssn TYPE varchar(40); UPDATE riders SET ssn = 'secret 2'",
        None,
    ),
    ("ALTER TABLE riders ALTER COLUMN id TYPE bigint; UPDATE riders SET n = 3", None),
    ("ALTER TABLE riders ADD COLUMN city text; UPDATE riders SET city = 'x'", None),
    ("ALTER TABLE riders RENAME COLUMN city TO town; UPDATE riders SET town = 'y'", None),
    ("ALTER TABLE riders DROP COLUMN town; DELETE FROM riders WHERE id = 2", None),
    ("ALTER TABLE riders RENAME COLUMN ssn TO tax; UPDATE riders SET tax = 'secret 3'", None),
    ("INSERT INTO riders VALUES (3, 0, 'secret 4')", None),
    ("ALTER TABLE riders RENAME COLUMN tax TO ssn; UPDATE riders SET n = 4", None),
    ("ALTER TABLE riders RENAME TO people; INSERT INTO people VALUES (4, 0, 'secret 5')", None),
    ("ALTER TABLE people RENAME TO riders; UPDATE riders SET n = 5", None),
    ("ALTER TABLE riders DROP COLUMN ssn; UPDATE riders SET n = 6", None),
    ("ALTER TABLE cards DROP COLUMN pan, DROP COLUMN kind; UPDATE cards SET n = 1", None),
    ("ALTER TABLE cards ADD COLUMN pan text; UPDATE cards SET pan = 'secret 6'", None),
    ("ALTER TABLE days DROP COLUMN note; UPDATE days SET ssn = 'secret 7'", None),
    ("ALTER TABLE days ALTER COLUMN ssn TYPE varchar(40); UPDATE days SET id = 2", None),
    ("ALTER TABLE days ADD COLUMN n int; UPDATE days SET n = 1; DELETE FROM days", None),
    ("ALTER TABLE cards DROP COLUMN id", Some(&["cards"])),
    ("UPDATE cards SET n = 2; ALTER TABLE cards DROP COLUMN n; DELETE FROM cards", None),
];

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_columns_left_out_are_altered_as_without_rowcast_where_it_uses_no_column_lists()
{
    for_oldest_and_newest(async |server| {
        let without = server.database().await;
        let alone = without.client().await;
        alone.batch_execute(HIDDEN).await.expect("set up");
        let rules = "[tables.\"public.riders\"]\nexclude_columns = [\"ssn\"]\n
            [tables.\"public.cards\"]\ncolumns = [\"id\", \"n\", \"kind\"]\n
            [tables.\"public.days\"]\nexclude_columns = [\"ssn\"]\n";
        let config = "[postgres]\ndiscover_interval = \"1s\"\n";
        let topics = ["riders", "people", "cards", "days"].map(|table| format!("public.{table}"));
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut scenario =
            Scenario::start(server, &format!("{config}{rules}"), HIDDEN, &topics).await;
        if server.major() >= 15 {
            // By default the columns do not leave the server, which is what refuses this.
            let refused = outcome(&scenario.client, "ALTER TABLE riders DROP COLUMN note").await;
            assert!(refused.starts_with("2BP01"), "{refused}");
            let log = scenario.log();
            let line = log.lines().find(|line| line.contains("column_lists")).expect("it says so");
            for table in ["public.cards", "public.days", "public.riders"] {
                assert!(line.contains(table), "{line}");
            }
        }
        scenario.stop();
        scenario.configure(&format!("{config}column_lists = \"none\"\n{rules}"));
        scenario.run();
        run_both(&alone, &scenario, OF_HIDDEN).await;
        for topic in topics {
            for record in scenario.records(topic).await {
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
                assert!(!value.contains("secret"), "{topic}: {value}");
            }
        }
        let last = scenario.events("public.days").await;
        assert_eq!(last.last().map(|event| event.value.is_none()), Some(true), "a tombstone");
    })
    .await;
}

/// Numbers from a seed, by xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % 1_000_003).expect("a small number") % bound
    }
}

/// Ways to set up a table `t` and its identity, each with the columns `id` and `v`.
const IDENTITIES: [&str; 9] = [
    "",
    "ALTER TABLE t ADD PRIMARY KEY (id)",
    "ALTER TABLE t ADD PRIMARY KEY (id) DEFERRABLE",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER TABLE t ADD PRIMARY KEY (id), REPLICA IDENTITY NOTHING",
    "ALTER TABLE t ADD UNIQUE (id)",
    "CREATE UNIQUE INDEX t_v ON t (v); ALTER TABLE t ALTER v SET NOT NULL, REPLICA IDENTITY USING INDEX t_v",
    "CREATE UNIQUE INDEX t_v ON t (v); ALTER TABLE t ALTER v SET NOT NULL, REPLICA IDENTITY USING INDEX t_v; DROP INDEX t_v",
    "ALTER TABLE t ADD g int GENERATED ALWAYS AS (id) STORED; ALTER TABLE t REPLICA IDENTITY FULL",
];

/// A tree of tables, as SQL and by their names.
struct Tree {
    sql: String,
    members: Vec<String>,
}

/// Tables that inherit from others, in two schemas, some from two parents.
fn inheritance(number: usize, random: &mut Random) -> Tree {
    let mut tree = Tree { sql: String::new(), members: Vec::new() };
    for member in 0..4 {
        let name = format!("{}.i{number}_{member}", ["public", "other"][random.below(2)]);
        let mut parents: Vec<String> = Vec::new();
        for _ in 0..member.min(2) {
            parents.push(tree.members[random.below(member)].clone());
        }
        parents.sort();
        parents.dedup();
        let inherits = match parents.as_slice() {
            [] => String::new(),
            parents => format!(" INHERITS ({})", parents.join(", ")),
        };
        write!(tree.sql, "CREATE TABLE {name} (id int, v int){inherits};").expect("a String");
        // A generated column of a parent has to be one of the child, too: only without children.
        let identity = random.below(if member == 3 { 9 } else { 8 });
        tree.identify(&name, identity);
        tree.fill(&name, member);
        tree.members.push(name);
    }
    tree
}

/// A table with partitions, some of which have partitions again.
fn partitions(number: usize, random: &mut Random) -> Tree {
    let mut tree = Tree { sql: String::new(), members: Vec::new() };
    let root = format!("public.p{number}");
    write!(tree.sql, "CREATE TABLE {root} (id int, v int) PARTITION BY LIST (id);")
        .expect("a String");
    if random.below(2) == 0 {
        write!(tree.sql, "ALTER TABLE {root} REPLICA IDENTITY FULL;").expect("a String");
    }
    tree.members.push(root.clone());
    for member in 1..4 {
        let schema = ["public", "other"][random.below(2)];
        let mut name = format!("{schema}.p{number}_{member}");
        if random.below(3) == 0 {
            let middle = format!("{name}_m");
            write!(
                tree.sql,
                "CREATE TABLE {middle} PARTITION OF {root} FOR VALUES IN ({member})
                     PARTITION BY LIST (v);
                 CREATE TABLE {name} PARTITION OF {middle} DEFAULT;"
            )
            .expect("a String");
            tree.members.push(middle);
        } else if random.below(2) == 0 {
            name += "_a";
            write!(
                tree.sql,
                "CREATE TABLE {name} (v int, id int);
                 ALTER TABLE {root} ATTACH PARTITION {name} FOR VALUES IN ({member});"
            )
            .expect("a String");
        } else {
            write!(tree.sql, "CREATE TABLE {name} PARTITION OF {root} FOR VALUES IN ({member});")
                .expect("a String");
        }
        // Of three partitions with any, few trees would have an identity in each.
        let identity =
            if random.below(3) > 0 { [1, 3, 6][random.below(3)] } else { random.below(8) };
        tree.identify(&name, identity);
        tree.fill(&name, member);
        tree.members.push(name);
    }
    tree
}

impl Tree {
    fn identify(&mut self, table: &str, identity: usize) {
        let (schema, name) = table.split_once('.').expect("schema and name");
        let sql = IDENTITIES[identity]
            .replace("TABLE t ", &format!("TABLE {table} "))
            .replace("ON t ", &format!("ON {table} "))
            .replace("INDEX t_v ON", &format!("INDEX {name}_v ON"))
            .replace("DROP INDEX t_v", &format!("DROP INDEX {schema}.{name}_v"))
            .replace("USING INDEX t_v", &format!("USING INDEX {name}_v"));
        write!(self.sql, "{sql};").expect("a String");
    }

    fn fill(&mut self, table: &str, id: usize) {
        write!(self.sql, "INSERT INTO {table} (id, v) VALUES ({id}, {id});").expect("a String");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_generated_trees_is_updated_and_deleted_as_without_rowcast() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = seed.expect("a time").subsec_nanos() as u64 | 1;
    println!("seed {seed}");
    for_oldest_and_newest(async |server| {
        let mut random = Random(seed);
        let trees: Vec<Tree> = (0..24)
            .map(|number| match number % 2 {
                0 => inheritance(number, &mut random),
                _ => partitions(number, &mut random),
            })
            .collect();
        let all: Vec<&str> = trees.iter().map(|tree| tree.sql.as_str()).collect();
        let setup = format!("CREATE SCHEMA other; {}", all.concat());
        let without = server.database().await;
        let alone = without.client().await;
        alone.batch_execute(&setup).await.unwrap_or_else(|error| panic!("{setup}: {error:?}"));
        let members: Vec<&str> =
            trees.iter().flat_map(|tree| &tree.members).map(String::as_str).collect();
        let scenario = Scenario::start(server, "", &setup, &members).await;
        for member in members {
            for sql in [
                format!("UPDATE {member} SET v = v + 100"),
                format!("UPDATE ONLY {member} SET id = id"),
                format!("DELETE FROM {member} WHERE v % 2 = 0"),
            ] {
                let expected = outcome(&alone, &sql).await;
                let found = outcome(&scenario.client, &sql).await;
                assert_eq!(found, expected, "seed {seed}: {sql}");
            }
        }
        // Each is in one of the two, and those that are insert-only are named.
        let (main, inserts) = (held(&scenario, "").await, held(&scenario, "_inserts").await);
        assert!(main.iter().all(|table| !inserts.contains(table)), "{main:?} {inserts:?}");
        let captured = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname IN ('public', 'other')";
        let captured: i64 = scenario.client.query_one(captured, &[]).await.expect("ask").get(0);
        assert_eq!(main.len() + inserts.len(), usize::try_from(captured).expect("a few"));
        assert!(!main.is_empty() && !inserts.is_empty(), "seed {seed}");
        let mut shown: Vec<String> = limits(&scenario, "insert_only")
            .iter()
            .filter_map(|limited| limited["table"].as_str())
            .map(|table| table.trim_start_matches("public.").to_owned())
            .collect();
        shown.sort();
        let mut inserts = inserts;
        inserts.sort();
        assert_eq!(shown, inserts, "seed {seed}");
    })
    .await;
}
