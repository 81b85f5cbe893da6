//! Is a copy whole, or an error?

use etl::ErrorKind;
use harness::postgres::database;

use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_row_security_is_an_error_and_never_a_smaller_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let role = format!("limited_{}", database.name());
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10);
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (id < 3);
             CREATE PUBLICATION p FOR TABLE t;
             CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON t TO {role}"
        ))
        .await
        .unwrap();
    let url = database.url().replace("//postgres", &format!("//{role}"));
    assert!(url.contains(&role), "{url}");
    let world = World::new(database.name(), &url);
    let running = world.start().await;
    caught_up(&running).await;
    let table = running.handle().status().tables.remove(0);
    stop(running).await;
    let error = table.error.unwrap();
    assert_eq!((table.phase, error.kind), ("quarantined", ErrorKind::SourcePermission.name()), "{error}");
    assert!(error.message.contains("row security") || error.message.contains("row-level"), "{error}");
    assert!(world.memory.rows(table.id).is_none_or(|rows| rows.is_empty()), "a smaller copy");
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
