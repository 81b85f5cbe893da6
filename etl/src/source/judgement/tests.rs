//! Which differences are none, which cost tables, and which are not ours to touch?

use super::*;

fn slot(confirmed: u64) -> Slot {
    Slot {
        name: "etl_shop".to_owned(),
        plugin: Some("pgoutput".to_owned()),
        database: Some("shop".to_owned()),
        confirmed: Lsn(confirmed),
        ..Slot::default()
    }
}

/// Read up to 100, of which tables have everything up to 90.
fn before() -> Remembered {
    Remembered {
        system: Some("7".to_owned()),
        timeline: Some(1),
        database: Some("shop".to_owned()),
        database_oid: Some("5".to_owned()),
        publication: Some("p 9".to_owned()),
        confirmed: Some(Lsn(100)),
        written: Lsn(90),
        main: Lsn(90),
        was_creating: false,
        diverged: None,
        last: None,
    }
}

fn found(slot: Option<Slot>) -> Found {
    Found {
        identity: SystemIdentity {
            system: "7".to_owned(),
            timeline: 1,
            flushed: Lsn(200),
            database: "shop".to_owned(),
        },
        database_oid: Some("5".to_owned()),
        is_standby: false,
        publication: Some("p 9".to_owned()),
        history: String::new(),
        slot,
    }
}

fn promoted(left_at: u64, slot: Option<Slot>) -> Found {
    let mut found = found(slot);
    found.identity.timeline = 2;
    found.history = format!("1\t{}\tno recovery target specified\n", Lsn(left_at));
    found
}

fn broken(before: &Remembered, found: &Found) -> Break {
    match judge(before, found) {
        Judgement::Broken(broken) => broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r9_a_start_needs_no_gap_and_no_future() {
    assert!(matches!(judge(&before(), &found(Some(slot(100)))), Judgement::GoOn(Lsn(100))));
    assert!(matches!(judge(&before(), &found(Some(slot(80)))), Judgement::GoOn(Lsn(80))), "a word was lost");
    let moved = broken(&before(), &found(Some(slot(101))));
    assert!(moved.what.contains("moved on") && moved.extent == Extent::Gap && !moved.keeps_slot, "{moved:?}");
    let mut back = found(Some(slot(60)));
    back.identity.flushed = Lsn(99);
    let back = broken(&before(), &back);
    assert!(back.what.contains("back in time") && back.keeps_slot, "{back:?}");
    assert_eq!(back.extent, Extent::Since(Lsn(60)), "what the slot was told is common");
}

#[test]
fn a_server_that_went_back_and_lost_the_slot_has_nothing_to_go_on_with() {
    let mut back = found(None);
    back.identity.flushed = Lsn(99);
    let back = broken(&before(), &back);
    assert_eq!((back.extent, back.keeps_slot), (Extent::Since(Lsn::ZERO), false));
}

#[test]
fn a_slot_that_is_gone_lost_or_of_another_publication_leaves_a_gap() {
    let lost = |reason: &str| Slot { lost: Some(reason.to_owned()), ..slot(100) };
    let mut other = found(Some(slot(100)));
    other.publication = Some("p 10".to_owned());
    for (found, what, hint) in [
        (found(None), "gone", "dropped"),
        (found(Some(lost("wal_removed"))), "invalidated", "max_slot_wal_keep_size"),
        (found(Some(lost("rows_removed"))), "invalidated", "hot_standby_feedback"),
        (found(Some(lost("idle_timeout"))), "invalidated", "idle_replication_slot_timeout"),
        (other, "publication", "ALTER PUBLICATION"),
        (promoted(150, None), "promoted", "failover"),
    ] {
        let broken = broken(&before(), &found);
        assert!(broken.what.contains(what) && broken.hint.contains(hint), "{broken:?}");
        assert_eq!(broken.extent, Extent::Gap);
    }
}

#[test]
fn a_promoted_standby_that_has_everything_is_the_same_source() {
    for (left_at, slot_at) in [(100, 100), (150, 100), (150, 80)] {
        let judgement = judge(&before(), &promoted(left_at, Some(slot(slot_at))));
        assert!(matches!(judgement, Judgement::GoOn(at) if at == Lsn(slot_at)), "{judgement:?}");
    }
}

#[test]
fn a_promoted_standby_that_lacks_what_was_read_costs_what_was_read_since() {
    let lacks = broken(&before(), &promoted(90, Some(slot(70))));
    assert_eq!((lacks.extent, lacks.keeps_slot), (Extent::Since(Lsn(90)), true));
    let lacks = broken(&before(), &promoted(60, Some(Slot { lost: Some("wal_removed".to_owned()), ..slot(50) })));
    assert_eq!((lacks.extent, lacks.keeps_slot), (Extent::Since(Lsn::ZERO), false), "and nothing to go on with");
    let mut unknown = promoted(90, Some(slot(70)));
    unknown.history = "3\t0/9\tx".to_owned();
    assert_eq!(broken(&before(), &unknown).extent, Extent::Since(Lsn(70)));
    let mut back = found(Some(slot(70)));
    back.identity.timeline = 1;
    let ahead = Remembered { timeline: Some(2), ..before() };
    assert_eq!(broken(&ahead, &back).extent, Extent::Since(Lsn(70)), "an older timeline");
}

#[test]
fn a_standby_that_was_promoted_under_the_stream_is_the_same_source() {
    let judgement = judge(&before(), &promoted(60, Some(slot(99))));
    assert!(matches!(judgement, Judgement::GoOn(Lsn(99))), "its slot was told of what came since: {judgement:?}");
    let moved = broken(&before(), &promoted(60, Some(slot(101))));
    assert!(moved.what.contains("history"), "somebody else has read on: {moved:?}");
}

#[test]
fn r9_a_source_that_was_seen_to_send_something_else_costs_what_was_read_since() {
    let seen = Remembered { diverged: Some(Lsn(70)), ..before() };
    let other = broken(&seen, &found(Some(slot(70))));
    assert_eq!((other.extent, other.keeps_slot), (Extent::Since(Lsn(70)), true));
    let last = Transaction { commit: Lsn(90), xid: 7, at: crate::clock::Timestamp(1), end: Lsn(95) };
    let before = Remembered { last: Some(last), ..before() };
    assert_eq!(must_come(&before, &found(None), Lsn(80)), Some(last));
    assert_eq!(must_come(&before, &found(None), Lsn(91)), None, "the slot is past it");
    assert_eq!(must_come(&before, &promoted(95, None), Lsn(80)), Some(last));
    assert_eq!(
        must_come(&before, &promoted(90, None), Lsn(80)),
        None,
        "it was not received there, and not written here"
    );
}

#[test]
fn another_server_or_database_is_told_from_a_renamed_one() {
    let mut server = found(None);
    server.identity.system = "8".to_owned();
    assert_eq!(broken(&before(), &server).extent, Extent::Elsewhere);
    let mut database = found(None);
    (database.identity.database, database.database_oid) = ("blog".to_owned(), Some("6".to_owned()));
    assert!(broken(&before(), &database).what.contains("another database"));
    let mut again = found(None);
    again.database_oid = Some("6".to_owned());
    assert!(broken(&before(), &again).what.contains("another database"), "dropped and made anew");
    let mut renamed = found(Some(Slot { database: Some("store".to_owned()), ..slot(100) }));
    renamed.identity.database = "store".to_owned();
    assert!(matches!(judge(&before(), &renamed), Judgement::GoOn(_)));
    let older = Remembered { database_oid: None, ..before() };
    assert!(matches!(judge(&older, &found(Some(slot(100)))), Judgement::GoOn(_)), "the oid was not stored once");
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let of = |slot: Slot| found(Some(slot));
    let mut standby = of(Slot { is_synced: true, ..slot(100) });
    standby.is_standby = true;
    for (before, found, expected) in [
        (before(), of(Slot { plugin: Some("wal2json".to_owned()), ..slot(1) }), "another plugin"),
        (before(), of(Slot { database: Some("blog".to_owned()), ..slot(1) }), "another plugin or database"),
        (before(), of(Slot { is_temporary: true, ..slot(1) }), "another plugin"),
        (before(), standby, "copy of one of the primary"),
        (Remembered::default(), of(slot(1)), "its state is not here"),
    ] {
        match judge(&before, &found) {
            Judgement::Refused(error) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn without_anything_from_before_the_slot_is_created() {
    assert!(matches!(judge(&Remembered::default(), &found(None)), Judgement::CreateSlot { drops: false }));
    let creating = Remembered { was_creating: true, ..Remembered::default() };
    assert!(matches!(judge(&creating, &found(Some(slot(3)))), Judgement::CreateSlot { drops: true }));
    assert!(matches!(judge(&creating, &found(None)), Judgement::CreateSlot { drops: false }));
}
