//! Which changes are followed in place, and which are not certain?

use super::*;
use crate::lsn::Position;
use crate::postgres::pgoutput::{Relation, RelationColumn};
use crate::schema::{ReplicaIdentity, TableId, TableName, TableSchema};
use crate::source::catalog::Leaf;

const INT4: u32 = 23;
const TEXT: u32 = 25;
const INT8: u32 = 20;
const FLOAT8: u32 = 701;
const NUMERIC: u32 = 1700;
/// Types that are not built in, and are read as text.
const ONE_TYPE: u32 = 70_000;
const OTHER_TYPE: u32 = 70_001;

fn column(attnum: i16, name: &str, type_oid: u32) -> Column {
    Column {
        name: name.into(),
        attnum,
        type_oid,
        modifier: -1,
        type_name: type_oid.to_string().into(),
        kind: Kind::of_builtin(type_oid, -1).unwrap_or(Kind::Other),
        nullable: true,
        fill: None,
    }
}

/// A table that is its own leaf, with a key on its first column, of which nothing is gone.
fn table(columns: &[Column]) -> PublishedTable {
    let id = TableId(1);
    let name = TableName::new("public", "t");
    let attnums: Vec<i16> = columns.iter().map(|column| column.attnum).collect();
    PublishedTable {
        schema: TableSchema {
            id,
            name: name.clone(),
            source_name: None,
            columns: columns.into(),
            key: Box::new([0]),
            identity: ReplicaIdentity::Default,
            since: Position::ZERO,
            last_attnum: attnums.iter().copied().max().unwrap_or_default(),
        },
        row_filter: None,
        leaves: vec![Leaf { id, name }],
        rows_estimated: None,
        generated: Vec::new(),
        filled: columns.iter().filter(|column| column.fill.is_some()).map(|column| column.attnum).collect(),
        attnums,
        filenodes: vec![Some(10)],
    }
}

/// What a RELATION says of a table like this.
fn shape(table: &PublishedTable) -> Shape {
    let TableSchema { id, name, columns, key, identity, .. } = &table.schema;
    let columns = columns.iter().enumerate().map(|(place, column)| RelationColumn {
        in_identity: key.iter().any(|key| usize::from(*key) == place),
        name: &column.name,
        type_oid: column.type_oid,
        modifier: column.modifier,
    });
    Shape::of(&Relation {
        oid: id.0,
        namespace: &name.schema,
        name: &name.name,
        identity: *identity,
        columns: columns.collect(),
    })
}

fn known() -> PublishedTable {
    table(&[column(1, "id", INT4), column(2, "a", TEXT), column(3, "b", TEXT)])
}

/// Whether rows of the shape that the catalog shows are followed; or why not.
fn followed(now: &PublishedTable) -> Result<(), String> {
    follow(&known(), now, &shape(now))
}

fn refused(now: &PublishedTable, why: &str) {
    let said = followed(now).expect_err(why);
    assert!(said.contains(why), "{said}");
}

/// The known table with one more column.
fn with(added: Column) -> PublishedTable {
    let known = known();
    table(&[&known.schema.columns, &[added][..]].concat())
}

#[test]
fn a_column_that_comes_goes_or_is_renamed_is_followed() {
    followed(&known()).unwrap();
    followed(&with(column(4, "c", FLOAT8))).unwrap();
    let mut dropped = table(&[column(1, "id", INT4), column(3, "b", TEXT)]);
    followed(&dropped).unwrap();
    dropped.schema.columns[1].name = "a".into();
    followed(&dropped).unwrap();
    let swapped = table(&[column(1, "id", INT4), column(2, "b", TEXT), column(3, "a", TEXT)]);
    followed(&swapped).unwrap();
    let mut required = known();
    required.schema.columns[1].nullable = false;
    followed(&required).unwrap();
}

#[test]
fn what_may_have_come_and_gone_meanwhile_is_not_certain() {
    // One came and another went.
    let mut replaced = table(&[column(1, "id", INT4), column(3, "b", TEXT), column(4, "a", TEXT)]);
    refused(&replaced, "came and went");
    // One came, and is gone again.
    replaced = known();
    replaced.schema.last_attnum = 4;
    refused(&replaced, "came and went");
    // How many there ever were is not known.
    let mut since_before = known();
    since_before.schema.last_attnum = 0;
    let now = known();
    let said = follow(&since_before, &now, &shape(&now)).expect_err("nothing is certain");
    assert!(said.contains("came and went"), "{said}");
}

#[test]
fn a_catalog_that_is_ahead_of_the_stream_is_not_believed() {
    let said = follow(&known(), &with(column(4, "c", INT4)), &shape(&known())).expect_err("the rows lack the column");
    assert!(said.contains("ahead of the stream"), "{said}");
}

#[test]
fn a_default_that_older_rows_have_is_followed_where_its_text_says_the_same_everywhere() {
    let filled = |type_oid, fill: &str| Column { fill: Some(fill.into()), ..column(4, "c", type_oid) };
    for (type_oid, fill) in [(INT4, "7"), (INT8, "-1"), (TEXT, "NaN?"), (16, "t"), (1184, "2026-01-02 03:04:05+00")] {
        followed(&with(filled(type_oid, fill))).unwrap();
    }
    for (type_oid, fill) in [
        (FLOAT8, "0.1"),
        (NUMERIC, "1"),
        (TEXT, "NaN"),
        (1184, "infinity"),
        (1082, "0044-03-15 BC"),
        (17, "\\x00"),
        (ONE_TYPE, "x"),
    ] {
        refused(&with(filled(type_oid, fill)), "older rows have a value");
    }
}

#[test]
fn a_type_that_reads_what_was_stored_as_the_same_value_is_followed() {
    let retyped = |from: Column, to: Column| {
        let before = table(&[column(1, "id", INT4), from]);
        let now = table(&[column(1, "id", INT4), to]);
        follow(&before, &now, &shape(&now))
    };
    let numeric = |precision: u16| Column {
        modifier: i32::from(precision) << 16,
        kind: Kind::Numeric(Some((precision, 0))),
        ..column(2, "a", NUMERIC)
    };
    retyped(numeric(10), numeric(20)).unwrap();
    // varchar(n) to text.
    retyped(column(2, "a", 1043), column(2, "a", TEXT)).unwrap();
    for (from, to) in [(INT4, INT8), (TEXT, INT4), (ONE_TYPE, OTHER_TYPE), (TEXT, ONE_TYPE)] {
        let said = retyped(column(2, "a", from), column(2, "a", to)).expect_err("other values");
        assert!(said.contains("values of another kind"), "{from} to {to}: {said}");
    }
}

#[test]
fn what_was_rewritten_has_another_key_or_is_published_in_another_way_is_not_followed() {
    let mut now = with(column(4, "c", INT4));
    now.filenodes = vec![Some(11)];
    refused(&now, "rewritten");
    now.filenodes = vec![None];
    refused(&now, "rewritten");
    now = known();
    now.schema.key = Box::new([1]);
    refused(&now, "key");
    now = known();
    now.row_filter = Some("id > 5".to_owned());
    refused(&now, "published");
    now = known();
    now.leaves[0].id = TableId(2);
    refused(&now, "published");
}

#[test]
fn a_column_added_to_partitions_is_not_followed_since_each_may_fill_it_in_its_own_way() {
    let partitioned = |mut table: PublishedTable| {
        table.leaves = vec![Leaf { id: TableId(2), name: TableName::new("public", "t_0") }];
        table
    };
    let (before, now) = (partitioned(known()), partitioned(with(column(4, "c", INT4))));
    let said = follow(&before, &now, &shape(&now)).expect_err("older rows");
    assert!(said.contains("older rows have a value"), "{said}");
}
