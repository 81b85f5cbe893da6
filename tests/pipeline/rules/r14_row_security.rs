//! Is a copy whole, or an error?

use etl::ErrorKind;
use harness::postgres::database;

use crate::running::World;

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
    let error = running.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourcePermission, "{error}");
    assert!(error.to_string().contains("row security") || error.to_string().contains("row-level"), "{error}");
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
