//! Does `etl` answer wrong words and wrong configs with one clear message and the right exit code?

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn etl(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etl"));
    command.current_dir(dir).args(words).env_remove("DATABASE_URL").stdin(Stdio::null());
    command
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(dir: &Path, words: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = etl(dir, words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}

#[test]
fn wrong_words_end_with_2_and_say_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    for (words, expected) in [
        (&["rnu"][..], "unrecognized subcommand 'rnu'"),
        (&["run", "--until-cought-up"], "--until-caught-up"),
        (&["demo", "--rows", "many"], "invalid value 'many' for '--rows <ROWS>'"),
        (&["demo", "--rows", "3"], "3 is not in 1000..=100000000"),
        (&["operations", "retry", "x", "--within", "long"], "`long` is not a duration"),
        (&["dlq", "drop"], "required arguments were not provided"),
        (&["dlq", "drop", "--all", "--table", "t"], "cannot be used with"),
        (&[], "Usage: etl"),
    ] {
        let ended = run(dir.path(), words);
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.err);
        assert!(ended.err.contains(expected), "{words:?}: {}", ended.err);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    for (words, expected) in [
        (&["--help"][..], "etl -c shop.yaml run --until-caught-up"),
        (&["run", "--help"], "Examples:"),
        (&["demo", "--help"], "--keep <DIR>"),
        (&["compact", "--help"], "etl compact --json"),
        (&["operations", "--help"], "etl operations retry 3f2a --anew"),
        (&["operations", "retry", "--help"], "--within <DURATION>"),
        (&["dlq", "--help"], "etl dlq replay --all"),
        (&["--version"], "etl 0."),
    ] {
        let ended = run(dir.path(), words);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{words:?}");
        assert!(ended.out.contains(expected), "{words:?}: {}", ended.out);
    }
}

#[test]
fn init_writes_the_sample_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(dir.path(), &["init"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    let written = std::fs::read_to_string(dir.path().join("etl.yaml")).unwrap();
    assert_eq!(written, etl_config::sample());

    let again = run(dir.path(), &["init"]);
    assert_eq!(again.code, Some(2));
    assert!(again.err.contains("etl.yaml exists") && again.err.contains("--force"), "{}", again.err);
    std::fs::write(dir.path().join("etl.yaml"), "x").unwrap();
    assert_eq!(run(dir.path(), &["init", "--force"]).code, Some(0));
    assert_eq!(run(dir.path(), &["-c", "nowhere/etl.yaml", "init"]).code, Some(1));
}

#[test]
fn a_wrong_config_ends_with_2_and_every_problem() {
    let dir = tempfile::tempdir().unwrap();
    for verb in ["run", "check"] {
        let missing = run(dir.path(), &[verb]);
        assert_eq!(missing.code, Some(2));
        assert!(missing.err.contains("./etl.yaml: the config cannot be read") && missing.err.contains("etl init"));
    }
    let text = "\
pipeline: { id: Shop, batch: { max_age: soon } }
source: { postgres: { url: 'postgres://etl:hunter2@h/d', publicaton: p } }
destination: { memory: {}, duckdb: { path: x } }
";
    std::fs::write(dir.path().join("bad.yaml"), text).unwrap();
    let bad = run(dir.path(), &["-c", "bad.yaml", "run"]);
    assert_eq!(bad.code, Some(2), "{}", bad.err);
    for expected in [
        "bad.yaml has 4 problems",
        "pipeline.id (line 1): `Shop`",
        "pipeline.batch.max_age (line 1): `soon` is not a duration",
        "unknown key `publicaton`. Did you mean `publication`?",
        "`memory` and `duckdb` exclude each other",
    ] {
        assert!(bad.err.contains(expected), "{expected}\n{}", bad.err);
    }
    let json = run(dir.path(), &["-c", "bad.yaml", "check", "--json"]);
    assert_eq!(json.code, Some(2));
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["findings"].as_array().unwrap().len(), 4, "{report}");
    for said in [&bad.err, &json.out, &json.err] {
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = etl(dir.path(), &["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
}
