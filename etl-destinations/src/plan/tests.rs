//! Do events become the steps that were meant, in an order in which they can be made?

use etl::Lsn;
use etl::clock::Timestamp;
use etl::data::RawValue;
use etl::schema::{Kind, ReplicaIdentity, TableName};

use super::*;
use crate::table_name::NameRules;
use crate::table_rules::{RuleSettings, TableRules};
use crate::writer::BatchRows;

fn schema(id: u32, columns: &[(i16, &str)], since: u64) -> Arc<TableSchema> {
    let column = |(attnum, name): &(i16, &str)| Column {
        fill: None,
        name: (*name).into(),
        attnum: *attnum,
        type_oid: 25,
        modifier: -1,
        type_name: "text".into(),
        kind: Kind::Text,
        nullable: true,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(id),
        name: TableName::new("public", format!("t{id}")),
        columns: columns.iter().map(column).collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::new(Lsn(since), 0),
    })
}

fn insert(schema: &Arc<TableSchema>, key: &str, at: (u64, u64)) -> Event {
    let mut builder = RowBuilder::new();
    let values = (0..schema.columns.len()).map(|_| RawValue::Text(key.as_bytes()));
    builder.push_raw(schema, values).unwrap();
    let new = builder.finish().remove(0);
    let position = Position::new(Lsn(at.0), at.1);
    Event::Change(Change { table_id: schema.id, position, committed_at: Timestamp(0), op: Op::Insert { new } })
}

fn truncate(tables: &[u32], at: (u64, u64)) -> Event {
    let positions = (0..tables.len() as u64).map(|n| Position::new(Lsn(at.0), at.1 + n)).collect();
    Event::Truncate { tables: tables.iter().map(|id| TableId(*id)).collect(), positions, at: Timestamp(0) }
}

fn tables(settings: RuleSettings) -> TargetTables {
    TargetTables::new(TableRules { defaults: settings, rules: Vec::new() }, NameRules::default())
}

/// The steps, told shortly.
fn told(events: &[Event], stored: Option<(u64, u64)>, tables: &TargetTables) -> Vec<String> {
    let schemas = [1, 2].map(|id| (TableId(id), schema(id, &[(1, "k")], 0))).into();
    let stored = stored.map(|(commit, ordinal)| Position::new(Lsn(commit), ordinal));
    let planned = plan(events, stored, tables, &schemas).unwrap();
    planned.steps.iter().map(tell).collect()
}

fn tell(step: &Step) -> String {
    match step {
        Step::Ensure(table) => format!("ensure {}", table.name.name),
        Step::Truncate(truncated) => {
            let names: Vec<&str> = truncated.iter().map(|truncated| &*truncated.table.name.name).collect();
            format!("truncate {}", names.join(" "))
        }
        Step::Write(TableBatch { table, rows }) => match rows {
            BatchRows::Log(rows) => {
                let types: Vec<&str> = rows.iter().map(|row| row.change_type.as_str()).collect();
                format!("log {} {}", table.name.name, types.join(" "))
            }
            rows => format!("write {} {}", table.name.name, rows.len()),
        },
        Step::Fill(_, columns) => {
            let told =
                |filled: &FilledColumn| format!("{} from {}", filled.name, filled.from.as_deref().unwrap_or("-"));
            format!("fill {}", columns.iter().map(told).collect::<Vec<_>>().join(", "))
        }
        Step::Alter(_, change) => match change {
            SchemaChange::RenameColumn { from, to } => format!("rename {from} {to}"),
            SchemaChange::DropColumn(column) => format!("drop {}", column.name),
            SchemaChange::AddColumn(column) => format!("add {}", column.name),
            other => format!("{other:?}"),
        },
    }
}

#[test]
fn interleaved_tables_are_ensured_once_and_written_once() {
    let (one, two) = (schema(1, &[(1, "k")], 0), schema(2, &[(1, "k")], 0));
    let mut tables = tables(RuleSettings::default());
    let events = [insert(&one, "a", (10, 1)), insert(&two, "a", (10, 2)), insert(&one, "b", (20, 1))];
    assert_eq!(told(&events, None, &tables), ["ensure t1", "ensure t2", "write t1 2", "write t2 1"]);
    tables.settle([tables.make(&one), tables.make(&two)]);
    assert_eq!(told(&events, None, &tables), ["write t1 2", "write t2 1"]);
}

#[test]
fn what_is_stored_is_left_out_within_a_transaction_too() {
    let one = schema(1, &[(1, "k")], 0);
    let tables = tables(RuleSettings::default());
    let events = [insert(&one, "a", (10, 1)), insert(&one, "b", (10, 2)), insert(&one, "c", (20, 1))];
    assert_eq!(told(&events, Some((10, 1)), &tables), ["ensure t1", "write t1 2"]);
    assert_eq!(told(&events, Some((10, Position::WHOLE)), &tables), ["ensure t1", "write t1 1"]);
    assert_eq!(told(&events, Some((20, 1)), &tables), Vec::<String>::new());
    assert_eq!(told(&[truncate(&[1, 2], (30, 4))], Some((30, 4)), &tables), ["ensure t2", "truncate t2"]);
}

#[test]
fn a_truncate_cuts_its_tables_and_no_other() {
    let (one, two) = (schema(1, &[(1, "k")], 0), schema(2, &[(1, "k")], 0));
    let events = [
        insert(&one, "a", (10, 1)),
        insert(&two, "a", (10, 2)),
        truncate(&[1], (10, 3)),
        insert(&one, "b", (10, 4)),
        insert(&two, "b", (10, 5)),
    ];
    let expected = ["ensure t1", "ensure t2", "write t1 1", "truncate t1", "write t1 1", "write t2 2"];
    assert_eq!(told(&events, None, &tables(RuleSettings::default())), expected);
    let log = RuleSettings { write_mode: Some(WriteMode::Append), ..RuleSettings::default() };
    let expected = ["ensure t1", "ensure t2", "log t1 INSERT TRUNCATE INSERT", "log t2 INSERT INSERT"];
    assert_eq!(told(&events, None, &tables(log)), expected);
}

#[test]
fn a_new_shape_alters_the_table_between_the_rows_around_it() {
    let before = schema(1, &[(1, "k"), (2, "a"), (3, "b"), (4, "gone")], 0);
    // a and b swap their names, and a new column takes the name of the one that is gone.
    let after = schema(1, &[(1, "k"), (2, "b"), (3, "a"), (5, "gone")], 10);
    let events = [
        insert(&before, "x", (10, 1)),
        Event::Relation { new: Arc::clone(&after), position: Position::new(Lsn(10), 2) },
        insert(&after, "y", (10, 2)),
    ];
    let expected = [
        "ensure t1",
        "write t1 1",
        "drop gone",
        "rename a _etl_renamed_0",
        "rename b _etl_renamed_1",
        "rename _etl_renamed_0 b",
        "rename _etl_renamed_1 a",
        "add gone",
        "write t1 1",
    ];
    assert_eq!(told(&events, None, &tables(RuleSettings::default())), expected);
    // A table that this process has not met yet is what it was before the change.
    let relation =
        |new: &Arc<TableSchema>, at| Event::Relation { new: Arc::clone(new), position: Position::new(Lsn(10), at) };
    let later = schema(1, &[(1, "k"), (2, "b"), (3, "a"), (5, "gone"), (6, "c")], 10);
    let events_only = [relation(&after, 2), relation(&later, 3)];
    let unmet = HashMap::from([(before.id, Arc::clone(&before))]);
    let planned = plan(&events_only, None, &tables(RuleSettings::default()), &unmet).unwrap();
    let mut expected: Vec<&str> = expected.into_iter().filter(|step| !step.starts_with("write")).collect();
    expected.push("add c");
    assert_eq!(planned.steps.iter().map(tell).collect::<Vec<_>>(), expected);
    let stop = RuleSettings { on_schema_change: Some(OnSchemaChange::Stop), ..RuleSettings::default() };
    let error = plan(&events, None, &tables(stop), &HashMap::new()).unwrap_err();
    assert_eq!((error.kind(), error.context("table")), (ErrorKind::SchemaChanged, Some("public.t1")));
}

/// The steps of a table that had one shape and has met another, under a policy.
fn steps_under(policy: OnSchemaChange, write_mode: WriteMode, after: &Arc<TableSchema>) -> Vec<String> {
    let before = schema(1, &[(1, "k"), (2, "a"), (3, "b")], 0);
    let (on_schema_change, write_mode) = (Some(policy), Some(write_mode));
    let tables = tables(RuleSettings { on_schema_change, write_mode, ..RuleSettings::default() });
    let relation = Event::Relation { new: Arc::clone(after), position: Position::new(Lsn(10), 2) };
    let events = [insert(&before, "x", (10, 1)), relation, insert(after, "y", (10, 2))];
    let planned = plan(&events, None, &tables, &HashMap::new()).unwrap();
    let row = planned.steps.iter().rev().find_map(|step| match step {
        Step::Write(TableBatch { rows: BatchRows::Keyed(set), .. }) => Some(set.upserts[0].row.clone()),
        _ => None,
    });
    let value = |row: &TableRow, place| row.text(place).unwrap().map_or_else(|| "-".to_owned(), Into::into);
    let values = row.map(|row| (0..row.schema().columns.len()).map(|n| value(&row, n)).collect::<Vec<_>>().join(" "));
    planned.steps.iter().map(tell).chain(values).collect()
}

#[test]
fn a_table_that_only_grows_keeps_what_is_gone_and_a_renamed_columns_values_come_along() {
    let after = schema(1, &[(1, "k"), (2, "z"), (4, "c")], 10);
    let widened = steps_under(OnSchemaChange::Widen, WriteMode::Upsert, &after);
    assert_eq!(widened, ["ensure t1", "write t1 1", "add z", "add c", "fill z from a", "write t1 1", "y - - y y"]);
    let log = steps_under(OnSchemaChange::Widen, WriteMode::Append, &after);
    assert_eq!(log, ["ensure t1", "log t1 INSERT", "add z", "add c", "log t1 INSERT"], "a log is what it was");
}

#[test]
fn a_table_that_stays_as_it_is_is_not_altered() {
    let after = schema(1, &[(4, "c"), (1, "k"), (2, "z")], 10);
    let mut after = TableSchema::clone(&after);
    after.key = Box::new([1]);
    let ignored = steps_under(OnSchemaChange::Ignore, WriteMode::Upsert, &Arc::new(after));
    assert_eq!(ignored, ["ensure t1", "write t1 1", "write t1 1", "y y -"]);
}
