//! Can a person see what is under way, let it go on, give it up, and look after what was refused?

use std::path::Path;
use std::sync::Arc;

use etl::schema::{ReplicaIdentity, TableId, TableName, TableSchema};
use etl::store::{
    DeadLetterStore, Operation, OperationContext, OperationId, OperationState, OperationStore, SchemaStore,
    SqliteStore, StateStore, TableState,
};
use etl::{Lsn, Position};
use serde_json::{Value, json};

use crate::scene::{config, refused, running, says, server_with_a_table};

const HELD: &str = "11111111-aaaa-bbbb-cccc-000000000001";
const LOST: &str = "22222222-aaaa-bbbb-cccc-000000000002";
const ASKED: &str = "33333333-aaaa-bbbb-cccc-000000000003";

fn operation(id: &str, sequence: u64, table: TableId, state: OperationState) -> Operation {
    Operation {
        id: OperationId(id.into()),
        revision: 0,
        sequence,
        table,
        generation: 1,
        first: Position::new(Lsn(5), 1),
        last: Position::new(Lsn(5), 2),
        rows: 2,
        bytes: 2,
        sealed_at: etl::clock::Timestamp(1_700_000_000_000_000),
        attempts: 5,
        is_replay: false,
        state,
    }
}

fn held(contexts: Vec<OperationContext>, is_submitted: bool) -> OperationState {
    let since = etl::clock::Timestamp(1_700_000_001_000_000);
    OperationState::Held { reason: "5 attempts have failed: no such field".to_owned(), contexts, is_submitted, since }
}

/// Leaves three operations: one whose batch is there, one whose batch is gone, one that the system has.
async fn leave(data: &Path, table: TableId) -> SqliteStore {
    let spool = data.join("spool");
    std::fs::create_dir_all(&spool).unwrap();
    let row = |ordinal: u64, id: &str| {
        let position = json!(Position::new(Lsn(5), ordinal));
        json!({ "position": position, "change_type": "INSERT", "key": [id], "row": { "id": id }, "bytes": 1 })
    };
    let head = json!([{ "schema": "public", "name": "t" }, { "head": "", "separator": "", "tail": "" }]);
    let rows = format!("{head}\n{}\n{}\n", row(1, "a"), row(2, "b"));
    for id in [HELD, ASKED] {
        std::fs::write(spool.join(format!("{id}.rows")), &rows).unwrap();
        std::fs::write(spool.join(format!("{id}.body")), "ab").unwrap();
    }
    let store = SqliteStore::open(data).await.unwrap();
    store.set_fact("bulk.spool", spool.display().to_string()).await.unwrap();
    let context = OperationContext { step: 0, vendor: json!({ "job": "j-77" }), rows: (0, 2) };
    let states = [(HELD, held(Vec::new(), false)), (LOST, held(Vec::new(), false)), (ASKED, held(vec![context], true))];
    for ((id, state), sequence) in states.into_iter().zip(1..) {
        store.put_operation(None, operation(id, sequence, table, state), Vec::new()).await.unwrap();
    }
    store
}

async fn list(dir: &Path) -> Vec<Value> {
    serde_json::from_str(&says(dir, &["operations", "list", "--json"]).await).unwrap()
}

async fn state(dir: &Path, id: &str) -> Value {
    list(dir).await.into_iter().find(|operation| operation["id"] == id).unwrap()["state"].clone()
}

#[tokio::test]
async fn operations_that_a_stopped_pipeline_has_left_are_shown_let_go_on_and_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    config(dir, "shop", "postgres://u:hunter2@localhost/shop", "{ memory: {} }");
    refused(dir, &["operations", "list"], 2, &["does not run", "etl run"]).await;
    let table = TableId(7);
    let store = leave(&dir.join("data"), table).await;
    let (columns, key) = (Box::default(), Box::default());
    let schema = TableSchema {
        last_attnum: 0,
        source_name: None,
        id: table,
        name: TableName::new("public", "orders"),
        columns,
        key,
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    };
    store.put_schema(Arc::new(schema)).await.unwrap();
    store.set_table_state(table, None, TableState::PENDING).await.unwrap();

    let listed = says(dir, &["operations", "list"]).await;
    for expected in ["11111111  public.orders  held", "no such field", "2 B"] {
        assert!(listed.contains(expected), "{expected}:\n{listed}");
    }
    let shown = says(dir, &["operations", "show", "33333333"]).await;
    for expected in ["j-77", "tried 5 times", "spool/33333333", r#""key":["a"]"#, "2 rows"] {
        assert!(shown.contains(expected), "{expected}:\n{shown}");
    }
    assert!(!says(dir, &["operations", "show", HELD, "--rows", "1"]).await.contains(r#""key":["b"]"#));
    let shown: Value = serde_json::from_str(&says(dir, &["operations", "show", LOST, "--json"]).await).unwrap();
    assert_eq!((&shown["batch"], &shown["attempts"]), (&Value::Null, &json!(5)));

    assert!(says(dir, &["operations", "retry", "3333"]).await.contains("is asked for again"));
    assert_eq!(state(dir, ASKED).await, "submitted");
    refused(dir, &["operations", "retry", ASKED], 2, &["not held", "submitted"]).await;
    refused(dir, &["operations", "abandon", ASKED], 2, &["not held"]).await;
    refused(dir, &["operations", "retry", "nobody"], 2, &["no such operation", "etl operations list"]).await;

    refused(dir, &["operations", "abandon", LOST], 2, &["not on disk", "--lost"]).await;
    refused(dir, &["operations", "abandon", HELD, "--lost"], 2, &["not lost"]).await;
    assert!(says(dir, &["operations", "abandon", "2222", "--lost"]).await.contains("etl tables resync public.orders"));
    assert!(says(dir, &["operations", "abandon", HELD]).await.contains("2 rows are dead letters"));
    assert!(!dir.join("data/spool").join(format!("{HELD}.body")).exists());

    let letters = says(dir, &["dlq", "list", "--table", "orders"]).await;
    let first = format!("{HELD}/0");
    assert!(letters.contains(&first) && letters.contains("abandoned: 5 attempts"), "{letters}");
    assert!(says(dir, &["dlq", "list", "--most", "1"]).await.contains(&format!("etl dlq list --after {first}")));
    assert!(says(dir, &["dlq", "show", &first]).await.contains(r#"id = "a""#));
    refused(dir, &["dlq", "show", "x/9"], 2, &["no such dead letter"]).await;
    refused(dir, &["dlq", "list", "--table", "nobody"], 2, &["no such table"]).await;
    assert_eq!(says(dir, &["dlq", "drop", &first]).await, "1 dead letters are removed\n");
    assert_eq!(store.dead_letters(None, None, 9).await.unwrap().len(), 1);
    assert_eq!(says(dir, &["dlq", "drop", "--all"]).await, "1 dead letters are removed\n");
    assert_eq!(says(dir, &["dlq", "list"]).await, "there are no dead letters\n");
}

#[tokio::test]
async fn operations_of_a_running_pipeline_are_looked_after_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = server_with_a_table().await;
    config(dir, "beside", &server.url(), "{ duckdb: { path: copy.duckdb } }");
    let mut child = running(dir).await;
    let oid = server.psql("SELECT 't'::regclass::oid").await.unwrap();
    leave(&dir.join("data"), TableId(oid.trim().parse().unwrap())).await;
    assert_eq!(list(dir).await.len(), 3);
    assert!(says(dir, &["operations", "list"]).await.contains("public.t"));
    assert!(says(dir, &["operations", "retry", HELD]).await.contains("is submitted again"));
    assert!(says(dir, &["operations", "retry", ASKED, "--anew"]).await.contains("is submitted again"));
    refused(dir, &["operations", "retry", HELD], 2, &["not held", "sealed"]).await;
    assert!(says(dir, &["operations", "abandon", LOST, "--lost"]).await.contains("given up"));
    assert_eq!(says(dir, &["dlq", "list"]).await, "there are no dead letters\n");
    assert_eq!(child.try_wait().unwrap(), None, "the pipeline has ended");
    child.kill().await.unwrap();
}
