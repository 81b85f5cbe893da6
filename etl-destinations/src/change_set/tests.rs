//! Does folding keep the last state of every key? Random changes, applied one by one and folded.

use std::collections::BTreeMap;
use std::sync::Arc;

use etl::clock::Timestamp;
use etl::data::{Cell, Change, OldRow, Op, TableRow};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::{Lsn, Position};
use proptest::prelude::*;

use super::{ChangeSet, complete};
use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;
use crate::writer::{BatchRows, KeyedChanges, TargetTable};

fn schema(key: &[u16]) -> Arc<TableSchema> {
    let column = |(place, name): (usize, &str)| Column {
        fill: None,
        name: name.into(),
        attnum: place as i16 + 1,
        type_oid: 25,
        modifier: -1,
        type_name: "text".into(),
        kind: Kind::Text,
        nullable: true,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(1),
        name: TableName::new("public", "t"),
        columns: ["k", "small", "big"].into_iter().enumerate().map(column).collect(),
        key: key.into(),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}

fn target(key: &[u16], write_mode: WriteMode) -> TargetTable {
    let source = schema(key);
    TargetTable {
        id: source.id,
        name: source.name.clone(),
        columns: source.columns.iter().map(|column| column.name.clone()).collect(),
        write_mode,
        is_adopted: false,
        metadata: None,
        source,
    }
}

/// A row of text; `?` was not sent, `-` is null.
fn row(schema: &Arc<TableSchema>, values: [&str; 3]) -> TableRow {
    let cells = values.map(|value| match value {
        "?" => Cell::Unchanged,
        "-" => Cell::Null,
        text => Cell::Text(text.to_owned().into()),
    });
    TableRow::from_cells(Arc::clone(schema), &cells).unwrap()
}

fn change(ordinal: u64, op: Op) -> Change {
    let position = Position::new(Lsn(10), ordinal);
    Change { table_id: TableId(1), position, committed_at: Timestamp(0), op }
}

type Values = [Option<String>; 3];
type Rows = BTreeMap<String, (Values, bool)>;

fn values(row: &TableRow) -> Values {
    [0, 1, 2].map(|place| row.text(place).unwrap().map(Into::into))
}

fn key(row: &TableRow) -> String {
    row.text(0).unwrap().unwrap().into_owned()
}

/// What was sent, on top of the row before.
fn over(before: &Values, sent: &TableRow) -> Values {
    [0, 1, 2].map(|place| match sent.raw(place) {
        super::RawValue::Unchanged => before[place].clone(),
        _ => sent.text(place).unwrap().map(Into::into),
    })
}

/// What the source itself does.
fn one_by_one(rows: &mut Rows, change: &Change, soft: bool) {
    match &change.op {
        Op::Insert { new } => drop(rows.insert(key(new), (values(new), false))),
        Op::Delete { old } if soft => rows.get_mut(&key(old.row())).unwrap().1 = true,
        Op::Delete { old } => drop(rows.remove(&key(old.row())).unwrap()),
        Op::Update { old, new } => {
            let new = complete(old.as_ref(), new).unwrap();
            let old_key = old.as_ref().map_or_else(|| key(&new), |old| key(old.row()));
            let (before, _) = rows.remove(&old_key).unwrap();
            rows.insert(key(&new), (over(&before, &new), false));
        }
    }
}

/// What a writer that works row by row does, in the order of the fields.
fn folded(rows: &mut Rows, changes: KeyedChanges, soft: bool) {
    for update in changes.updates {
        let (before, _) = rows.remove(&key(&update.base)).expect("the base is there");
        let marked = update.new.change_type == ChangeType::Delete;
        assert_eq!(update.moves, key(&update.base) != key(&update.new.row));
        rows.insert(key(&update.new.row), (over(&before, &update.new.row), marked));
    }
    for gone in changes.deletes {
        match rows.get_mut(&key(&gone.row)) {
            Some(row) if soft => row.1 = true,
            _ => drop(rows.remove(&key(&gone.row))),
        }
    }
    for vacated in changes.vacated {
        rows.remove(&key(&vacated.row));
    }
    for upsert in changes.upserts {
        rows.insert(key(&upsert.row), (values(&upsert.row), upsert.change_type == ChangeType::Delete));
    }
}

/// Delivers changes in sets; a set ends where it says so.
fn deliver(rows: &mut Rows, changes: Vec<Change>, mode: WriteMode) -> usize {
    let table = target(&[0], mode);
    let (mut set, mut sets) = (ChangeSet::new(&table), 1);
    let apply = |rows: &mut Rows, set: ChangeSet| match set.finish() {
        Some(BatchRows::Keyed(changes)) => folded(rows, changes, mode == WriteMode::SoftDelete),
        None => {}
        other => panic!("a keyed table has keyed changes, not {other:?}"),
    };
    for change in changes {
        if !set.add(&change).unwrap() {
            apply(rows, std::mem::replace(&mut set, ChangeSet::new(&table)));
            sets += 1;
            assert!(set.add(&change).unwrap(), "a new set takes any change");
        }
    }
    apply(rows, set);
    sets
}

/// Makes a change that the source could make of its rows.
fn possible(rows: &Rows, choice: (u8, u8, u8, bool), ordinal: u64) -> Option<Change> {
    let schema = schema(&[0]);
    let (what, which, to, sends_big) = choice;
    let live: Vec<&String> = rows.iter().filter(|(_, (_, marked))| !marked).map(|(key, _)| key).collect();
    let free = format!("k{}", to % 6);
    let is_free = rows.get(&free).is_none_or(|(_, marked)| *marked);
    let (small, big) = (format!("small {ordinal}"), format!("big {ordinal}"));
    let sent: &str = if sends_big { &big } else { "?" };
    let chosen = live.get(usize::from(which) % live.len().max(1)).map(|key| key.as_str());
    let old = |key: &str| OldRow::Key(row(&schema, [key, "-", "-"]));
    let op = match (what % 8, chosen) {
        (0 | 1, _) if is_free => Op::Insert { new: row(&schema, [&free, &small, &big]) },
        (2 | 3, Some(key)) => Op::Update { old: None, new: row(&schema, [key, &small, sent]) },
        (4, Some(key)) => Op::Delete { old: old(key) },
        (_, Some(key)) if is_free && free != key => {
            Op::Update { old: Some(old(key)), new: row(&schema, [&free, &small, sent]) }
        }
        _ => return None,
    };
    Some(change(ordinal, op))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn folded_changes_end_in_the_same_state_as_one_by_one(
        before in proptest::collection::vec(0u8..6, 0..6),
        choices in proptest::collection::vec(any::<(u8, u8, u8, bool)>(), 0..40),
        soft in any::<bool>(),
    ) {
        let mode = if soft { WriteMode::SoftDelete } else { WriteMode::Upsert };
        let mut source = Rows::new();
        for key in before {
            let values = [format!("k{key}"), "s".to_owned(), "b".to_owned()].map(Some);
            source.insert(format!("k{key}"), (values, false));
        }
        let mut target = source.clone();
        let mut changes = Vec::new();
        for (ordinal, choice) in (1..).zip(choices) {
            if let Some(change) = possible(&source, choice, ordinal) {
                one_by_one(&mut source, &change, soft);
                changes.push(change);
            }
        }
        deliver(&mut target, changes, mode);
        prop_assert_eq!(source, target);
    }
}

#[test]
fn a_key_change_and_a_partial_update_in_one_set_with_the_insert_keep_every_value() {
    let s = schema(&[0]);
    let mut rows = Rows::new();
    let changes = vec![
        change(1, Op::Insert { new: row(&s, ["a", "1", "big"]) }),
        change(2, Op::Update { old: None, new: row(&s, ["a", "2", "?"]) }),
        change(3, Op::Update { old: Some(OldRow::Key(row(&s, ["a", "-", "-"]))), new: row(&s, ["b", "3", "?"]) }),
    ];
    assert_eq!(deliver(&mut rows, changes, WriteMode::Upsert), 1);
    assert_eq!(rows["b"].0, ["b", "3", "big"].map(|text| Some(text.to_owned())));
    assert_eq!(rows.len(), 1);
}

#[test]
fn rows_that_swap_keys_without_being_sent_whole_are_written_in_several_sets() {
    let s = schema(&[0]);
    let mut rows: Rows =
        ["a", "b"].map(|key| (key.to_owned(), ([key, "-", key].map(|v| Some(v.to_owned())), false))).into();
    let moved = |ordinal, from: &str, to: &str| {
        let old = OldRow::Key(row(&s, [from, "-", "-"]));
        change(ordinal, Op::Update { old: Some(old), new: row(&s, [to, "moved", "?"]) })
    };
    let sets = deliver(&mut rows, vec![moved(1, "a", "x"), moved(2, "b", "a"), moved(3, "x", "b")], WriteMode::Upsert);
    assert!(sets > 1);
    assert_eq!(rows["a"].0[2].as_deref(), Some("b"));
    assert_eq!(rows["b"].0[2].as_deref(), Some("a"));
}

#[test]
fn a_key_value_that_was_not_sent_comes_from_the_old_key() {
    let s = schema(&[0, 1]);
    let old = OldRow::Key(row(&s, ["a", "long", "-"]));
    let new = complete(Some(&old), &row(&s, ["b", "?", "?"])).unwrap();
    assert_eq!(new.text(1).unwrap().as_deref(), Some("long"));
    assert!(new.has_unchanged());
}

#[test]
fn the_log_has_a_delete_of_the_old_key_before_a_moved_row() {
    let s = schema(&[0]);
    let mut set = ChangeSet::new(&target(&[0], WriteMode::Append));
    let old = OldRow::Key(row(&s, ["a", "-", "-"]));
    set.add(&change(7, Op::Update { old: Some(old), new: row(&s, ["b", "1", "2"]) })).unwrap();
    let Some(BatchRows::Log(rows)) = set.finish() else { panic!("a log") };
    let told: Vec<_> = rows.iter().map(|row| (row.change_type.as_str(), row.position.ordinal, key(&row.row))).collect();
    assert_eq!(told, [("DELETE", 7, "a".to_owned()), ("UPDATE", 8, "b".to_owned())]);
}

#[test]
fn the_log_has_a_delete_of_the_old_row_where_there_is_no_key() {
    let s = schema(&[]);
    let mut set = ChangeSet::new(&target(&[], WriteMode::Append));
    let old = || Some(OldRow::Full(row(&s, ["a", "1", "2"])));
    set.add(&change(7, Op::Update { old: old(), new: row(&s, ["b", "1", "?"]) })).unwrap();
    set.add(&change(9, Op::Update { old: old(), new: row(&s, ["a", "1", "2"]) })).unwrap();
    let Some(BatchRows::Log(rows)) = set.finish() else { panic!("a log") };
    let told: Vec<_> = rows.iter().map(|row| (row.change_type.as_str(), row.position.ordinal)).collect();
    assert_eq!(told, [("DELETE", 7), ("UPDATE", 8), ("DELETE", 9), ("UPDATE", 10)]);
    assert_eq!(rows[1].row.text(2).unwrap().as_deref(), Some("2"));
}

#[test]
fn rows_without_a_key_cancel_out_one_by_one() {
    let s = schema(&[]);
    let full = |text: &str| OldRow::Full(row(&s, [text, "-", "-"]));
    for (mode, marked) in [(WriteMode::Upsert, 0), (WriteMode::SoftDelete, 1)] {
        let mut set = ChangeSet::new(&target(&[], mode));
        let ops = [
            Op::Insert { new: row(&s, ["x", "-", "-"]) },
            Op::Insert { new: row(&s, ["x", "-", "-"]) },
            Op::Delete { old: full("x") },
            Op::Delete { old: full("y") },
            Op::Update { old: Some(full("z")), new: row(&s, ["w", "-", "-"]) },
        ];
        for (ordinal, op) in (1..).zip(ops) {
            set.add(&change(ordinal, op)).unwrap();
        }
        let Some(BatchRows::Keyless(set)) = set.finish() else { panic!("no keys") };
        assert_eq!((set.removals.len(), set.marks.len()), (2 - marked, marked));
        assert_eq!(set.inserts.iter().filter(|row| row.change_type == ChangeType::Delete).count(), marked);
        assert_eq!(set.inserts.iter().filter(|row| row.change_type == ChangeType::Upsert).count(), 2);
    }
}

#[test]
fn an_update_without_an_identity_is_an_error() {
    let s = schema(&[]);
    let mut set = ChangeSet::new(&target(&[], WriteMode::Upsert));
    let error = set.add(&change(1, Op::Update { old: None, new: row(&s, ["x", "-", "-"]) })).unwrap_err();
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"));
}

#[test]
fn an_entry_says_where_the_first_change_of_it_was() {
    let s = schema(&[0]);
    let mut set = ChangeSet::new(&target(&[0], WriteMode::Upsert));
    let key = |key: &str| OldRow::Key(row(&s, [key, "-", "-"]));
    for (ordinal, op) in (1..).zip([
        Op::Insert { new: row(&s, ["a", "1", "big"]) },
        Op::Insert { new: row(&s, ["alone", "1", "big"]) },
        Op::Update { old: None, new: row(&s, ["b", "1", "big"]) },
        Op::Update { old: None, new: row(&s, ["b", "2", "?"]) },
        Op::Update { old: Some(key("a")), new: row(&s, ["moved", "2", "?"]) },
        Op::Delete { old: key("b") },
        Op::Delete { old: key("gone") },
    ]) {
        assert!(set.add(&change(ordinal, op)).unwrap());
    }
    let Some(BatchRows::Keyed(changes)) = set.finish() else { panic!("a table with a key") };
    let since: Vec<(u64, u64)> = changes.since.iter().map(|(last, first)| (last.ordinal, first.ordinal)).collect();
    assert_eq!(since, [(5, 1), (6, 3)], "of the row that moved, and of the one that is gone");
}
