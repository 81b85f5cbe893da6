//! Do all messages of protocols 2 to 4 come from a real server as they are decoded?

use std::time::Duration;

use etl::postgres::pgoutput::{Message, Peek, StreamStart, parse, parse_streamed, peek};
use etl::postgres::{ConnectOptions, Connection, ReplicationFrame, replication_frames};
use etl_local_postgres::LocalPostgres;
use harness::postgres::dedicated;
use tokio_postgres::NoTls;

/// A message by its name, and the transaction that a message of a segment names.
type Seen = (&'static str, Option<u32>);

/// Runs the statements one by one in one session while the stream is open; what came until the message that says `end`.
async fn streamed(server: &LocalPostgres, protocol: u8, options: &str, statements: &[&str]) -> Vec<Seen> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let run = async {
        for statement in statements {
            client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        client.batch_execute("SELECT pg_logical_emit_message(false, 'end', '')").await.unwrap();
        std::future::pending::<Vec<Seen>>().await
    };
    tokio::select! {
        never = run => never,
        seen = read(server, protocol, options) => seen,
    }
}

async fn read(server: &LocalPostgres, protocol: u8, options: &str) -> Vec<Seen> {
    let connect = ConnectOptions::from_url(&server.url()).unwrap();
    let mut connection = Connection::connect_replication(&connect).await.unwrap();
    // So little that transactions are streamed before they end.
    connection.query("SET logical_decoding_work_mem = '64kB'").await.unwrap();
    let start = format!(
        "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '{protocol}', publication_names 'p', messages 'true'{options})"
    );
    let mut reader = connection.start_replication(&start).await.unwrap().reader;
    let (mut seen, mut is_within) = (Vec::new(), false);
    loop {
        let block = reader.next_block().await.unwrap();
        for frame in replication_frames(&block) {
            let (ReplicationFrame::Data { payload, .. }, _) = frame.unwrap() else { continue };
            let bytes = &block[payload];
            let (xid, message) = if is_within {
                let streamed = parse_streamed(bytes).unwrap();
                (streamed.xid, streamed.message)
            } else {
                (None, parse(bytes).unwrap())
            };
            match &message {
                Message::StreamStart(_) => is_within = true,
                Message::StreamStop => is_within = false,
                Message::Message(emitted) if emitted.prefix == "end" => return seen,
                _ => {}
            }
            let named = match &message {
                Message::StreamStart(StreamStart { xid, .. }) => Some(*xid),
                Message::StreamAbort(abort) => Some(abort.subxid),
                _ => xid,
            };
            assert_eq!(peek(bytes).unwrap().tag, bytes[0]);
            seen.push((message.name(), named));
        }
    }
}

async fn prepared(two_phase: &str) -> Option<LocalPostgres> {
    let builder = LocalPostgres::builder()
        .setting("max_prepared_transactions", "10")
        // A transaction in progress is streamed as far as its WAL was flushed.
        .setting("wal_writer_delay", "10ms");
    let server = dedicated(builder).await?;
    let make = "CREATE TYPE mood AS ENUM ('well'); CREATE TABLE t (id int PRIMARY KEY, v text, m mood);
                CREATE PUBLICATION p FOR TABLE t";
    server.psql(make).await.unwrap();
    let slot = format!("SELECT pg_create_logical_replication_slot('s', 'pgoutput', false{two_phase})");
    server.psql(&slot).await.unwrap();
    Some(server)
}

fn count(seen: &[Seen], name: &str) -> usize {
    seen.iter().filter(|(seen, _)| *seen == name).count()
}

#[tokio::test]
async fn a_streamed_transaction_names_its_subtransactions_and_says_which_are_void() {
    let Some(server) = prepared("").await else { return };
    let statements = [
        "BEGIN",
        "INSERT INTO t SELECT g, repeat('a', 100), 'well' FROM generate_series(1, 1000) g",
        "SAVEPOINT a",
        "INSERT INTO t SELECT g, repeat('b', 100), 'well' FROM generate_series(2001, 3000) g",
        "ROLLBACK TO a",
        "INSERT INTO t SELECT g, repeat('c', 100), 'well' FROM generate_series(4001, 5000) g",
        "SELECT pg_logical_emit_message(true, 'within', 'x')",
        "COMMIT",
        "BEGIN; INSERT INTO t SELECT g, repeat('d', 100), 'well' FROM generate_series(6001, 8000) g",
        "ROLLBACK",
    ];
    let (protocol, options) =
        if server.major() >= 16 { (4, ", streaming 'parallel'") } else { (2, ", streaming 'on'") };
    let seen = streamed(&server, protocol, options, &statements).await;
    let starts: Vec<u32> = seen.iter().filter(|(name, _)| *name == "Stream Start").filter_map(|seen| seen.1).collect();
    assert!(starts.len() > 3 && count(&seen, "Stream Stop") == starts.len(), "{starts:?}");
    let top = starts[0];
    assert_eq!(count(&seen, "Stream Commit"), 1);
    assert_eq!((count(&seen, "Relation") > 0, count(&seen, "Type") > 0), (true, true));
    assert_eq!(count(&seen, "Begin"), 0, "all of it is streamed");

    let aborted: Vec<u32> = seen.iter().filter(|(name, _)| *name == "Stream Abort").filter_map(|seen| seen.1).collect();
    assert!(aborted.iter().any(|sub| *sub != top), "{aborted:?}");
    let commit = seen.iter().position(|(name, _)| *name == "Stream Commit").unwrap();
    let of = |xid: u32| seen[..commit].iter().filter(|(name, of)| *name == "Insert" && *of == Some(xid)).count();
    let void: usize = aborted.iter().filter(|sub| **sub != top).map(|sub| of(*sub)).sum();
    let all = seen[..commit].iter().filter(|(name, _)| *name == "Insert").count();
    assert_eq!(all - void, 2000, "what is left is what was committed");
}

#[tokio::test]
async fn a_prepared_transaction_comes_in_two_phases() {
    let Some(server) = prepared(", true").await else { return };
    if server.major() < 15 {
        // Protocol 3 came with version 15.
        return;
    }
    let big = "INSERT INTO t SELECT g, repeat('a', 100), 'well' FROM generate_series(100, 2000) g";
    let statements = [
        "BEGIN; INSERT INTO t VALUES (1, 'one', 'well'); PREPARE TRANSACTION 'one'",
        "BEGIN; INSERT INTO t VALUES (2, 'two', 'well'); PREPARE TRANSACTION 'two'",
        &format!("BEGIN; {big}"),
        "PREPARE TRANSACTION 'big'",
        "COMMIT PREPARED 'one'",
        "ROLLBACK PREPARED 'two'",
        "COMMIT PREPARED 'big'",
    ];
    let seen = streamed(&server, 3, ", two_phase 'on', streaming 'on'", &statements).await;
    let names: Vec<&str> = seen.iter().map(|seen| seen.0).collect();
    let small = ["Begin Prepare", "Type", "Relation", "Insert", "Prepare"];
    assert_eq!(names[..5], small);
    assert_eq!(names[5..8], ["Begin Prepare", "Insert", "Prepare"]);
    assert_eq!(names[8], "Stream Start");
    assert_eq!(names[names.len() - 4..], ["Stream Prepare", "Commit Prepared", "Rollback Prepared", "Commit Prepared"]);
}

#[tokio::test]
async fn origins_and_messages_come_with_their_transactions() {
    let Some(server) = prepared("").await else { return };
    let statements = [
        "SELECT pg_replication_origin_create('far')",
        "SELECT pg_replication_origin_session_setup('far')",
        "BEGIN; SELECT pg_replication_origin_xact_setup('0/10', now()); INSERT INTO t VALUES (1, 'one', 'well')",
        "COMMIT; SELECT pg_replication_origin_session_reset()",
        "SELECT pg_logical_emit_message(true, 'one', 'a')",
        "TRUNCATE t",
    ];
    let mut names: Vec<&str> = streamed(&server, 1, "", &statements).await.iter().map(|seen| seen.0).collect();
    // Version 14 tells of transactions that changed nothing.
    while let Some(empty) = names.windows(2).position(|pair| pair == ["Begin", "Commit"]) {
        names.drain(empty..empty + 2);
    }
    let expected = [
        &["Begin", "Origin", "Type", "Relation", "Insert", "Commit"][..],
        &["Begin", "Message", "Commit", "Begin"],
        // Told once in a session; a truncate has them forgotten with the tables' old files.
        &["Type", "Relation", "Truncate", "Commit"],
    ];
    assert_eq!(names, expected.concat());
    assert!(Peek { tag: b'I', relation: None }.is_row());
}
