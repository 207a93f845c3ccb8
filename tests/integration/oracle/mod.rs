//! Postgres as the judge of what the bridge makes of its values.
//!
//! Values of every built-in type go in by SQL, events come out of a real Kafka; each value of an
//! event is turned back into text and given to Postgres, which compares it with the row: for insert,
//! update and delete, on every version. Both sides are compared in Postgres' own text, which is
//! stricter than its equality: 1.0 is not 1.00 there, and two boxes of one size are not the same.
//!
//! `ROWCAST_TEST_ORACLE_SEED` repeats a run; `ROWCAST_TEST_ORACLE_ROWS` (30) makes it longer.

mod text;
mod values;

use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use self::values::{Form, SCALARS, Scalar, TYPES};
use crate::load::LOAD_LIMIT;
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{PostgresServer, for_every_postgres};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, unique};

/// A column of the table.
struct Column {
    name: String,
    sql_type: String,
    scalar: &'static Scalar,
    is_array: bool,
}

/// A column for each type and one for its array.
fn columns() -> Vec<Column> {
    let column = |(at, scalar): (usize, &'static Scalar)| {
        let of = |name: String, sql_type, is_array| Column { name, sql_type, scalar, is_array };
        [
            of(format!("c{at}"), scalar.name.to_owned(), false),
            of(format!("a{at}"), format!("{}[]", scalar.name), true),
        ]
    };
    let all = SCALARS.iter().enumerate().flat_map(column);
    let price = SCALARS.iter().find(|scalar| scalar.name == "price").expect("it is there");
    let prices = Column {
        name: "prices".to_owned(),
        sql_type: "prices".to_owned(),
        scalar: price,
        is_array: true,
    };
    all.chain([prices]).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Column {
    /// A value as an SQL literal.
    fn literal(&self, index: usize, random: &mut StdRng) -> String {
        let text = match self.is_array {
            true => values::array(self.scalar, index, random),
            false => self.scalar.value(index, random),
        };
        quoted(&text)
    }

    /// What is compared: Postgres' text, less what events leave out by design.
    fn compared(&self, value: &str) -> String {
        let text = format!("({value})::text");
        let text = match self.scalar.form {
            // Line breaks between tokens, blanks around all of it, and which null it is.
            Form::Json => {
                format!("nullif(btrim(translate({text}, E'\\n\\r', '  '), ' '), 'null')")
            }
            _ => text,
        };
        // Lower bounds.
        if self.is_array { format!("regexp_replace({text}, '^[][0-9:+-]+=', '')") } else { text }
    }
}

/// The part of an event that is judged.
#[derive(serde::Deserialize)]
struct Event {
    op: String,
    before: Option<BTreeMap<String, Box<RawValue>>>,
    after: Option<BTreeMap<String, Box<RawValue>>>,
}

/// Has Postgres compare a row of an event with the row of `table` that has its id.
async fn judge(
    client: &Client,
    columns: &[Column],
    table: &str,
    row: &BTreeMap<String, Box<RawValue>>,
) {
    let id = row["id"].get();
    let comparison = |column: &Column| {
        let json = row.get(&column.name);
        let json =
            json.unwrap_or_else(|| panic!("no {} ({}) of {id}", column.name, column.sql_type));
        let text = text::text_of(json, column.scalar, column.is_array);
        let value = text.map_or("NULL".to_owned(), |text| quoted(&text));
        let value = format!("{value}::{}", column.sql_type);
        let (told, is) = (column.compared(&value), column.compared(&column.name));
        (format!("{told} IS NOT DISTINCT FROM {is}"), json)
    };
    let comparisons: Vec<_> = columns.iter().map(comparison).collect();
    let list: Vec<&str> = comparisons.iter().map(|(sql, _)| sql.as_str()).collect();
    let query = format!("SELECT ARRAY[{}] FROM {table} WHERE id = {id}", list.join(",\n"));
    let verdict = client.query_one(&query, &[]).await;
    let verdict: Vec<bool> = match verdict {
        Ok(row) => row.get(0),
        // A text that is none of its type: find whose.
        Err(_) => Vec::new(),
    };
    for (at, (column, (comparison, json))) in columns.iter().zip(&comparisons).enumerate() {
        if verdict.get(at) == Some(&true) {
            continue;
        }
        let is = column.compared(&column.name);
        let query = format!("SELECT {comparison}, {is} FROM {table} WHERE id = {id}");
        match client.query_one(&query, &[]).await {
            Ok(row) if row.get(0) => {}
            Ok(row) => panic!(
                "{} of row {id} in {table}: it is {:?}, the event says {json}",
                column.sql_type,
                row.get::<_, Option<String>>(1)
            ),
            Err(error) => panic!(
                "{} of row {id} in {table}: {}, the event says {json}",
                column.sql_type,
                error.as_db_error().map_or(error.to_string(), ToString::to_string)
            ),
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Rows of literals: the edges of all types first.
fn rows(columns: &[Column], count: u64, random: &mut StdRng) -> Vec<Vec<String>> {
    let row = |index: u64| {
        let index = usize::try_from(index).expect("few");
        columns.iter().map(|column| column.literal(index, random)).collect()
    };
    (0..count).map(row).collect()
}

async fn insert(client: &Client, rows: &[Vec<String>]) {
    for (id, row) in rows.iter().enumerate() {
        let insert = format!("INSERT INTO told VALUES ({id}, {})", row.join(", "));
        client.batch_execute(&insert).await.unwrap_or_else(|e| panic!("{e:?}: {insert}"));
    }
    // NULL in every column.
    client.batch_execute("INSERT INTO told (id) VALUES (-1)").await.expect("insert");
}

async fn update(client: &Client, columns: &[Column], rows: &[Vec<String>]) {
    for (id, row) in rows.iter().enumerate() {
        let set =
            columns.iter().zip(row).map(|(column, value)| format!("{} = {value}", column.name));
        let set = set.collect::<Vec<_>>().join(", ");
        let update = format!("UPDATE told SET {set} WHERE id = {id}");
        client.batch_execute(&update).await.unwrap_or_else(|e| panic!("{e:?}: {update}"));
    }
}

/// The events of the topic from the `from`th record on, tombstones left out.
async fn events(reader: RecordReader, from: usize, count: usize) -> (RecordReader, Vec<Event>) {
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = reader;
        reader.until_count(from + count, LOAD_LIMIT);
        reader
    });
    let reader =
        reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let event = |record: &OwnedRecord| {
        let value = record.value.as_deref()?;
        Some(serde_json::from_slice(value).expect("an event"))
    };
    let events = reader.records[from..].iter().filter_map(event).collect();
    (reader, events)
}

async fn run(server: &'static PostgresServer, brokers: &str, random: &mut StdRng) {
    let database = server.database().await;
    let client = database.client().await;
    let settings =
        "SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 3";
    client.batch_execute(settings).await.expect("the settings of the stream");
    client.batch_execute(TYPES).await.expect("make the types");
    let columns = columns();
    let list = columns.iter().map(|column| format!("{} {}", column.name, column.sql_type));
    let list = list.collect::<Vec<_>>().join(", ");
    client
        .batch_execute(&format!(
            "CREATE TABLE told (id bigint PRIMARY KEY, {list});
             ALTER TABLE told REPLICA IDENTITY FULL"
        ))
        .await
        .expect("make the table");
    let name = unique("oracle");
    let config = "[postgres]\ntables = [\"public.told\"]\n[format]\ntypes = \"readable\"\n";
    let bridge = Bridge::start_ready(&name, &database.unix_url, brokers, config, PATIENCE);
    let count = number("ROWCAST_TEST_ORACLE_ROWS").unwrap_or(30);
    let (first, second) = (rows(&columns, count, random), rows(&columns, count, random));
    let rows = usize::try_from(count).expect("few");

    insert(&client, &first).await;
    let topic = format!("{name}.public.told");
    let (brokers, witness) = (brokers.to_owned(), Witness::of(&bridge, &database));
    let reader = tokio::task::spawn_blocking(move || {
        let mut reader = RecordReader::open(&brokers, &[&topic], PATIENCE);
        reader.witness = Some(witness);
        reader
    });
    let reader = reader.await.expect("opening does not panic");
    let (reader, inserted) = events(reader, 0, rows + 1).await;
    for event in &inserted {
        assert!(event.op == "c" && event.before.is_none());
        judge(&client, &columns, "told", event.after.as_ref().expect("a row")).await;
    }

    client.batch_execute("CREATE TABLE first AS TABLE told").await.expect("keep the rows");
    // The rows that come last have values of another size than those before.
    let backwards: Vec<_> = second.into_iter().rev().collect();
    update(&client, &columns, &backwards).await;
    let (reader, updated) = events(reader, rows + 1, rows).await;
    for event in &updated {
        assert_eq!(event.op, "u");
        judge(&client, &columns, "first", event.before.as_ref().expect("a row")).await;
        judge(&client, &columns, "told", event.after.as_ref().expect("a row")).await;
    }

    client.batch_execute("CREATE TABLE second AS TABLE told").await.expect("keep the rows");
    client.batch_execute("DELETE FROM told").await.expect("delete");
    let (_, deleted) = events(reader, 2 * rows + 1, 2 * (rows + 1)).await;
    assert_eq!(deleted.len(), rows + 1);
    for event in &deleted {
        assert!(event.op == "d" && event.after.is_none());
        judge(&client, &columns, "second", event.before.as_ref().expect("a row")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_type_comes_back_as_postgres_has_it_on_every_version() {
    let kafka = kafka_or_skip!();
    let seed = number("ROWCAST_TEST_ORACLE_SEED").unwrap_or_else(rand::random);
    println!("ROWCAST_TEST_ORACLE_SEED={seed}");
    for_every_postgres(async |server| {
        let mut random = StdRng::seed_from_u64(seed);
        run(server, &kafka.brokers(), &mut random).await;
    })
    .await;
}
