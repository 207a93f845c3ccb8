//! What the catalog tells of a table, on every server: keys, constraints, defaults.

use rowcast::change::{ColumnFacts, Generated, RelationFacts};
use rowcast::postgres::{Catalog, ConnInfo, ConnectOptions};
use tokio_postgres::Client;

use crate::support::postgres::{TestDatabase, for_each_postgres};

async fn catalog(database: &TestDatabase) -> Catalog {
    let info = ConnInfo::parse(&database.unix_url, &|_| None).expect("a URL");
    Catalog::connect(&info, &ConnectOptions::default()).await.expect("connect")
}

async fn oid(client: &Client, table: &str) -> u32 {
    let query = format!("SELECT '{table}'::regclass::oid");
    client.query_one(&query, &[]).await.expect(table).get(0)
}

fn column(name: &str, type_oid: u32, not_null: bool, default: Option<&str>) -> ColumnFacts {
    let generated = Generated::No;
    let (name, default) = (name.to_owned(), default.map(str::to_owned));
    ColumnFacts { name, type_oid, not_null, default, generated }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_with_constraint_default_and_generation() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                r#"CREATE DOMAIN fee AS numeric(8,2) NOT NULL DEFAULT 1;
                CREATE TABLE rides (
                    id bigint, dropped int, fare numeric(8,2) NOT NULL DEFAULT 0,
                    note text DEFAULT 'it''s', fee fee,
                    twice bigint GENERATED ALWAYS AS (id * 2) STORED,
                    "Zöne ""x""" int DEFAULT 7, PRIMARY KEY (fare, id));
                ALTER TABLE rides DROP dropped;
                CREATE UNIQUE INDEX rides_zone ON rides ("Zöne ""x""", note)"#,
            )
            .await
            .expect("make a table");
        if server.major() >= 18 {
            let alter = "ALTER TABLE rides ADD seen int GENERATED ALWAYS AS (7) VIRTUAL";
            client.batch_execute(alter).await.expect("a virtual column");
        }
        let (rides, fee) = (oid(&client, "rides").await, "SELECT 'fee'::regtype::oid");
        let fee: u32 = client.query_one(fee, &[]).await.expect("a type").get(0);
        let facts = catalog(&database).await.relation(rides, &[20, fee]).await.expect("facts");
        let generated = |name: &str, type_oid, generated| ColumnFacts {
            generated,
            ..column(name, type_oid, false, None)
        };
        let mut expected = vec![
            column("id", 20, true, None),
            column("fare", 1700, true, Some("'0.00'")),
            column("note", 25, false, Some("'it''s'::text")),
            column("fee", fee, true, None),
            generated("twice", 20, Generated::Stored),
            column("Zöne \"x\"", 23, false, Some("7")),
        ];
        if server.major() >= 18 {
            expected.push(generated("seen", 23, Generated::Virtual));
        }
        assert_eq!(facts.columns, expected);
        assert_eq!(facts.primary_key, ["fare", "id"]);
        assert_eq!(facts.unique_indexes, [["Zöne \"x\"", "note"]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_has_no_facts_and_that_is_no_error() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE gone (id int PRIMARY KEY)").await.expect("make a table");
    let gone = oid(&client, "gone").await;
    client.batch_execute("DROP TABLE gone").await.expect("drop it");
    let facts = catalog(&database).await.relation(gone, &[]).await.expect("no facts");
    assert_eq!(facts, RelationFacts::default());
}
