//! Does the relay keep order, limits and promises?

mod prepared;
mod restart;
mod spooled;

use std::future::Future;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::byte_size::ByteSize;

async fn relay(tail_bytes: usize, at_limit: AtLimit) -> (Relay, RelayWriter) {
    let settings = RelaySettings { max_bytes: ByteSize(0), at_limit };
    Relay::open(PathBuf::from("unused"), settings, tail_bytes).await.unwrap()
}

async fn open(dir: &Path, tail_bytes: usize, max_bytes: ByteSize, at_limit: AtLimit) -> (Relay, RelayWriter) {
    Relay::open(dir.join("relay"), RelaySettings { max_bytes, at_limit }, tail_bytes).await.unwrap()
}

fn begin(offset: usize, commit: u64) -> Mark {
    Mark::Begin { offset, commit: Lsn(commit), xid: 7, at: Timestamp(commit.cast_signed()) }
}

fn commit(after: usize, end: u64) -> Mark {
    Mark::Commit { after, end: Lsn(end) }
}

fn after(commit: u64) -> StartAt {
    StartAt::After(Lsn(commit))
}

fn block(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn got(text: &'static str, offset: u64) -> Option<Read> {
    Some(Read::Block { bytes: block(text), offset, in_stream: None })
}

/// What the future answers without waiting.
fn now<T>(future: impl Future<Output = EtlResult<T>>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result.unwrap()),
        Poll::Pending => None,
    }
}

/// One transaction in one block.
async fn whole(writer: &mut RelayWriter, text: &'static str, at: u64) {
    writer.append(block(text), &[begin(0, at), commit(text.len(), at + 5)]).await.unwrap();
}

#[tokio::test]
async fn two_readers_each_get_every_block_in_order() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    let mut one = relay.reader(StartAt::Head).unwrap();
    let mut two = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaa", 10).await;
    assert_eq!(now(one.next()), got("aaa", 0));
    whole(&mut writer, "bb", 20).await;
    assert_eq!((one.behind(), two.behind()), (2, 5));
    assert_eq!(now(one.next()), got("bb", 3));
    assert_eq!(now(one.next()), None);
    assert_eq!(now(two.next()), got("aaa", 0));
    assert_eq!(now(two.next()), got("bb", 3));
    assert_eq!(relay.head().end, Lsn(25));
    assert_eq!(relay.head().last, writer.has(Lsn(20)));
    assert_eq!(writer.has(Lsn(15)), None);
}

#[tokio::test]
async fn a_waiting_reader_wakes_when_something_comes() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    let (read, ()) = tokio::join!(reader.next(), whole(&mut writer, "aaa", 10));
    assert_eq!(Some(read.unwrap()), got("aaa", 0));
}

#[tokio::test]
async fn a_reader_begins_where_it_asks_even_inside_a_block() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    assert!(relay.holds(StartAt::Head) && !relay.holds(after(0)) && !relay.holds(after(99)));
    let _keeps = relay.reader(StartAt::Head).unwrap();
    let marks = [begin(0, 10), commit(3, 15), begin(3, 20), commit(6, 25), begin(6, 30)];
    writer.append(block("aaabbbcc"), &marks).await.unwrap();
    for (from, expected) in [
        (after(9), got("aaabbbcc", 0)),
        (after(10), got("bbbcc", 3)),
        (after(19), got("bbbcc", 3)),
        // The third is to come: whole, from its beginning.
        (after(20), got("cc", 6)),
        (after(30), got("cc", 6)),
        (StartAt::Head, got("cc", 6)),
    ] {
        assert_eq!(now(relay.reader(from).unwrap().next()), expected, "{from:?}");
        assert!(relay.holds(from), "{from:?}");
    }
    assert!(!relay.holds(after(8)), "what came before the first transaction is unknown");
}

#[tokio::test]
async fn a_rewind_is_seen_only_by_who_began_to_read_the_transaction() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    let mut inside = relay.reader(StartAt::Head).unwrap();
    let mut before = relay.reader(StartAt::Head).unwrap();
    writer.append(block("aaabb"), &[begin(0, 10), commit(3, 15), begin(3, 20)]).await.unwrap();
    assert_eq!(now(inside.next()), got("aaabb", 0));
    writer.append(block("bbb"), &[]).await.unwrap();
    assert_eq!(now(inside.next()), got("bbb", 5));
    inside.release(8);
    writer.rewind();
    assert_eq!(relay.head().end, Lsn(15));
    writer.append(block("BBBB"), &[begin(0, 20), commit(4, 25)]).await.unwrap();
    assert_eq!(now(inside.next()), Some(Read::Rewound));
    assert_eq!(now(inside.next()), got("BBBB", 3));
    assert_eq!(now(inside.next()), None);
    assert_eq!(now(before.next()), got("aaa", 0));
    assert_eq!(now(before.next()), got("BBBB", 3));
    writer.rewind();
    assert_eq!(now(before.next()), None, "a complete transaction is not void");
}

#[tokio::test]
async fn a_full_log_waits_for_the_slowest_reader() {
    let (relay, mut writer) = relay(4, AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaaaa", 10).await;
    let marks = [begin(0, 20)];
    let mut append = std::pin::pin!(writer.append(block("bb"), &marks));
    let waits = tokio::time::timeout(Duration::from_millis(50), append.as_mut()).await;
    assert!(waits.is_err(), "there is no room in memory, and none on disk");
    reader.next().await.unwrap();
    reader.release(5);
    append.await.unwrap();
    assert_eq!(relay.status(), RelayStatus { memory_bytes: 2, disk_bytes: 0 });
}

#[tokio::test]
async fn a_transaction_larger_than_the_limit_exceeds_it_on_disk_not_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 4, ByteSize(10), AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    writer.append(block("aaaa"), &[begin(0, 10)]).await.unwrap();
    for _ in 0..9 {
        assert!(reader.next().await.is_ok());
        writer.append(block("aaaa"), &[]).await.unwrap();
        assert!(relay.status().memory_bytes <= 8);
    }
    assert!(relay.status().disk_bytes > 10);
}

#[tokio::test]
async fn nobody_who_stands_before_an_incomplete_transaction_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 4, ByteSize(10), AtLimit::Wait).await;
    let mut copying = relay.reader(StartAt::Head).unwrap();
    writer.append(block("aaaa"), &[begin(0, 10)]).await.unwrap();
    for _ in 0..9 {
        let appended = tokio::time::timeout(Duration::from_secs(10), writer.append(block("aaaa"), &[])).await;
        appended.expect("it can free nothing").unwrap();
    }
    writer.append(block("aaaa"), &[commit(4, 15)]).await.unwrap();
    whole(&mut writer, "bbbbb", 20).await;
    let waits = tokio::time::timeout(Duration::from_millis(50), whole(&mut writer, "ccc", 30)).await;
    assert!(waits.is_err(), "now it can");
    while copying.behind() > 0 {
        copying.next().await.unwrap();
    }
    copying.release(49);
    whole(&mut writer, "ccc", 30).await;
}

#[tokio::test]
async fn a_full_log_stops_where_that_is_asked() {
    let (relay, mut writer) = relay(4, AtLimit::Stop).await;
    let _reader = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaaaa", 10).await;
    let error = writer.append(block("bb"), &[begin(0, 20)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Relay);
    assert_eq!(relay.status().memory_bytes, 5);
}

#[tokio::test]
async fn what_every_reader_released_or_left_is_freed() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    whole(&mut writer, "nobody", 5).await;
    assert_eq!(relay.status().memory_bytes, 0);
    let mut one = relay.reader(StartAt::Head).unwrap();
    let two = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaa", 10).await;
    writer.append(block("bb"), &[begin(0, 20)]).await.unwrap();
    one.release(99);
    assert_eq!(relay.status().memory_bytes, 5, "what was not read cannot be durable");
    now(one.next()).unwrap();
    one.release(9);
    assert_eq!(relay.status().memory_bytes, 5, "the other reader needs it");
    drop(two);
    assert_eq!(relay.status().memory_bytes, 2);
    assert_eq!(writer.has(Lsn(10)).map(|known| known.xid), Some(7), "it may come again, and is told from another");
    assert!(relay.holds(after(10)) && !relay.holds(after(9)));
    drop(one);
    assert_eq!(relay.status().memory_bytes, 2, "an incomplete transaction stays");
    assert_eq!(now(relay.reader(StartAt::Head).unwrap().next()), got("bb", 9));
}

#[tokio::test]
async fn the_head_follows_keepalives_outside_of_transactions() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    writer.begin_at(Lsn(50));
    writer.begin_at(Lsn(40));
    assert_eq!(relay.head(), Head { last: None, end: Lsn(50) });
    let alive = |after, end| Mark::KeepAlive { after, end: Lsn(end) };
    writer.append(Bytes::new(), &[alive(0, 60)]).await.unwrap();
    writer.append(block("aa"), &[begin(0, 70), alive(2, 90)]).await.unwrap();
    assert_eq!(relay.head().end, Lsn(60));
    assert!(relay.holds(after(50)) && !relay.holds(after(48)));
    writer.append(Bytes::new(), &[commit(0, 75)]).await.unwrap();
    assert_eq!(relay.head().end, Lsn(75));
}

#[tokio::test]
async fn marks_that_contradict_each_other_change_nothing() {
    let (relay, mut writer) = relay(100, AtLimit::Wait).await;
    for marks in [vec![commit(1, 5)], vec![begin(0, 5), begin(1, 9)], vec![begin(3, 5)]] {
        let error = writer.append(block("aa"), &marks).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    assert_eq!((relay.head().end, relay.status()), (Lsn(0), RelayStatus::default()));
}

#[tokio::test]
async fn an_absent_directory_is_removed_without_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("0.seg"), b"x").unwrap();
    Relay::remove(path.clone()).await.unwrap();
    assert!(!path.exists());
    Relay::remove(path).await.unwrap();
}

/// Two transactions on disk, the beginning of a third in memory, and a reader that has read nothing.
async fn spilled(dir: &Path) -> (Relay, RelayWriter, Reader) {
    let (relay, mut writer) = open(dir, 4, ByteSize(1000), AtLimit::Stop).await;
    let reader = relay.reader(StartAt::Head).unwrap();
    writer.append(block("aaab"), &[begin(0, 10), commit(3, 15), begin(3, 20)]).await.unwrap();
    writer.append(block("bbbb"), &[commit(4, 25)]).await.unwrap();
    writer.append(block("ccccc"), &[begin(0, 30)]).await.unwrap();
    assert_eq!(relay.status().memory_bytes, 5);
    (relay, writer, reader)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("relay")).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Whether no more files are left than so many. They are deleted by another thread.
async fn has_files(dir: &Path, count: usize) -> bool {
    for _ in 0..500 {
        if files(dir).len() <= count {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn beyond_the_tail_blocks_wait_on_disk_until_they_are_released() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer, mut slow) = spilled(dir.path()).await;
    assert_eq!(files(dir.path()).len(), 1);
    let mut later = relay.reader(after(10)).unwrap();
    assert_eq!(later.next().await.ok(), got("bbbbb", 3), "small blocks go to disk together");
    // Everything so far goes to disk; then the incomplete transaction is void.
    writer.append(block("dd"), &[]).await.unwrap();
    assert_eq!(slow.next().await.ok(), got("aaabbbbb", 0));
    assert_eq!(slow.next().await.ok(), got("ccccc", 8));
    writer.rewind();
    whole(&mut writer, "CCCCC", 30).await;
    assert_eq!(slow.next().await.ok(), Some(Read::Rewound));
    assert_eq!(slow.next().await.ok(), got("CCCCC", 8));
    drop(later);
    slow.release(13);
    whole(&mut writer, "e", 40).await;
    assert_eq!(relay.status(), RelayStatus { memory_bytes: 1, disk_bytes: 0 });
    assert!(has_files(dir.path(), 0).await);
}

#[tokio::test]
async fn a_reader_begins_inside_a_block_that_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer, _slow) = spilled(dir.path()).await;
    writer.append(block("dd"), &[]).await.unwrap();
    assert_eq!(relay.status().memory_bytes, 2);
    for (from, expected) in [(9, got("aaabbbbb", 0)), (10, got("bbbbb", 3)), (20, got("ccccc", 8))] {
        assert_eq!(relay.reader(after(from)).unwrap().next().await.ok(), expected, "{from}");
    }
    // The block in which it would begin is void before it has looked.
    let mut third = relay.reader(after(20)).unwrap();
    writer.rewind();
    whole(&mut writer, "CCCCC", 30).await;
    assert_eq!(third.next().await.ok(), got("CCCCC", 8));
}

#[tokio::test]
async fn a_full_disk_limit_stops_where_that_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer, _slow) = spilled(dir.path()).await;
    let mut result = Ok(());
    for _ in 0..20 {
        result = result.and(writer.append(block("ccccc"), &[]).await);
    }
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Relay);
    assert!(relay.status().disk_bytes <= 1000);
}

#[tokio::test]
async fn nothing_touches_the_disk_while_all_readers_keep_up() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 4, ByteSize(500), AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    for lsn in (10..1000).step_by(10) {
        whole(&mut writer, "aaaa", lsn).await;
        let Some(Read::Block { bytes, offset, .. }) = now(reader.next()) else { panic!("nothing came") };
        reader.release(offset + bytes.len() as u64);
    }
    assert!(!dir.path().join("relay").exists());
}
