//! Whatever the check of conditions takes is one expression to the server, or nothing.
//!
//! Texts are put together at random from what opens, closes and hides brackets. One that the check takes
//! and that the server takes behind WHERE must be an expression wherever else it is put: one that had
//! closed our bracket would not be.

use rand::prelude::*;
use rowcast::config::condition;

use crate::support::postgres::for_each_postgres;
use crate::support::seed;

const PIECES: &[&str] = &[
    "a",
    "1",
    "true",
    "b",
    "=",
    ">",
    "AND",
    "OR",
    "NOT",
    "(",
    ")",
    "[",
    "]",
    "'",
    "''",
    "\"",
    "$$",
    "$t$",
    "$1",
    ";",
    "--",
    "/*",
    "*/",
    "\n",
    " ",
    "E'",
    "e'",
    "B'",
    "U&'",
    "\\",
    "\\'",
    "x'",
    "UNION",
    "SELECT",
    "WHERE",
    "FROM t",
    "IS NULL",
    ",",
    "::text",
    "1e",
    "N'",
    "(true)",
    "('x' = b)",
    "a = 1",
    "E'\\''",
    "$q$)$q$",
    "/* ) */",
    "-- )\n",
    "\"a\"",
    "*",
    "/",
    "-",
    "+",
    "{",
    ".",
    "0x1",
    "_",
];

const CASES: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_as_a_condition_is_one_expression_to_the_server() {
    let seed = seed();
    println!("seed {seed}: CHAOS_SEED={seed} repeats it");
    for_each_postgres(async |server| {
        let mut random = StdRng::seed_from_u64(seed);
        let database = server.database().await;
        let client = database.client().await;
        client.batch_execute("CREATE TABLE t (a int, b text)").await.expect("make a table");
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..CASES {
            let count = random.random_range(1..9);
            let glue = if random.random_bool(0.7) { " " } else { "" };
            let pieces: Vec<&str> =
                (0..count).filter_map(|_| PIECES.choose(&mut random).copied()).collect();
            let text = pieces.join(glue);
            let sql = format!("SELECT FROM t WHERE ({text}\n)");
            if condition::check(&text).is_err() {
                refused += 1;
                continue;
            }
            if client.prepare(&sql).await.is_err() {
                continue;
            }
            taken += 1;
            for other in [
                format!("SELECT 1 + CASE WHEN ((({text}\n))) THEN 1 END FROM t"),
                format!("SELECT FROM t WHERE b IS NULL OR NOT ({text}\n) IS TRUE"),
            ] {
                let prepared = client.prepare(&other).await;
                assert!(prepared.is_ok(), "seed {seed}: {text:?} is no expression: {prepared:?}");
            }
        }
        assert!(taken > 20 && refused > 500, "seed {seed}: {taken} taken, {refused} refused");
    })
    .await;
}
