//! What is passed on of changes that cross a filter's border, and of rows whose values are masked?

use std::sync::Arc;

use crate::data::{RawValue, RowBuffer, RowBuilder, TableRow};
use crate::destination::ValueLimits;
use crate::error::{ErrorKind, EtlResult};
use crate::lsn::Position;
use crate::postgres::pgoutput::{NotedChange, NotedOld};
use crate::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TablePatterns, TableSchema};
use crate::secret::Secret;
use crate::transform::{ColumnChoice, ColumnType, Mask, OnValue, Selection, TableRename, Transform, TransformRule};

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
        on_value: None,
        copy: None,
    };
    Transform::new(vec![rule]).select(&table())
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

const LIMITS: ValueLimits =
    ValueLimits { decimal_digits: Some(38), infinities: false, lists: true, ..ValueLimits::NONE };

/// `at` is a date, `price` a `numeric(5,2)`, `list` an array of integers.
fn limited(columns: ColumnChoice, on_value: OnValue) -> EtlResult<Selection> {
    let column = |(place, (name, kind)): (usize, (&str, Kind))| Column {
        name: name.into(),
        attnum: place as i16 + 1,
        type_oid: 1,
        modifier: -1,
        type_name: "x".into(),
        kind,
        nullable: true,
        fill: None,
    };
    let kinds = [
        ("id", Kind::Date),
        ("at", Kind::Date),
        ("price", Kind::Numeric(Some((5, 2)))),
        ("list", Kind::Array(Arc::new(Kind::Int4))),
    ];
    let table = TableSchema { columns: kinds.into_iter().enumerate().map(column).collect(), ..table() };
    let rule = TransformRule {
        tables: TablePatterns::new(["public.users"]),
        columns,
        rename: TableRename::default(),
        filter: None,
        on_value: Some(on_value),
        copy: None,
    };
    Transform { limits: LIMITS, ..Transform::new(vec![rule]) }.select(&table)
}

const MISFITS: &str = "infinity infinity NaN [0:1]={1,2}";

#[test]
fn values_that_do_not_fit_are_what_their_policy_says_and_a_key_stays() {
    let plain = limited(ColumnChoice::default(), OnValue::Error).unwrap();
    assert!(plain.pass.is_none() && plain.print().is_none());
    for (policy, expected) in [
        (OnValue::Null, "insert infinity - - -"),
        // Nothing is near to NaN: whoever cannot hold it says so.
        (OnValue::Clamp, "insert infinity 5874897-12-31 NaN {1,2}"),
        (OnValue::Text, "insert infinity infinity NaN [0:1]={1,2}"),
    ] {
        let selection = limited(ColumnChoice::default(), policy).unwrap();
        assert_eq!(change(&selection, None, Some(MISFITS)).unwrap(), expected, "{policy:?}");
        let fitting = "2000-01-01 2000-01-01 1.50 {1,NULL}";
        assert_eq!(change(&selection, None, Some(fitting)).unwrap(), format!("insert {fitting}"));
        assert_eq!(update(&selection, "2000-01-01 ? - ?").unwrap(), "update 2000-01-01 ? - ?");
        // Only what is another type has to be copied again.
        assert_eq!(selection.print().is_some(), policy == OnValue::Text);
        let texts = selection.schema.columns.iter().filter(|column| column.kind == Kind::Text).count();
        assert_eq!(texts, if policy == OnValue::Text { 4 } else { 0 });
    }
    let of_column =
        ColumnChoice { on_value: Some([("at".to_owned(), OnValue::Null)].into()), ..ColumnChoice::default() };
    let selection = limited(of_column, OnValue::Clamp).unwrap();
    assert_eq!(change(&selection, None, Some(MISFITS)).unwrap(), "insert infinity - NaN {1,2}");
}

#[test]
fn a_column_has_the_type_that_it_is_given() {
    let types = |types: &[(&str, &str)]| {
        let types = types.iter().map(|(name, of)| ((*name).to_owned(), ColumnType::named(of).unwrap())).collect();
        ColumnChoice { types: Some(types), ..ColumnChoice::default() }
    };
    let row = "2000-01-01 2000-01-02 1.56 {1}";
    for (of, policy, expected) in [
        ("numeric(9,2)", OnValue::Error, Ok("1.56")),
        ("integer", OnValue::Error, Err("out of range")),
        ("integer", OnValue::Null, Ok("-")),
        ("integer", OnValue::Clamp, Ok("2")),
        ("text", OnValue::Error, Ok("1.56")),
    ] {
        let selection = limited(types(&[("price", of)]), policy).unwrap();
        let found = change(&selection, None, Some(row));
        match expected {
            Ok(price) => assert_eq!(found.unwrap(), format!("insert 2000-01-01 2000-01-02 {price} {{1}}")),
            Err(class) => assert_eq!(found.unwrap_err().context("value"), Some(class)),
        }
        assert!(selection.print().is_some_and(|print| print.contains(&format!("as {of}"))));
    }
    // What a type leads to has to fit too.
    let dates = limited(types(&[("at", "timestamp")]), OnValue::Null).unwrap();
    assert_eq!(change(&dates, None, Some("2000-01-01 infinity - -")).unwrap(), "insert 2000-01-01 - - -");
    let key = limited(types(&[("id", "timestamp")]), OnValue::Error).unwrap_err();
    assert!(key.to_string().contains("rows could not be told apart"), "{key}");
    assert!(limited(types(&[("id", "text")]), OnValue::Error).unwrap().masks_key());
    let both = ColumnChoice { mask: Some([("at".to_owned(), Mask::Redact)].into()), ..types(&[("at", "text")]) };
    assert!(limited(both, OnValue::Error).unwrap_err().hint_text().is_some_and(|hint| hint.contains("columns.type")));
    assert!(limited(types(&[("att", "text")]), OnValue::Error).is_err());
}

#[test]
fn a_forecast_names_columns_classes_and_policy() {
    let by = |policy| Transform { on_value: policy, limits: LIMITS, ..Transform::default() };
    let date = Column { kind: Kind::Date, ..table().columns[1].clone() };
    let mut columns = table().columns.to_vec();
    columns[1] = date;
    let table = TableSchema { columns: columns.into(), ..table() };
    let forecast = by(OnValue::Clamp).forecast(&table);
    assert_eq!(forecast.len(), 1);
    assert_eq!((&*forecast[0].column, forecast[0].policy), ("email", OnValue::Clamp));
    assert_eq!(forecast[0].cannot, ["infinity"]);
}
