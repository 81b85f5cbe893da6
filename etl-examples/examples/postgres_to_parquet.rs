//! How does a database become Parquet? A log of every change and a current state a minute, until Ctrl-C.
//!
//! `cargo run -p etl-examples --example postgres_to_parquet -- postgres://etl@localhost/shop shop_pub ./lake`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::parquet::{CompactConfig, Parquet, ParquetConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication), Some(location)) = (words.next(), words.next(), words.next()) else {
        println!("usage: postgres_to_parquet URL PUBLICATION LOCATION");
        return Ok(());
    };
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data-parquet").await?);
    let compact = CompactConfig { every: Duration::from_secs(60), at_end: true, ..CompactConfig::default() };
    let config = ParquetConfig { compact, ..ParquetConfig::new(location) };
    let defaults = RuleSettings { write_mode: Some(WriteMode::Upsert), ..RuleSettings::default() };
    let rules = TableRules { defaults, rules: Vec::new() };
    let parquet = Parquet::with_config(config, Arc::clone(&store), rules)?;
    let running = Pipeline::builder("parquet", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data-parquet")
        .store(store)
        .destination(parquet)
        .build()?
        .start()
        .await?;
    println!("files appear as changes come; `current.json` names those of each table's state; Ctrl-C ends");
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
