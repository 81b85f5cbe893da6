//! What is there to be compared of every value of every type, and how does it get into a destination?

use std::path::Path;

use etl::destination::AnyDestination;
use etl::transform::{OnValue, Transform};
use harness::duckdb::Reader;
use harness::every_type::{Table, again, create};
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::type_parts::{is_same, parts_of};

/// A source with every value of every type, and where it was written to.
pub(crate) struct Everything {
    pub(crate) world: World,
    pub(crate) client: Client,
    pub(crate) tables: Vec<Table>,
    _database: Database,
}

impl Everything {
    /// Every value, copied and streamed, under this policy.
    pub(crate) async fn written(policy: OnValue, open: impl FnOnce(&World) -> AnyDestination) -> Option<Self> {
        Self::written_of(|_| true, policy, open).await
    }

    /// Every value of some types.
    pub(crate) async fn written_of(
        is_asked: impl Fn(&str) -> bool,
        policy: OnValue,
        open: impl FnOnce(&World) -> AnyDestination,
    ) -> Option<Self> {
        let database = database().await?;
        let client = database.client().await;
        let mut tables = create(&client, true).await;
        tables.retain(|table| is_asked(table.of));
        let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
        client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", names.join(", "))).await.unwrap();
        let mut world = World::new(database.name(), &database.url());
        world.transform = Transform::default().with_on_value(policy);
        let running = world.start_into(open(&world)).await;
        caught_up(&running).await;
        for table in &tables {
            client.batch_execute(&again(table)).await.unwrap();
        }
        caught_up(&running).await;
        stop(running).await;
        Some(Self { world, client, tables, _database: database })
    }

    /// What the source says of these columns of each row, in the order of tables and ids.
    pub(crate) async fn at_source(&self, columns: impl Fn(&Table) -> Vec<String>) -> Vec<Line> {
        let Self { client, tables, .. } = self;
        let mut lines = Vec::new();
        client.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 3").await.unwrap();
        for table in tables {
            let columns = columns(table).join(", ");
            let sql = format!(
                "SELECT id::text, to_json(ARRAY[{columns}]::text[])::text FROM {0} ORDER BY {0}.id",
                table.name
            );
            for row in client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")) {
                lines.push((table.name.clone(), row.get(0), serde_json::from_str(row.get(1)).unwrap()));
            }
        }
        lines
    }
}

/// A row: its table, its id, and what was asked of it.
pub(crate) type Line = (String, String, Vec<Option<String>>);

/// What DuckDB says of these columns of each row, as DuckDB reads it; `from` is what it reads of a table.
pub(crate) async fn in_duckdb(
    reader: &Reader,
    file: &Path,
    tables: &[Table],
    from: impl Fn(&Table) -> String,
    columns: impl Fn(&Table) -> Vec<String>,
) -> Vec<Line> {
    let select = |(place, table): (usize, &Table)| {
        let (name, columns) = (&table.name, columns(table).join(", "));
        format!("SELECT {place} AS p, '{name}', id, CAST(to_json([{columns}]) AS VARCHAR) FROM {}", from(table))
    };
    let selects: Vec<String> = tables.iter().enumerate().map(select).collect();
    let rows = reader.query(file, &format!("{} ORDER BY p, id", selects.join(" UNION ALL "))).await.unwrap();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    rows.iter().map(|row| (text(&row[1]), text(&row[2]), serde_json::from_str(&text(&row[3])).unwrap())).collect()
}

/// What the source says of the parts of each value, each followed by the whole value's text.
pub(crate) async fn parts_at_source(all: &Everything) -> Vec<Line> {
    let whole = |column: &str| format!("{column}::text");
    let both = |table: &Table| parts_of(table).into_iter().flat_map(|(column, part)| [part.source, whole(column)]);
    all.at_source(|table| both(table).collect()).await
}

/// Compares what [`parts_of`] each row are: how many are the same, and how many are null since a value of the type with this
/// text has no place there.
pub(crate) fn compared(
    tables: &[Table],
    source: &[Line],
    copy: &[Line],
    has_signed_zero: bool,
    is_misfit: impl Fn(&str, &str) -> bool,
) -> (usize, usize) {
    assert_eq!(source.len(), copy.len());
    let (mut same, mut null, mut wrong) = (0, 0, Vec::new());
    for ((name, id, expected), (copied_name, copied_id, found)) in source.iter().zip(copy) {
        assert_eq!((name, id), (copied_name, copied_id));
        let table = tables.iter().find(|table| table.name == *name).unwrap();
        for (place, (column, part)) in parts_of(table).into_iter().enumerate() {
            let (value, text) = (expected[2 * place].as_deref(), expected[2 * place + 1].as_deref());
            let found = found[place].as_deref();
            if text.is_some_and(|text| is_misfit(table.of, text)) {
                null += 1;
                if found.is_some() {
                    wrong.push(format!("{} {column}: {text:?} became {found:?}", table.of));
                }
            } else if is_same(value, found, &part, has_signed_zero) {
                same += usize::from(value.is_some());
            } else {
                wrong.push(format!("{} {column}: {} of {text:?}: {value:?} became {found:?}", table.of, part.source));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, {}", wrong.len(), wrong[..wrong.len().min(60)].join("\n"));
    (same, null)
}
