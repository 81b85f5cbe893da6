//! Do the messages of a real server parse, and do malformed ones fail without harm?

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::clock::Timestamp;
use crate::data::mutation::{Random, table};
use crate::data::{RawValue, RowSpans, TableRow};
use crate::lsn::Lsn;
use crate::schema::{Kind, ReplicaIdentity};
use crate::{ErrorKind, EtlResult};

/// Recorded from PostgreSQL 15 with `proto_version '1', messages 'true'`, text and binary; `Y` stands for
/// 3000 times `y` in a column with external storage.
const BEGIN: &str = "42000000000152e940000303bbcf3c5799000002db";
const COMMIT: &str = "4300000000000152e940000000000152e970000303bbcf3c5799";
const TYPE: &str = "59000040017075626c6963006d6f6f6400";
const RELATION: &str = "52000040057075626c6963006b006400040169640000000017ffffffff00740000000019ffffffff006d0000004001\
                        ffffffff00620000000019ffffffff";
const INSERT: &str = "49000040054e00047400000001357400000007746162096e6c0a74000000026f6b7400000000";
const INSERT_BINARY: &str = "49000040054e00046200000004000000056200000007746162096e6c0a62000000026f6b6200000000";
const UPDATE: &str = "55000040054e00047400000001317400000001626e75";
const UPDATE_KEY: &str = "55000040054b00047400000001316e6e6e4e00047400000001327400000001626e75";
const UPDATE_FULL: &str = "550000400c4f00037400000001317400000001617400000bb8Y4e000374000000013174000000016275";
const DELETE: &str = "44000040054b00047400000001326e6e6e";
const DELETE_FULL: &str = "440000400c4f00037400000001317400000001627400000bb8Y";
const TRUNCATE: &str = "540000000203000040050000400c";
const EMITTED: &str = "4d0100000000015311207072650000000003636f6e";

const ALL: [&str; 13] = [
    BEGIN,
    COMMIT,
    TYPE,
    RELATION,
    INSERT,
    INSERT_BINARY,
    UPDATE,
    UPDATE_KEY,
    UPDATE_FULL,
    DELETE,
    DELETE_FULL,
    TRUNCATE,
    EMITTED,
];

fn recorded(hex: &str) -> Vec<u8> {
    let hex = hex.replace('Y', &"79".repeat(3000));
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Notes the message in the middle of a block, as the stream does.
fn noted(message: &[u8], columns: usize) -> EtlResult<(NotedChange, impl Fn(u32) -> TableRow + use<>)> {
    let block = [b"before", message, b"after"].concat();
    let oid = u32::from_be_bytes(*message[1..].first_chunk().unwrap());
    let schema = table(oid, &vec![Kind::Text; columns]);
    let mut spans = RowSpans::new();
    let change = note_change(&block, 6..6 + message.len(), &schema, &mut spans)?;
    let buffer = spans.finish(Bytes::from(block));
    Ok((change, move |row| TableRow::new(Arc::clone(&buffer), row)))
}

fn values(row: &TableRow) -> Vec<RawValue<'_>> {
    (0..row.schema().columns.len()).map(|column| row.raw(column)).collect()
}

#[test]
fn transactions_are_read() {
    let at = Timestamp::from_postgres(0x0003_03bb_cf3c_5799);
    let begin = Begin { commit: Lsn(0x152_e940), at, xid: 731 };
    assert_eq!(parse(&recorded(BEGIN)).unwrap(), Message::Begin(begin));
    let commit = Commit { commit: Lsn(0x152_e940), end: Lsn(0x152_e970), at };
    assert_eq!(parse(&recorded(COMMIT)).unwrap(), Message::Commit(commit));
    let emitted = Emitted { transactional: true, at: Lsn(0x153_1120), prefix: "pre", content: b"con" };
    assert_eq!(parse(&recorded(EMITTED)).unwrap(), Message::Message(emitted));
    let origin = b"O\0\0\0\0\0\0\0\x07name\0";
    assert_eq!(parse(origin).unwrap(), Message::Origin(Origin { commit: Lsn(7), name: "name" }));
}

/// As the manual lays them out: big-endian, in this order.
fn laid_out(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag][..], &parts.concat()].concat()
}

#[test]
fn streamed_transactions_are_read() {
    let (xid, sub) = (7_u32.to_be_bytes(), 9_u32.to_be_bytes());
    let (a, b, t) = (16_u64.to_be_bytes(), 32_u64.to_be_bytes(), 5_u64.to_be_bytes());
    let at = Timestamp::from_postgres(5);
    let cases = [
        (laid_out(b'S', &[&xid, &[1]]), Message::StreamStart(StreamStart { xid: 7, is_first: true })),
        (laid_out(b'S', &[&xid, &[0]]), Message::StreamStart(StreamStart { xid: 7, is_first: false })),
        (laid_out(b'E', &[]), Message::StreamStop),
        (
            laid_out(b'c', &[&xid, &[0], &a, &b, &t]),
            Message::StreamCommit(StreamCommit { xid: 7, commit: Lsn(16), end: Lsn(32), at }),
        ),
        (laid_out(b'A', &[&xid, &sub]), Message::StreamAbort(StreamAbort { xid: 7, subxid: 9, aborted: None })),
        (
            laid_out(b'A', &[&xid, &xid, &a, &t]),
            Message::StreamAbort(StreamAbort { xid: 7, subxid: 7, aborted: Some((Lsn(16), at)) }),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse(&bytes).unwrap(), expected);
    }
    for bad in [
        laid_out(b'S', &[&xid, &[2]]),
        laid_out(b'S', &[&xid]),
        laid_out(b'E', &[&[0]]),
        laid_out(b'c', &[&xid, &[1], &a, &b, &t]),
        laid_out(b'A', &[&xid, &sub, &a]),
    ] {
        assert_eq!(parse(&bad).unwrap_err().kind(), ErrorKind::Protocol, "{bad:?}");
    }
}

#[test]
fn prepared_transactions_are_read() {
    let xid = 7_u32.to_be_bytes();
    let (a, b, t, u) = (16_u64.to_be_bytes(), 32_u64.to_be_bytes(), 5_u64.to_be_bytes(), 6_u64.to_be_bytes());
    let (at, later) = (Timestamp::from_postgres(5), Timestamp::from_postgres(6));
    let prepared = Prepared { prepare: Lsn(16), end: Lsn(32), at, xid: 7, gid: "gid" };
    let committed = CommitPrepared { commit: Lsn(16), end: Lsn(32), at, xid: 7, gid: "gid" };
    let rolled_back =
        RollbackPrepared { prepare_end: Lsn(16), end: Lsn(32), prepared_at: at, at: later, xid: 7, gid: "gid" };
    let tail: [&[u8]; 5] = [&a, &b, &t, &xid, b"gid\0"];
    let flagged = |tag| laid_out(tag, &[&[&[0][..]], &tail[..]].concat());
    let cases = [
        (laid_out(b'b', &tail), Message::BeginPrepare(prepared)),
        (flagged(b'P'), Message::Prepare(prepared)),
        (flagged(b'p'), Message::StreamPrepare(prepared)),
        (flagged(b'K'), Message::CommitPrepared(committed)),
        (laid_out(b'r', &[&[0], &a, &b, &t, &u, &xid, b"gid\0"]), Message::RollbackPrepared(rolled_back)),
    ];
    for (bytes, expected) in &cases {
        assert_eq!(parse(bytes).unwrap(), *expected);
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "{} cut at {cut}", expected.name());
        }
    }
}

#[test]
fn what_comes_in_a_segment_names_its_transaction() {
    let within = |message: &[u8]| [&message[..1], &77_u32.to_be_bytes(), &message[1..]].concat();
    for (hex, name) in
        [(RELATION, "Relation"), (TYPE, "Type"), (INSERT, "Insert"), (TRUNCATE, "Truncate"), (EMITTED, "Message")]
    {
        let message = recorded(hex);
        let bytes = within(&message);
        let streamed = parse_streamed(&bytes).unwrap();
        assert_eq!((streamed.xid, streamed.message.name()), (Some(77), name));
        assert_eq!(streamed.message, parse(&message).unwrap(), "{name}");
    }
    assert_eq!(parse_streamed(b"E").unwrap(), Streamed { xid: None, message: Message::StreamStop });
    assert_eq!(parse_streamed(&recorded(BEGIN)).unwrap_err().kind(), ErrorKind::Protocol);

    let message = within(&recorded(UPDATE_KEY));
    let schema = table(0x4005, &[Kind::Text, Kind::Text, Kind::Text, Kind::Text]);
    let mut spans = RowSpans::new();
    let noted = note_streamed_change(&message, 0..message.len(), &schema, &mut spans).unwrap();
    let NotedChange::Update { old: Some(NotedOld::Key(old)), new } = noted else { panic!("{noted:?}") };
    let buffer = spans.finish(Bytes::from(message.clone()));
    assert_eq!(TableRow::new(Arc::clone(&buffer), old).raw(0), RawValue::Text(b"1"));
    assert_eq!(TableRow::new(buffer, new).raw(0), RawValue::Text(b"2"));
    assert!(note_change(&message, 0..message.len(), &schema, &mut RowSpans::new()).is_err());
}

#[test]
fn tables_and_types_are_read() {
    let bytes = recorded(RELATION);
    let Message::Relation(relation) = parse(&bytes).unwrap() else { panic!("not a relation") };
    assert_eq!((relation.oid, relation.namespace, relation.name), (0x4005, "public", "k"));
    assert_eq!(relation.identity, ReplicaIdentity::Default);
    let column = |in_identity, name, type_oid| RelationColumn { in_identity, name, type_oid, modifier: -1 };
    let expected = [column(true, "id", 23), column(false, "t", 25), column(false, "m", 0x4001), column(false, "b", 25)];
    assert_eq!(relation.columns, expected);
    let mood = TypeName { oid: 0x4001, namespace: "public", name: "mood" };
    assert_eq!(parse(&recorded(TYPE)).unwrap(), Message::Type(mood));
    let bytes = recorded(TRUNCATE);
    let Message::Truncate(truncate) = parse(&bytes).unwrap() else { panic!("not a truncate") };
    assert!(truncate.cascade && truncate.restart_identity);
    assert_eq!(truncate.relations.iter().collect::<Vec<_>>(), [0x4005, 0x400c]);
}

#[test]
fn rows_are_noted_in_text_and_binary() {
    use RawValue::{Binary, Text};
    let (NotedChange::Insert { new }, row) = noted(&recorded(INSERT), 4).unwrap() else { panic!("not an insert") };
    assert_eq!(values(&row(new)), [Text(b"5"), Text(b"tab\tnl\n"), Text(b"ok"), Text(b"")]);
    let (NotedChange::Insert { new }, row) = noted(&recorded(INSERT_BINARY), 4).unwrap() else { panic!("no insert") };
    assert_eq!(values(&row(new)), [Binary(b"\0\0\0\x05"), Binary(b"tab\tnl\n"), Binary(b"ok"), Binary(b"")]);
}

#[test]
fn an_unchanged_value_is_taken_from_a_full_old_row_alone() {
    use RawValue::{Null, Text, Unchanged};
    let (NotedChange::Update { old: None, new }, row) = noted(&recorded(UPDATE), 4).unwrap() else { panic!("old") };
    assert_eq!(values(&row(new)), [Text(b"1"), Text(b"b"), Null, Unchanged]);
    assert!(row(new).has_unchanged());

    let (change, row) = noted(&recorded(UPDATE_KEY), 4).unwrap();
    let NotedChange::Update { old: Some(NotedOld::Key(old)), new } = change else { panic!("{change:?}") };
    assert_eq!(values(&row(old)), [Text(b"1"), Null, Null, Null]);
    assert_eq!(values(&row(new)), [Text(b"2"), Text(b"b"), Null, Unchanged]);

    let (change, row) = noted(&recorded(UPDATE_FULL), 3).unwrap();
    let NotedChange::Update { old: Some(NotedOld::Full(old)), new } = change else { panic!("{change:?}") };
    let long = [b'y'; 3000];
    assert_eq!(values(&row(old)), [Text(b"1"), Text(b"a"), Text(&long)]);
    assert_eq!(values(&row(new)), [Text(b"1"), Text(b"b"), Text(&long)]);
}

#[test]
fn deletes_hold_the_key_or_the_whole_row() {
    use RawValue::{Null, Text};
    let (change, row) = noted(&recorded(DELETE), 4).unwrap();
    let NotedChange::Delete { old: NotedOld::Key(old) } = change else { panic!("{change:?}") };
    assert_eq!(values(&row(old)), [Text(b"2"), Null, Null, Null]);
    let (change, row) = noted(&recorded(DELETE_FULL), 3).unwrap();
    let NotedChange::Delete { old: NotedOld::Full(old) } = change else { panic!("{change:?}") };
    assert_eq!(values(&row(old))[1], Text(b"b"));
}

#[test]
fn peek_tells_the_table_of_rows_and_relations() {
    let peeked = |hex| peek(&recorded(hex)).unwrap();
    assert_eq!(peeked(UPDATE_FULL), Peek { tag: b'U', relation: Some(0x400c) });
    assert_eq!(peeked(RELATION).relation, Some(0x4005));
    assert!(!peeked(RELATION).is_row() && peeked(DELETE).is_row());
    assert_eq!(peeked(TRUNCATE).relation, None);
    assert_eq!(peek(b"I\0\0\0").unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn a_cut_or_prolonged_message_is_an_error_that_names_the_tag() {
    for hex in ALL {
        let whole = recorded(hex);
        let is_row = peek(&whole).unwrap().is_row();
        let columns = if matches!(hex, UPDATE_FULL | DELETE_FULL) { 3 } else { 4 };
        let read = |bytes: &[u8]| if is_row { noted(bytes, columns).map(|_| ()) } else { parse(bytes).map(|_| ()) };
        read(&whole).unwrap();
        for length in 5..whole.len() {
            assert_eq!(read(&whole[..length]).unwrap_err().kind(), ErrorKind::Protocol, "{hex} cut at {length}");
        }
        let longer = [&whole[..], b"\0"].concat();
        let error = read(&longer).unwrap_err();
        assert_eq!(error.context("tag"), Some(&*(whole[0] as char).to_string()));
    }
}

#[test]
fn columns_that_are_left_out_leave_the_others_in_place() {
    for message in [UPDATE_KEY, INSERT, DELETE].map(recorded) {
        let oid = u32::from_be_bytes(*message[1..].first_chunk().unwrap());
        let (all, chosen) = (table(oid, &vec![Kind::Text; 4]), table(oid, &[Kind::Text, Kind::Text]));
        let mut spans = RowSpans::new();
        let whole = note_change(&message, 0..message.len(), &all, &mut spans).unwrap();
        let few =
            note_kept_change(&message, 0..message.len(), &chosen, &[true, false, false, true], &mut spans).unwrap();
        let buffer = spans.finish(Bytes::from(message.clone()));
        let rows = |change| match change {
            NotedChange::Insert { new } => vec![new],
            NotedChange::Update { old: Some(NotedOld::Key(old) | NotedOld::Full(old)), new } => vec![old, new],
            NotedChange::Update { old: None, new } => vec![new],
            NotedChange::Delete { old: NotedOld::Key(old) | NotedOld::Full(old) } => vec![old],
        };
        for (whole, few) in rows(whole).into_iter().zip(rows(few)) {
            let [whole, few] = [whole, few].map(|row| TableRow::new(Arc::clone(&buffer), row));
            assert_eq!(values(&few), [values(&whole)[0], values(&whole)[3]]);
        }
        for kept in [&[true, true, true][..], &[true, true, false, true]] {
            assert!(note_kept_change(&message, 0..message.len(), &chosen, kept, &mut RowSpans::new()).is_err());
        }
    }
}

#[test]
fn a_row_that_does_not_fit_its_table_leaves_no_notes() {
    let message = recorded(UPDATE_KEY);
    let schema = table(0x4005, &vec![Kind::Text; 4]);
    let mut spans = RowSpans::new();
    let mark = spans.mark();
    note_change(&message, 0..message.len(), &schema, &mut spans).unwrap();
    let kept = spans.mark();
    for (oid, columns) in [(0x4005, 3), (0x4005, 5), (0x4006, 4)] {
        let other = table(oid, &vec![Kind::Text; columns]);
        let error = note_change(&message, 0..message.len(), &other, &mut spans).unwrap_err();
        assert_eq!(error.context("table"), Some(&*format!("public.t{oid}")));
        assert_eq!(spans.mark(), kept);
    }
    assert!(note_change(&message, 0..message.len() - 1, &schema, &mut spans).is_err());
    assert!(note_change(&message, std::ops::Range { start: 9, end: 8 }, &schema, &mut spans).is_err());
    assert!(note_change(&message, 0..usize::MAX, &schema, &mut spans).is_err());
    assert_eq!(spans.mark(), kept);
    spans.rewind(mark);
    assert_eq!(spans.byte_size(), 0);
}

#[test]
fn damaged_messages_never_panic() {
    let mut random = Random::new(7);
    let messages: Vec<_> = ALL.iter().map(|hex| recorded(&hex.replace('Y', "7979")).to_vec()).collect();
    let mut accepted = 0;
    for round in 0..40_000 {
        let bytes = match round % 8 {
            0 => {
                let length = random.below(40);
                random.bytes(length)
            }
            _ => {
                let place = random.below(messages.len());
                random.mutate(&messages[place])
            }
        };
        let _ = peek(&bytes);
        accepted += usize::from(parse(&bytes).is_ok());
        if let Some(oid) = bytes.get(1..).and_then(|rest| rest.first_chunk()) {
            let schema = table(u32::from_be_bytes(*oid), &vec![Kind::Text; 3 + round % 2]);
            let mut spans = RowSpans::new();
            if let Ok(change) = note_change(&bytes, 0..bytes.len(), &schema, &mut spans) {
                let (NotedChange::Insert { new: row }
                | NotedChange::Update { new: row, .. }
                | NotedChange::Delete { old: NotedOld::Key(row) | NotedOld::Full(row) }) = change;
                let row = TableRow::new(spans.finish(Bytes::from(bytes)), row);
                assert_eq!(values(&row).len(), schema.columns.len());
            }
        }
    }
    assert!(accepted > 1000, "the mutations are too wild to show anything: {accepted}");
}
