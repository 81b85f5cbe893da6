//! Is every value of every type the same in ClickHouse, as ClickHouse reads it, or what the policy says?

use std::collections::BTreeMap;
use std::sync::Arc;

use etl::destination::AnyDestination;
use etl::transform::OnValue;
use etl_destinations::clickhouse::{ClickHouse, ClickHouseConfig};
use etl_destinations::table_rules::TableRules;
use harness::clickhouse::{self, as_postgres, canonical, clickhouse, quoted};
use harness::every_type::Table;

use crate::every_value::Everything;
use crate::running::World;

/// The columns of every table that hold something of its type.
const COLUMNS: [&str; 8] = ["v", "a", "m", "l", "d", "c", "ca", "da"];

/// Whether the text is that of a value which the type's own column has no place for.
fn is_misfit(of: &str, text: &str) -> bool {
    match of {
        "date" | "timestamp without time zone" | "timestamp with time zone" => {
            let year = text.split('-').next().and_then(|year| year.parse::<u32>().ok());
            text.ends_with("BC") || year.is_none_or(|year| !(1900..2300).contains(&year))
        }
        _ => of.starts_with("numeric(") && !is_long(of) && text == "NaN",
    }
}

/// Whether it is a numeric of more digits than a decimal has.
fn is_long(of: &str) -> bool {
    let digits = of.strip_prefix("numeric(").and_then(|of| of.split(',').next()).and_then(|of| of.parse().ok());
    digits.is_some_and(|digits: u32| digits > 76)
}

struct Copied {
    all: Everything,
    place: clickhouse::ClickHouse,
    /// The types of `v`, as Postgres spells them in full, and of all columns, as ClickHouse does.
    types: BTreeMap<String, (String, BTreeMap<String, String>)>,
}

impl Copied {
    /// Whoever has PostGIS has other readers for its types.
    async fn by(policy: OnValue, is_asked: impl Fn(&str) -> bool) -> Option<Self> {
        let place = clickhouse().await?;
        let open = |world: &World| {
            let prefix = place.prefix().to_owned();
            let config = ClickHouseConfig { database_prefix: prefix, ..ClickHouseConfig::new(place.url()) };
            let opened = ClickHouse::with_config(config, Arc::clone(&world.store), TableRules::default());
            AnyDestination::new(opened.unwrap())
        };
        let all = Everything::written_of(|of| !of.starts_with("geo") && is_asked(of), policy, open).await?;
        let mut types = BTreeMap::new();
        for table in &all.tables {
            let sql = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'v'";
            let of: String = all.client.query_one(sql, &[&table.name]).await.unwrap().get(0);
            let sql = format!(
                "SELECT name, type FROM system.columns WHERE database = '{}public' AND table = '{}'",
                place.prefix(),
                table.name
            );
            let columns = place.query(&sql).await.unwrap().into_iter();
            let columns = columns.map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect();
            types.insert(table.name.clone(), (of, columns));
        }
        Some(Self { all, place, types })
    }

    /// What ClickHouse writes of a column, as Postgres would.
    fn spelled(&self, table: &Table, column: &str) -> String {
        let (of, columns) = &self.types[&table.name];
        if columns[column].contains("String") && of != "bytea" || !["v", "d"].contains(&column) {
            return quoted(column);
        }
        as_postgres(&quoted(column), of)
    }

    /// How many values are the same, and how many are null since there is no place for them.
    async fn compared(&self) -> (usize, usize) {
        let written =
            |column: &str| format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END");
        let source = self.all.at_source(|_| COLUMNS.map(written).to_vec()).await;
        let mut copy = Vec::new();
        for table in &self.all.tables {
            let columns = COLUMNS.map(|column| format!("toString({})", self.spelled(table, column))).join(", ");
            let sql = format!(
                "SELECT toString(id), {columns} FROM {}public.{}_current ORDER BY id",
                self.place.prefix(),
                table.name
            );
            copy.extend(self.place.query(&sql).await.unwrap().into_iter().map(|row| (table, row)));
        }
        assert_eq!(source.len(), copy.len());
        let (mut same, mut null, mut wrong) = (0, 0, Vec::new());
        for ((name, id, expected), (table, found)) in source.into_iter().zip(copy) {
            assert_eq!((&name, Some(&id)), (&table.name, found[0].as_ref()));
            let (of, columns) = &self.types[&name];
            for ((column, expected), found) in COLUMNS.iter().zip(expected).zip(&found[1..]) {
                let is_own = ["v", "d"].contains(column);
                let spell = |text: &String| if is_own { canonical(text.clone(), of) } else { text.clone() };
                let is_text = columns[*column].contains("String");
                let (expected, found) = (expected.as_ref().map(spell), found.as_ref().map(spell));
                let is_lost = is_own && !is_text && expected.as_ref().is_some_and(|text| is_misfit(of, text));
                if expected == found && !is_lost {
                    same += usize::from(found.is_some());
                } else if is_lost && found.is_none() {
                    null += 1;
                } else {
                    let short = |text: Option<String>| text.map(|text| text.chars().take(60).collect::<String>());
                    wrong.push(format!("{} {column}: {:?} became {:?}", table.of, short(expected), short(found)));
                }
            }
        }
        assert!(wrong.is_empty(), "{} wrong, {}", wrong.len(), wrong[..wrong.len().min(60)].join("\n"));
        println!("{same} values the same, {null} null");
        (same, null)
    }

    async fn arrays_of_numbers_are_read_as_the_documentation_says(&self) {
        let table = &self.all.tables.iter().find(|table| table.of == "int8").unwrap().name;
        let sql = format!("SELECT upper(coalesce(array_to_json(a), '[]')::text) FROM {table} ORDER BY id");
        let rows = self.all.client.query(&sql, &[]).await.unwrap();
        let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let json = "replaceAll(translate(ifNull(a, '{}'), '{}', '[]'), 'NULL', 'null')";
        let sql = format!(
            "SELECT toString(JSONExtract({json}, 'Array(Nullable(Int64))')) FROM {}public.{table}_current ORDER BY id",
            self.place.prefix()
        );
        let rows = self.place.query(&sql).await.unwrap();
        let found: Vec<String> = rows.into_iter().flatten().flatten().collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_the_same_in_clickhouse_or_null_where_it_has_no_place_for_it() {
    let Some(copied) = Copied::by(OnValue::Null, |_| true).await else { return };
    let (same, null) = copied.compared().await;
    assert!(same > 5000 && null > 20, "{same} the same, {null} null");
    copied.arrays_of_numbers_are_read_as_the_documentation_says().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_that_clickhouse_has_no_place_for_is_its_text_on_wish() {
    let has_misfits = |of: &str| of == "date" || of.starts_with("timestamp") || of.starts_with("numeric(");
    let Some(copied) = Copied::by(OnValue::Text, has_misfits).await else { return };
    let (same, null) = copied.compared().await;
    assert!(same > 300 && null == 0, "{same} the same, {null} null");
}
