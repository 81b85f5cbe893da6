//! Is every value of every type the same in DuckDB, as DuckDB reads it, or what the policy says?

use std::path::PathBuf;
use std::sync::Arc;

use etl::destination::AnyDestination;
use etl::transform::OnValue;
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::table_rules::TableRules;
use harness::duckdb::Reader;
use harness::every_type::Table;

use crate::every_value::{Everything, Line, compared, in_duckdb, parts_at_source};
use crate::running::World;
use crate::type_parts::parts_of;

/// Whether a text holds a value that DuckDB has no place for.
pub(crate) fn is_misfit(of: &str, text: &str) -> bool {
    let year = |text: &str| {
        text.split('-')
            .next()
            .and_then(|year| year.trim_start_matches(['[', '(', '{', '"', '\\', ',']).parse::<u32>().ok())
    };
    match of.split('(').next().unwrap_or_default() {
        "numeric" => of != "numeric" && text.contains("NaN"),
        "interval" => text.contains("infinity"),
        name if name.starts_with("ts") || name.starts_with("timestamp") => {
            text.split([',', '"']).filter_map(year).any(|year| year > 294_246)
        }
        _ => false,
    }
}

struct Copied {
    all: Everything,
    reader: Reader,
}

fn file(world: &World) -> PathBuf {
    world.data_dir().join("types.duckdb")
}

impl Copied {
    async fn by(policy: OnValue) -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let open = |world: &World| {
            let config = DuckDbConfig::new(file(world));
            AnyDestination::new(DuckDb::with_config(config, Arc::clone(&world.store), TableRules::default()))
        };
        Some(Self { all: Everything::written(policy, open).await?, reader })
    }

    async fn lines(&self, columns: impl Fn(&Table) -> Vec<String>) -> Vec<Line> {
        let from = |table: &Table| format!("public.{}", table.name);
        in_duckdb(&self.reader, &file(&self.all.world), &self.all.tables, from, columns).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_the_same_in_duckdb_or_null_where_it_has_no_place_for_it() {
    let Some(copied) = Copied::by(OnValue::Null).await else { return };
    let columns = |table: &Table| parts_of(table).into_iter().map(|(_, part)| part.copy).collect();
    let copy = copied.lines(columns).await;
    let source = parts_at_source(&copied.all).await;
    // DuckDB's storage takes 0 and -0 for one.
    let (same, null) = compared(&copied.all.tables, &source, &copy, false, is_misfit);
    println!("{same} parts of values the same, {null} null");
    assert!(same > 5000 && null > 20, "{same} the same, {null} null");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_that_duckdb_has_no_place_for_is_its_text_on_wish() {
    let Some(copied) = Copied::by(OnValue::Text).await else { return };
    let query =
        "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' AND schema_name = 'public'";
    let texts = copied.reader.query(&file(&copied.all.world), query).await.unwrap();
    let columns = |table: &Table, cast: &dyn Fn(&str) -> String| -> Vec<String> {
        let is_text = |column: &&'static str| {
            texts.iter().any(|row| row[0].as_deref() == Some(&*table.name) && row[1].as_deref() == Some(*column))
        };
        ["v", "a", "m", "l", "d", "c", "ca", "da"].into_iter().filter(is_text).map(cast).collect()
    };
    let written = |column: &str| format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END");
    let source = copied.all.at_source(|table| columns(table, &written)).await;
    let copy = copied.lines(|table| columns(table, &str::to_owned)).await;
    assert_eq!(copy.len(), source.len());
    for (copy, source) in copy.iter().zip(&source) {
        assert_eq!(copy, source);
    }
    // All arrays at least.
    assert!(texts.len() > 5 * copied.all.tables.len(), "{}", texts.len());
}
