//! Does a table keep what its policy says, and do the source's rows fit into that?

use etl::Position;
use etl::schema::{Kind, ReplicaIdentity, TableId, TableName};

use super::*;

fn column(attnum: i16, name: &str, kind: Kind) -> Column {
    let type_name = format!("{kind:?}").to_lowercase().into();
    let type_oid = match kind {
        Kind::Int2 => 21,
        Kind::Int4 => 23,
        Kind::Int8 => 20,
        Kind::Uuid => 2950,
        _ => 25,
    };
    Column { name: name.into(), attnum, type_oid, modifier: -1, type_name, kind, nullable: true, fill: None }
}

fn table(columns: &[(i16, &str, Kind)], key: &[u16]) -> Arc<TableSchema> {
    Arc::new(TableSchema {
        id: TableId(1),
        name: TableName::new("public", "t"),
        source_name: None,
        columns: columns.iter().map(|(attnum, name, kind)| column(*attnum, name, kind.clone())).collect(),
        key: key.into(),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
        last_attnum: 9,
    })
}

/// The columns, told shortly: name, kind, and `-` where nothing comes any more.
fn told(kept: &Kept) -> String {
    let one =
        |column: &Column| format!("{} {}{}", column.name, column.type_name, if is_fed(column) { "" } else { " -" });
    kept.shape.columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn start() -> Arc<TableSchema> {
    table(&[(1, "id", Kind::Int4), (2, "a", Kind::Int4), (3, "b", Kind::Text)], &[0])
}

#[test]
fn a_table_that_only_grows() {
    use Kind::{Int2, Int4, Int8, Text, Uuid};
    type Case<'c> = (&'c [(i16, &'c str, Kind)], &'c str, &'c [(usize, Option<usize>)], usize);
    let cases: &[Case<'_>] = &[
        (&[(1, "id", Int4), (2, "a", Int4), (3, "b", Text), (4, "c", Int8)], "id int4, a int4, b text, c int8", &[], 0),
        (&[(1, "id", Int4), (3, "b", Text)], "id int4, a int4 -, b text", &[], 0),
        (&[(1, "id", Int4), (2, "z", Int4), (3, "b", Text)], "id int4, a int4 -, b text, z int4", &[(3, Some(1))], 0),
        (&[(1, "id", Int4), (2, "a", Int8), (3, "b", Text)], "id int4, a int8, b text", &[], 0),
        (&[(1, "id", Int4), (2, "a", Text), (3, "b", Text)], "id int4, a text, b text", &[], 0),
        // What is narrower keeps the type, what is another gets the new one: of a table that is copied anew.
        (&[(1, "id", Int4), (2, "a", Int2), (3, "b", Text)], "id int4, a int4, b text", &[], 1),
        (&[(1, "id", Int4), (2, "a", Uuid), (3, "b", Text)], "id int4, a uuid, b text", &[], 1),
        // The same name for another column.
        (&[(1, "id", Int4), (3, "b", Text), (4, "a", Int4)], "id int4, a int4, b text", &[(1, None)], 0),
        (&[(1, "id", Int4), (3, "b", Text), (4, "a", Text)], "id int4, a text, b text", &[(1, None)], 0),
        // Names that were swapped.
        (
            &[(1, "id", Int4), (2, "b", Text), (3, "a", Int4)],
            "id int4, a int4, b text",
            &[(2, Some(1)), (1, Some(2))],
            0,
        ),
    ];
    for (columns, expected, moved, refusals) in cases {
        let kept = widened(&start(), &table(columns, &[0]));
        let moved: Vec<Moved> = moved.iter().map(|(to, from)| Moved { to: *to, from: *from }).collect();
        assert_eq!(
            (told(&kept).as_str(), &kept.moved, kept.refused.len()),
            (*expected, &moved, *refusals),
            "{columns:?}"
        );
    }
    let other_key = widened(&start(), &table(&[(1, "id", Int4), (2, "a", Int4), (3, "b", Text)], &[1]));
    assert_eq!((other_key.refused, &*other_key.shape.key), (vec!["the key is (a) and was (id)".to_owned()], &[1][..]));
    let renamed_key = widened(&start(), &table(&[(1, "k", Int4), (2, "a", Int4), (3, "b", Text)], &[0]));
    assert_eq!((renamed_key.refused.len(), &*renamed_key.shape.key), (1, &[3][..]));
}

#[test]
fn a_column_that_gets_its_name_back_goes_on_where_it_was() {
    let renamed = table(&[(1, "id", Kind::Int4), (2, "z", Kind::Int4), (3, "b", Kind::Text)], &[0]);
    let kept = widened(&start(), &renamed);
    let back = widened(&kept.shape, &start());
    assert_eq!(told(&back), "id int4, a int4, b text, z int4 -");
    assert_eq!(back.moved, [Moved { to: 1, from: Some(3) }]);
}

#[test]
fn a_shape_that_is_the_sources_is_the_sources_own() {
    let grown = table(&[(1, "id", Kind::Int4), (2, "a", Kind::Int8), (3, "b", Kind::Text), (4, "c", Kind::Text)], &[0]);
    let kept = widened(&start(), &grown);
    assert!(Arc::ptr_eq(&kept.shape, &grown) && Fit::new(&grown, &kept.shape).is_none());
    let (had, now) = (start(), start());
    assert!(Arc::ptr_eq(&unchanged(&had, &now).shape, &now));
}

#[test]
fn a_table_that_stays_as_it_is() {
    use Kind::{Int4, Int8, Text};
    let now = table(&[(1, "k", Int8), (4, "c", Text), (3, "b", Text)], &[0]);
    let kept = unchanged(&start(), &now);
    assert_eq!((told(&kept).as_str(), kept.refused.len(), kept.moved.len()), ("id int4, a int4 -, b text", 0, 0));
    // What comes back under the name of one that is gone is another column.
    let again = unchanged(&kept.shape, &table(&[(1, "k", Int8), (5, "a", Int4)], &[0]));
    assert_eq!(told(&again), "id int4, a int4 -, b text -");
    let other_key = unchanged(&start(), &table(&[(1, "id", Int4), (4, "c", Text)], &[1]));
    assert_eq!(other_key.refused.len(), 1, "rows cannot be found by what is not there");
    assert_eq!((told(&other_key).as_str(), &*other_key.shape.key), ("id int4, a int4 -, b text -, c text", &[3][..]));
}

fn fitted(from: Kind, to: Kind, value: Option<&str>) -> Option<String> {
    let now = table(&[(1, "v", from)], &[0]);
    let shape = unchanged(&table(&[(1, "v", to)], &[0]), &now).shape;
    let mut builder = RowBuilder::new();
    let raw = value.map_or(RawValue::Null, |text| RawValue::Text(text.as_bytes()));
    builder.push_raw(&now, std::iter::once(raw)).unwrap();
    let row = builder.finish().remove(0);
    let rows = Fit::new(&now, &shape)?.rows(std::iter::once(&row)).ok()?;
    Some(rows[0].text(0).unwrap().map_or_else(|| "null".to_owned(), Into::into))
}

#[test]
fn a_value_of_another_type_arrives_where_it_is_the_same_value_and_nowhere_else() {
    use Kind::{Date, Float4, Float8, Int2, Int4, Int8, Json, Jsonb, Numeric, Text, Timestamp, Uuid};
    for (from, to, text, expected) in [
        (Int8, Int4, "7", Some("7")),
        (Int8, Int4, "5000000000", None),
        (Int4, Int8, "7", Some("7")),
        (Int4, Text, "7", Some("7")),
        (Text, Int4, "12", Some("12")),
        (Text, Int4, "twelve", None),
        (Text, Int2, "40000", None),
        (Text, Uuid, "no", None),
        (Text, Json, "{}", None),
        (Text, Jsonb, "{}", None),
        (Json, Jsonb, "{}", Some("{}")),
        (Text, Timestamp, "2024-02-30 00:00:00", None),
        (Text, Date, "2024-02-29", Some("2024-02-29")),
        (Float8, Float4, "0.5", Some("0.5")),
        (Float8, Float4, "0.1", None),
        (Float8, Float4, "NaN", Some("NaN")),
        (Float8, Int4, "0.5", None),
        (Int8, Float8, "9007199254740993", None),
        (Int8, Float8, "9007199254740992", Some("9007199254740992")),
        (Numeric(None), Float8, "0.1", None),
        (Numeric(None), Numeric(Some((4, 2))), "12.34", Some("12.34")),
        (Numeric(None), Numeric(Some((4, 2))), "123.4", None),
    ] {
        assert_eq!(fitted(from.clone(), to.clone(), Some(text)).as_deref(), expected, "{text} from {from:?} in {to:?}");
    }
    assert_eq!(fitted(Int4, Uuid, None).as_deref(), Some("null"));
}
