//! Is every problem found, said once, and said without secrets?

use etl::ByteSize;
use etl::schema::TableName;
use std::time::Duration;

use super::*;
use crate::problems::Problem;
use crate::sample;

const GOOD: &str = "\
pipeline: { id: shop }
source: { postgres: { url: 'postgres://u:hunter2@h/d', publication: p } }
destination: { memory: {} }
";

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<AppConfig, Vec<Problem>> {
    AppConfig::from_text("etl.yaml", text, &environment(variables)).map_err(|problems| problems.all().to_vec())
}

fn shown(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load(text, variables) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_sample_is_a_config_where_duckdb_is_compiled_in() {
    let variables = [("DATABASE_URL", "postgres://etl@db/shop")];
    let expected: &[String] = if cfg!(feature = "duckdb") {
        &[]
    } else {
        let line = sample().lines().position(|line| line.trim().starts_with("duckdb:")).unwrap() + 1;
        &[format!(
            "destination.duckdb (line {line}): this etl was built without the feature `duckdb`. \
             Build it with `cargo build -p etl-cli --features duckdb`, or choose another"
        )]
    };
    assert_eq!(shown(sample(), &variables), expected);
    let text = sample().replace("duckdb: { path: ./shop.duckdb, memory_limit: 256MiB }", "memory: {}");
    let config = load(&text, &variables).unwrap();
    assert_eq!(config.settings(), etl::pipeline::Settings::default(), "the sample shows the defaults");
    assert_eq!(config.slot(), "etl_shop");
}

#[test]
fn the_commented_keys_of_the_sample_work() {
    let mut text = sample().replace("# tls: { mode: verify-full, ca: /etc/etl/ca.pem }", "tls: { mode: require }");
    text = text.replace("duckdb: { path: ./shop.duckdb, memory_limit: 256MiB }", "memory: {}");
    text = text.replace("    publication: shop_pub", "    # publication: shop_pub").replace("# tables: [", "tables: [");
    text = text
        .replace("# tables:  ", "tables:  ")
        .replace("#   - match", "  - match")
        .replace("#     write", "    write")
        .replace("#     columns", "    columns");
    let config = load(&text, &[("DATABASE_URL", "postgres://etl@db/shop")]).unwrap();
    assert_eq!(config.source.tables, ["public.*", "!public.audit_*"]);
    assert!(config.tables[0].columns.exclude.is_some());
    assert!(config.tables[1].tables.matches(&TableName::new("public", "audit")));
    assert!(config.tables[1].write_mode.is_some());
}

#[test]
fn one_bad_key_is_one_problem() {
    // What is added to a good config, and what is said about it.
    let cases = [
        ("pipelin: {}", "pipelin (line 4): unknown key `pipelin`. Did you mean `pipeline`?"),
        ("colour: {}", "colour (line 4): unknown key `colour`. Possible here: pipeline, relay, source, store"),
        ("relay: { max_bytes: 10 parsec }", "relay.max_bytes (line 4): `10 parsec` is not a size"),
        ("relay: { max_bytes: 0 }", "relay.max_bytes (line 4): `0`: it must be more than nothing"),
        ("relay: { at_limit: wiat }", "relay.at_limit (line 4): `wiat`: unknown value. Did you mean `wait`?"),
        ("relay: 7", "relay (line 4): `7`: here belong keys with values"),
        ("store: { postgres: {} }", "store.postgres.url (line 4): this key is missing"),
        ("store: { postgres: { url: 'mysql://u:hunter2@h' } }", "store.postgres.url (line 4): the url is wrong"),
        ("store: { postgres: { url: 'postgres://u@h', schema: pg_x } }", "`pg_x`: that is no name for a schema"),
        ("store: { sqlite: {}, memory: {} }", "store (line 4): `sqlite` and `memory` exclude each other"),
        ("store: { sqlite: { path: x } }", "store.sqlite.path (line 4): unknown key `path`"),
        ("store: {}", "store (line 4): here belongs one of: sqlite, postgres, memory"),
        ("telemetry: { htpp: { bind: x } }", "telemetry.htpp (line 4): unknown key `htpp`. Did you mean `http`?"),
        ("telemetry: { http: { bind: x } }", "telemetry.http.bind (line 4): `x`: invalid socket address"),
        ("telemetry: { traces: { endpoint: 'https://x' } }", "`https://x`: a collector is reached by http://"),
        ("telemetry: { traces: { endpoint: 'http://x', one_in: 0 } }", "telemetry.traces.one_in (line 4): `0`"),
        ("telemetry: { http: { bind: '0.0.0.0:1' } }", "an address that others reach needs a token"),
        ("telemetry: { log: { level: verbose } }", "`verbose`: unknown value. Possible here: error, warn, info"),
        ("telemetry: { log: { format: jsn } }", "`jsn`: unknown value. Did you mean `json`?"),
        ("tables: { match: x }", "tables (line 4): here belongs a list of rules"),
        ("tables: [ { write_mode: upsert } ]", "tables[0].match (line 4): this key is missing"),
        (
            "tables: [ { match: a, columns: { exlude: [b] } } ]",
            "tables[0].columns.exlude (line 4): unknown key `exlude`",
        ),
        ("tables: [ { match: a, rename: { name: b } } ]", "tables[0].rename.name (line 4): unknown key `name`"),
        ("tables: [ { match: a }, { match: b, write_mode: apend } ]", "tables[1].write_mode (line 4): `apend`"),
        ("tables: [ { match: '' } ]", "a rule whose `match` is empty"),
        ("defaults: { match: a }", "defaults.match (line 4): unknown key `match`"),
        (
            "tables: [{ match: x, columns: { mask: { a: { hash: b, trunkate: 1 } } } }]",
            "mask.a.trunkate (line 4): unknown key `trunkate`. Did you mean `truncate`?",
        ),
        (
            "tables: [{ match: x, columns: { mask: { a: hidden } } }]",
            "`hidden`: here belongs `redact`, `null`, `{ hash: <salt> }`",
        ),
        (
            "tables: [{ match: x, columns: { mask: { a: { hash: '${SALT}' } } } }]",
            "the environment variable SALT is not set",
        ),
        ("defaults: { write_mode: merge }", "`merge`: unknown value. Possible here: append, upsert, soft_delete"),
        ("relay: { max_bytes: ${MAX_BYTES} }", "not valid YAML"),
        ("relay: { max_bytes: '${MAX_BYTES}' }", "the environment variable MAX_BYTES is not set"),
    ];
    for (added, expected) in cases {
        let shown = shown(&format!("{GOOD}{added}\n"), &[]);
        assert!(shown.len() == 1 && shown[0].contains(expected), "{added}\n{shown:#?}");
    }
}

#[test]
fn a_bad_pipeline_or_destination_is_said() {
    let cases = [
        ("id: shop", "id: Shop-1", "pipeline.id (line 1): `Shop-1`: an id is 1 to 40 of the letters"),
        ("id: shop", "id: ''", "pipeline.id (line 1): ``: an id is 1 to 40"),
        ("id: shop", "id:", "pipeline.id (line 1): this key is missing"),
        (
            "id: shop",
            "id: shop, ack: disk",
            "pipeline.ack (line 1): `disk`: unknown value. Possible here: destination, relay",
        ),
        ("id: shop", "id: shop, batch: { max_age: 1 }", "pipeline.batch.max_age (line 1): `1` is not a duration"),
        ("id: shop", "id: shop, batch: { max_rows: 0 }", "pipeline.batch.max_rows (line 1): `0`: it must be more"),
        ("id: shop", "id: shop, batch: { max_rows: many }", "`many`: here belongs a whole number, not negative"),
        ("id: shop", "id: shop, batch: { max_bytes: 1GiB }", "a batch of 1GiB exceeds memory_limit"),
        (
            "{ memory: {} }",
            "{ memory: {}, 'null': {} }",
            "destination (line 3): `memory` and `null` exclude each other",
        ),
        ("{ memory: {} }", "{ duckdbb: {} }", "unknown key `duckdbb`. Did you mean `duckdb`?"),
        ("{ memory: {} }", "", "destination: this section is missing"),
        ("{ memory: {} }", "{ duckdb: {} }", "destination.duckdb.path (line 3): this key is missing"),
        ("{ memory: {} }", "{ file: {} }", "destination.file.path (line 3): this key is missing"),
        ("{ memory: {} }", "{ file: { path: x, max_age: 1 } }", "destination.file.max_age (line 3): `1` is not a"),
        ("{ memory: {} }", "{ log: { show: most } }", "`most`: unknown value. Possible here: none, keys, all"),
    ];
    for (good, bad, expected) in cases {
        let mut shown = shown(&GOOD.replace(good, bad), &[]);
        shown.retain(|problem| !problem.contains("built without the feature"));
        assert!(shown.len() == 1 && shown[0].contains(expected), "{bad}\n{shown:#?}");
    }
}

#[test]
fn a_log_takes_no_other_write_mode() {
    let text = GOOD.replace("{ memory: {} }", "{ log: {} }");
    for (added, is_refused) in [
        ("defaults: { write_mode: append }", false),
        ("defaults: { write_mode: upsert }", true),
        ("tables: [ { match: a, write_mode: soft_delete } ]", true),
    ] {
        let shown = shown(&format!("{text}{added}\n"), &[]).concat();
        assert_eq!(shown.contains("`log` holds logs of changes"), is_refused, "{shown}");
    }
}

#[test]
fn columns_and_names_go_to_the_source_and_write_modes_to_the_destination() {
    let text = format!(
        "{GOOD}tables:
  - match: public.users
    columns: {{ exclude: [password], rename: {{ mail: email }} }}
    rename: {{ schema: shop, table: customers }}
  - {{ match: public.audit, write_mode: append }}
"
    );
    let config = load(&text, &[]).unwrap();
    let transform = config.source().unwrap().transform;
    assert_eq!(transform.rules.len(), 1);
    let rule = &transform.rules[0];
    assert_eq!(rule.columns.exclude.as_deref(), Some(&["password".to_owned()][..]));
    assert_eq!((rule.rename.schema.as_deref(), rule.rename.table.as_deref()), (Some("shop"), Some("customers")));
    let rules = crate::table_entry::rules(&config.defaults, &config.tables);
    assert_eq!(rules.rules.len(), 1);
}

#[test]
fn a_bad_source_is_said_without_its_secrets() {
    // What stands under `source.postgres`, and what is said about it.
    let cases = [
        (
            "{ publicaton: p, url: 'postgres://u:hunter2@h' }",
            &["unknown key `publicaton`. Did you mean `publication`?"][..],
        ),
        (
            "{ url: 'mysql://u:hunter2@h/d', publication: p }",
            &["source.postgres.url (line 2): the url is wrong: it does not begin with postgres://"],
        ),
        (
            "{ url: 'postgres://h/d', host: h, user: u, password: hunter2, publication: p }",
            &["`url` and `host`, `user`, `password` exclude each other"],
        ),
        ("{ user: u, password: hunter2, publication: p }", &["source.postgres (line 2): `url` is missing"]),
        (
            "{ host: h, user: u, port: 99999, publication: p }",
            &["source.postgres.port (line 2): `99999`: here belongs a whole number from 0 to 65535"],
        ),
        (
            "{ host: h, user: u, pasword: hunter2, publication: p }",
            &["unknown key `pasword`. Did you mean `password`?"],
        ),
        (
            "{ host: h, user: u, password: [hunter2], publication: p }",
            &["source.postgres.password (line 2): here belongs a text"],
        ),
        ("{ host: h, publication: p }", &["source.postgres (line 2): `user` is missing"]),
        ("{ url: 'postgres://u:hunter2@h:x/d', publication: p }", &["its port is not a number"]),
        ("{ host: h, user: u }", &["neither `publication` nor `tables` is given"]),
        ("{ host: h, user: u, publication: p, tables: [a] }", &["`publication` and `tables` exclude each other"]),
        (
            "{ host: h, user: u, publication: p, heartbeat: 0s }",
            &["source.postgres.heartbeat (line 2): `0s`: it must be more than nothing"],
        ),
        (
            "{ host: h, user: u, publication: p, watch_every: 0s }",
            &["source.postgres.watch_every (line 2): `0s`: it must be more than nothing"],
        ),
        (
            "{ host: h, user: u, publication: p, tls: { mode: maybe } }",
            &["`maybe`: unknown value. Possible here: disable, prefer, require, verify-ca, verify-full"],
        ),
        ("{ host: 'h,i:x', user: u, publication: p }", &["source.postgres.host (line 2): `h,i:x`: its port is not"]),
        ("{ host: h, user: u, publication: p, tls: { certificate: x } }", &["`certificate` and `key` belong together"]),
        (
            "{ host: h, user: u, publication: p, target_session_attrs: best }",
            &["`best`: unknown value. Possible here: any, read-write"],
        ),
        (
            "{ host: h, user: u, publication: p, tls: { mode: prefer, ca: x } }",
            &["only verify-ca and verify-full look at certificates"],
        ),
        ("{ host: h, tables: public }", &["source.postgres.tables (line 2): `public`: here belongs a list"]),
    ];
    for (postgres, expected) in cases {
        let text =
            format!("pipeline: {{ id: shop }}\nsource: {{ postgres: {postgres} }}\ndestination: {{ memory: {{}} }}\n");
        let shown = shown(&text, &[]);
        let all_there = expected.iter().zip(&shown).all(|(expected, shown)| shown.contains(expected));
        assert!(shown.len() == expected.len() && all_there, "{postgres}\n{shown:#?}");
        assert!(!shown.concat().contains("hunter2"), "{shown:#?}");
    }
}

#[test]
fn everything_is_said_at_once() {
    let text = "\
pipeline:
  id: Shop
  batch: { max_age: soon, max_bytes: huge, max_row: 5 }
  copy: { tables_in_parallel: 0 }
source:
  postgres: { publicaton: p, url: '${DATABASE_URL}' }
store: { sqlit: {} }
destination: { memory: {}, duckdb: { path: x } }
tables:
  - { match: a, write_mode: x }
  - { write_mode: y }
";
    let problems = load(text, &[]).unwrap_err();
    let mut paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "destination",
        "pipeline.batch.max_age",
        "pipeline.batch.max_bytes",
        "pipeline.batch.max_row",
        "pipeline.copy.tables_in_parallel",
        "pipeline.id",
        "source.postgres.publicaton",
        "source.postgres.url",
        "store.sqlit",
        "tables[0].write_mode",
        "tables[1].match",
        "tables[1].write_mode",
    ];
    assert_eq!(paths, expected, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.place.is_some()), "{problems:#?}");
}

#[test]
fn the_environment_replaces_keys() {
    let variables = [
        ("ETL__PIPELINE__BATCH__MAX_AGE", "50ms"),
        ("ETL__RELAY__MAX_BYTES", "1GiB"),
        ("ETL__SOURCE__POSTGRES__TABLES", "[public.a, '!public.b']"),
        ("ETL__SOURCE__POSTGRES__PUBLICATION", ""),
        ("ETL__TABLES", "[{match: public.a, write_mode: append}]"),
        ("ETLX__PIPELINE", "no"),
    ];
    let text = GOOD.replace(", publication: p", "");
    let config = load(&text, &variables[..3]).unwrap();
    assert_eq!(config.pipeline.batch.max_age, Duration::from_millis(50));
    assert_eq!(config.relay.max_bytes, ByteSize::gib(1));
    assert_eq!(config.source.tables, ["public.a", "!public.b"]);
    assert_eq!(load(GOOD, &variables[4..]).unwrap().tables.len(), 1);
    for (name, value, expected) in [
        (
            "ETL__PIPELINE__BATCH__MAX_AGE",
            "soon",
            "(environment variable ETL__PIPELINE__BATCH__MAX_AGE): `soon` is not",
        ),
        (
            "ETL__PIPELINE__BACH__MAX_AGE",
            "1s",
            "pipeline.bach (environment variable ETL__PIPELINE__BACH__MAX_AGE): unknown",
        ),
        ("ETL__TABLES", "[{", "tables (environment variable ETL__TABLES): not valid YAML"),
    ] {
        let shown = shown(GOOD, &[(name, value)]);
        assert!(shown.len() == 1 && shown[0].contains(expected), "{name}\n{shown:#?}");
    }
}

#[test]
fn the_environment_of_libpq_fills_in_what_is_left_out() {
    let variables = [
        ("PGHOST", "db1,db2"),
        ("PGPORT", "6432"),
        ("PGUSER", "reader"),
        ("PGDATABASE", "shop"),
        ("PGPASSWORD", "hunter2"),
    ];
    let text = GOOD.replace("url: 'postgres://u:hunter2@h/d', ", "");
    let connect = load(&text, &variables).unwrap().source().unwrap().connect;
    assert_eq!(connect.address(), "db1:6432, db2:6432");
    assert_eq!((connect.user.as_str(), connect.database.as_str()), ("reader", "shop"));
    assert_eq!(connect.password.unwrap().expose(), "hunter2");
    let text = GOOD.replace("u:hunter2@h/d", "h/d");
    let connect = load(&text, &variables).unwrap().source().unwrap().connect;
    assert_eq!((connect.address().as_str(), connect.user.as_str()), ("h:5432", "reader"));
    let more = "url: 'postgres://u@h/d', connect_timeout: 3s, channel_binding: require, application_name: loader, \
                coalesced_reads: false, keepalive: { idle: 5s }, target_session_attrs: standby, tls: { mode: verify-ca, certificate: c, key: k }";
    let text = GOOD.replace("url: 'postgres://u:hunter2@h/d'", more);
    let connect = load(&text, &[]).unwrap().source().unwrap().connect;
    assert_eq!((connect.connect_timeout, connect.keepalive.idle), (Duration::from_secs(3), Duration::from_secs(5)));
    assert_eq!(connect.channel_binding, etl::postgres::ChannelBinding::Require);
    assert!(!connect.coalesced_reads);
    assert_eq!(connect.target_session_attrs, Some(etl::postgres::TargetSession::Standby));
    assert_eq!((connect.application_name.as_str(), connect.tls.key), ("loader", Some("k".into())));
}

#[test]
fn the_store_has_its_own_encryption() {
    let store =
        "store: { postgres: { url: 'postgres://u@h', tls: { mode: verify-ca, ca: a, certificate: c, key: k } } }";
    let config = load(&format!("{GOOD}{store}\n"), &[]).unwrap();
    let crate::StoreConfig::Postgres(postgres) = config.store else { panic!("{:?}", config.store) };
    let tls = postgres.to_options().unwrap().tls;
    let file = |name: &str| Some(std::path::PathBuf::from(name));
    assert_eq!((tls.ca, tls.certificate, tls.key), (file("a"), file("c"), file("k")));
    assert_eq!((tls.mode, postgres.schema.as_str()), (Some(etl::postgres::TlsMode::VerifyCa), "etl"));
}

#[test]
fn secrets_are_not_among_the_values() {
    let variables = [
        ("DATABASE_URL", "mysql://u:hunter2@h"),
        ("ETL__SOURCE__POSTGRES__PASSWORD", "hunter2"),
        ("SECRET_AGE", "hunter2"),
    ];
    let text = "\
pipeline: { id: shop, batch: { max_age: '${SECRET_AGE}', max_bytes: '${SECRET_AGE}' } }
source: { postgres: { url: '${DATABASE_URL}', publication: '${SECRET_AGE}' } }
destination: { memory: {} }
";
    let problems = AppConfig::from_text("etl.yaml", text, &environment(&variables)).unwrap_err();
    assert!(problems.all().len() >= 3, "{problems}");
    assert!(problems.to_string().contains("${SECRET_AGE}"), "{problems}");
    assert!(!format!("{problems} {problems:?}").contains("hunter2"), "{problems}");

    let config = load(GOOD, &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    assert!(!format!("{:?}", environment(&variables)).contains("hunter2"));
}

#[test]
fn a_file_that_is_no_config_is_one_problem() {
    for (text, expected) in [
        ("- a\n", "a config begins with keys such as `pipeline:`"),
        ("a: {\n", "not valid YAML"),
        ("a: 1\na: 2\n", "a (line 2): this key is written twice"),
    ] {
        let shown = shown(text, &[]);
        assert!(shown[0].contains(expected), "{text}\n{shown:#?}");
    }
    let missing = AppConfig::load("/nowhere/etl.yaml").unwrap_err().to_string();
    assert!(
        missing.starts_with("/nowhere/etl.yaml: the config cannot be read") && missing.contains("etl init"),
        "{missing}"
    );
}

#[test]
fn thresholds_that_contradict_each_other_are_a_problem_where_they_are_written() {
    let text = "\
pipeline: { id: shop }
source: { postgres: { url: 'postgres://u@h/d', publication: p, wal_guard: { pause_at: 4GiB, limit: 2GiB } } }
destination: { memory: {} }
";
    let shown = shown(text, &[]);
    let is_it = |shown: &String| shown.contains("source.postgres.wal_guard.limit") && shown.contains("pause_at");
    assert!(shown.iter().any(is_it), "{shown:#?}");
}
