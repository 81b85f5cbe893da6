//! Is each scenario of `tests/SCENARIOS.md` shown by a test that runs, or is there a reason why not?

use crate::{
    demand,
    tree::{File, files},
};

/// Whether the file has such a test, which is not left out of a usual run.
fn has_test(file: &File, name: &str) -> bool {
    let Some((before, _)) = file.text.split_once(&format!("fn {name}(")) else { return false };
    let before = before.rsplit_once('\n').map_or("", |(before, _)| before);
    let attributes = before.lines().rev().take_while(|line| line.trim_start().starts_with("#["));
    let attributes: Vec<&str> = attributes.map(str::trim_start).collect();
    let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    attributes.iter().any(is_test) && !attributes.iter().any(|line| line.starts_with("#[ignore"))
}

/// What is wrong with the pairs of file and test in the last column of a row.
fn unshown_in(page: &str, row: &str, files: &[File]) -> Vec<String> {
    let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
    let words: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
    if shown.starts_with("- ") {
        return Vec::new();
    }
    let mut broken = Vec::new();
    if words.is_empty() || !words.len().is_multiple_of(2) {
        broken.push(format!("{page}: neither tests nor a reason: {row}"));
    }
    for pair in words.chunks_exact(2) {
        let (end, name) = (format!("/{}.rs", pair[0]), pair[1]);
        if !files.iter().any(|file| file.path.ends_with(&end) && has_test(file, name)) {
            broken.push(format!("{page}: there is no test `{name}` in `{}`", pair[0]));
        }
    }
    broken
}

fn unshown(files: &[File]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == "tests/SCENARIOS.md") else { return Vec::new() };
    let rows = page.text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| scenario "));
    rows.flat_map(|row| unshown_in(&page.path, row, files)).collect()
}

const CHECKLIST: &str = "## Checklist of destinations that answer later";

/// Each number of the checklist has a row, and each row its tests.
fn unchecked(files: &[File], numbers: &[u32]) -> Vec<String> {
    let page = files.iter().find(|file| file.path == "tests/README.md").map_or("", |file| &file.text);
    let section =
        page.split_once(CHECKLIST).map_or("", |(_, section)| section.split("\n## ").next().unwrap_or_default());
    let number = |row: &&str| row.split('|').nth(1).and_then(|cell| cell.trim().parse::<u32>().ok());
    let rows: Vec<&str> = section.lines().filter(|row| number(row).is_some()).collect();
    let mut broken: Vec<String> = rows.iter().flat_map(|row| unshown_in("tests/README.md", row, files)).collect();
    let is_missing = |wanted: &&u32| !rows.iter().any(|row| number(row) == Some(**wanted));
    broken
        .extend(numbers.iter().filter(is_missing).map(|number| format!("tests/README.md: no row for number {number}")));
    broken
}

#[test]
fn every_number_of_the_checklist_has_a_test_that_runs() {
    let numbers: Vec<u32> = [2, 3].into_iter().chain(6..=29).chain([32, 34, 35, 37, 41, 42, 44, 45, 46, 47]).collect();
    demand(&unchecked(&files(), &numbers));
    let page =
        format!("{CHECKLIST}\n| 6 | a | `x/a` `one` |\n| 7 | b | `x/a` `two` |\n\n## Next\n| 9 | c | `x/a` `one` |\n");
    let found = unchecked(
        &[File::new("tests/README.md", &page), File::new("tests/x/a.rs", "#[test]\nfn one() {}\n")],
        &[6, 7, 8, 9],
    );
    assert_eq!(found.len(), 3, "{found:?}");
}

/// The systems that were read before this was built.
const READ: &[&str] = &["RudderStack", "Segment", "supabase/etl", "Bizon"];

/// Each of these has a row, and each number in such a row a row of the checklist.
fn unmapped(files: &[File], read: &[&str]) -> Vec<String> {
    let page = files.iter().find(|file| file.path == "tests/README.md").map_or("", |file| &file.text);
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = page.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    let mut broken = Vec::new();
    for system in read {
        let own: Vec<_> = rows.iter().filter(|row| row[1].starts_with(system)).collect();
        if own.is_empty() {
            broken.push(format!("tests/README.md: no row for {system}"));
        }
        for number in own.iter().flat_map(|row| row[2].split(", ")) {
            if number.parse::<u32>().is_err() || !rows.iter().any(|row| row[1] == number) {
                broken.push(format!("tests/README.md: {system} is mapped to `{number}`, which is no number here"));
            }
        }
    }
    broken
}

#[test]
fn every_system_that_was_read_has_its_numbers() {
    demand(&unmapped(&files(), READ));
    let page = "| 6 | a | `x/a` `one` |\n| One: this | 6 |\n| One: that | 7 |\n| Two | soon |\n";
    let found = unmapped(&[File::new("tests/README.md", page)], &["One", "Two", "Three"]);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn every_scenario_has_a_test_that_runs_or_a_reason() {
    demand(&unshown(&files()));
    let page = "| scenario | shown by |\n|---|---|\n| a | `x/a` `one` |\n| b | `x/a` `two`, `x/a` `three` |\n\
                | c | - not here |\n| d | soon |\n| e | `x/b` `one` |\n";
    let tests = "#[tokio::test(flavor = \"multi_thread\")]\nasync fn one() {}\n#[test]\n#[ignore = \"long\"]\nfn two() {}\n\
                 fn three() {}\n";
    let found = unshown(&[File::new("tests/SCENARIOS.md", page), File::new("tests/x/a.rs", tests)]);
    assert_eq!(found.len(), 4, "{found:?}");
}
