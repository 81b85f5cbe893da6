//! Which changes does a source make? Every kind, from a seed: the same seed ends in the same tables.
//!
//! Each connection (a lane) changes rows of its own, so that the end does not depend on how the lanes interleave.
//! Truncates happen between rounds, when no lane writes. Statements tolerate a lost answer: after a crash of the server
//! the lanes reconnect and go on.

mod alteration;
mod lane;
mod tables;
mod values;

use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::seed::numbers;
use alteration::Alterations;
use lane::Lane;

pub use tables::TABLES;

const LONGEST_OUTAGE: Duration = Duration::from_secs(180);

/// A seeded workload on the tables of [`TABLES`].
#[derive(Debug, Clone)]
pub struct Workload {
    seed: u64,
    lanes: u64,
    preloaded: i64,
    rounds: u64,
    transactions: u64,
    longest: Option<Duration>,
    truncates: bool,
    /// How likely an alteration between two rounds is.
    alters: f64,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transactions that ended, those rolled back included.
    pub transactions: u64,
    /// Transactions whose end the server did not tell, because the connection was lost.
    pub unknown: u64,
    /// Truncating transactions.
    pub truncates: u64,
    /// Transactions that alter tables.
    pub alterations: u64,
}

impl Workload {
    /// Two connections, five rounds of twenty transactions each, truncates in between, tables empty at first.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        println!("workload seed {seed}");
        Self { seed, lanes: 2, preloaded: 0, rounds: 5, transactions: 20, longest: None, truncates: true, alters: 0.0 }
    }

    /// How many connections write at the same time.
    #[must_use]
    pub fn connections(mut self, count: u64) -> Self {
        self.lanes = count.max(1);
        self
    }

    /// How many rows each table holds before the run; those with big values at most 2000.
    #[must_use]
    pub fn preloaded(mut self, rows: u32) -> Self {
        self.preloaded = i64::from(rows);
        self
    }

    /// How many rounds, and how many transactions each connection makes in one.
    #[must_use]
    pub fn rounds(mut self, rounds: u64, transactions: u64) -> Self {
        (self.rounds, self.transactions) = (rounds, transactions);
        self
    }

    /// Goes on for this long instead of a number of rounds. The end then depends on the machine's speed.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        (self.longest, self.rounds) = (Some(time), u64::MAX);
        self
    }

    /// Leaves truncates out.
    #[must_use]
    pub fn without_truncates(mut self) -> Self {
        self.truncates = false;
        self
    }

    /// Alters the tables between this share of the rounds: columns beside those that are written come, change and go.
    #[must_use]
    pub fn altering(mut self, share: f64) -> Self {
        self.alters = share;
        self
    }

    /// Makes the tables and fills them with the rows that are there before the run.
    ///
    /// # Errors
    /// The server refused a statement.
    pub async fn create(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.batch_execute(&tables::ddl()).await?;
        client.batch_execute(&tables::preload(self.preloaded)).await
    }

    /// Makes the changes. [`Workload::create`] comes first.
    ///
    /// # Errors
    /// The server refused a statement, or was away for a minute.
    pub async fn run(&self, url: &str) -> Result<Summary, tokio_postgres::Error> {
        let until = self.longest.map(|longest| Instant::now() + longest);
        let over = || until.is_some_and(|until| Instant::now() >= until);
        let mut lanes: Vec<Lane> =
            (0..self.lanes).map(|lane| Lane::new(self.seed, lane, self.lanes, self.preloaded)).collect();
        let mut between = numbers(self.seed, u64::MAX);
        let (mut altering, mut alterations) = (numbers(self.seed, u64::MAX - 1), Alterations::default());
        let mut summary = Summary::default();
        let mut round = 0;
        while round < self.rounds && !over() {
            let mut working = JoinSet::new();
            for lane in lanes.drain(..) {
                working.spawn(one_round(url.to_owned(), lane, self.transactions, until));
            }
            while let Some(done) = working.join_next().await {
                let (lane, did) = done.expect("a lane does not panic")?;
                summary.transactions += did.transactions;
                summary.unknown += did.unknown;
                lanes.push(lane);
            }
            lanes.sort_by_key(Lane::number);
            round += 1;
            // The last round ends with rows in every table.
            if self.truncates && round < self.rounds && between.random_bool(0.3) {
                let sql = lane::truncate(&mut between, &mut lanes);
                let did = deliver(&mut None, url, &sql).await?;
                summary.unknown += u64::from(!did);
                summary.truncates += 1;
            }
            if self.alters > 0.0 && altering.random_bool(self.alters) {
                let sql = alterations.transaction(&mut altering);
                let did = deliver(&mut None, url, &sql).await?;
                summary.unknown += u64::from(!did);
                summary.alterations += 1;
            }
        }
        Ok(summary)
    }
}

async fn one_round(
    url: String,
    mut lane: Lane,
    transactions: u64,
    until: Option<Instant>,
) -> Result<(Lane, Summary), tokio_postgres::Error> {
    let mut client = None;
    let mut summary = Summary::default();
    for _ in 0..transactions {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let sql = lane.transaction();
        summary.transactions += 1;
        summary.unknown += u64::from(!deliver(&mut client, &url, &sql).await?);
    }
    Ok((lane, summary))
}

/// Runs a transaction; whether its end is known. A lost connection is opened again.
async fn deliver(client: &mut Option<Client>, url: &str, sql: &str) -> Result<bool, tokio_postgres::Error> {
    let connected = match client.take() {
        Some(connected) => connected,
        None => connect(url).await?,
    };
    match connected.batch_execute(sql).await {
        Ok(()) => {
            *client = Some(connected);
            Ok(true)
        }
        Err(error) if is_outage(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let began = Instant::now();
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if !is_outage(&error) || began.elapsed() > LONGEST_OUTAGE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Anything without an answer from the server, and the answers of a server that stops or starts.
#[must_use]
pub fn is_outage(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P") || code.code().starts_with("08"))
}

#[cfg(test)]
mod tests;
