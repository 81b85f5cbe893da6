//! How does one watch a database? A line of the process's log a change, values hidden unless asked for, until Ctrl-C.
//!
//! `cargo run -p etl-examples --example postgres_to_log -- postgres://etl@localhost/shop shop_pub`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::log::{Log, LogConfig};
use etl_destinations::table_rules::TableRules;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication)) = (words.next(), words.next()) else {
        println!("usage: postgres_to_log URL PUBLICATION");
        return Ok(());
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data-log").await?);
    let running = Pipeline::builder("log", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data-log")
        .store(Arc::clone(&store))
        .destination(Log::open(LogConfig::default(), store, TableRules::default())?)
        .build()?
        .start()
        .await?;
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
