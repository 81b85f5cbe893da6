//! Are transactions that came in progress like others once they have committed, and nothing before?

use super::*;

const LIMIT: ByteSize = ByteSize(10_000);

fn adopted(at: u64) -> Transaction {
    Transaction { commit: Lsn(at), end: Lsn(at + 5), xid: 7, at: Timestamp(at.cast_signed()) }
}

/// One transaction of two writes.
async fn stream(writer: &mut RelayWriter, at: u64) {
    writer.begin_chunk(7, true).await.unwrap();
    writer.spool(7, block("ccc")).await.unwrap();
    writer.begin_chunk(7, false).await.unwrap();
    writer.spool(7, block("dd")).await.unwrap();
    writer.abort(7, 9);
    writer.adopt(block("B"), block("C"), adopted(at)).await.unwrap();
}

fn streamed(text: &'static str, offset: u64) -> Option<Read> {
    let in_stream = Some(Arc::new(Aborted::new(vec![9])));
    Some(Read::Block { bytes: block(text), offset, in_stream })
}

fn of_kind(dir: &Path, kind: &str) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.extension().is_some_and(|found| found == kind)).collect()
}

async fn all(reader: &mut Reader, count: usize) -> Vec<Option<Read>> {
    let mut read = Vec::new();
    for _ in 0..count {
        read.push(reader.next().await.ok());
    }
    read
}

#[tokio::test]
async fn what_is_loaded_at_a_time_fits_into_a_buffer_unless_more_was_written_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 100, ByteSize::mib(4), AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    writer.begin_chunk(7, true).await.unwrap();
    for kib in [200, 50, 100, 300, 1] {
        writer.spool(7, Bytes::from(vec![b'x'; kib << 10])).await.unwrap();
    }
    writer.adopt(block("B"), block("C"), adopted(20)).await.unwrap();
    let mut sizes = Vec::new();
    while sizes.len() < 6 {
        let Ok(Read::Block { bytes, .. }) = reader.next().await else { panic!("nothing came") };
        sizes.push(bytes.len());
    }
    assert_eq!(sizes, [1, 250 << 10, 100 << 10, 300 << 10, 1 << 10, 1]);
}

#[tokio::test]
async fn a_streamed_transaction_comes_at_its_commit_with_what_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    writer.begin_chunk(8, true).await.unwrap();
    writer.spool(8, block("never")).await.unwrap();
    whole(&mut writer, "aaa", 10).await;
    stream(&mut writer, 20).await;
    whole(&mut writer, "bbb", 30).await;
    let expected = [got("aaa", 0), got("B", 3), streamed("cccdd", 4), got("C", 9), got("bbb", 10)];
    assert_eq!(all(&mut reader, 5).await, expected);
    assert_eq!((now(reader.next()), reader.behind()), (None, 0));
    assert_eq!(writer.has(Lsn(20)), Some(adopted(20)));
    assert_eq!(relay.head().end, Lsn(35));
    for (from, expected) in [(9, got("aaa", 0)), (10, got("B", 3)), (20, got("bbb", 10))] {
        assert_eq!(relay.reader(after(from)).unwrap().next().await.ok(), expected, "{from}");
    }
    assert_eq!(relay.status().disk_bytes, 10);
    reader.release(10);
    assert_eq!(relay.status().disk_bytes, 5, "what is in progress stays");
    writer.abort(8, 8);
    assert_eq!(relay.status().disk_bytes, 0);
    assert!(has_files(dir.path(), 0).await);
}

#[tokio::test]
async fn what_is_in_progress_waits_for_no_limit_and_is_void_after_a_rewind() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 4, ByteSize(1), AtLimit::Stop).await;
    let _reader = relay.reader(StartAt::Head).unwrap();
    whole(&mut writer, "aaa", 10).await;
    writer.begin_chunk(7, true).await.unwrap();
    for _ in 0..10 {
        writer.spool(7, block("cc")).await.unwrap();
    }
    assert_eq!(relay.status(), RelayStatus { memory_bytes: 3, disk_bytes: 20 });
    writer.rewind();
    assert_eq!(relay.status(), RelayStatus { memory_bytes: 3, disk_bytes: 0 });
    let error = writer.adopt(block("B"), block("C"), adopted(20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "it has to come again first");
    assert_eq!(writer.spool(7, block("cc")).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(writer.begin_chunk(7, false).await.unwrap_err().kind(), ErrorKind::Protocol, "its beginning is missing");
}

#[tokio::test]
async fn an_id_that_is_used_again_has_nothing_of_what_it_named_before() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    writer.begin_chunk(7, true).await.unwrap();
    writer.spool(7, block("old")).await.unwrap();
    stream(&mut writer, 20).await;
    assert_eq!(all(&mut reader, 3).await, [got("B", 0), streamed("cccdd", 1), got("C", 6)]);
}

/// A streamed transaction that is on disk for good, between two others, and one in progress.
async fn synced(dir: &Path) {
    let (relay, mut writer) = open(dir, 100, LIMIT, AtLimit::Wait).await;
    writer.begin_at(Lsn(5));
    let mut reader = relay.reader(StartAt::Head).unwrap();
    reader.stay();
    whole(&mut writer, "aaa", 10).await;
    stream(&mut writer, 20).await;
    relay.sync_upto(Lsn(25)).await.unwrap();
    whole(&mut writer, "bbb", 30).await;
    relay.sync_upto(Lsn(35)).await.unwrap();
    writer.begin_chunk(8, true).await.unwrap();
    writer.spool(8, block("never")).await.unwrap();
    stream(&mut writer, 40).await;
}

#[tokio::test]
async fn what_was_synced_is_there_after_a_restart_and_what_was_in_progress_is_not() {
    let dir = tempfile::tempdir().unwrap();
    synced(dir.path()).await;
    let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
    assert_eq!(of_kind(dir.path(), "spool").len(), 1);
    writer.begin_at(Lsn(35));
    assert_eq!((relay.head().end, writer.has(Lsn(20))), (Lsn(35), Some(adopted(20))));
    assert!(relay.holds(after(5)));
    let mut reader = relay.reader(after(9)).unwrap();
    let expected = [got("aaaB", 0), streamed("cccdd", 4), got("C", 9), got("bbb", 10)];
    assert_eq!(all(&mut reader, 4).await, expected);
    assert_eq!(relay.reader(after(10)).unwrap().next().await.ok(), got("B", 3));
    stream(&mut writer, 40).await;
    assert_eq!(all(&mut reader, 3).await, [got("B", 13), streamed("cccdd", 14), got("C", 19)]);
    reader.release(20);
    whole(&mut writer, "e", 50).await;
    reader.next().await.unwrap();
    reader.release(21);
    whole(&mut writer, "f", 60).await;
    assert!(has_files(dir.path(), 0).await);
    assert_eq!(relay.status(), RelayStatus { memory_bytes: 1, disk_bytes: 0 });
}

#[tokio::test]
async fn a_file_that_is_lost_cut_or_damaged_after_it_was_synced_is_an_error() {
    for damage in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        synced(dir.path()).await;
        let spool = of_kind(dir.path(), "spool").remove(0);
        match damage {
            0 => std::fs::remove_file(&spool).unwrap(),
            1 => std::fs::write(&spool, b"cccd").unwrap(),
            _ => std::fs::write(&spool, b"cccXd").unwrap(),
        }
        let settings = RelaySettings { max_bytes: LIMIT, at_limit: AtLimit::Wait };
        let error = Relay::open(dir.path().join("relay"), settings, 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Relay, "{damage}");
    }
}

#[tokio::test]
async fn damage_that_happens_while_it_is_read_is_an_error_too() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
    let mut reader = relay.reader(StartAt::Head).unwrap();
    stream(&mut writer, 20).await;
    std::fs::write(&of_kind(dir.path(), "spool")[0], b"cccXd").unwrap();
    reader.next().await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!((error.kind(), error.context("position")), (ErrorKind::Relay, Some("0")));
}
