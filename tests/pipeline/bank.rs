//! Is a transaction over two tables ever seen half in the target? Transfers, and somebody who adds up all balances.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etl::destination::Destination;
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::TableRules;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

const TABLES: &str = "
CREATE TABLE giro (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE savings (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO giro SELECT g, 1000 FROM generate_series(1, 50) g;
INSERT INTO savings SELECT g, 1000 FROM generate_series(1, 50) g;
CREATE PUBLICATION p FOR TABLE giro, savings";

/// What is on all accounts together, and how far the target is.
const ASKED: &str = "SELECT ((SELECT sum(n) FROM public.giro) + (SELECT sum(n) FROM public.savings))::text,
    greatest((SELECT max(\"_LSN\") FROM public.giro), (SELECT max(\"_LSN\") FROM public.savings))::text";

const TOTAL: &str = "100000";
const POLLS: usize = 1000;
const STATES: usize = 20;

/// Nothing takes longer, on a slow machine neither.
const LONG: Duration = Duration::from_secs(180);

/// From one table to the other, four accounts in each transaction.
async fn transfers(client: &Client) -> Infallible {
    loop {
        for (from, to) in [("giro", "savings"), ("savings", "giro")] {
            let [one, two, three, four] = [(); 4].map(|()| rand::random_range(1..=50));
            let transfer = format!(
                "UPDATE {from} SET n = n - 7 WHERE id = {one}; UPDATE {to} SET n = n + 7 WHERE id = {two};
                 UPDATE {to} SET n = n - 5 WHERE id = {three}; UPDATE {from} SET n = n + 5 WHERE id = {four}"
            );
            client.batch_execute(&transfer).await.unwrap();
        }
    }
}

/// Adds up a thousand times while money moves, and on until it has seen it move.
struct Polled {
    begun: Instant,
    polls: usize,
    totals: BTreeSet<String>,
    positions: BTreeSet<String>,
}

impl Polled {
    fn new() -> Self {
        Self { begun: Instant::now(), polls: 0, totals: BTreeSet::new(), positions: BTreeSet::new() }
    }

    fn is_enough(&self) -> bool {
        self.polls >= POLLS && self.positions.len() >= STATES || self.begun.elapsed() > LONG
    }

    fn add(&mut self, (total, position): (String, String)) {
        self.polls += 1;
        self.totals.insert(total);
        self.positions.insert(position);
    }

    /// That nothing was ever missing, though money moved all the time.
    fn expect_the_total(&self) {
        assert_eq!(self.totals, BTreeSet::from([TOTAL.to_owned()]));
        assert!(self.positions.len() >= STATES, "only {} states were seen", self.positions.len());
    }
}

struct Bank {
    world: World,
    database: Database,
    client: Client,
}

async fn bank() -> Option<Bank> {
    let database = database().await?;
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    // Batches would end within a transaction, if they could: one has four rows.
    world.settings.batch.max_rows = 10;
    Some(Bank { world, database, client })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_money_is_ever_missing_in_another_postgres() {
    let (Some(Bank { world, database: _database, client }), Some(target)) = (bank().await, database().await) else {
        return;
    };
    let config = PostgresTargetConfig::new(target.url());
    let postgres = Postgres::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap();
    let running = world.pipeline_into(postgres).start().await.unwrap();
    caught_up(&running).await;
    let reader = target.client().await;
    let mut polled = Polled::new();
    let polls = async {
        while !polled.is_enough() {
            let row = reader.query_one(ASKED, &[]).await.unwrap();
            polled.add((row.get(0), row.get(1)));
        }
    };
    tokio::select! {
        () = polls => {}
        never = transfers(&client) => match never {},
    }
    polled.expect_the_total();
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_money_is_ever_missing_in_duckdb() {
    let Some(Bank { world, database: _database, client }) = bank().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = DuckDbConfig::new(dir.path().join("bank.duckdb"));
    let duckdb = DuckDb::with_config(config, Arc::clone(&world.store), TableRules::default());
    let connections = duckdb.writer().connections();
    assert!(connections.connect().await.is_err(), "nothing is open yet");
    duckdb.startup().await.unwrap();
    let running = world.pipeline_into(duckdb).start().await.unwrap();
    caught_up(&running).await;
    let reader = connections.connect().await.unwrap();
    let polling = tokio::task::spawn_blocking(move || {
        let mut polled = Polled::new();
        while !polled.is_enough() {
            let row = reader.query_row(ASKED, [], |row| Ok((row.get(0)?, row.get(1)?)));
            polled.add(row.unwrap());
        }
        polled
    });
    let polled = tokio::select! {
        polled = polling => polled.unwrap(),
        never = transfers(&client) => match never {},
    };
    polled.expect_the_total();
    stop(running).await;
}
