//! What depends on where the role looks for names goes on to work, whatever its `search_path` is: the
//! user's own conditions do, and keys whose operators are in a schema of their own.

use serde_json::{Value, json};

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::Brokers;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::{PATIENCE, eventually, unique};

/// A number of somebody's own, whose operators are in the schema `own`; and a helper of the user's.
const OWN: &str = "
    CREATE SCHEMA own; CREATE SCHEMA helpers;
    CREATE TYPE own.num;
    CREATE FUNCTION own.num_in(cstring) RETURNS own.num LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
    CREATE FUNCTION own.num_out(own.num) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
    CREATE TYPE own.num (INPUT = own.num_in, OUTPUT = own.num_out, LIKE = int4);
    CREATE FUNCTION own.lt(own.num, own.num) RETURNS bool LANGUAGE internal IMMUTABLE AS 'int4lt';
    CREATE FUNCTION own.le(own.num, own.num) RETURNS bool LANGUAGE internal IMMUTABLE AS 'int4le';
    CREATE FUNCTION own.eq(own.num, own.num) RETURNS bool LANGUAGE internal IMMUTABLE AS 'int4eq';
    CREATE FUNCTION own.ge(own.num, own.num) RETURNS bool LANGUAGE internal IMMUTABLE AS 'int4ge';
    CREATE FUNCTION own.gt(own.num, own.num) RETURNS bool LANGUAGE internal IMMUTABLE AS 'int4gt';
    CREATE FUNCTION own.cmp(own.num, own.num) RETURNS int LANGUAGE internal IMMUTABLE AS 'btint4cmp';
    CREATE OPERATOR own.< (FUNCTION = own.lt, LEFTARG = own.num, RIGHTARG = own.num);
    CREATE OPERATOR own.<= (FUNCTION = own.le, LEFTARG = own.num, RIGHTARG = own.num);
    CREATE OPERATOR own.= (FUNCTION = own.eq, LEFTARG = own.num, RIGHTARG = own.num);
    CREATE OPERATOR own.>= (FUNCTION = own.ge, LEFTARG = own.num, RIGHTARG = own.num);
    CREATE OPERATOR own.> (FUNCTION = own.gt, LEFTARG = own.num, RIGHTARG = own.num);
    CREATE OPERATOR CLASS own.num_ops DEFAULT FOR TYPE own.num USING btree AS
        OPERATOR 1 own.<, OPERATOR 2 own.<=, OPERATOR 3 own.=, OPERATOR 4 own.>=, OPERATOR 5 own.>,
        FUNCTION 1 own.cmp(own.num, own.num);
    CREATE FUNCTION helpers.is_cheap(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 <= 5';
    CREATE TABLE public.rides (id int PRIMARY KEY, fare int);
    INSERT INTO public.rides SELECT n, n FROM generate_series(1, 100) n;";

/// Tables that come up later, in the order of whose keys some thousand rows are read.
const LATER: &str = "
    CREATE TABLE public.one (id own.num PRIMARY KEY);
    INSERT INTO public.one SELECT n::text::own.num FROM generate_series(1, 3000) n;
    CREATE TABLE public.two (at int, id own.num, big text, PRIMARY KEY (at, id));
    ALTER TABLE public.two ALTER big SET STORAGE EXTERNAL;
    INSERT INTO public.two SELECT n / 100, n::text::own.num, repeat('x', 3000)
        FROM generate_series(1, 3000) n;";

async fn scene(server: &PostgresServer, role: &str, path: &str) -> (TestDatabase, String) {
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute(OWN).await.expect("make tables");
    let role_sql =
        format!("CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET search_path = {path}");
    client.batch_execute(&role_sql).await.expect("make a role");
    let url = database.unix_url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    (database, url)
}

async fn reads(kafka: &str, topic: &str, count: usize) -> usize {
    let is_read = |record: &&OwnedRecord| record.json().is_some_and(|json| json["op"] == "r");
    let records = consume(kafka, &[topic], at_least(count), PATIENCE).await;
    records.iter().filter(is_read).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_a_path_takes_snapshots_of_tables_that_come_up() {
    let (oldest, newest) = (Binaries::found().last(), Binaries::found().first());
    for binaries in [oldest, newest].into_iter().flatten() {
        let server = PostgresServer::start(binaries, &[]);
        let (database, url) = scene(&server, "keeper", "''").await;
        let client = database.client().await;
        let (name, brokers) = (unique("paths"), Brokers::any());
        let config = "[postgres]\ntables = [\"public.*\"]\ndiscover_interval = \"200ms\"\n\
                      [format]\nunchanged_toast = \"reselect\"\n";
        let kafka = brokers.bootstrap();
        let mut bridge = Bridge::start_ready(&name, &url, &kafka, config, PATIENCE);
        client.batch_execute(LATER).await.expect("make tables");
        for table in ["one", "two"] {
            assert_eq!(reads(&kafka, &format!("{name}.public.{table}"), 3000).await, 3000);
        }
        // Read back by a key whose operator is nowhere that is looked in.
        let update = "UPDATE public.two SET at = at WHERE id OPERATOR(own.=) '7'";
        client.batch_execute(update).await.expect("update");
        let topic = format!("{name}.public.two");
        let records = consume(&kafka, &[&topic], at_least(3001), PATIENCE).await;
        let last = records.last().expect("an update").json().expect("JSON");
        assert_eq!(
            (&last["op"], last["after"]["big"].as_str()),
            (&json!("u"), Some(&*"x".repeat(3000)))
        );
        assert!(bridge.terminate(PATIENCE).success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_read_where_the_role_looks_for_names() {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let (_database, url) = scene(&server, "keeper", "helpers, public").await;
    let (name, brokers) = (unique("conditions"), Brokers::any());
    let config = "[postgres]\ntables = [\"public.rides\"]\n\
                  [tables.\"public.rides\"]\nsnapshot_where = \"is_cheap(fare)\"\n\
                  where = \"id > 1\"\n";
    let kafka = brokers.bootstrap();
    let mut bridge = Bridge::start_ready(&name, &url, &kafka, config, PATIENCE);
    let topic = format!("{name}.public.rides");
    assert_eq!(reads(&kafka, &topic, 4).await, 4);
    let body = json!({"tables": ["public.rides"]});
    let (status, accepted) = bridge.ask("POST", "/snapshots", "", &body).expect("an answer");
    assert_eq!(status, 202, "{accepted}");
    eventually(PATIENCE, "the snapshot to end", async || {
        let (_, list) = bridge.ask("GET", "/snapshots", "", &Value::Null)?;
        list["snapshots"].as_array()?.iter().any(|one| one["state"] == "done").then_some(())
    })
    .await;
    assert_eq!(reads(&kafka, &topic, 8).await, 8);
    assert!(bridge.terminate(PATIENCE).success());
}
