//! Does the relay keep order, limits and promises?

use std::future::Future;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::*;
use crate::byte_size::ByteSize;

async fn relay(tail_bytes: usize, at_limit: AtLimit) -> (Relay, RelayWriter) {
    let settings = RelaySettings { max_bytes: ByteSize::gib(1), at_limit };
    Relay::open(PathBuf::from("unused"), settings, tail_bytes).await.unwrap()
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
    Some(Read::Block { bytes: block(text), offset })
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
    let more = [begin(0, 20)];
    assert_eq!(now(writer.append(block("bb"), &more)), None);
    assert_eq!(now(reader.next()), got("aaaaa", 0));
    assert!(now(writer.append(block("bb"), &more)).is_some(), "the reader may need more to complete a transaction");
    assert_eq!(now(writer.append(block("cc"), &[])), None);
    let (appended, ()) = tokio::join!(writer.append(block("cc"), &[]), async { reader.release(5) });
    appended.unwrap();
    assert_eq!(relay.status().memory_bytes, 4);
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
    assert_eq!(writer.has(Lsn(10)), None);
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
