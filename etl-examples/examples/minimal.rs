//! How is a pipeline embedded? This one keeps the current rows of a Postgres database in memory until Ctrl-C.
//!
//! `cargo run -p etl-examples --example minimal -- postgres://etl@localhost/shop shop_pub`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::destination::MemoryDestination;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::MemoryStore;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication)) = (words.next(), words.next()) else {
        println!("usage: minimal URL PUBLICATION");
        return Ok(());
    };
    let running = Pipeline::builder("minimal", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data")
        .store(Arc::new(MemoryStore::new()))
        .destination(MemoryDestination::new())
        .build()?
        .start()
        .await?;

    let handle = running.handle();
    handle.caught_up().await?;
    println!("{} tables are live; Ctrl-C ends", handle.status().tables.len());
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
