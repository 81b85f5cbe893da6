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

fn unshown(files: &[File]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == "tests/SCENARIOS.md") else { return Vec::new() };
    let mut broken = Vec::new();
    for row in page.text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| scenario ")) {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let words: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if shown.starts_with("- ") {
            continue;
        }
        if words.is_empty() || !words.len().is_multiple_of(2) {
            broken.push(format!("tests/SCENARIOS.md: neither tests nor a reason: {row}"));
        }
        for pair in words.chunks_exact(2) {
            let (end, name) = (format!("/{}.rs", pair[0]), pair[1]);
            if !files.iter().any(|file| file.path.ends_with(&end) && has_test(file, name)) {
                broken.push(format!("tests/SCENARIOS.md: there is no test `{name}` in `{}`", pair[0]));
            }
        }
    }
    broken
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
