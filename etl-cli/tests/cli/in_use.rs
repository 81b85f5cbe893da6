//! Is what somebody else holds, or has no room left, told in one message, and does the next run go on?

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::scene::{config, etl, refused, running, server_with_a_table};
use tokio::process::Command;

#[tokio::test]
async fn a_slot_that_another_process_reads_is_waited_for_and_then_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    config(dir.path(), "held", &server.url(), "{ 'null': {} }");
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
    let mut reader = Command::from(server.tool("pg_recvlogical").unwrap())
        .args(["-d", &server.url(), "--start", "--slot", "etl_held", "--no-loop", "-f", "/dev/null"])
        .args(["-o", "proto_version=1", "-o", "publication_names=pub"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while server.psql("SELECT active FROM pg_replication_slots").await.unwrap().trim() != "t" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refused(dir.path(), &["check"], 0, &["etl_held", "in use"]).await;
    refused(dir.path(), &["run"], 1, &["etl_held", "active for PID"]).await;
    reader.kill().await.unwrap();
}

#[tokio::test]
async fn a_duckdb_file_that_another_process_writes_is_refused() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = server_with_a_table().await;
    let file = format!("{{ duckdb: {{ path: '{}' }} }}", first.path().join("copy.duckdb").display());
    config(first.path(), "writes", &server.url(), &file);
    let mut child = running(first.path()).await;
    config(second.path(), "waits", &server.url(), &file);
    refused(second.path(), &["check"], 1, &["copy.duckdb", "one writing process"]).await;
    refused(second.path(), &["run"], 1, &["copy.duckdb", "one writing process"]).await;
    let slots = server.psql("SELECT string_agg(slot_name, ',') FROM pg_replication_slots").await.unwrap();
    assert_eq!(slots.trim(), "etl_writes", "a refused run leaves no slot behind");
    child.kill().await.unwrap();
    refused(second.path(), &["run", "--until-caught-up"], 0, &[]).await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server.psql("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 50000) g").await.unwrap();
    config(dir.path(), "twice", &server.url(), "{ duckdb: { path: copy.duckdb } }");
    // A destination that hangs: the drain would wait for ever.
    let mut child = etl(dir.path(), &["run"])
        .env("ETL_FAILPOINTS", "apply.before_write=stall")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.psql("UPDATE t SET v = 'y'").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pid = child.id().unwrap().to_string();
    for _ in 0..2 {
        Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let output = tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("it does not end").unwrap();
    assert_eq!(output.code(), Some(1));
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
}

/// A small disk, or nothing where this user may not make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    async fn new(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let made = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], disk.0.path()).await;
        made.then_some(disk)
    }

    async fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], self.0.path()).await);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

async fn mount(options: &[&str], at: &Path) -> bool {
    Command::new("mount")
        .args(options)
        .arg(at)
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_full_disk_ends_the_run_and_with_room_the_next_one_goes_on() {
    for destination_is_small in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::new("4m").await else {
            eprintln!("SKIPPED: this user may not mount a small disk");
            return;
        };
        let server = server_with_a_table().await;
        server
            .psql("INSERT INTO t SELECT g, md5(g::text) || md5((-g)::text) FROM generate_series(1, 400000) g")
            .await
            .unwrap();
        let small = disk.0.path().display();
        let (file, data) = if destination_is_small {
            (format!("{small}/copy.duckdb"), "data".into())
        } else {
            ("copy.duckdb".into(), format!("{small}/data"))
        };
        let text = format!(
            "pipeline: {{ id: full, data_dir: '{data}', memory_limit: 16MiB }}\n\
             source: {{ postgres: {{ url: '{}', publication: pub }} }}\n\
             destination: {{ duckdb: {{ path: '{file}' }} }}\n",
            server.url()
        );
        std::fs::write(dir.path().join("etl.yaml"), text).unwrap();
        if !destination_is_small {
            // The state fits; nothing else does.
            std::fs::write(disk.0.path().join("ballast"), vec![0; 4_160_000]).unwrap();
        }
        refused(dir.path(), &["run", "--until-caught-up"], 1, &["full"]).await;
        disk.grow("200m").await;
        refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
    }
}
