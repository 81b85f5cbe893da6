//! How does a database become tables in ClickHouse? Current states to be read in views, until Ctrl-C.
//!
//! `cargo run -p etl-examples --example postgres_to_clickhouse -- postgres://etl@localhost/shop shop_pub http://localhost:8123`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::clickhouse::{ClickHouse, ClickHouseConfig};
use etl_destinations::table_rules::TableRules;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication), Some(server)) = (words.next(), words.next(), words.next()) else {
        println!("usage: postgres_to_clickhouse URL PUBLICATION SERVER");
        return Ok(());
    };
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data").await?);
    let config = ClickHouseConfig { database_prefix: "shop_".to_owned(), ..ClickHouseConfig::new(server) };
    let running = Pipeline::builder("shop", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data")
        .store(Arc::clone(&store))
        .destination(ClickHouse::with_config(config, store, TableRules::default())?)
        .build()?
        .start()
        .await?;

    running.handle().caught_up().await?;
    println!("{} tables are live: SELECT * FROM shop_public.<table>_current", running.handle().status().tables.len());
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
