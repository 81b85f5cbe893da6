//! Does the stream come in whole, and does the server hear what it should?

use std::time::Duration;

use etl::postgres::{
    ConnectOptions, Connection, ReplicationFrame, Reporter, StreamReader, pgoutput, replication_frames,
};
use etl::{ErrorKind, Lsn};
use harness::postgres::{Database, database, dedicated};
use tokio::sync::watch;

struct Streamed {
    reader: StreamReader,
    writer: etl::postgres::StreamWriter,
    slot: String,
    start: Lsn,
}

async fn open(database: &Database, table: &str) -> Streamed {
    let client = database.client().await;
    client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {table}")).await.unwrap();
    let options = ConnectOptions::from_url(&database.url()).unwrap();
    let mut connection = Connection::connect_replication(&options).await.unwrap();
    let slot = format!("s_{}", database.name());
    let create = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput NOEXPORT_SNAPSHOT");
    let rows = connection.query(&create).await.unwrap();
    let start = rows[0].get("consistent_point").unwrap().parse().unwrap();
    let sql = format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')");
    let stream = connection.start_replication(&sql).await.unwrap();
    Streamed { reader: stream.reader, writer: stream.writer, slot, start }
}

async fn confirmed(database: &Database, slot: &str) -> Lsn {
    let query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    let row = database.client().await.query_one(query, &[&slot]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

#[tokio::test]
async fn every_change_comes_once_and_what_is_confirmed_reaches_the_slot() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text)").await.unwrap();
    let Streamed { mut reader, writer, slot, start } = open(&database, "t").await;
    for round in 0..20 {
        let insert = format!("INSERT INTO t SELECT {round} * 500 + g, repeat('x', g) FROM generate_series(1, 500) g");
        client.batch_execute(&insert).await.unwrap();
    }
    let (mut inserts, mut commits, mut end) = (0, 0, start);
    while commits < 20 {
        let block = reader.next_block().await.unwrap();
        for frame in replication_frames(&block) {
            let (ReplicationFrame::Data { payload, .. }, _) = frame.unwrap() else { continue };
            match pgoutput::parse(&block[payload]).unwrap() {
                pgoutput::Message::Insert { .. } => inserts += 1,
                pgoutput::Message::Commit(commit) => {
                    commits += 1;
                    end = commit.end;
                }
                _ => {}
            }
        }
    }
    assert_eq!(inserts, 10_000);
    let (confirm, confirmations) = watch::channel(start);
    let (over, is_over) = watch::channel(false);
    let reporter = Reporter::new(end);
    let feedback = tokio::spawn(reporter.run(writer, confirmations, is_over));
    confirm.send_replace(end);
    over.send_replace(true);
    feedback.await.unwrap().unwrap();
    let mut waited = 0;
    while confirmed(&database, &slot).await < end {
        waited += 1;
        assert!(waited < 6000, "the slot was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(confirmed(&database, &slot).await, end);
}

#[tokio::test]
async fn p1_a_consumer_that_blocks_keeps_its_connection_and_confirms_nothing() {
    let builder = etl_local_postgres::LocalPostgres::builder().setting("wal_sender_timeout", "2s");
    let Some(server) = dedicated(builder).await else { return };
    server.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let options = ConnectOptions::from_url(&server.url()).unwrap();
    let mut connection = Connection::connect_replication(&options).await.unwrap();
    connection.query("CREATE_REPLICATION_SLOT s LOGICAL pgoutput NOEXPORT_SNAPSHOT").await.unwrap();
    let state = "SELECT confirmed_flush_lsn || ' ' || active FROM pg_replication_slots";
    let before = server.psql(state).await.unwrap();
    let sql = "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')";
    let stream = connection.start_replication(sql).await.unwrap();
    let (_confirm, confirmations) = watch::channel(Lsn::ZERO);
    let (_over, is_over) = watch::channel(false);
    let reporter = Reporter::new(Lsn::ZERO);
    let feedback = tokio::spawn(reporter.clone().run(stream.writer, confirmations, is_over));
    server.psql("INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
    // Nobody reads for twice the server's patience.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(server.psql(state).await.unwrap(), before.replace("false", "true"));
    assert!(!feedback.is_finished());
    drop(stream.reader);
    feedback.abort();
}

#[tokio::test]
async fn a_slot_in_use_says_so() {
    let Some(database) = database().await else { return };
    database.client().await.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let held = open(&database, "t").await;
    let options = ConnectOptions::from_url(&database.url()).unwrap();
    let connection = Connection::connect_replication(&options).await.unwrap();
    let sql = format!("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names 'p')", held.slot);
    let error = connection.start_replication(&sql).await.unwrap_err();
    assert_eq!((error.kind(), error.context("sqlstate")), (ErrorKind::SlotBusy, Some("55006")));
}
