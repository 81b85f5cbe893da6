//! Does the SQL on the page of `parquet` read what is there? It is taken out of the page.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etl::destination::Destination;
use etl::store::{MemoryStore, SharedStore};
use etl_destinations::parquet::{CompactConfig, Parquet, ParquetConfig, RetainConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::parquet::{Which, query, read};

use crate::small_table::{TABLE, chunk, delete, insert, row, schema, transaction};

/// The blocks of SQL, about the table `public.t` in a place.
fn blocks(place: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/destinations/parquet.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    // Python needs another package for a time of a zone.
    let asked = ("SELECT * FROM read_parquet", "SELECT * EXCLUDE (_TIMESTAMP) FROM read_parquet");
    let of_place = ("'lake", format!("'{place}"));
    let here = |block: &str| block.replace(of_place.0, &of_place.1).replace("orders", "t").replace(asked.0, asked.1);
    blocks.map(here).collect()
}

#[tokio::test]
async fn the_sql_on_the_page_finds_each_row_once() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("lake");
    let store: SharedStore = Arc::new(MemoryStore::new());
    store.put_schema(schema()).await.unwrap();
    let config = ParquetConfig {
        merge_every: Duration::ZERO,
        compact: CompactConfig { every: Duration::ZERO, ..CompactConfig::default() },
        // What is merged away can still be found by a glob.
        retain: RetainConfig { merged: Duration::from_secs(3600), ..RetainConfig::default() },
        ..ParquetConfig::new(place.display().to_string())
    };
    let defaults = RuleSettings { write_mode: Some(WriteMode::Upsert), ..RuleSettings::default() };
    let rules = TableRules { defaults, rules: Vec::new() };
    let parquet = Parquet::with_config(config, store, rules).unwrap();
    let copied = || ["a", "b"].map(|key| row(&schema(), [key, "old"])).to_vec();
    parquet.write_copy_chunk(TABLE, chunk(), copied().into()).await.unwrap();
    // So that there are files of a generation before.
    parquet.truncate_table(TABLE).await.unwrap();
    let again = etl::destination::CopyChunk { generation: 2, ..chunk() };
    parquet.write_copy_chunk(TABLE, again, copied().into()).await.unwrap();
    for round in 1..=100_u64 {
        let ops = vec![insert([&format!("k{round}"), "x"])];
        let (batch, events) = transaction(100 * round, ops);
        parquet.write_batch(batch, events).await.unwrap();
        if round == 80 {
            assert!(parquet.writer().merge().await.unwrap() > 0);
        }
    }
    let (batch, events) = transaction(20_000, vec![delete("a")]);
    parquet.write_batch(batch, events).await.unwrap();
    parquet.writer().compact().await.unwrap();

    let blocks = blocks(&place.display().to_string());
    let [glob, manifests, current] = &blocks[..] else { panic!("{blocks:#?}") };
    let expected = read(&reader, &place, "public.t", Which::Log, &[]).await.unwrap().unwrap().len();
    assert_eq!(expected, 103);
    assert!(query(&reader, glob).await.len() > expected, "nothing was merged away");
    let log = query(&reader, manifests).await;
    assert_eq!(log.len(), expected);
    let state = query(&reader, current).await;
    let mut keys: Vec<_> = state.iter().map(|row| row[0].clone().unwrap()).collect();
    keys.sort();
    assert_eq!((keys.len(), keys.contains(&"a".to_owned())), (101, false), "{keys:?}");
}
