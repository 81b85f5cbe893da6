//! Do conditions mean what they mean in SQL?

use proptest::prelude::*;

use super::*;
use crate::lsn::Position;
use crate::schema::{ReplicaIdentity, TableId, TableName};

const COLUMNS: &[(&str, u32)] =
    &[("n", 23), ("t", 25), ("Up", 25), ("b", 16), ("d", 1700), ("f", 701), ("at", 1184), ("day", 1082), ("j", 114)];

fn table() -> TableSchema {
    let column = |(place, (name, type_oid)): (usize, &(&str, u32))| Column {
        name: (*name).into(),
        attnum: place as i16 + 1,
        type_oid: *type_oid,
        modifier: -1,
        type_name: type_oid.to_string().into(),
        kind: Kind::of_builtin(*type_oid, -1).unwrap_or(Kind::Other),
        nullable: true,
        fill: None,
    };
    TableSchema {
        id: TableId(1),
        name: TableName::new("public", "t"),
        source_name: None,
        columns: COLUMNS.iter().enumerate().map(column).collect(),
        key: Box::new([]),
        identity: ReplicaIdentity::Full,
        since: Position::ZERO,
        last_attnum: 0,
    }
}

/// Whether the row with these values, all others null, passes.
fn passes(filter: &str, row: &[(&str, &str)]) -> bool {
    let table = table();
    let filter = Filter::new(filter, &table).unwrap();
    let value = |place: usize| {
        let found = row.iter().find(|(name, _)| *name == COLUMNS[place].0);
        found.map_or(RawValue::Null, |(_, text)| RawValue::Text(text.as_bytes()))
    };
    filter.passes(&table, value).unwrap()
}

#[test]
fn values_are_compared_as_their_types_are() {
    for (filter, column, value, expected) in [
        ("n = 5", "n", "5", true),
        ("n >= 10", "n", "9", false),
        ("n < -1", "n", "-2", true),
        ("n IN (1, 2, 3)", "n", "3", true),
        ("n NOT IN (1, 2)", "n", "2", false),
        ("t = 'it''s'", "t", "it's", true),
        ("t > 'a'", "t", "B", false),
        ("T <> 'x'", "t", "y", true),
        ("\"Up\" = 'x'", "Up", "x", true),
        ("b", "b", "t", true),
        ("NOT b", "b", "f", true),
        ("b = true", "b", "f", false),
        ("d = 1.0", "d", "1.00", true),
        ("d < 10", "d", "9.99", true),
        ("d > 99999999999999999999.5", "d", "99999999999999999999.6", true),
        ("d > 5", "d", "NaN", true),
        ("f <= 0.1", "f", "0.1", true),
        ("f > 1e300", "f", "NaN", true),
        ("at >= '2026-01-01'", "at", "2026-01-01 00:00:00+00", true),
        ("at < '2026-01-01 12:00:00+00'", "at", "2026-01-01 12:00:00+00", false),
        ("day != '2026-02-28'", "day", "2026-03-01", true),
        ("j = '{}'", "j", "{}", true),
        ("n = 1 OR n = 2 AND n = 3", "n", "1", true),
        ("(n = 1 OR n = 2) AND n = 3", "n", "1", false),
    ] {
        assert_eq!(passes(filter, &[(column, value)]), expected, "{filter} with {value}");
    }
}

#[test]
fn what_is_unknown_is_not_passed_on() {
    for (filter, expected) in [
        ("n = 1", false),
        ("NOT n = 1", false),
        ("n <> 1", false),
        ("n NOT IN (1)", false),
        ("n IS NULL", true),
        ("n IS NOT NULL", false),
        ("n = 1 OR t IS NULL", true),
        ("n = 1 AND t IS NULL", false),
        ("NOT (n = 1 AND t IS NOT NULL)", true),
        ("b", false),
        ("b IS NOT TRUE", true),
        ("b IS TRUE", false),
        ("b IS FALSE", false),
    ] {
        assert_eq!(passes(filter, &[]), expected, "{filter}");
    }
}

#[test]
fn what_is_no_condition_says_why() {
    for (filter, why) in [
        ("", "name of a column is missing"),
        ("n =", "value is missing"),
        ("n = 'x'", "no value of n"),
        ("n = NULL", "IS NULL"),
        ("gone = 1", "no column gone"),
        ("up = 'x'", "no column up"),
        ("n", "not boolean"),
        ("t = 'x", "not closed"),
        ("(n = 1", ") is missing"),
        ("n = 1 n", "nothing was expected at n"),
        ("j > '{}'", "no order"),
        ("n NOT 1", "IN is missing"),
        ("n ~ 1", "means nothing"),
        (&"(".repeat(100), "too many levels"),
    ] {
        let error = Filter::new(filter, &table()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(why) && error.hint_text().is_some(), "{filter}: {error}");
    }
}

#[test]
fn a_value_that_was_not_sent_is_told() {
    let table = table();
    let filter = Filter::new("n = 1 AND t = 'x'", &table).unwrap();
    assert_eq!(filter.places, [0, 1]);
    let missing = filter.passes(&table, |place| if place == 0 { RawValue::Text(b"1") } else { RawValue::Unchanged });
    assert_eq!(missing, Err((1, DecodeError::Unchanged)));
    let decided = filter.passes(&table, |place| if place == 0 { RawValue::Text(b"2") } else { RawValue::Unchanged });
    assert_eq!(decided, Ok(false), "what decides nothing need not be there");
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in "[n t'\"()=<>!,.0-9a-zA-Zäß_ -]{0,60}") {
        let _ = Filter::new(&text, &table());
    }
}
