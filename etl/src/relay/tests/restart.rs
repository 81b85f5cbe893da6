//! What is there again after a restart, and what does the relay say of what is not?

use super::*;

const LIMIT: ByteSize = ByteSize(10_000);

async fn reopen(dir: &Path) -> (Relay, RelayWriter) {
    open(dir, 100, LIMIT, AtLimit::Wait).await
}

/// Two transactions of three are synced, and needed by a reader.
async fn synced(dir: &Path) -> (Relay, RelayWriter, Reader) {
    let (relay, mut writer) = reopen(dir).await;
    writer.begin_at(Lsn(5));
    let reader = relay.reader(StartAt::Head).unwrap();
    relay.require_durable(true);
    whole(&mut writer, "aaa", 10).await;
    relay.sync_upto(Lsn(15)).await.unwrap();
    whole(&mut writer, "bbb", 20).await;
    relay.sync_upto(Lsn(25)).await.unwrap();
    whole(&mut writer, "ccc", 30).await;
    (relay, writer, reader)
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_was_synced_is_held_again_and_the_rest_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(synced(dir.path()).await);
    let (relay, mut writer) = reopen(dir.path()).await;
    assert_eq!(relay.head().last.map(|last| (last.commit, last.end, last.xid)), Some((Lsn(20), Lsn(25), 7)));
    assert_eq!(relay.head().last, writer.has(Lsn(20)));
    assert!(!relay.holds(after(10)), "nobody has said yet where the stream goes on");
    writer.begin_at(Lsn(25));
    assert!(relay.holds(after(5)) && relay.holds(after(10)) && !relay.holds(after(3)));
    let mut all = relay.reader(after(5)).unwrap();
    let mut second = relay.reader(after(10)).unwrap();
    whole(&mut writer, "ccc", 30).await;
    for expected in [got("aaa", 0), got("bbb", 3), got("ccc", 6)] {
        assert_eq!(all.next().await.ok(), expected);
    }
    assert_eq!(second.next().await.ok(), got("bbb", 3));
}

#[tokio::test]
async fn what_is_missing_between_the_log_and_the_stream_is_not_held() {
    let dir = tempfile::tempdir().unwrap();
    drop(synced(dir.path()).await);
    let (relay, mut writer) = reopen(dir.path()).await;
    writer.begin_at(Lsn(26));
    assert!(!relay.holds(after(10)) && !relay.holds(after(20)) && relay.holds(after(26)));
}

#[tokio::test]
async fn an_incomplete_transaction_is_gone_and_comes_again_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer, reader) = synced(dir.path()).await;
    writer.append(block("ddd"), &[begin(0, 40)]).await.unwrap();
    writer.append(block("ddd"), &[]).await.unwrap();
    relay.0.log().spill(0, u64::MAX);
    relay.with_pen(|pen, inner| pen.spill(inner, 0, false)).await.unwrap();
    drop((relay, writer, reader));
    for _ in 0..3 {
        let (relay, mut writer) = reopen(dir.path()).await;
        writer.begin_at(Lsn(25));
        assert_eq!(relay.head().end, Lsn(35));
        let mut reader = relay.reader(after(30)).unwrap();
        writer.append(block("DD"), &[begin(0, 40)]).await.unwrap();
        assert_eq!(reader.next().await.ok(), got("DD", 9));
        relay.with_pen(|pen, inner| pen.spill(inner, 0, false)).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_torn_is_cut_off_wherever_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, writer, reader) = synced(dir.path()).await;
    let place = relay.0.pen().synced_place();
    relay.with_pen(|pen, inner| pen.spill(inner, 0, false)).await.unwrap();
    drop((relay, writer, reader));
    let path = files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let safe = usize::try_from(place.position).unwrap();
    assert!(safe < whole.len());
    for len in safe..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let (relay, _) = reopen(dir.path()).await;
        assert_eq!(relay.head().end, Lsn(25), "at {len}");
        drop(relay);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), place.position);
    }
    damage(&path, |bytes| bytes.extend([0; 4096]));
    assert_eq!(reopen(dir.path()).await.0.head().end, Lsn(25));
}

#[tokio::test]
async fn damage_to_what_was_synced_is_an_error_that_names_file_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, writer, reader) = synced(dir.path()).await;
    let ends = relay.0.pen().synced_place().position;
    relay.with_pen(|pen, inner| pen.spill(inner, 0, false)).await.unwrap();
    drop((relay, writer, reader));
    let path = files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    // Every byte of the first record but those of its lengths, which can hide what follows.
    for at in segment::MAGIC.len() + 8..segment::MAGIC.len() + 60 {
        damage(&path, |bytes| bytes[at] ^= 1);
        let result = Relay::open(dir.path().join("relay"), RelaySettings::default(), 100).await;
        let error = result.err().unwrap_or_else(|| panic!("the damage at {at} of {ends} was not found"));
        assert_eq!((error.kind(), error.context("position")), (ErrorKind::Relay, Some("8")), "{at}");
        assert_eq!(error.context("path"), Some(path.display().to_string().as_str()));
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(reopen(dir.path()).await.0.head().end, Lsn(35));
    damage(&path, |bytes| bytes[0] ^= 1);
    let error = Relay::open(dir.path().join("relay"), RelaySettings::default(), 100).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Relay);
}

#[tokio::test]
async fn damage_that_happens_meanwhile_is_named_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, _writer, mut slow) = spilled(dir.path()).await;
    let path = files(dir.path()).remove(0);
    damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let error = slow.next().await.unwrap_err();
    assert_eq!((error.kind(), error.context("position")), (ErrorKind::Relay, Some("8")));
    assert_eq!(error.context("path"), Some(path.display().to_string().as_str()));
}

#[tokio::test]
async fn a_durable_log_says_how_far_it_reached_where_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = reopen(dir.path()).await;
    relay.require_durable(true);
    let mut reader = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaa", 10).await;
    assert_eq!(now(reader.next()), got("aaa", 0));
    reader.release(3);
    writer.append(Bytes::new(), &[Mark::KeepAlive { after: 0, end: Lsn(50) }]).await.unwrap();
    relay.sync_upto(Lsn(50)).await.unwrap();
    drop((relay, writer, reader));

    let (relay, mut writer) = reopen(dir.path()).await;
    relay.require_durable(true);
    writer.begin_at(Lsn(50));
    assert_eq!(relay.head().end, Lsn(50));
    assert!(relay.holds(after(10)) && !relay.holds(after(9)));
    let mut reader = relay.reader(after(10)).unwrap();
    whole(&mut writer, "bb", 60).await;
    assert_eq!(now(reader.next()), got("bb", 3));
    reader.release(5);
    whole(&mut writer, "c", 70).await;
    assert_eq!(files(dir.path()).len(), 1, "it is still asked for");
    relay.require_durable(false);
    whole(&mut writer, "c", 80).await;
    assert!(has_files(dir.path(), 0).await);
}

#[tokio::test]
async fn a_sync_writes_only_what_somebody_needs_of_what_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 1000, LIMIT, AtLimit::Wait).await;
    let _slow = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaa", 10).await;
    whole(&mut writer, "bbb", 20).await;
    for lsn in (30..90).step_by(10) {
        whole(&mut writer, "and much more", lsn).await;
    }
    relay.sync_upto(Lsn(15)).await.unwrap();
    let bytes = std::fs::read(files(dir.path()).remove(0)).unwrap();
    assert!(bytes.windows(3).any(|window| window == b"aaa"));
    assert!(!bytes.windows(4).any(|window| window == b"much"));
    relay.sync_upto(Lsn(12)).await.unwrap();
    assert_eq!(relay.status().disk_bytes, bytes.len() as u64, "that is synced already");
}

#[tokio::test]
async fn a_sync_at_the_limit_waits_for_the_slowest_reader_or_stops() {
    for at_limit in [AtLimit::Wait, AtLimit::Stop] {
        let dir = tempfile::tempdir().unwrap();
        let (relay, mut writer) = open(dir.path(), 1000, ByteSize(10), at_limit).await;
        relay.require_durable(true);
        let mut slow = relay.reader(StartAt::Head).unwrap();
        whole(&mut writer, "aaa", 10).await;
        let mut sync = pin!(relay.sync_upto(Lsn(15)));
        let ended = tokio::time::timeout(Duration::from_millis(50), sync.as_mut()).await;
        if at_limit == AtLimit::Stop {
            assert_eq!(ended.unwrap().unwrap_err().kind(), ErrorKind::Relay);
            continue;
        }
        assert!(ended.is_err());
        assert_eq!(now(slow.next()), got("aaa", 0));
        slow.release(3);
        sync.await.unwrap();
    }
}

#[tokio::test]
async fn what_a_reader_held_that_stays_is_there_again_and_of_one_that_left_it_is_not() {
    for stays in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (relay, mut writer, mut reader) = synced(dir.path()).await;
        reader.stay();
        if stays {
            drop(reader);
        } else {
            reader.leave();
        }
        whole(&mut writer, "ddd", 40).await;
        relay.sync_upto(Lsn(45)).await.unwrap();
        drop((relay, writer));
        let (relay, mut writer) = reopen(dir.path()).await;
        writer.begin_at(Lsn(45));
        assert_eq!(relay.holds(after(5)), stays);
        assert!(relay.holds(after(40)));
    }
}

#[tokio::test]
async fn a_reader_that_needs_nothing_of_a_transaction_whose_beginning_is_gone_begins_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 1000, ByteSize(1 << 20), AtLimit::Wait).await;
    writer.begin_at(Lsn(5));
    relay.require_durable(true);
    let mut reader = relay.reader(StartAt::Head).unwrap();
    let spill = async || relay.with_pen(|pen, inner| pen.spill(inner, 0, true)).await.unwrap();
    // Enough for a file of its own.
    writer.append(Bytes::from(vec![b'a'; 70_000]), &[begin(0, 10)]).await.unwrap();
    spill().await;
    writer.append(block("aa"), &[]).await.unwrap();
    spill().await;
    writer.append(block("abbb"), &[commit(1, 15), begin(1, 20), commit(4, 25)]).await.unwrap();
    relay.sync_upto(Lsn(25)).await.unwrap();
    for _ in 0..3 {
        reader.next().await.unwrap();
    }
    reader.release(70_003);
    // The next log would find it else.
    assert!(has_files(dir.path(), 1).await);
    reader.stay();
    drop((relay, writer, reader));

    let (relay, mut writer) = reopen(dir.path()).await;
    writer.begin_at(Lsn(25));
    assert!(relay.holds(after(10)) && !relay.holds(after(9)));
    // One that passed the first transaction without a word to the destination asks for it again.
    for mut reader in [after(10), after(5)].map(|from| relay.reader(from).unwrap()) {
        assert_eq!(reader.next().await.ok(), got("bbb", 70_003));
    }
}

#[tokio::test]
async fn a_file_that_only_says_how_far_the_log_reached_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 1000, ByteSize(100_000), AtLimit::Wait).await;
    relay.require_durable(true);
    let mut reader = relay.reader(StartAt::Head).unwrap();
    writer.append(Bytes::from(vec![b'a'; 200_000]), &[begin(0, 10)]).await.unwrap();
    reader.next().await.unwrap();
    // One transaction may exceed the limit.
    writer.append(block("a"), &[commit(1, 15)]).await.unwrap();
    assert!(relay.status().disk_bytes > 200_000);
    reader.next().await.unwrap();
    reader.release(200_001);
    whole(&mut writer, "bbb", 20).await;
    let synced = tokio::time::timeout(Duration::from_secs(10), relay.sync_upto(Lsn(25))).await;
    synced.expect("nobody can make room").unwrap();
    assert!(relay.status().disk_bytes < 1000, "{:?}", relay.status());
}

/// What is left of the files once a transaction of several is void: the first one and the last.
async fn voided(dir: &Path, first: &'static [u8]) -> (Relay, RelayWriter) {
    let (relay, mut writer) = open(dir, 1000, ByteSize(1 << 20), AtLimit::Wait).await;
    writer.begin_at(Lsn(5));
    relay.require_durable(true);
    let mut reader = relay.reader(StartAt::Head).unwrap();
    writer.append(Bytes::from_static(first), &[begin(0, 10), commit(first.len(), 15)]).await.unwrap();
    relay.sync_upto(Lsn(15)).await.unwrap();
    writer.append(Bytes::from(vec![b'b'; 70_000]), &[begin(0, 20)]).await.unwrap();
    for rest in [70_000, 2] {
        relay.with_pen(|pen, inner| pen.spill(inner, 0, true)).await.unwrap();
        writer.append(Bytes::from(vec![b'b'; rest]), &[]).await.unwrap();
    }
    relay.with_pen(|pen, inner| pen.spill(inner, 0, true)).await.unwrap();
    writer.rewind();
    assert!(has_files(dir, 2).await);
    reader.stay();
    (relay, writer)
}

#[tokio::test]
async fn a_large_transaction_that_was_cut_off_takes_nothing_with_it_that_came_before() {
    // It begins in the file of what came before, or in one that is deleted.
    for first in [&[b'a'; 3][..], &[b'a'; 70_000]] {
        let dir = tempfile::tempdir().unwrap();
        drop(voided(dir.path(), first).await);
        for comes_again in [false, true, true] {
            let (relay, mut writer) = open(dir.path(), 1000, ByteSize(1 << 20), AtLimit::Wait).await;
            writer.begin_at(Lsn(15));
            assert!(relay.holds(after(5)), "of {} bytes", first.len());
            let mut reader = relay.reader(after(5)).unwrap();
            reader.stay();
            let Ok(Read::Block { bytes, offset: 0, .. }) = reader.next().await else { panic!("it is gone") };
            assert_eq!(bytes, first);
            relay.require_durable(true);
            if comes_again && relay.head().end == Lsn(15) {
                whole(&mut writer, "bbb", 20).await;
                relay.sync_upto(Lsn(25)).await.unwrap();
            }
            if comes_again {
                assert_eq!(reader.next().await.ok(), got("bbb", first.len() as u64));
            }
        }
    }
}
