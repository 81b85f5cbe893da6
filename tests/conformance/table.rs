//! What does the README say of each case and destination? What the tests have found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use etl::destination::conformance::{Broken, CASES, Outcome};

/// Where each test leaves what it found, for the table to be made of.
const RESULTS: &str = "ETL_CONFORMANCE_RESULTS";

const BEGIN: &str = "<!-- made by `make conformance` -->\n";
const END: &str = "<!-- end -->";

/// The modules with tests, and the heads of their columns.
const PLACES: &[(&str, &str)] = &[
    ("memory", "`memory`"),
    ("duckdb", "`duckdb`"),
    ("postgres", "`postgres`"),
    ("clickhouse", "`clickhouse`"),
    ("parquet", "`parquet`"),
    ("bulk", "answers later"),
    ("file", "`file`, JSON lines"),
    ("file_csv", "`file`, CSV"),
    ("sftp", "`sftp`"),
    ("log", "`log`"),
    ("null", "`null`"),
];

fn word(outcome: &Result<Outcome, Broken>) -> &'static str {
    match outcome {
        Ok(Outcome::Kept) => "yes",
        Ok(Outcome::Refused(_)) => "error",
        Ok(Outcome::Beside) => "-",
        Err(_) => "BROKEN",
    }
}

/// Leaves behind what a test has found, or sees that the README says the same.
pub(crate) fn told(module: &str, case: &str, outcome: &Result<Outcome, Broken>) {
    let place = module.rsplit("::").next().unwrap_or(module);
    let word = word(outcome);
    if let Ok(Outcome::Refused(error)) = outcome {
        println!("refused: {error}");
    }
    if let Some(results) = env::var_os(RESULTS) {
        let results = PathBuf::from(results).join(place);
        fs::create_dir_all(&results).and_then(|()| fs::write(results.join(case), word)).unwrap();
        return;
    }
    let Some((_, head)) = PLACES.iter().find(|(module, _)| *module == place) else {
        panic!("`{place}` has no column: give it one in tests/conformance/table.rs");
    };
    if outcome.is_ok() {
        let said = told_by(&readme()).remove(&(case.to_owned(), (*head).to_owned())).unwrap_or_default();
        assert_eq!(said, word, "the README says otherwise of {case} and {head}: `make conformance` writes it anew");
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn readme() -> String {
    fs::read_to_string(path()).unwrap()
}

/// Where the table is in the text.
fn place(text: &str) -> std::ops::Range<usize> {
    let start = text.find(BEGIN).expect("the README's mark") + BEGIN.len();
    start..start + text[start..].find(END).expect("the end of the README's table")
}

/// The cells by case and head.
fn told_by(text: &str) -> BTreeMap<(String, String), String> {
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let mut lines = text[place(text)].lines();
    let heads = cells(lines.next().unwrap_or_default());
    let mut found = BTreeMap::new();
    for line in lines.skip(1).map(cells) {
        for (head, cell) in heads.iter().zip(&line).skip(1) {
            found.insert((line[0].replace(' ', "_"), head.clone()), cell.clone());
        }
    }
    found
}

fn made_of(results: &Path) -> String {
    let heads: Vec<&str> = PLACES.iter().map(|(_, head)| *head).collect();
    let mut table = format!("| case | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for case in CASES {
        let found = |(module, _): &(&str, &str)| {
            fs::read_to_string(results.join(module).join(case.name)).unwrap_or_else(|_| "?".to_owned())
        };
        let cells: Vec<String> = PLACES.iter().map(found).collect();
        table += &format!("| {} | {} |\n", case.name.replace('_', " "), cells.join(" | "));
    }
    table
}

#[test]
fn the_readme_has_a_row_a_case_and_a_column_a_destination() {
    let text = readme();
    if let Some(results) = env::var_os(RESULTS).filter(|_| env::var_os("ETL_CONFORMANCE_WRITE").is_some()) {
        let table = made_of(Path::new(&results));
        println!("{table}");
        assert!(!table.contains("BROKEN"), "a promise was broken");
        let place = place(&text);
        fs::write(path(), format!("{}{table}{}", &text[..place.start], &text[place.end..])).unwrap();
        return;
    }
    if env::var_os(RESULTS).is_some() {
        return;
    }
    let told = told_by(&text);
    assert_eq!(told.len(), CASES.len() * PLACES.len(), "`make conformance` writes the table anew");
    for (case, head) in CASES.iter().flat_map(|case| PLACES.iter().map(move |(_, head)| (case, *head))) {
        let cell = told.get(&(case.name.to_owned(), head.to_owned())).map(String::as_str);
        let is_whole = matches!(head, "`memory`" | "`duckdb`" | "`postgres`");
        let good: &[&str] = if is_whole { &["yes", "-"] } else { &["yes", "error", "-"] };
        assert!(cell.is_some_and(|cell| good.contains(&cell)), "{} and {head}: {cell:?}", case.name);
    }
}
