//! Does the configuration reference have every key, with its true default, and has every key a test?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use etl_config::{AppConfig, Environment};
use etl_destinations::registry::DestinationConfig;

use crate::page;
use crate::structs::{Key, Structs};

/// The sections of a config, and their structs.
const SECTIONS: &[(&str, &str)] = &[
    ("pipeline", "PipelineConfig"),
    ("relay", "RelaySettings"),
    ("source.postgres", "PostgresConfig"),
    ("store.postgres", "PostgresStoreConfig"),
    ("destination.duckdb", "DuckDbConfig"),
    ("destination.postgres", "PostgresTargetConfig"),
    ("destination.parquet", "ParquetConfig"),
    ("destination.clickhouse", "ClickHouseConfig"),
    ("destination.profile", "ProfileConfig"),
    ("destination.sftp", "SftpConfig"),
    ("destination.file", "FileConfig"),
    ("destination.log", "LogConfig"),
    ("defaults", "Defaults"),
    ("tables[]", "TableEntry"),
    ("telemetry", "Telemetry"),
];

/// Sections without keys.
const EMPTY: &[&str] = &["store.sqlite", "store.memory", "destination.memory", "destination.null"];

fn keys() -> Vec<(&'static str, Vec<Key>)> {
    let structs = Structs::read();
    SECTIONS.iter().map(|(path, name)| (*path, structs.keys(name, path))).collect()
}

fn table(section: &str, keys: &[Key]) -> String {
    let mut text = "| key | values | default | meaning |\n|---|---|---|---|\n".to_owned();
    for key in keys {
        let name = key.path.strip_prefix(section).unwrap_or(&key.path).trim_start_matches('.');
        let default = match (&key.default, key.is_required) {
            (Some(value), _) => format!("`{value}`"),
            (None, true) => "required".to_owned(),
            (None, false) => String::new(),
        };
        let meaning = key.meaning.replace('|', "\\|");
        writeln!(text, "| `{name}` | {} | {default} | {meaning} |", key.kind).unwrap();
    }
    text
}

#[test]
fn the_configuration_reference_is_made_from_the_config_structs() {
    for (section, keys) in keys() {
        page::expect("configuration.md", section, &table(section, &keys));
    }
}

#[test]
fn every_key_says_what_it_means() {
    let silent: Vec<String> = keys()
        .into_iter()
        .flat_map(|(_, keys)| keys)
        .filter(|key| key.meaning.is_empty())
        .map(|key| key.path)
        .collect();
    assert!(silent.is_empty(), "no meaning: {silent:?}");
}

#[test]
fn every_destination_is_in_the_reference() {
    let told = |name: &&&str| {
        let path = format!("destination.{name}");
        SECTIONS.iter().any(|(section, _)| *section == path) || EMPTY.contains(&&*path)
    };
    let untold: Vec<_> = DestinationConfig::NAMES.iter().filter(|name| !told(name)).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

/// A config that has little more than a section.
fn config(section: &str) -> String {
    let destination = match section {
        "destination.duckdb" => "duckdb: { path: x }",
        "destination.postgres" => "postgres: { url: 'postgres://u@h/d' }",
        "destination.parquet" => "parquet: { location: x }",
        "destination.clickhouse" => "clickhouse: { url: 'http://h:8123' }",
        "destination.profile" => "profile: { name: klaviyo }",
        "destination.sftp" => "sftp: { host: h, user: u, agent: a, known_hosts: k }",
        "destination.file" => "file: { path: x }",
        "destination.log" => "log: {}",
        "destination.null" => "'null': {}",
        _ => "memory: {}",
    };
    let store = match section {
        "store.postgres" => "store: { postgres: { url: 'postgres://u@h/d' } }\n",
        "store.memory" => "store: { memory: {} }\n",
        _ => "",
    };
    let tables = if section == "tables[]" { "tables: [ { match: x } ]\n" } else { "" };
    let http = if section == "telemetry" {
        "telemetry: { http: { bind: '127.0.0.1:1' }, traces: { endpoint: 'http://x' } }\n"
    } else {
        ""
    };
    let source = if section == "source.postgres" { "host: h, user: u" } else { "url: 'postgres://u@h/d'" };
    format!(
        "pipeline: {{ id: shop }}\nsource: {{ postgres: {{ publication: p, {source} }} }}\n\
         destination: {{ {destination} }}\n{store}{tables}{http}"
    )
}

fn load(text: &str, variable: Option<(&str, &str)>) -> Result<AppConfig, String> {
    let environment: Environment =
        variable.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    AppConfig::from_text("etl.yaml", text, &environment).map_err(|problems| problems.to_string())
}

#[test]
fn the_defaults_are_those_that_the_reference_says() {
    let mut compared = 0;
    for (section, keys) in keys().into_iter().filter(|(section, _)| *section != "tables[]") {
        let text = config(section);
        let without = load(&text, None).unwrap_or_else(|problems| panic!("{section}: {problems}"));
        for key in &keys {
            let Some(default) = &key.default else { continue };
            // A default of `defaults` is one of the rules, which hold "not said" apart.
            if section == "defaults" {
                continue;
            }
            let variable = format!("ETL__{}", key.path.replace('.', "__").to_uppercase());
            let with =
                load(&text, Some((&variable, default))).unwrap_or_else(|problems| panic!("{}: {problems}", key.path));
            let is_left_out = |part: &str| format!("{without:?}").contains(&format!("{part}: None"));
            let is_optional = key.path.split('.').any(is_left_out);
            if !is_optional {
                assert_eq!(format!("{with:?}"), format!("{without:?}"), "{} is not `{default}` by default", key.path);
                compared += 1;
            }
        }
    }
    assert!(compared > 20, "only {compared} defaults were compared");
}

#[test]
fn an_unknown_key_is_refused_in_every_section() {
    let mut sections: BTreeSet<String> = EMPTY.iter().map(|section| (*section).to_owned()).collect();
    for (section, keys) in keys() {
        sections.extend(keys.iter().filter_map(|key| key.path.rsplit_once('.')).map(|(section, _)| section.to_owned()));
        sections.insert(section.to_owned());
    }
    for section in sections {
        let root = SECTIONS.iter().map(|(root, _)| *root).chain(EMPTY.iter().copied());
        let root = root.filter(|root| section.starts_with(root)).max_by_key(|root| root.len()).unwrap();
        if root == "tables[]" {
            let inner = section.trim_start_matches("tables[]").trim_start_matches('.');
            let entry = if inner.is_empty() { "nonsense: 1".to_owned() } else { format!("{inner}: {{ nonsense: 1 }}") };
            let text = config("pipeline") + &format!("tables: [ {{ match: x, {entry} }} ]\n");
            assert!(load(&text, None).unwrap_err().contains("unknown key `nonsense`"), "{section}");
            continue;
        }
        let variable = format!("ETL__{}__NONSENSE", section.replace('.', "__").to_uppercase());
        let problems = load(&config(root), Some((&variable, "1"))).map(drop).unwrap_err();
        assert!(problems.contains("unknown key `nonsense`"), "{section}: {problems}");
    }
}

#[test]
fn every_option_has_a_test_that_it_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = fs::read_to_string(root.join("tests/reference/options.tsv")).unwrap();
    let mut tests: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.split('\t');
        let (Some(option), Some(file), Some(test)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("not three columns: {line}");
        };
        assert!(tests.insert(option, (file, test)).is_none(), "{option} stands there twice");
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{option}: {file} has no test {test}");
    }
    let keys: BTreeSet<String> = keys().into_iter().flat_map(|(_, keys)| keys).map(|key| key.path).collect();
    let untested: Vec<&String> = keys.iter().filter(|key| !tests.contains_key(key.as_str())).collect();
    assert!(untested.is_empty(), "tests/reference/options.tsv names no test of {untested:#?}");
    let gone: Vec<&&str> = tests.keys().filter(|option| !keys.contains(**option)).collect();
    assert!(gone.is_empty(), "there are no such options: {gone:?}");
}
