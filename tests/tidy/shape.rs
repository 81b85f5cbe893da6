//! Is every file short enough, named by a noun of the field, and headed by what it answers?

use crate::{
    demand,
    tree::{File, files},
};

const LONGEST: usize = 600;
const NOT_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "misc", "base", "shared", "manager", "handler"];

fn too_long(files: &[File]) -> Vec<String> {
    let rust = files.iter().filter(|file| file.is_rust());
    let counted = rust.map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > LONGEST);
    counted.map(|(file, lines)| format!("{}: {lines} lines, {LONGEST} are the most", file.path)).collect()
}

fn unheaded(files: &[File]) -> Vec<String> {
    let rust = files.iter().filter(|file| file.is_rust());
    let bad = rust.filter(|file| file.text.lines().next().and_then(|line| line.strip_prefix("//! ")).is_none());
    bad.map(|file| format!("{}: the first line does not say what the file answers", file.path)).collect()
}

fn unnamed(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        for part in file.path.split('/') {
            let stem = part.split('.').next().unwrap_or_default();
            if let Some(word) = not_a_name(stem) {
                broken.push(format!("{}: `{word}` is not a name", file.path));
            }
        }
        if !file.is_rust() {
            continue;
        }
        for (at, line) in file.text.lines().enumerate() {
            let rest = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let module = rest.strip_prefix("mod ").map(|name| name.trim_end_matches([';', '{', ' ']));
            if let Some(word) = module.and_then(not_a_name) {
                broken.push(format!("{}:{}: `{word}` is not a name of a module", file.path, at + 1));
            }
        }
    }
    broken
}

fn not_a_name(name: &str) -> Option<&'static str> {
    NOT_NAMES.iter().copied().find(|banned| name.split(['_', '-']).any(|word| word == *banned))
}

#[test]
fn no_file_is_longer_than_600_lines() {
    demand(&too_long(&files()));
    assert_eq!(too_long(&[File::new("etl/src/a.rs", &"x\n".repeat(601))]).len(), 1);
    assert!(too_long(&[File::new("etl/src/a.rs", &"x\n".repeat(600))]).is_empty());
}

#[test]
fn every_file_says_first_what_it_answers() {
    demand(&unheaded(&files()));
    assert_eq!(unheaded(&[File::new("a.rs", "use std::fs;\n"), File::new("b.rs", "")]).len(), 2);
}

#[test]
fn every_name_is_a_noun_of_the_field() {
    demand(&unnamed(&files()));
    let bad = [
        File::new("etl/src/utils.rs", ""),
        File::new("etl/src/http_helpers/mod.rs", ""),
        File::new("etl/src/a.rs", "pub(crate) mod common;\nmod base {\n"),
    ];
    assert_eq!(unnamed(&bad).len(), 4);
    assert!(unnamed(&[File::new("etl/src/base64.rs", "mod sharedness;")]).is_empty());
}
