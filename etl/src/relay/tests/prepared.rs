//! Is a prepared transaction there when it commits, whatever ended in between, and gone afterwards?

use super::*;

const LIMIT: ByteSize = ByteSize(10_000);

fn which(xid: u32) -> Prepare {
    Prepare { xid, gid: "gid".into(), prepare: Lsn(12) }
}

fn ended(xid: u32, at: u64) -> Transaction {
    Transaction { commit: Lsn(at), end: Lsn(at + 5), xid, at: Timestamp(at.cast_signed()) }
}

async fn prepare(writer: &mut RelayWriter, xid: u32, is_streamed: bool) {
    writer.begin_chunk(xid, true).await.unwrap();
    writer.spool(xid, block("ccc")).await.unwrap();
    writer.abort(xid, 99);
    writer.prepare(&which(xid), is_streamed).await.unwrap();
}

async fn commit_it(writer: &mut RelayWriter, xid: u32, at: u64, is_known: bool) -> bool {
    writer.commit_prepared("gid", (block("B"), block("C")), ended(xid, at), is_known).await.unwrap()
}

async fn reads(relay: &Relay, in_stream: Option<Arc<Aborted>>) {
    let mut reader = relay.reader(after(10)).unwrap();
    reader.stay();
    let offset = match reader.next().await.unwrap() {
        Read::Block { bytes, offset, .. } if bytes == "B" => offset,
        other => panic!("{other:?}"),
    };
    let changes = Some(Read::Block { bytes: block("ccc"), offset: offset + 1, in_stream });
    assert_eq!(reader.next().await.ok(), changes);
    assert_eq!(reader.next().await.ok(), got("C", offset + 4));
}

#[tokio::test]
async fn it_survives_and_is_there_until_nobody_asks_for_it_again() {
    for is_streamed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
        prepare(&mut writer, 7, is_streamed).await;
        prepare(&mut writer, 8, is_streamed).await;
        writer.rewind();
        // The source sends it again, and the other one is void.
        prepare(&mut writer, 7, is_streamed).await;
        writer.rollback_prepared(8, "gid");
        drop((relay, writer));
        // A restart before its commit, one after it, and one after that was confirmed.
        for _ in 0..2 {
            let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
            writer.begin_at(Lsn(15));
            relay.confirmed(Lsn(15));
            let _holds = relay.reader(StartAt::Head).unwrap();
            assert!(relay.has_prepared());
            assert_eq!(relay.status().disk_bytes, 3);
            assert!(commit_it(&mut writer, 7, 20, false).await);
            assert_eq!(relay.head().last, Some(ended(7, 20)));
            reads(&relay, is_streamed.then(|| Arc::new(Aborted::new(vec![99])))).await;
            assert!(commit_it(&mut writer, 7, 20, true).await, "it comes again, and the log has it");
        }
        let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
        relay.confirmed(Lsn(25));
        assert!(!relay.has_prepared());
        assert!(commit_it(&mut writer, 7, 20, false).await, "everybody has it");
        assert_eq!(relay.head().last, None);
        assert!(!commit_it(&mut writer, 7, 30, false).await, "another one, that was never here");
        assert!(has_files(dir.path(), 0).await);
    }
}

#[tokio::test]
async fn the_log_and_the_prepared_have_one_file_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
    writer.begin_at(Lsn(15));
    relay.require_durable(true);
    let mut reader = relay.reader(StartAt::Head).unwrap();
    reader.stay();
    prepare(&mut writer, 7, true).await;
    assert!(commit_it(&mut writer, 7, 20, false).await);
    relay.sync_upto(Lsn(25)).await.unwrap();
    drop((reader, relay, writer));
    for is_confirmed in [false, true] {
        let (relay, writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
        relay.require_durable(true);
        assert_eq!((relay.head().last, relay.has_prepared()), (Some(ended(7, 20)), true));
        if is_confirmed {
            relay.confirmed(Lsn(25));
        }
        assert_eq!(relay.has_prepared(), !is_confirmed);
        reads(&relay, Some(Arc::new(Aborted::new(vec![99])))).await;
        drop(writer);
    }
}

#[tokio::test]
async fn what_is_damaged_is_lost_and_said_to_be_so_when_it_commits() {
    for kind in ["prepared", "spool"] {
        let dir = tempfile::tempdir().unwrap();
        let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
        prepare(&mut writer, 7, true).await;
        drop((relay, writer));
        let file = files(dir.path()).into_iter().find(|path| path.extension().is_some_and(|found| found == kind));
        let mut bytes = std::fs::read(file.as_ref().unwrap()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(file.unwrap(), bytes).unwrap();
        let (relay, mut writer) = open(dir.path(), 100, LIMIT, AtLimit::Wait).await;
        assert!(!relay.has_prepared());
        assert!(!commit_it(&mut writer, 7, 20, false).await);
        assert!(has_files(dir.path(), 0).await);
    }
}
