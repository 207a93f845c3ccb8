//! `generate` writes what it says: counts, sums and states as the server has them, again by seed.

use std::time::Duration;

use rowcast::tools::generate::{self, Options, Progress, Summary, Template};
use tokio_postgres::Client;

use crate::support::postgres::for_each_postgres;
use crate::support::{PATIENCE, eventually};

/// Rides, or orders. Enough for a dozen of deletes: one in 24 rides, one in 15 orders.
const COUNT: u64 = 300;

fn options(template: Template) -> Options {
    Options { template, rate: 0.0, count: Some(COUNT), seed: Some(7), ..Options::default() }
}

async fn run(client: &Client, options: Options) -> Summary {
    let progress = Progress::default();
    let run = generate::run(client, options, &progress, std::future::pending());
    let summary = tokio::time::timeout(PATIENCE, run).await.expect("in time").expect("generate");
    assert_eq!(progress.rows(), summary.inserted + summary.updated + summary.deleted);
    summary
}

async fn number(client: &Client, query: &str) -> u64 {
    let row = client.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    u64::try_from(row.get::<_, i64>(0)).expect("a count")
}

/// All rows of a template as text, in their order of creation, without identity values.
async fn rows(client: &Client, template: Template) -> Vec<String> {
    let query = match template {
        Template::Taxi => "SELECT (to_jsonb(r) - 'ride_id')::text FROM rides r ORDER BY ride_id",
        // Who ordered is told by name, and what by the order's own place among all.
        Template::Orders => {
            "SELECT (to_jsonb(o) - 'order_id' - 'customer_id')::text
                    || (to_jsonb(c) - 'customer_id')::text
                    || (SELECT jsonb_agg(to_jsonb(i) - 'order_id' ORDER BY line)::text
                          FROM order_items i WHERE i.order_id = o.order_id)
               FROM orders o JOIN customers c USING (customer_id) ORDER BY order_id"
        }
    };
    client.query(query, &[]).await.expect(query).iter().map(|row| row.get(0)).collect()
}

/// The server's own count of what transactions did to a table.
async fn written(client: &Client, tables: &[&str], summary: Summary) {
    let query = "SELECT sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint, sum(n_tup_del)::bigint
                   FROM pg_stat_user_tables WHERE relname = ANY($1)";
    let expected = [summary.inserted, summary.updated, summary.deleted];
    // Statistics are sent after a transaction, with a delay.
    eventually(PATIENCE, &format!("statistics of {tables:?} to be {expected:?}"), async || {
        let row = client.query_one(query, &[&tables]).await.expect(query);
        let seen = [0, 1, 2].map(|at| u64::try_from(row.get::<_, i64>(at)).expect("a count"));
        (seen == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_ride_that_is_asked_for_is_written_billed_and_ended() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let summary = run(&client, options(Template::Taxi)).await;

        assert_eq!(summary.inserted, COUNT);
        assert!(summary.deleted > 0, "{summary:?}");
        let kept = number(&client, "SELECT count(*) FROM rides").await;
        assert_eq!(kept, summary.inserted - summary.deleted);
        written(&client, &["rides"], summary).await;

        let ended = "SELECT count(*) FROM rides WHERE status = 'completed'
              AND total = fare + surcharges + tolls + tip AND fare > 0
              AND requested_at <= pickup_at AND pickup_at < dropoff_at AND driver_id IS NOT NULL";
        let cancelled = "SELECT count(*) FROM rides WHERE status = 'cancelled' AND total IS NULL";
        let (ended, cancelled) = (number(&client, ended).await, number(&client, cancelled).await);
        assert!(ended > 0 && cancelled > 0, "{ended} ended, {cancelled} cancelled");
        assert_eq!(ended + cancelled, kept);
        // Two updates bring a ride to its end, one cancels it.
        assert_eq!(summary.updated, 2 * ended + cancelled + summary.deleted);
    })
    .await;
}

#[tokio::test]
async fn every_order_that_is_asked_for_is_written_with_its_items() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let summary = run(&client, options(Template::Orders)).await;

        assert!(summary.deleted > 0, "{summary:?}");
        let all = "SELECT (SELECT count(*) FROM customers) + (SELECT count(*) FROM orders)
                        + (SELECT count(*) FROM order_items)";
        assert_eq!(number(&client, all).await, summary.inserted - summary.deleted);
        written(&client, &["customers", "orders", "order_items"], summary).await;

        let orders = number(&client, "SELECT count(*) FROM orders").await;
        assert!(orders < COUNT, "{orders} of {COUNT} orders are left");
        let whole = "SELECT count(*) FROM orders o WHERE status = 'delivered' AND total =
              (SELECT sum(quantity * unit_price) FROM order_items i WHERE i.order_id = o.order_id)";
        assert_eq!(number(&client, whole).await, orders);
    })
    .await;
}

#[tokio::test]
async fn the_same_seed_writes_the_same_rows_and_another_one_others() {
    for_each_postgres(async |server| {
        for template in [Template::Taxi, Template::Orders] {
            let mut seen = Vec::new();
            for seed in [7, 7, 8] {
                let database = server.database().await;
                let client = database.client().await;
                run(&client, Options { seed: Some(seed), ..options(template) }).await;
                seen.push(rows(&client, template).await);
            }
            assert!(!seen[0].is_empty());
            assert_eq!(seen[0], seen[1], "{template:?}");
            assert_ne!(seen[0], seen[2], "{template:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_paced_run_writes_the_rows_of_one_at_full_speed_in_the_time_it_is_given() {
    for_each_postgres(async |server| {
        let (database, paced) = (server.database().await, server.database().await);
        let (client, paced) = (database.client().await, paced.client().await);
        let fast = Options { count: Some(100), ..options(Template::Taxi) };
        let rate = 400.0;
        let summary = run(&paced, Options { rate, ..fast.clone() }).await;
        run(&client, fast).await;

        assert_eq!(rows(&paced, Template::Taxi).await, rows(&client, Template::Taxi).await);
        // The first row is due at once, so the last one after all rows but one.
        let rows =
            u32::try_from(summary.inserted + summary.updated + summary.deleted).expect("few");
        let least = Duration::from_secs_f64(f64::from(rows - 1) / rate);
        assert!(summary.elapsed >= least, "{rows} rows in {:?}", summary.elapsed);
        // Each row is a transaction of its own, as an application would write it.
        let transactions = number(&paced, "SELECT count(DISTINCT xmin::text) FROM rides").await;
        assert_eq!(transactions, number(&paced, "SELECT count(*) FROM rides").await);
    })
    .await;
}

#[tokio::test]
async fn a_run_without_end_goes_on_until_it_is_stopped_and_tells_all_it_wrote() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let progress = Progress::default();
        let stop = eventually(PATIENCE, "a thousand rows", async || {
            (progress.rows() >= 1000).then_some(())
        });
        let endless = Options { count: None, ..options(Template::Taxi) };
        let summary = generate::run(&client, endless, &progress, stop).await.expect("generate");

        assert!(summary.inserted + summary.updated + summary.deleted >= 1000, "{summary:?}");
        let kept = number(&client, "SELECT count(*) FROM rides").await;
        assert_eq!(kept, summary.inserted - summary.deleted);
        let underway = "SELECT count(*) FROM rides WHERE status IN ('requested', 'in_progress')";
        assert!(number(&client, underway).await > 0, "some rides are under way at any time");
    })
    .await;
}

#[tokio::test]
async fn tables_that_are_missing_and_not_to_be_made_are_named() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        for (template, table) in [(Template::Taxi, "zones"), (Template::Orders, "customers")] {
            let options = Options { create_schema: false, ..options(template) };
            let progress = Progress::default();
            let run = generate::run(&client, options, &progress, std::future::pending());
            let error = run.await.expect_err("there are no tables").to_string();
            assert!(error.contains(table), "{error}");
            assert_eq!(progress.rows(), 0);
        }
    })
    .await;
}
