//! Does the state survive in a Postgres, for one engine at a time?

use std::time::Duration;

use etl::postgres::ConnectOptions;
use etl::schema::TableId;
use etl::store::{CursorId, PostgresStore, StateStore, TableState, conformance};
use etl::{ErrorKind, Lsn, Position};
use harness::postgres::{Database, database};

fn options(database: &Database) -> ConnectOptions {
    ConnectOptions::from_url(&database.url()).unwrap()
}

async fn open(database: &Database, pipeline: &str) -> PostgresStore {
    loop {
        match PostgresStore::open(options(database), "state of \"etl\"", pipeline).await {
            // The server may not have noticed yet that another one's session has ended.
            Err(error) if error.kind() == ErrorKind::Locked => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test]
async fn every_promise_of_a_store_holds() {
    let Some(database) = database().await else { return };
    conformance::a_state_changes_only_from_the_expected_revision(&open(&database, "a").await).await;
    conformance::positions_never_go_back(&open(&database, "b").await).await;
    conformance::the_schema_in_force_is_found_and_survives_pruning(&open(&database, "c").await).await;
    conformance::a_schema_takes_the_place_of_the_one_with_the_same_since(&open(&database, "d").await).await;
    conformance::facts_are_kept(&open(&database, "e").await).await;
    conformance::copies_are_kept_until_they_are_forgotten(&open(&database, "f").await).await;
    conformance::an_operation_changes_only_from_the_expected_revision(&open(&database, "g").await).await;
    conformance::dead_letters_are_stored_with_the_operation(&open(&database, "h").await).await;
    conformance::dead_letters_are_kept_until_they_are_removed(&open(&database, "i").await).await;
    let b = open(&database, "b").await;
    assert_eq!(b.progress().await.unwrap().confirmed, Some(Lsn(7)), "it outlives the session");
    assert!(b.table_states().await.unwrap().is_empty(), "and is not the other pipeline's");
}

#[tokio::test]
async fn a_second_engine_is_refused_and_a_lost_session_is_made_anew() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let store = open(&database, "shop").await;
    let error = PostgresStore::open(options(&database), "state of \"etl\"", "shop").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert!(error.hint_text().is_some());

    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'etl store shop' AND datname = current_database()";
    for round in 1..=5 {
        client.query(end, &[]).await.unwrap();
        store.advance(CursorId::Main, Position::new(Lsn(round), 0)).await.unwrap();
    }
    let first = store.set_table_state(TableId(7), None, TableState::PENDING).await.unwrap();
    client.query(end, &[]).await.unwrap();
    store.set_table_state(TableId(7), Some(first), TableState::PENDING).await.unwrap();
    assert_eq!(store.progress().await.unwrap().cursor(CursorId::Main), Some(Position::new(Lsn(5), 0)));

    // Another engine that came in between has it now.
    client.query(end, &[]).await.unwrap();
    let other = open(&database, "shop").await;
    client.query(end, &[]).await.unwrap();
    let error = store.confirm(Lsn(9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    other.confirm(Lsn(3)).await.unwrap();
    assert_eq!(other.progress().await.unwrap().confirmed, Some(Lsn(3)));
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_refused_with_a_hint() {
    let Some(database) = database().await else { return };
    let (client, name) = (database.client().await, database.name());
    client
        .batch_execute(&format!(
            "CREATE ROLE reader_{name} LOGIN; CREATE ROLE frozen_{name} LOGIN SUPERUSER;
             ALTER ROLE frozen_{name} SET default_transaction_read_only = on"
        ))
        .await
        .unwrap();
    for (role, expected) in [("reader", "GRANT"), ("frozen", "cannot be written")] {
        let mut connect = options(&database);
        connect.user = format!("{role}_{name}");
        for error in [
            PostgresStore::check(connect.clone(), "etl", "shop").await.unwrap_err(),
            PostgresStore::open(connect, "etl", "shop").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Store, "{error}");
            assert!(error.to_string().to_uppercase().contains(&expected.to_uppercase()), "{error}");
        }
    }
    client.batch_execute(&format!("DROP ROLE reader_{name}; DROP ROLE frozen_{name}")).await.unwrap();
    PostgresStore::check(options(&database), "etl", "shop").await.unwrap();
    drop(PostgresStore::open(options(&database), "etl", "shop").await.unwrap());
    PostgresStore::check(options(&database), "etl", "shop").await.unwrap();
    client.batch_execute("INSERT INTO etl.migration VALUES (99)").await.unwrap();
    let error = PostgresStore::open(options(&database), "etl", "shop").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Store && error.to_string().contains("newer version"), "{error}");
}
