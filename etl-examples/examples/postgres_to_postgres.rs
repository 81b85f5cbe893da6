//! How does a database become another one? Tables with the types and keys of the source, each transaction as a whole, until
//! Ctrl-C.
//!
//! `cargo run -p etl-examples --example postgres_to_postgres -- postgres://etl@localhost/shop shop_pub postgres://etl@replica/shop`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::TableRules;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication), Some(target)) = (words.next(), words.next(), words.next()) else {
        println!("usage: postgres_to_postgres URL PUBLICATION TARGET");
        return Ok(());
    };
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data").await?);
    let target = Postgres::with_config(PostgresTargetConfig::new(target), Arc::clone(&store), TableRules::default())?;
    let running = Pipeline::builder("shop", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data")
        .store(store)
        .destination(target)
        .build()?
        .start()
        .await?;

    running.handle().caught_up().await?;
    println!("{} tables are live; Ctrl-C ends", running.handle().status().tables.len());
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
