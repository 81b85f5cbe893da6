//! Is every value of every type what the server says that it is, copied and streamed, in binary and as text?

use etl::schema::TableId;
use etl::{Lsn, Position};
use harness::every_type::{Table, again, count, create};
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

async fn id_of(client: &Client, table: &Table) -> TableId {
    let row = client.query_one("SELECT $1::text::regclass::oid", &[&table.name]).await.unwrap();
    TableId(row.get(0))
}

/// What arrives is compared with what `SELECT` writes, which the types' own output functions do.
async fn arrives(with_text_only: bool) {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables = create(&client, with_text_only).await;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &names).await;
    for table in &tables {
        client.batch_execute(&again(table)).await.unwrap();
    }
    caught_up(&running).await;
    world.assert_equal(&client, &names).await;
    assert!(count(&client, &tables).await > 5000);
    for table in &tables {
        let schema =
            world.store.schema_at(id_of(&client, table).await, Position::after(Lsn(u64::MAX))).await.unwrap().unwrap();
        let is_binary = schema.columns.iter().all(|column| column.kind.has_binary());
        assert_eq!(is_binary, table.is_binary, "{}: {:?}", table.of, schema.columns);
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_type_is_exact_in_binary() {
    arrives(false).await;
}

/// One table without a binary form, and the whole stream is text; the others are copied in binary all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_type_is_exact_as_text() {
    arrives(true).await;
}
