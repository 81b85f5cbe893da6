//! How does a database become files of JSON lines? A log of every change, each exactly once, until Ctrl-C.
//!
//! `cargo run -p etl-examples --example postgres_to_files -- postgres://etl@localhost/shop shop_pub ./changes`

use std::sync::Arc;
use std::time::Duration;

use etl::EtlResult;
use etl::pipeline::Pipeline;
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl_destinations::file::{FileConfig, Files};
use etl_destinations::table_rules::TableRules;

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication), Some(directory)) = (words.next(), words.next(), words.next()) else {
        println!("usage: postgres_to_files URL PUBLICATION DIRECTORY");
        return Ok(());
    };
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data-files").await?);
    // A file appears once it is ten seconds old, or when the pipeline stops.
    let config = FileConfig { max_age: Duration::from_secs(10), ..FileConfig::new(directory) };
    let files = Files::with_config(config, Arc::clone(&store), TableRules::default())?;
    let running = Pipeline::builder("files", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data-files")
        .store(store)
        .destination(files)
        .build()?
        .start()
        .await?;
    println!("files appear as changes come; Ctrl-C ends");
    let _pressed = tokio::signal::ctrl_c().await;
    running.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
