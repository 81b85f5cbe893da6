//! Does every way in work against a real server, and is every wrong one refused with a hint?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use etl::postgres::{ChannelBinding, ConnectOptions, Connection, Host, Session, TargetSession, TlsMode};
use etl::{ErrorKind, EtlError, Secret};
use etl_local_postgres::LocalPostgres;
use harness::postgres::dedicated;

const PASSWORD: &str = "hunter2 ünd mehr";

/// A server with TLS whose roles log in in different ways.
struct Gate {
    server: LocalPostgres,
    keys: tempfile::TempDir,
}

impl Gate {
    async fn open() -> Option<Self> {
        let server = dedicated(LocalPostgres::builder().password(PASSWORD).tls()).await?;
        let keys = tempfile::tempdir().unwrap();
        let gate = Self { server, keys };
        let session = Session::connect(&gate.options("postgres")).await.unwrap();
        for (role, encryption) in [("hashed", "md5"), ("clear", "scram-sha-256"), ("salted", "scram-sha-256")] {
            let sql = format!(
                "SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}'"
            );
            session.client().batch_execute(&sql).await.unwrap();
        }
        session.client().batch_execute("CREATE ROLE certified LOGIN REPLICATION").await.unwrap();
        // One authority for both directions.
        let authority = gate.server.authority().unwrap().display().to_string();
        gate.server.configure("ssl_ca_file", &authority).await.unwrap();
        let rules = gate.server.data_dir().join("pg_hba.conf");
        let others = fs::read_to_string(&rules).unwrap();
        let ways = "hostssl all certified 127.0.0.1/32 cert\nhost all hashed 127.0.0.1/32 md5\n\
                    host all clear 127.0.0.1/32 password\nhostnossl all salted 127.0.0.1/32 scram-sha-256\n";
        fs::write(&rules, format!("{ways}{others}")).unwrap();
        session.client().batch_execute("SELECT pg_reload_conf()").await.unwrap();
        Some(gate)
    }

    /// Over TLS, by name, with the authority.
    fn options(&self, user: &str) -> ConnectOptions {
        let mut options = ConnectOptions::new("localhost", "postgres", user);
        options.host = "127.0.0.1".to_owned();
        options.port = self.server.port();
        options.password = Some(Secret::new(PASSWORD));
        options.tls.mode = Some(TlsMode::VerifyFull);
        options.tls.ca = self.server.authority().map(Into::into);
        options
    }

    /// Runs `openssl` beside the authority's key.
    fn openssl(&self, arguments: &str) {
        let authority = self.server.authority().unwrap().parent().unwrap();
        let arguments = arguments.replace("{ca}", &authority.display().to_string());
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.keys.path()).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate for this name, signed by the server's authority; its file and its key's.
    fn certificate(&self, name: &str, extensions: &str, days: &str) -> (PathBuf, PathBuf) {
        fs::write(self.keys.path().join("ext"), extensions).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("req -sha256 -subj /CN={name} {key} -keyout {name}.key -out {name}.csr"));
        let by = "-CA {ca}/ca.crt -CAkey {ca}/ca.key -CAcreateserial -CAserial serial";
        self.openssl(&format!("x509 -req -sha256 {days} -in {name}.csr -extfile ext {by} -out {name}.crt"));
        let file = |extension: &str| self.keys.path().join(format!("{name}.{extension}"));
        fs::set_permissions(file("key"), fs::Permissions::from_mode(0o600)).unwrap();
        (file("crt"), file("key"))
    }

    /// Lets the server show another certificate from now on.
    async fn show(&self, (certificate, key): (PathBuf, PathBuf)) {
        let dir = self.server.authority().unwrap().parent().unwrap();
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            // Written in place, so that they stay the server's own.
            fs::write(dir.join(to), fs::read(from).unwrap()).unwrap();
        }
        let session = Session::connect(&self.options("postgres")).await.unwrap();
        let now = "SELECT clock_timestamp()::text";
        // Asked before: the server may have read everything by the time that a reload is answered.
        let asked: String = session.client().query_one(now, &[]).await.unwrap().get(0);
        session.client().batch_execute("SELECT pg_reload_conf()").await.unwrap();
        // A new session has what the server has read.
        let has_read = format!("SELECT pg_conf_load_time() >= '{asked}'");
        for _ in 0..500 {
            if self.server.psql(&has_read).await.unwrap().trim() == "t" {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the server did not read its files again");
    }
}

/// Logs in in all three ways; whether each is encrypted.
async fn log_in(options: &ConnectOptions) -> Result<bool, EtlError> {
    let query = "SELECT ssl::text AS ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut found = Vec::new();
    for mut connection in [Connection::connect(options).await?, Connection::connect_replication(options).await?] {
        found.push(connection.query(query).await?[0].get("ssl") == Some("true"));
    }
    let session = Session::connect(options).await?;
    let row = session.client().query_one(query, &[]).await.unwrap();
    found.push(row.get::<_, &str>(0) == "true");
    assert!(found.iter().all(|encrypted| *encrypted == found[0]), "{found:?}");
    Ok(found[0])
}

/// The refusal of every kind of connection: its kind, and that it says what to do and nothing of the password.
async fn refused(options: &ConnectOptions, kind: ErrorKind) -> String {
    let errors = [
        Connection::connect(options).await.map(drop).unwrap_err(),
        Connection::connect_replication(options).await.map(drop).unwrap_err(),
        Session::connect(options).await.map(drop).unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint_text().is_some(), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    errors[0].to_string()
}

#[tokio::test]
async fn passwords_go_by_md5_in_clear_and_by_scram() {
    let Some(gate) = Gate::open().await else { return };
    for user in ["hashed", "clear", "postgres"] {
        let mut options = gate.options(user);
        assert!(log_in(&options).await.unwrap(), "{user}");
        options.password = Some(Secret::new("wrong"));
        refused(&options, ErrorKind::SourceAuthentication).await;
        options.password = None;
        assert!(refused(&options, ErrorKind::SourceAuthentication).await.contains("password"), "{user}");
    }
    for (user, mode, is_bound) in [
        ("postgres", TlsMode::VerifyFull, true),
        ("hashed", TlsMode::VerifyFull, false),
        ("clear", TlsMode::VerifyFull, false),
        ("salted", TlsMode::Disable, false),
    ] {
        let mut options = gate.options(user);
        options.tls.mode = Some(mode);
        options.channel_binding = ChannelBinding::Require;
        if is_bound {
            log_in(&options).await.unwrap();
        } else {
            refused(&options, ErrorKind::SourceAuthentication).await;
        }
        options.channel_binding = ChannelBinding::Disable;
        assert_eq!(log_in(&options).await.unwrap(), mode != TlsMode::Disable, "{user}");
    }
}

#[tokio::test]
async fn each_mode_of_encryption_trusts_what_it_should() {
    let Some(gate) = Gate::open().await else { return };
    let with = |mode, ca: Option<&Path>, host: &str| {
        let mut options = gate.options("postgres");
        (options.tls.mode, options.tls.ca, options.host) = (Some(mode), ca.map(Into::into), host.to_owned());
        options
    };
    let authority = gate.server.authority();
    // 127.0.0.2 is the same server, and not in its certificate.
    for (mode, ca, host, is_encrypted) in [
        (TlsMode::Disable, None, "127.0.0.1", false),
        (TlsMode::Prefer, None, "127.0.0.1", true),
        (TlsMode::Require, None, "127.0.0.1", true),
        (TlsMode::VerifyCa, authority, "127.0.0.1", true),
        (TlsMode::VerifyFull, authority, "localhost", true),
    ] {
        assert_eq!(log_in(&with(mode, ca, host)).await.unwrap(), is_encrypted, "{mode:?}");
    }
    for (mode, ca) in [(TlsMode::VerifyCa, None), (TlsMode::VerifyFull, None), (TlsMode::VerifyFull, Some("system"))] {
        let text = refused(&with(mode, ca.map(Path::new), "127.0.0.1"), ErrorKind::Tls).await;
        assert!(text.contains("tls.ca"), "{text}");
    }
    let missing = refused(&with(TlsMode::VerifyCa, Some(Path::new("/no/ca.pem")), "127.0.0.1"), ErrorKind::Tls).await;
    assert!(missing.contains("/no/ca.pem"), "{missing}");

    let Some(plain) = dedicated(LocalPostgres::builder()).await else { return };
    let mut options = ConnectOptions::new("127.0.0.1", "postgres", "postgres");
    (options.port, options.tls.mode) = (plain.port(), Some(TlsMode::Prefer));
    assert!(!log_in(&options).await.unwrap(), "prefer does without where the server has none");
    options.tls.mode = Some(TlsMode::Require);
    assert!(refused(&options, ErrorKind::Tls).await.contains("does not offer TLS"));

    gate.show(gate.certificate("elsewhere", "subjectAltName=DNS:elsewhere.example\n", "-days 2")).await;
    log_in(&with(TlsMode::VerifyCa, authority, "127.0.0.1")).await.unwrap();
    let text = refused(&with(TlsMode::VerifyFull, authority, "127.0.0.1"), ErrorKind::Tls).await;
    assert!(text.contains("verify-ca"), "the wrong name: {text}");
    log_in(&with(TlsMode::Require, None, "127.0.0.1")).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_refused_where_it_is_looked_at() {
    let Some(gate) = Gate::open().await else { return };
    let expired = "-not_before 20200101000000Z -not_after 20200102000000Z";
    let supports_dates = Command::new("openssl").args(["x509", "-help"]).output().unwrap();
    let certificate = if String::from_utf8_lossy(&supports_dates.stderr).contains("-not_before") {
        gate.certificate("localhost", "subjectAltName=IP:127.0.0.1\n", expired)
    } else {
        // A day in the past: as many days as there are from yesterday.
        gate.certificate("localhost", "subjectAltName=IP:127.0.0.1\n", "-days -1")
    };
    let options = gate.options("postgres");
    let lax = ConnectOptions {
        tls: etl::postgres::TlsOptions { mode: Some(TlsMode::Require), ..Default::default() },
        ..options.clone()
    };
    gate.show(certificate).await;
    log_in(&lax).await.unwrap();
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let mut options = options.clone();
        options.tls.mode = Some(mode);
        let text = refused(&options, ErrorKind::Tls).await;
        assert!(text.contains("expired"), "{mode:?}: {text}");
    }
}

#[tokio::test]
async fn a_certificate_of_ours_lets_us_in() {
    let Some(gate) = Gate::open().await else { return };
    let mut options = gate.options("certified");
    options.password = None;
    let text = refused(&options, ErrorKind::SourceAuthentication).await;
    assert!(text.contains("certificate"), "{text}");
    let (certificate, key) = gate.certificate("certified", "basicConstraints=CA:FALSE\n", "-days 2");
    (options.tls.certificate, options.tls.key) = (Some(certificate.clone()), Some(key.clone()));
    assert!(log_in(&options).await.unwrap());

    // Somebody else's, a key that others can read, and half of it.
    let (other, other_key) = gate.certificate("stranger", "basicConstraints=CA:FALSE\n", "-days 2");
    (options.tls.certificate, options.tls.key) = (Some(other), Some(other_key.clone()));
    refused(&options, ErrorKind::SourceAuthentication).await;
    gate.openssl("req -x509 -sha256 -days 2 -subj /CN=certified -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout own.key -out own.crt");
    fs::set_permissions(gate.keys.path().join("own.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let own = |extension: &str| Some(gate.keys.path().join(format!("own.{extension}")));
    (options.tls.certificate, options.tls.key) = (own("crt"), own("key"));
    let text = refused(&options, ErrorKind::Tls).await;
    assert!(text.contains("tls.certificate"), "{text}");
    (options.tls.certificate, options.tls.key) = (Some(certificate.clone()), Some(other_key));
    refused(&options, ErrorKind::Tls).await;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    (options.tls.certificate, options.tls.key) = (Some(certificate), Some(key));
    let text = refused(&options, ErrorKind::Tls).await;
    assert!(text.contains("chmod"), "{text}");
    options.tls.key = None;
    refused(&options, ErrorKind::Config).await;
}

#[tokio::test]
async fn of_several_hosts_the_first_that_is_meant_is_used() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let Some(frozen) = dedicated(LocalPostgres::builder().setting("default_transaction_read_only", "on")).await else {
        return;
    };
    let host = |port| Host { name: "127.0.0.1".to_owned(), port };
    let mut options = ConnectOptions::new("127.0.0.1", "postgres", "postgres");
    options.port = 1;
    options.other_hosts = vec![host(frozen.port()), host(server.port())];
    let port = async |options: &ConnectOptions| {
        let query = "SELECT current_setting('port') AS port";
        let mut found = Vec::new();
        for mut connection in
            [Connection::connect(options).await.unwrap(), Connection::connect_replication(options).await.unwrap()]
        {
            found.push(connection.query(query).await.unwrap()[0].get("port").unwrap().parse::<u16>().unwrap());
        }
        let session = Session::connect(options).await.unwrap();
        found.push(session.client().query_one(query, &[]).await.unwrap().get::<_, &str>(0).parse().unwrap());
        assert!(found.iter().all(|port| *port == found[0]), "{found:?}");
        found[0]
    };
    assert_eq!(port(&options).await, server.port(), "several hosts: the one that takes writes");
    for (target, expected) in [
        (TargetSession::Any, frozen.port()),
        (TargetSession::ReadOnly, frozen.port()),
        (TargetSession::ReadWrite, server.port()),
        (TargetSession::Primary, frozen.port()),
        (TargetSession::PreferStandby, frozen.port()),
    ] {
        options.target_session_attrs = Some(target);
        assert_eq!(port(&options).await, expected, "{target:?}");
    }
    options.target_session_attrs = Some(TargetSession::Standby);
    let text = refused_without_hint(&options).await;
    assert!(text.contains("none of the servers") && text.contains("target_session_attrs"), "{text}");
}

async fn refused_without_hint(options: &ConnectOptions) -> String {
    let error = Connection::connect(options).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnavailable, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_connection_says_what_it_is_for_and_asks_after_a_silent_peer() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let url = format!("{}?application_name=shop&keepalives_idle=7&tcp_user_timeout=9000", server.url());
    let options = ConnectOptions::from_url(&url).unwrap().for_purpose("copy public.t");
    let mut connection = Connection::connect(&options).await.unwrap();
    let rows = connection.query("SELECT current_setting('application_name') AS name").await.unwrap();
    assert_eq!(rows[0].get("name"), Some("shop copy public.t"));
    // The kernel's own list says which timer runs on the socket.
    let list = Command::new("ss").args(["-tnoH", "dport", "=", &format!(":{}", server.port())]).output();
    let Ok(list) = list else { return };
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("timer:(keepalive,"), "{list}");
}

#[tokio::test]
async fn p8_no_password_is_in_the_log_at_any_level() {
    let Some(gate) = Gate::open().await else { return };
    let lines = harness::lines::Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    for user in ["hashed", "clear", "postgres", "nobody"] {
        let mut options = gate.options(user);
        let _refused_or_not = log_in(&options).await;
        tracing::trace!(?options, "what was tried");
        options.tls.mode = Some(TlsMode::Disable);
        let _refused_or_not = log_in(&options).await;
    }
    let text = lines.text();
    assert!(text.contains("what was tried"), "the log is read at this level");
    assert!(!text.contains("hunter2"), "{text}");
}
