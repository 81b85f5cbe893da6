//! What is passed on of changes that cross a filter's border, and of rows whose values are masked?

use std::sync::Arc;

use crate::data::{RawValue, RowBuffer, RowBuilder, TableRow};
use crate::error::{ErrorKind, EtlResult};
use crate::lsn::Position;
use crate::postgres::pgoutput::{NotedChange, NotedOld};
use crate::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TablePatterns, TableSchema};
use crate::secret::Secret;
use crate::transform::{ColumnChoice, Mask, Selection, TableRename, Transform, TransformRule};

/// `id` is the key.
fn table() -> TableSchema {
    let column = |(place, (name, type_oid)): (usize, &(&str, u32))| Column {
        name: (*name).into(),
        attnum: place as i16 + 1,
        type_oid: *type_oid,
        modifier: -1,
        type_name: "x".into(),
        kind: Kind::of_builtin(*type_oid, -1).unwrap_or(Kind::Other),
        nullable: true,
        fill: None,
    };
    TableSchema {
        id: TableId(1),
        name: TableName::new("public", "users"),
        source_name: None,
        columns: [("id", 23), ("email", 25), ("country", 25), ("big", 25)].iter().enumerate().map(column).collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
        last_attnum: 4,
    }
}

fn selection(columns: ColumnChoice, filter: Option<&str>) -> EtlResult<Selection> {
    let rule = TransformRule {
        tables: TablePatterns::new(["public.users"]),
        columns,
        rename: TableRename::default(),
        filter: filter.map(str::to_owned),
    };
    Transform { rules: vec![rule] }.select(&table())
}

fn masks(masks: &[(&str, Mask)]) -> ColumnChoice {
    let mask = masks.iter().map(|(name, mask)| ((*name).to_owned(), mask.clone())).collect();
    ColumnChoice { mask: Some(mask), ..ColumnChoice::default() }
}

/// `-` is null, `?` was not sent.
fn raw(text: &str) -> RawValue<'_> {
    match text {
        "-" => RawValue::Null,
        "?" => RawValue::Unchanged,
        text => RawValue::Text(text.as_bytes()),
    }
}

fn shown(buffer: &Arc<RowBuffer>, row: u32) -> String {
    let row = TableRow::new(Arc::clone(buffer), row);
    let value = |place| match row.raw(place) {
        RawValue::Unchanged => "?".to_owned(),
        _ => row.text(place).unwrap().unwrap_or("-".into()).into_owned(),
    };
    (0..row.schema().columns.len()).map(value).collect::<Vec<_>>().join(" ")
}

/// What becomes of a change from one row to another; an old row of which only the key is there begins with `K`, one that
/// is whole with `O`.
fn change(selection: &Selection, old: Option<&str>, new: Option<&str>) -> EtlResult<String> {
    let mut builder = RowBuilder::new();
    let mut row = |text: &str| {
        let values: Vec<RawValue<'_>> = text.split(' ').map(raw).collect();
        builder.push_raw(selection.read(), values.into_iter()).unwrap()
    };
    let old = old.map(|old| match old.split_at(2) {
        ("K ", old) => NotedOld::Key(row(old)),
        (_, old) => NotedOld::Full(row(old)),
    });
    let noted = match (old, new.map(&mut row)) {
        (None, Some(new)) => NotedChange::Insert { new },
        (Some(old), None) => NotedChange::Delete { old },
        (old, Some(new)) => NotedChange::Update { old, new },
        (None, None) => unreachable!("a change has a row"),
    };
    passed(selection, noted, &builder.into_buffer())
}

fn passed(selection: &Selection, noted: NotedChange, buffer: &Arc<RowBuffer>) -> EtlResult<String> {
    let mut made = RowBuilder::new();
    let pass = selection.pass.as_ref().expect("a pass");
    let noted = pass.change(&selection.schema, noted, buffer, &mut made)?;
    let made = made.into_buffer();
    let old_row = |old| match old {
        NotedOld::Key(old) => format!("K {}", shown(&made, old)),
        NotedOld::Full(old) => format!("O {}", shown(&made, old)),
    };
    Ok(match noted {
        None => "nothing".to_owned(),
        Some(NotedChange::Insert { new }) => format!("insert {}", shown(&made, new)),
        Some(NotedChange::Delete { old }) => format!("delete {}", old_row(old)),
        Some(NotedChange::Update { old: None, new }) => format!("update {}", shown(&made, new)),
        Some(NotedChange::Update { old: Some(old), new }) => {
            format!("update {} to {}", old_row(old), shown(&made, new))
        }
    })
}

/// An update without an old image.
fn update(selection: &Selection, new: &str) -> EtlResult<String> {
    let mut builder = RowBuilder::new();
    let values: Vec<RawValue<'_>> = new.split(' ').map(raw).collect();
    let new = builder.push_raw(selection.read(), values.into_iter()).unwrap();
    passed(selection, NotedChange::Update { old: None, new }, &builder.into_buffer())
}

#[test]
fn a_row_that_crosses_the_border_of_a_filter_comes_or_goes() {
    let by_key = selection(ColumnChoice::default(), Some("id < 10")).unwrap();
    let by_value = selection(ColumnChoice::default(), Some("country = 'DE'")).unwrap();
    for (selection, old, new, expected) in [
        (&by_key, None, Some("1 a DE x"), "insert 1 a DE x"),
        (&by_key, None, Some("11 a DE x"), "nothing"),
        (&by_key, Some("K 1 - - -"), Some("2 a DE ?"), "update K 1 - - - to 2 a DE ?"),
        (&by_key, Some("K 1 - - -"), Some("12 a DE ?"), "delete K 1 - - -"),
        (&by_key, Some("K 11 - - -"), Some("2 a DE x"), "insert 2 a DE x"),
        (&by_key, Some("K 11 - - -"), Some("12 a DE ?"), "nothing"),
        (&by_key, Some("K 11 - - -"), None, "nothing"),
        (&by_key, Some("K 1 - - -"), None, "delete K 1 - - -"),
        (&by_value, Some("O 1 a DE x"), Some("1 b FR x"), "delete O 1 a DE x"),
        (&by_value, Some("O 1 a FR x"), Some("1 b DE x"), "insert 1 b DE x"),
        (&by_value, Some("O 1 a FR x"), Some("1 b FR x"), "nothing"),
        (&by_value, Some("O 1 a FR x"), None, "nothing"),
        (&by_value, Some("K 1 - - -"), None, "delete K 1 - - -"),
        (&by_value, Some("K 1 - - -"), Some("2 a DE x"), "update K 1 - - - to 2 a DE x"),
    ] {
        assert_eq!(change(selection, old, new).unwrap(), expected, "{old:?} to {new:?}");
    }
    for (selection, new, expected) in [
        (&by_key, "1 a DE ?", "update 1 a DE ?"),
        (&by_key, "11 a DE ?", "nothing"),
        (&by_value, "1 a DE x", "update 1 a DE x"),
        (&by_value, "1 a FR ?", "delete K 1 - - -"),
    ] {
        assert_eq!(update(selection, new).unwrap(), expected, "{new}");
    }
}

#[test]
fn a_row_that_may_be_new_where_it_goes_needs_all_its_values() {
    let by_value = selection(ColumnChoice::default(), Some("country = 'DE'")).unwrap();
    for new in ["1 a DE ?", "1 a ? x"] {
        let error = update(&by_value, new).unwrap_err();
        assert_eq!((error.kind(), error.table()), (ErrorKind::Value, Some(TableId(1))));
        assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
    }
    let by_key = selection(ColumnChoice::default(), Some("id < 10")).unwrap();
    assert!(change(&by_key, Some("K 11 - - -"), Some("2 a DE ?")).is_err());
}

#[test]
fn values_are_masked_alike_in_new_and_old_rows_and_keys() {
    let salt = Mask::Hash(Secret::new("salt"));
    let hash = |text: &str| salt.apply(text).unwrap();
    let mut choice =
        masks(&[("id", salt.clone()), ("email", Mask::Redact), ("country", Mask::Truncate(1)), ("big", Mask::Null)]);
    choice.add = Some([("region".to_owned(), "eu".to_owned())].into());
    let selection = selection(choice, None).unwrap();
    let types: Vec<&str> = selection.schema.columns.iter().map(|column| &*column.type_name).collect();
    assert_eq!(types, ["text", "text", "text", "x", "text"]);
    assert_eq!((&*selection.schema.key, selection.masks_key()), (&[0][..], true));
    let [one, two] = [hash("1"), hash("2")];
    for (old, new, expected) in [
        (None, Some("1 a@b DE x"), format!("insert {one} *** D - eu")),
        (None, Some("1 - - -"), format!("insert {one} - - - eu")),
        (Some("K 1 - - -"), Some("2 a ? ?"), format!("update K {one} - - - eu to {two} *** ? ? eu")),
        (Some("O 1 a b c"), None, format!("delete O {one} *** b - eu")),
    ] {
        assert_eq!(change(&selection, old, new).unwrap(), expected);
    }
}

#[test]
fn a_filter_looks_at_what_is_masked_or_left_out_as_it_is_at_the_source() {
    let choice = ColumnChoice { exclude: Some(vec!["country".to_owned()]), ..masks(&[("email", Mask::Redact)]) };
    let selection = selection(choice, Some("country = 'DE' AND email <> 'no'")).unwrap();
    assert_eq!(selection.schema.columns.len(), 3);
    assert_eq!(change(&selection, None, Some("1 a DE x")).unwrap(), "insert 1 *** x");
    assert_eq!(change(&selection, None, Some("1 no DE x")).unwrap(), "nothing");
}

#[test]
fn a_choice_that_would_mix_rows_up_is_refused_with_a_hint() {
    for (choice, expected) in [
        (masks(&[("id", Mask::Redact)]), "a column of the key is masked"),
        (masks(&[("id", Mask::Null)]), "a column of the key is masked"),
        (masks(&[("id", Mask::Truncate(3))]), "only texts can be truncated"),
        (masks(&[("mail", Mask::Redact)]), "names a column that the table does not publish"),
        (
            ColumnChoice { add: Some([("email".to_owned(), "x".to_owned())].into()), ..ColumnChoice::default() },
            "two columns of a table get one name",
        ),
    ] {
        let error = selection(choice, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected) && error.hint_text().is_some(), "{error}");
    }
}
