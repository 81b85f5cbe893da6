//! What does it take when rows are larger than all of the budget, or everything together is?

use std::path::Path;
use std::time::Duration;

use etl::ByteSize;
use harness::kill::Program;
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const MIB: u64 = 1 << 20;

/// A row to a page beside its value, so that several connections have some to read.
async fn table(client: &Client, name: &str) {
    let sql = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, v text, page text);
         ALTER TABLE {name} ALTER v SET STORAGE EXTERNAL, ALTER page SET STORAGE PLAIN"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Rows whose values have so many MiB.
async fn rows(client: &Client, name: &str, ids: std::ops::Range<u32>, mib: u64) {
    for id in ids {
        let sql =
            format!("INSERT INTO {name} VALUES ({id}, repeat(md5('{id}'), {}), repeat('x', 5000))", mib * MIB / 32);
        client.batch_execute(&sql).await.unwrap();
    }
}

fn small(world: &mut World, limit: u64) {
    world.settings.memory_limit = ByteSize(limit);
    world.settings.copy.chunk_bytes = ByteSize(16 << 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_rows_larger_than_the_whole_budget_pass_alone() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    for name in ["a", "b"] {
        table(&client, name).await;
        rows(&client, name, 0..4, 6).await;
    }
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let mut world = World::new("large", &database.url());
    small(&mut world, 4 * MIB);
    // The relay is full with two of them, and waits.
    world.settings.relay.max_bytes = ByteSize(8 * MIB);
    let running = world.start().await;
    caught_up(&running).await;
    world.destination.hold(Call::Batch);
    rows(&client, "a", 4..8, 6).await;
    client.batch_execute("UPDATE b SET v = v || id; DELETE FROM a WHERE id = 5").await.unwrap();
    world.destination.is_held(Call::Batch).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.destination.release();
    caught_up(&running).await;
    let memory = running.handle().status().memory;
    assert!(memory.most_used_bytes <= (4 + 4 * 6) * MIB, "{memory:?}");
    stop(running).await;
    world.assert_equal(&client, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_what_is_read_stays_within_the_budget_whatever_there_is() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let names: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    for name in &names {
        let sql = format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, v text);
             INSERT INTO {name} SELECT g, repeat('x', 500) FROM generate_series(1, 10000) g"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let mut world = World::new("budget", &database.url());
    small(&mut world, 4 * MIB);
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    // Transactions that are larger than the budget, for tables that are copied meanwhile.
    for name in &names {
        client.batch_execute(&format!("UPDATE {name} SET v = repeat('y', 501)")).await.unwrap();
    }
    world.destination.release();
    caught_up(&running).await;
    for name in &names {
        client.batch_execute(&format!("UPDATE {name} SET v = repeat('z', 502)")).await.unwrap();
    }
    caught_up(&running).await;
    let memory = running.handle().status().memory;
    assert!(memory.most_used_bytes > MIB && memory.most_used_bytes <= 8 * MIB, "{memory:?}");
    stop(running).await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.assert_equal(&client, &names).await;
}

/// 40 MiB a row beside a limit of 16 MiB; in `make soak` 256 MiB beside the limit by default. The C library keeps freed
/// blocks of up to 32 MiB: smaller rows would measure that.
fn sizes() -> (u64, u64, &'static str) {
    let is_soak = std::env::var_os("ETL_SOAK").is_some();
    if is_soak { (256, 128, "") } else { (40, 16, ", memory_limit: 16MiB, batch: { max_bytes: 4MiB }") }
}

/// Runs until everything is there; the most memory that the process had at a time.
async fn peak(config: &Path) -> u64 {
    let arguments = ["run", "--until-caught-up", "--config", config.to_str().unwrap()];
    let mut running = Program::etl(arguments).await.start().unwrap();
    let mut peak = 0;
    let status = loop {
        peak = running.peak_memory().map_or(peak, |now| now.max(peak));
        if let Ok(status) = running.end(Duration::from_millis(20)).await {
            break status;
        }
    };
    assert!(status.success(), "{}", running.output());
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_process_takes_no_more_than_the_limit_and_four_rows() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let (row, limit, settings) = sizes();
    table(&client, "t").await;
    rows(&client, "t", 0..4, row).await;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("etl.yaml");
    let text = format!(
        "pipeline: {{ id: rows, data_dir: {:?}{settings} }}\n\
         source: {{ postgres: {{ url: {:?}, tls: {{ mode: disable }}, publication: p }} }}\n\
         destination: {{ \"null\": {{}} }}\n",
        dir.path().join("data"),
        database.url()
    );
    std::fs::write(&config, text).unwrap();
    let copied = peak(&config).await;
    rows(&client, "t", 4..8, row).await;
    client.batch_execute("UPDATE t SET v = v || id").await.unwrap();
    let followed = peak(&config).await;
    println!(
        "rows of {row} MiB, limit {limit} MiB: peak {} MiB while copied, {} MiB while followed",
        copied >> 20,
        followed >> 20
    );
    assert!(copied > row * MIB && followed > row * MIB, "measured too little");
    assert!(copied.max(followed) <= (limit + 4 * row) * MIB);
}
