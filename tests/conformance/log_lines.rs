//! What does `log` say of a change, and what does it keep to itself?

use std::sync::Arc;

use etl::ErrorKind;
use etl::destination::Destination;
use etl::store::{MemoryStore, SharedStore};
use etl_destinations::log::{Log, LogConfig, Shown};
use etl_destinations::table_rules::{TablePatterns, TableRules};
use harness::lines::Lines;
use tracing::instrument::WithSubscriber;

use crate::small_table::{TABLE, chunk, delete, insert, row, schema, transaction, update};

/// What is logged of a copied row and three changes: change type, position and row.
async fn logged(config: LogConfig) -> Vec<String> {
    let store: SharedStore = Arc::new(MemoryStore::new());
    store.put_schema(schema()).await.unwrap();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let log = Log::open(config, store, TableRules::default()).unwrap();
    async {
        log.write_copy_chunk(TABLE, chunk(), vec![row(&schema(), ["a", "hunter2"])].into()).await.unwrap();
        let ops = vec![insert(["b", "hunter2"]), update(["b", "?"]), delete("a")];
        let (batch, events) = transaction(100, ops);
        log.write_batch(batch, events).await.unwrap();
    }
    .with_subscriber(subscriber)
    .await;
    let text = lines.text();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["target"], &line["table"]), (&"etl::changes".into(), &"public.t".into()));
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        format!("{} {} {} {}", text("change"), text("lsn"), line["ordinal"], text("row"))
    };
    text.lines().map(line).collect()
}

#[tokio::test]
async fn a_change_is_one_line_with_its_key_alone() {
    let expected = [
        r#"UPSERT 0/32 0 {"k":"a","v":"***"}"#,
        r#"INSERT 0/64 1 {"k":"b","v":"***"}"#,
        r#"UPDATE 0/64 2 {"k":"b"}"#,
        r#"DELETE 0/64 3 {"k":"a","v":"***"}"#,
    ];
    assert_eq!(logged(LogConfig::default()).await, expected);
}

#[tokio::test]
async fn values_are_shown_as_far_as_the_config_says() {
    let none = logged(LogConfig { show: Shown::None, ..LogConfig::default() }).await;
    assert_eq!(none[1], r#"INSERT 0/64 1 {"k":"***","v":"***"}"#);
    let all = logged(LogConfig { show: Shown::All, ..LogConfig::default() }).await;
    assert_eq!(all[1], r#"INSERT 0/64 1 {"k":"b","v":"hunter2"}"#);
    assert_eq!(all[3], r#"DELETE 0/64 3 {"k":"a","v":null}"#);
    let redact = Some(TablePatterns::new(["public.*.v"]));
    let redacted = logged(LogConfig { show: Shown::All, redact, ..LogConfig::default() }).await;
    assert!(redacted[0].contains("\"a\"") && !redacted.concat().contains("hunter2"), "{redacted:?}");
}

#[tokio::test]
async fn one_in_so_many_changes_has_a_line() {
    let half = logged(LogConfig { one_in: 2, ..LogConfig::default() }).await;
    assert_eq!(half.iter().map(|line| &line[..6]).collect::<Vec<_>>(), ["UPSERT", "UPDATE"]);
    let store: SharedStore = Arc::new(MemoryStore::new());
    let error = Log::open(LogConfig { one_in: 0, ..LogConfig::default() }, store, TableRules::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}
