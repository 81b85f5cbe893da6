//! Is what DuckDB holds of every kind the value that the server wrote? Read by its own package.

use std::collections::BTreeMap;
use std::sync::Arc;

use etl::data::recorded::{Recorded, recorded};
use etl::data::{CopiedRows, RawValue, RowBuilder, TableRow};
use etl::destination::{CopyChunk, Destination};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::store::{MemoryStore, Phase, SharedStore, TableState};
use etl::{Lsn, Position};
use etl_destinations::columnar::{ArrowLimits, ArrowTable, Infinities};
use etl_destinations::duckdb::DuckDb;
use etl_destinations::write_mode::WriteMode;
use etl_destinations::writer::TargetTable;
use harness::duckdb::{Reader, Row};
use harness::duckdb_text::{expression, spelled};

use crate::small_table::COMMITTED;

/// As DuckDB's own.
const LIMITS: ArrowLimits = ArrowLimits {
    infinities: Some(Infinities { dates: (-i32::MAX, i32::MAX), timestamps: (-i64::MAX, i64::MAX) }),
    half_floats: false,
    intervals: false,
    ..ArrowLimits::ARROW
};

/// Values by their rows' ids.
type Texts = Vec<(usize, Option<String>)>;

fn schema(id: u32, name: &str, kind: &Kind) -> Arc<TableSchema> {
    let column = |(attnum, name, kind, type_name): (i16, &str, Kind, &str)| Column {
        fill: None,
        name: name.into(),
        attnum,
        type_oid: 0,
        modifier: -1,
        type_name: type_name.into(),
        kind,
        nullable: attnum > 1,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(id),
        name: TableName::new("public", format!("t{id}")),
        columns: [(1, "id", Kind::Int4, "integer"), (2, "v", kind.clone(), name)].map(column).into(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}

fn row(schema: &Arc<TableSchema>, id: usize, raw: RawValue<'_>) -> TableRow {
    let mut builder = RowBuilder::new();
    builder.push_raw(schema, [RawValue::Text(id.to_string().as_bytes()), raw].into_iter()).unwrap();
    builder.finish().remove(0)
}

/// Whether Arrow and DuckDB have room for the value; the class of the error where not.
fn refusal(schema: &Arc<TableSchema>, row: &TableRow) -> Option<String> {
    let target = Arc::new(TargetTable {
        id: schema.id,
        name: schema.name.clone(),
        columns: schema.columns.iter().map(|column| column.name.clone()).collect(),
        write_mode: WriteMode::Upsert,
        metadata: None,
        is_adopted: false,
        source: Arc::clone(schema),
    });
    let rows = CopiedRows::from(vec![row.clone()]);
    let refused = ArrowTable::new(&target, LIMITS).copied(rows.runs(), Position::ZERO, COMMITTED).err()?;
    Some(refused.context("value").unwrap_or_default().to_owned())
}

/// The kinds whose form in DuckDB is not the text itself.
fn is_structured(kind: &Kind) -> bool {
    match kind {
        Kind::Array(element) => is_structured(element) || matches!(**element, Kind::Int4 | Kind::Text),
        Kind::Interval | Kind::Range(_) | Kind::Multirange(_) | Kind::Composite(_) | Kind::Hstore => true,
        Kind::Vector(_) | Kind::HalfVector(_) | Kind::Geometry(_) => true,
        Kind::Network | Kind::Bits | Kind::TsVector | Kind::TsQuery | Kind::Geometric(_) | Kind::TimeTz => true,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_what_the_server_wrote() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("values.duckdb");
    let mut kinds: BTreeMap<&str, Vec<Recorded>> = BTreeMap::new();
    for value in recorded().filter(|value| is_structured(&value.kind)) {
        kinds.entry(value.name).or_default().push(value);
    }
    let store: SharedStore = Arc::new(MemoryStore::new());
    let destination = DuckDb::open(&file, Arc::clone(&store)).await.unwrap();
    destination.startup().await.unwrap();
    let mut expected: Vec<(Arc<TableSchema>, Texts)> = Vec::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for (id, (name, values)) in (1..).zip(&kinds) {
        let schema = schema(id, name, &values[0].kind);
        store.put_schema(Arc::clone(&schema)).await.unwrap();
        let ready = TableState { phase: Phase::Ready, ..TableState::PENDING };
        store.set_table_state(schema.id, None, ready).await.unwrap();
        let (mut rows, mut texts) = (vec![row(&schema, 0, RawValue::Null)], vec![(0, None)]);
        for (place, value) in (1..).step_by(2).zip(values) {
            for (id, raw) in
                [(place, RawValue::Text(value.text.as_bytes())), (place + 1, RawValue::Binary(&value.binary))]
            {
                let row = row(&schema, id, raw);
                match refusal(&schema, &row) {
                    None => {
                        rows.push(row);
                        texts.push((id, Some(value.text.clone())));
                    }
                    Some(class) => *refused.entry(class).or_default() += 1,
                }
            }
        }
        let chunk = |index| CopyChunk {
            generation: 1,
            index,
            position: Position::new(Lsn(50), 0),
            read_at: COMMITTED,
            replaces: false,
        };
        destination.truncate_table(schema.id).await.unwrap();
        destination.write_copy_chunk(schema.id, chunk(0), Vec::new().into()).await.unwrap();
        destination
            .write_copy_chunk(schema.id, chunk(1), rows.into())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        expected.push((schema, texts));
    }
    destination.shutdown().await.unwrap();
    drop(destination);
    let select = |(schema, _): &(Arc<TableSchema>, _)| {
        let value = expression(&schema.columns[1].kind, "v");
        format!("SELECT {} AS t, id, {value} FROM public.{}", schema.id.0, schema.name.name)
    };
    let query = expected.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ") + " ORDER BY t, id";
    let found = reader.query(&file, &query).await.unwrap();
    for (schema, texts) in expected {
        let Column { kind, type_name, .. } = &schema.columns[1];
        let of_table = found.iter().filter(|row| row[0].as_deref() == Some(&schema.id.0.to_string()));
        let text = |row: &Row| row[2].as_deref().map(|text| spelled(kind, text));
        let found: Texts = of_table.map(|row| (row[1].as_deref().unwrap().parse().unwrap(), text(row))).collect();
        assert_eq!(found, texts, "{type_name}");
    }
    let refused: Vec<(&str, usize)> = refused.iter().map(|(class, count)| (&**class, *count)).collect();
    let shape = "array of several dimensions, or with a lower bound other than 1";
    assert_eq!(refused, [(shape, 18), ("infinity", 4)]);
}
