//! How does one connect a system that answers later? `depot.rs` is the system, `destination.rs` makes a destination of it, and
//! `tests/example_async.rs` takes each of its ways.
//!
//! `cargo run -p etl-examples --example example_async -- postgres://etl@localhost/shop shop_pub`, and after that what is to go
//! wrong first, if anything: `unreachable`, `answer-lost`, `deaf`, `spoilt`, `forgotten`, `never-done`.

mod depot;
mod destination;

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::bulk::{Bulk, BulkSettings};
use etl_destinations::table_rules::TableRules;

use crate::depot::{Depot, Mishap};
use crate::destination::ToDepot;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication)) = (words.next(), words.next()) else {
        println!("usage: example_async URL PUBLICATION [MISHAP...]");
        return Ok(());
    };
    let depot = Depot::default();
    words.filter_map(|word| Mishap::named(&word)).for_each(|mishap| depot.expect(mishap));

    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data-depot").await?);
    // Rows that are refused for good are kept as dead letters, and do not hold their table.
    let settings = BulkSettings { dead_letters: true, ..BulkSettings::new("./etl-data-depot/spool") };
    let destination = Bulk::destination(ToDepot(depot.clone()), settings, Arc::clone(&store), TableRules::default());
    let running = Pipeline::builder("depot", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data-depot")
        .store(store)
        .destination(destination)
        .build()?
        .start()
        .await?;
    println!("deliveries go out as changes come; Ctrl-C ends");
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    let (deliveries, questions) = depot.counts();
    println!("{} parcels came in {deliveries} deliveries, asked for {questions} times", depot.shelves().len());
    Ok(())
}
