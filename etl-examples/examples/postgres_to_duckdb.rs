//! How is a pipeline embedded? This one keeps a Postgres database live in a DuckDB file until Ctrl-C.
//!
//! `cargo run -p etl-examples --example postgres_to_duckdb -- postgres://etl@localhost/shop shop_pub`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::duckdb::DuckDb;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication)) = (words.next(), words.next()) else {
        println!("usage: postgres_to_duckdb URL PUBLICATION");
        return Ok(());
    };
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data").await?);
    let running = Pipeline::builder("shop", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data")
        .store(Arc::clone(&store))
        .destination(DuckDb::open("./shop.duckdb", store).await?)
        .build()?
        .start()
        .await?;

    let handle = running.handle();
    tokio::select! {
        _pressed = tokio::signal::ctrl_c() => {}
        caught_up = handle.caught_up() => {
            caught_up?;
            println!("{} tables are live; Ctrl-C ends", handle.status().tables.len());
            let _pressed = tokio::signal::ctrl_c().await;
        }
    }
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
