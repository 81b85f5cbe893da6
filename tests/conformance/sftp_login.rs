//! Who is let in by whom? Keys, agents and passwords at real servers, and a server whose key is not the known one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use etl::destination::Destination;
use etl::store::MemoryStore;
use etl::{ErrorKind, EtlResult, Secret};
use etl_destinations::sftp::{Sftp, SftpConfig};
use etl_destinations::table_rules::TableRules;
use harness::ssh_password::{Asks, PASSWORD, PasswordServer, USER};
use harness::sshd::{PASSPHRASE, Sshd};

use crate::sftp::reaching;

async fn checked(config: SftpConfig) -> EtlResult<()> {
    Sftp::with_config(config, Arc::new(MemoryStore::new()), TableRules::default())?.check_connection().await
}

/// The error of a check, which has to name its step, have a hint, and keep quiet about what is secret.
async fn refused(config: SftpConfig, kind: ErrorKind, step: &str) -> String {
    let error = checked(config).await.unwrap_err();
    let text = error.to_string();
    assert_eq!((error.kind(), error.context("step")), (kind, Some(step)), "{text}");
    assert!(error.hint_text().is_some(), "{text}");
    assert!(![PASSWORD, PASSPHRASE, "wrong word"].iter().any(|secret| text.contains(secret)), "{text}");
    text
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_key_an_encrypted_key_and_an_agent_log_in_and_the_probe_leaves_nothing() {
    let Some(sshd) = Sshd::start_or_skip().await else { return };
    checked(reaching(&sshd)).await.unwrap();
    let locked = || SftpConfig { private_key: Some(sshd.locked_key()), ..reaching(&sshd) };
    let passphrase = |word: &str| Some(Secret::new(word));
    checked(SftpConfig { passphrase: passphrase(PASSPHRASE), ..locked() }).await.unwrap();
    let by_fingerprint = SftpConfig { known_hosts: None, host_keys: vec![sshd.fingerprint()], ..reaching(&sshd) };
    checked(by_fingerprint).await.unwrap();
    let agent = sshd.agent().await;
    let by_agent = |socket| SftpConfig { private_key: None, agent: Some(socket), ..reaching(&sshd) };
    checked(by_agent(agent.socket.clone())).await.unwrap();
    assert_eq!(names(&sshd.files()), [""; 0], "the probe is gone");

    let text = refused(locked(), ErrorKind::Config, "login").await;
    assert!(text.contains("passphrase"), "{text}");
    refused(SftpConfig { passphrase: passphrase("wrong word"), ..locked() }, ErrorKind::Config, "login").await;
    refused(by_agent("/nowhere/agent".into()), ErrorKind::Config, "login").await;
    let other = SftpConfig { private_key: Some(sshd.files().join("none")), ..reaching(&sshd) };
    refused(other, ErrorKind::Config, "login").await;
    let stranger = SftpConfig { user: "somebody_else".to_owned(), ..reaching(&sshd) };
    let text = refused(stranger, ErrorKind::Config, "login").await;
    assert!(text.contains("tried=private_key") && text.contains("somebody_else"), "{text}");
}

#[tokio::test]
async fn a_password_logs_in_however_it_is_asked_for_and_a_wrong_one_does_not() {
    let Some(sshd) = Sshd::start_or_skip().await else { return };
    for asks in [Asks::Password, Asks::Question] {
        let Some(server) = PasswordServer::start_or_skip(&sshd.key(), asks).await else { return };
        let config = |password: &str| SftpConfig {
            port: server.port,
            password: Some(Secret::new(password)),
            host_keys: vec![server.fingerprint.clone()],
            ..SftpConfig::new("127.0.0.1", USER)
        };
        checked(config(PASSWORD)).await.unwrap();
        assert_eq!(names(&server.files()), [""; 0], "the probe is gone");
        let text = refused(config("wrong word"), ErrorKind::Config, "login").await;
        assert!(asks == Asks::Password || text.contains("tried=password"), "{text}");
        assert!(!format!("{:?}", config("wrong word")).contains("wrong word"));
    }
}

#[tokio::test]
async fn a_server_whose_key_is_not_the_known_one_gets_nothing_and_its_fingerprint_is_shown() {
    let Some(sshd) = Sshd::start_or_skip().await else { return };
    let known = sshd.fingerprint();
    fs::write(sshd.files().join("empty"), "").unwrap();
    let unknown = SftpConfig { known_hosts: Some(sshd.files().join("empty")), ..reaching(&sshd) };
    let text = refused(unknown, ErrorKind::Config, "host key").await;
    assert!(text.contains(&known) && text.contains("is not known") && text.contains("`host_keys`"), "{text}");
    let missing = SftpConfig { known_hosts: Some(sshd.files().join("missing")), ..reaching(&sshd) };
    let error = checked(missing).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("known hosts cannot be read"), "{error}");

    sshd.change_host_key();
    let by_fingerprint = SftpConfig { known_hosts: None, host_keys: vec![known.clone()], ..reaching(&sshd) };
    for config in [reaching(&sshd), by_fingerprint] {
        let text = refused(config, ErrorKind::Config, "host key").await;
        assert!(text.contains("another than the known one") && text.contains("SHA256:"), "{text}");
        assert!(!text.contains(&known) || text.contains("known_by=host_keys"), "the one that was shown: {text}");
    }
    let nothing = SftpConfig { known_hosts: None, ..reaching(&sshd) };
    let error = checked(nothing).await.unwrap_err();
    assert_eq!((error.kind(), error.context("key")), (ErrorKind::Config, Some("host_keys")), "{error}");
}

#[tokio::test]
async fn a_server_that_lets_in_and_serves_no_files_says_so() {
    let Some(sshd) = Sshd::start_or_skip().await else { return };
    for (program, why) in
        [(None, "no such subsystem"), (Some("/bin/false"), "status 1"), (Some("/nowhere"), "status 1")]
    {
        sshd.serve_files_by(program);
        let text = refused(reaching(&sshd), ErrorKind::Config, "login").await;
        assert!(text.contains("takes no files") && text.contains(why), "{program:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_somebody_logs_in_is_not_taken_for_one_that_refuses() {
    let Some(sshd) = Sshd::start_or_skip().await else { return };
    let kills = async {
        for pause in (0..60).map(|round| 5 + round * 7 % 60) {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            sshd.kill();
            sshd.up();
        }
    };
    let killed = AtomicBool::new(false);
    let logins = (0..4).map(|_| async {
        let mut failed = 0;
        while !killed.load(Relaxed) {
            let Err(error) = checked(reaching(&sshd)).await else { continue };
            assert_eq!(error.kind(), ErrorKind::DestinationUnavailable, "{error}");
            failed += 1;
        }
        failed
    });
    let all = async {
        kills.await;
        killed.store(true, Relaxed);
    };
    let (failed, ()) = tokio::join!(futures_util::future::join_all(logins), all);
    assert!(failed.iter().sum::<u32>() > 0, "nobody was killed while logging in");
}

#[tokio::test]
async fn a_check_names_the_address_the_directory_or_the_permission() {
    let Some(sshd) = Sshd::start_or_skip().await else { return };
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nobody = SftpConfig { port: closed, ..reaching(&sshd) };
    refused(nobody, ErrorKind::DestinationUnavailable, "address").await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mute = SftpConfig { port, connect_timeout: Duration::from_millis(100), ..reaching(&sshd) };
    refused(mute, ErrorKind::DestinationUnavailable, "address").await;

    let at = |path: &Path| SftpConfig { path: path.display().to_string(), ..reaching(&sshd) };
    refused(at(&sshd.files().join("none")), ErrorKind::DestinationRejected, "directory").await;
    refused(at(&sshd.key()), ErrorKind::Config, "directory").await;
    fs::set_permissions(sshd.files(), fs::Permissions::from_mode(0o555)).unwrap();
    let text = refused(reaching(&sshd), ErrorKind::DestinationRejected, "permission").await;
    assert!(text.contains("make a file"), "{text}");
}
