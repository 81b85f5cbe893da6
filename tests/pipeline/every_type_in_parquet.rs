//! Is every value of every type the same in Parquet files, as DuckDB and pyarrow read them, or what the policy says?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use etl::destination::AnyDestination;
use etl::transform::OnValue;
use etl_destinations::parquet::{Parquet, ParquetConfig, ParquetInfinities};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::every_type::Table;
use harness::parquet::{current, current_files, pyarrow_values_or_skip};

use crate::every_type_in_duckdb;
use crate::every_value::{Everything, Line, compared, in_duckdb, parts_at_source};
use crate::running::World;
use crate::type_parts::parts_of;

/// Whether a text holds a value that Parquet has no place for.
fn is_misfit(of: &str, text: &str) -> bool {
    let is_endless = ["date", "ts", "timestamp"].iter().any(|name| of.starts_with(name)) && text.contains("infinity");
    is_endless || every_type_in_duckdb::is_misfit(of, text)
}

struct Copied {
    all: Everything,
    reader: Reader,
}

fn place(world: &World) -> PathBuf {
    world.data_dir().join("lake")
}

impl Copied {
    /// Current states are made when the pipeline ends.
    async fn by(policy: OnValue, infinities: ParquetInfinities) -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let open = |world: &World| {
            let mut config = ParquetConfig { infinities, ..ParquetConfig::new(place(world).display().to_string()) };
            config.compact.at_end = true;
            let defaults = RuleSettings { write_mode: Some(WriteMode::Upsert), ..RuleSettings::default() };
            let rules = TableRules { defaults, rules: Vec::new() };
            AnyDestination::new(Parquet::with_config(config, Arc::clone(&world.store), rules).unwrap())
        };
        Some(Self { all: Everything::written(policy, open).await?, reader })
    }

    fn place(&self) -> PathBuf {
        place(&self.all.world)
    }

    async fn lines(&self, from: impl Fn(&Table) -> String, columns: impl Fn(&Table) -> Vec<String>) -> Vec<Line> {
        in_duckdb(&self.reader, Path::new(":memory:"), &self.all.tables, from, columns).await
    }

    fn current(&self, table: &Table) -> String {
        current(&self.place(), "public", &table.name)
    }

    /// The last of each row in the log.
    fn log(&self, table: &Table) -> String {
        let files = self.place().join("public").join(&table.name).join("log/*.parquet");
        format!(
            "(SELECT * FROM read_parquet('{}') QUALIFY row_number() OVER (PARTITION BY id ORDER BY _LSN DESC, _ORDINAL DESC) = 1) \
             WHERE _CHANGE_TYPE <> 'DELETE'",
            files.display()
        )
    }

    /// What pyarrow reads of the current states.
    async fn by_pyarrow(&self) -> Option<Vec<Line>> {
        let ways = |table: &Table| parts_of(table).into_iter().map(|(_, part)| part.way).collect();
        let asked: Vec<_> = self
            .all
            .tables
            .iter()
            .map(|table| (current_files(&self.place(), "public", &table.name), ways(table)))
            .collect();
        let found = pyarrow_values_or_skip(&asked).await?;
        let line = |table: &Table, mut row: Vec<Option<String>>| {
            let id = row.remove(0).unwrap();
            (table.name.clone(), id, row)
        };
        let tables = self.all.tables.iter().zip(found);
        Some(tables.flat_map(|(table, rows)| rows.into_iter().map(move |row| line(table, row))).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_the_same_in_parquet_or_null_where_it_has_no_place_for_it() {
    let Some(copied) = Copied::by(OnValue::Null, ParquetInfinities::Error).await else { return };
    let parts = |table: &Table| parts_of(table).into_iter().map(|(_, part)| part.copy).collect();
    let state = copied.lines(|table| copied.current(table), parts).await;
    let log = copied.lines(|table| copied.log(table), parts).await;
    let python = copied.by_pyarrow().await;
    let source = parts_at_source(&copied.all).await;
    for copy in [Some(state), Some(log), python].into_iter().flatten() {
        let (same, null) = compared(&copied.all.tables, &source, &copy, true, is_misfit);
        println!("{same} parts of values the same, {null} null");
        assert!(same > 5000 && null > 20, "{same} the same, {null} null");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_that_parquet_has_no_place_for_is_its_text_on_wish() {
    let Some(copied) = Copied::by(OnValue::Text, ParquetInfinities::DuckDb).await else { return };
    let described = |table: &Table| {
        let (name, from) = (&table.name, copied.current(table));
        format!("SELECT '{name}', column_name FROM (DESCRIBE SELECT * FROM {from}) WHERE column_type = 'VARCHAR'")
    };
    let described: Vec<String> = copied.all.tables.iter().map(described).collect();
    let texts = copied.reader.query(Path::new(":memory:"), &described.join(" UNION ALL ")).await.unwrap();
    let columns = |table: &Table, cast: &dyn Fn(&str) -> String| -> Vec<String> {
        let is_text = |column: &&'static str| {
            texts.iter().any(|row| row[0].as_deref() == Some(&*table.name) && row[1].as_deref() == Some(*column))
        };
        ["v", "a", "m", "l", "d", "c", "ca", "da"].into_iter().filter(is_text).map(cast).collect()
    };
    let written = |column: &str| format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END");
    let source = copied.all.at_source(|table| columns(table, &written)).await;
    let copy = copied.lines(|table| copied.current(table), |table| columns(table, &str::to_owned)).await;
    assert_eq!(copy.len(), source.len());
    for (copy, source) in copy.iter().zip(&source) {
        assert_eq!(copy, source);
    }
    // All arrays at least.
    assert!(texts.len() > 5 * copied.all.tables.len(), "{}", texts.len());
}
