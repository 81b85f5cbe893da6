//! Who gets in, how is it encrypted, and what do sessions look like?

use std::ops::Range;

use etl::postgres::{ConnectOptions, Connection, Session, TlsMode, query_error};
use etl::{ErrorKind, EtlResult};
use etl_local_postgres::LocalPostgres;
use harness::postgres::{database, dedicated};

fn options(url: &str) -> ConnectOptions {
    ConnectOptions::from_url(url).unwrap()
}

async fn guarded() -> Option<(LocalPostgres, ConnectOptions)> {
    let server = dedicated(LocalPostgres::builder().password("corréct horse").tls()).await?;
    let mut options = options(&server.url());
    options.password = Some(etl::Secret::new("corréct horse"));
    Some((server, options))
}

#[tokio::test]
async fn scram_is_bound_to_the_connection_and_both_kinds_of_session_log_in() {
    let Some((server, mut options)) = guarded().await else { return };
    for mode in [TlsMode::Disable, TlsMode::Require, TlsMode::VerifyFull] {
        options.tls.mode = Some(mode);
        options.tls.ca = server.authority().map(Into::into);
        options.host = "localhost".to_owned();
        let query = "SELECT ssl::text AS ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let mut connection = Connection::connect(&options).await.unwrap();
        let rows = connection.query(query).await.unwrap();
        let expected = if mode == TlsMode::Disable { "false" } else { "true" };
        assert_eq!(rows[0].get("ssl"), Some(expected), "{mode:?}");
        let session = Session::connect(&options).await.unwrap();
        assert_eq!(session.server_version() / 10_000, u32::from(server.major()));
        let row = session.client().query_one("SELECT 1", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 1);
    }
}

#[tokio::test]
async fn a_wrong_password_an_unknown_authority_and_a_wrong_name_are_refused_with_a_hint() {
    let Some((server, right)) = guarded().await else { return };
    let mut options = right.clone();
    options.tls.mode = Some(TlsMode::Require);
    options.password = Some(etl::Secret::new("hunter2"));
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceAuthentication, "{error}");
    assert!(error.hint_text().is_some() && !format!("{error:?}").contains("hunter2"));
    let error = Session::connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceAuthentication, "{error}");

    let mut options = right.clone();
    options.host = "localhost".to_owned();
    options.tls.mode = Some(TlsMode::VerifyFull);
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.hint_text().unwrap().contains("tls.ca"));

    options.tls.ca = server.authority().map(Into::into);
    Connection::connect(&options).await.unwrap();
    // The certificate names localhost and 127.0.0.1, but not this.
    options.host = "127.0.0.2".to_owned();
    let error = Connection::connect(&options).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Tls | ErrorKind::SourceUnavailable), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_named_at_once() {
    let mut options = ConnectOptions::new("127.0.0.1", "d", "u");
    options.port = 1;
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnavailable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_left_after_the_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = ConnectOptions::new("127.0.0.1", "d", "u");
    options.port = silent.local_addr().unwrap().port();
    options.connect_timeout = std::time::Duration::from_millis(200);
    for mode in [TlsMode::Disable, TlsMode::Require] {
        options.tls.mode = Some(mode);
        let began = std::time::Instant::now();
        let errors = [
            Connection::connect(&options).await.map(drop).unwrap_err(),
            Session::connect(&options).await.map(drop).unwrap_err(),
        ];
        assert!(began.elapsed() >= std::time::Duration::from_millis(400), "it is waited for as long as was said");
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::SourceUnavailable, "{error}");
        }
    }
}

#[tokio::test]
async fn r13_the_settings_of_a_role_change_nothing() {
    let Some(database) = database().await else { return };
    let role = format!("hostile_{}", database.name());
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION;
             ALTER ROLE {role} SET datestyle = 'SQL, DMY';
             ALTER ROLE {role} SET intervalstyle = 'sql_standard';
             ALTER ROLE {role} SET extra_float_digits = -3;
             ALTER ROLE {role} SET bytea_output = 'escape';
             ALTER ROLE {role} SET timezone = 'Asia/Kathmandu';
             ALTER ROLE {role} SET search_path = 'nowhere';
             ALTER ROLE {role} SET statement_timeout = '1ms';
             ALTER ROLE {role} SET lock_timeout = '1ms';
             ALTER ROLE {role} SET row_security = on"
        ))
        .await
        .unwrap();
    let mut options = options(&database.url());
    options.user.clone_from(&role);
    let query = "SELECT '2024-02-01 10:00+00'::timestamptz::text || ' ' || 0.1234567890123456789::float8::text || ' '
                     || '1 day -2:00'::interval::text || ' ' || '\\x00ff'::bytea::text AS text,
                 current_setting('search_path') || current_setting('statement_timeout')
                     || current_setting('lock_timeout') || current_setting('row_security') AS settings";
    let text = "2024-02-01 10:00:00+00 0.12345678901234568 1 day -02:00:00 \\x00ff";
    for mut connection in
        [Connection::connect(&options).await.unwrap(), Connection::connect_replication(&options).await.unwrap()]
    {
        let rows = connection.query(query).await.unwrap();
        assert_eq!((rows[0].get("text"), rows[0].get("settings")), (Some(text), Some("00off")));
    }
    let session = Session::connect(&options).await.unwrap();
    let row = session.client().query_one(query, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (text, "00off"));
    drop(session);
    client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_copy_brings_every_row_and_an_error_leaves_the_connection_usable() {
    let Some(database) = database().await else { return };
    for coalesced_reads in [true, false] {
        let options = ConnectOptions { coalesced_reads, ..options(&database.url()) };
        let mut connection = Connection::connect(&options).await.unwrap();
        let sql = "COPY (SELECT g, repeat('x', g % 2000) FROM generate_series(1, 20000) g) TO STDOUT";
        assert_eq!(copied(&mut connection, sql).await.unwrap(), (20_000, 20_118_894));

        let error = copied(&mut connection, "COPY (SELECT 1 / (3 - g) FROM generate_series(1, 9) g) TO STDOUT").await;
        assert_eq!(error.unwrap_err().context("sqlstate"), Some("22012"));
        assert_eq!(connection.query("SELECT 7 AS n").await.unwrap()[0].get("n"), Some("7"));
        let error = connection.copy_out("COPY nothing TO STDOUT").await.unwrap_err();
        assert_eq!(error.context("sqlstate"), Some("42P01"));
        assert_eq!(connection.query("SELECT 8 AS n").await.unwrap()[0].get("n"), Some("8"));
    }
}

/// How many rows came, and how many bytes.
async fn copied(connection: &mut Connection, sql: &str) -> EtlResult<(usize, usize)> {
    let mut copy = connection.copy_out(sql).await?;
    let (mut rows, mut bytes) = (0, 0);
    let mut note = |_: &[u8], payload: Range<usize>| {
        rows += 1;
        bytes += payload.len();
        Ok(())
    };
    while copy.next_block(&mut note).await?.is_some() {}
    Ok((rows, bytes))
}

#[tokio::test]
async fn a_row_of_a_hundred_megabytes_comes_in_whole() {
    let Some(database) = database().await else { return };
    let mut connection = Connection::connect(&options(&database.url())).await.unwrap();
    let mut copy = connection.copy_out("COPY (SELECT repeat('x', 100000000)) TO STDOUT").await.unwrap();
    let mut longest = 0;
    let mut note = |_: &[u8], payload: Range<usize>| {
        longest = payload.len().max(longest);
        Ok(())
    };
    while copy.next_block(&mut note).await.unwrap().is_some() {}
    assert_eq!(longest, 100_000_001);
}

#[tokio::test]
async fn an_error_of_the_catalog_session_has_a_kind() {
    let Some(database) = database().await else { return };
    let session = Session::connect(&options(&database.url())).await.unwrap();
    let error = session.client().batch_execute("SELECT 1 FROM nothing").await.unwrap_err();
    let error = query_error("try", error);
    assert_eq!((error.kind(), error.context("sqlstate")), (ErrorKind::SourceQuery, Some("42P01")));
}
