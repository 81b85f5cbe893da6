//! Which tables are published when? Some leave the publication and come back, at times drawn from a seed.

use std::fmt;
use std::time::{Duration, Instant};

use harness::seed::numbers;
use harness::workload::{TABLES, is_outage};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// Some tables always stay.
const MOST_OUT: usize = 3;

/// A table that leaves the publication or comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    at: Duration,
    table: &'static str,
    comes: bool,
}

/// What is published at first, and what comes and goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    first: Vec<&'static str>,
    turns: Vec<Turn>,
}

impl Published {
    /// Turns within this time. Of the tables that are out in the end about half come back then.
    pub(crate) fn draw(seed: u64, within: Duration) -> Self {
        let mut rng = numbers(seed, 0x7075_626c);
        // In a long storm there is time for a table to be copied in between, or not quite.
        let longest = if within > Duration::from_secs(30) { 12_000 } else { 4000 };
        let mut out: Vec<&'static str> =
            TABLES.choose(&mut rng).copied().filter(|_| rng.random_bool(0.5)).into_iter().collect();
        let first = TABLES.iter().copied().filter(|table| !out.contains(table)).collect();
        let mut turns = Vec::new();
        let mut at = Duration::from_millis(rng.random_range(200..longest));
        while at < within {
            turns.extend(turn(&mut rng, &mut out).map(|(table, comes)| Turn { at, table, comes }));
            at += Duration::from_millis(rng.random_range(100..longest));
        }
        out.retain(|_| rng.random_bool(0.5));
        turns.extend(out.into_iter().map(|table| Turn { at: within, table, comes: true }));
        Self { first, turns }
    }

    /// Makes the publication `p`.
    pub(crate) async fn create(&self, client: &Client) {
        client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", self.first.join(", "))).await.unwrap();
    }

    /// How often a table leaves or comes.
    pub(crate) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Does all of it, in time.
    pub(crate) async fn come_and_go(&self, url: &str) {
        let began = Instant::now();
        for turn in &self.turns {
            tokio::time::sleep(turn.at.saturating_sub(began.elapsed())).await;
            println!("{turn}");
            while let Err(error) = turn.make(url).await {
                assert!(is_outage(&error), "{turn}: {error:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A table that is out comes, or one that is not goes.
fn turn(rng: &mut StdRng, out: &mut Vec<&'static str>) -> Option<(&'static str, bool)> {
    if out.len() >= MOST_OUT || (!out.is_empty() && rng.random_bool(0.5)) {
        return Some((out.swap_remove(rng.random_range(0..out.len())), true));
    }
    let inside: Vec<&str> = TABLES.iter().copied().filter(|table| !out.contains(table)).collect();
    let table = inside.choose(rng).copied()?;
    out.push(table);
    Some((table, false))
}

impl Turn {
    async fn make(self, url: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let how = if self.comes { "ADD" } else { "DROP" };
        match client.batch_execute(&format!("ALTER PUBLICATION p {how} TABLE {}", self.table)).await {
            // It was done before, and the answer was lost; or a standby that leads now has never heard of it.
            Err(error)
                if [Some(&SqlState::UNDEFINED_OBJECT), Some(&SqlState::DUPLICATE_OBJECT)].contains(&error.code()) =>
            {
                Ok(())
            }
            made => made,
        }
    }
}

/// The tables that are published now.
pub(crate) async fn published(client: &Client) -> Vec<&'static str> {
    let query = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'p'";
    let found: Vec<String> = client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    TABLES.iter().copied().filter(|table| found.iter().any(|found| found == table)).collect()
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.comes { "comes" } else { "leaves" };
        write!(f, "{:6.1} s {} {verb}", self.at.as_secs_f64(), self.table)
    }
}

#[test]
fn tables_come_back_after_they_have_left_and_some_stay_out() {
    let minute = Duration::from_secs(60);
    assert_eq!(Published::draw(7, minute), Published::draw(7, minute));
    let (mut stay_out, mut come_back) = (0, 0);
    for seed in 0..100 {
        let Published { first, turns } = Published::draw(seed, minute);
        let mut now: Vec<&str> = first;
        for Turn { table, comes, .. } in turns {
            assert_ne!(now.contains(&table), comes, "{table} of seed {seed} is there already, or out");
            now.retain(|published| *published != table);
            now.extend(comes.then_some(table));
            come_back += usize::from(comes);
            assert!(now.len() >= TABLES.len() - MOST_OUT);
        }
        stay_out += usize::from(now.len() < TABLES.len());
    }
    assert!(stay_out > 20 && stay_out < 80 && come_back > 300, "{stay_out}, {come_back}");
}
