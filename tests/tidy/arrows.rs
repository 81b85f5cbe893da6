//! Do the arrows point downwards: between the crates, between the folders of `etl`, between the destinations?

use crate::{
    demand,
    tree::{File, destination_features, files},
};

/// A crate uses only crates of lower floors.
const CRATES: &[(&str, u8)] = &[
    ("etl-cli", 4),
    ("etl-examples", 4),
    ("etl-tests", 4),
    ("etl-instructions", 4),
    ("etl-config", 3),
    ("etl-destinations", 2),
    ("etl", 1),
    ("etl-local-postgres", 0),
];

/// A folder of `etl` uses only folders of lower floors; the ground's files use each other.
const FOLDERS: &[(&str, u8)] = &[
    ("pipeline", 8),
    ("source", 7),
    ("relay", 6),
    ("transform", 6),
    ("destination", 5),
    ("store", 4),
    ("postgres", 3),
    ("data", 2),
    ("schema", 1),
];

/// What `etl` must not know.
const FOREIGN: &[&str] = &["arrow", "duckdb", "parquet", "clap"];

fn crates(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let name =
            file.text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or_default().trim_matches('"');
        let Some(own) = floor(CRATES, name) else { continue };
        for used in dependencies(&file.text) {
            if floor(CRATES, used).is_some_and(|below| below >= own) || (name == "etl" && FOREIGN.contains(&used)) {
                broken.push(format!("{}: {name} must not use {used}", file.path));
            }
        }
    }
    broken
}

fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()) {
            found.push(name);
        }
    }
    found
}

fn folders(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some(inner) = file.path.strip_prefix("etl/src/") else { continue };
        let own = inner.split(['/', '.']).next().unwrap_or_default();
        if own == "lib" {
            continue;
        }
        let own_floor = floor(FOLDERS, own).unwrap_or(0);
        for (at, used) in used_modules(file) {
            let below = floor(FOLDERS, &used).unwrap_or(0);
            if used != own && (below > own_floor || (below == own_floor && below > 0)) {
                broken.push(format!("{}:{at}: {own} must not use {used}", file.path));
            }
        }
    }
    broken
}

fn destinations(files: &[File]) -> Vec<String> {
    let features: Vec<String> = destination_features(files).iter().map(|name| name.replace('-', "_")).collect();
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some(inner) = file.path.strip_prefix("etl-destinations/src/") else { continue };
        let own = inner.split(['/', '.']).next().unwrap_or_default();
        if own == "lib" || own == "registry" {
            continue;
        }
        for (at, used) in used_modules(file) {
            if used != own && features.contains(&used) {
                broken.push(format!("{}:{at}: only the registry knows the destination {used}", file.path));
            }
        }
    }
    broken
}

fn floor(floors: &[(&str, u8)], name: &str) -> Option<u8> {
    floors.iter().find(|(of, _)| *of == name).map(|(_, floor)| *floor)
}

/// The first name of every path that starts with `crate::`, groups in braces included, with its line.
fn used_modules(file: &File) -> Vec<(usize, String)> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for (at, line) in file.program() {
        starts.push((text.len(), at));
        text.push_str(line);
        text.push('\n');
    }
    let mut found = Vec::new();
    for (offset, _) in text.match_indices("crate::") {
        let line = starts.iter().rev().find(|(start, _)| *start <= offset).map_or(0, |(_, at)| *at);
        let rest = text[offset + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(names_in_group(group).into_iter().map(|name| (line, name))),
            None => found.push((line, first_name(rest))),
        }
    }
    found
}

fn names_in_group(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut names = Vec::new();
    let mut fresh = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && depth == 1 && !c.is_whitespace() => {
                names.push(first_name(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_crate_uses_only_crates_below_it() {
    demand(&crates(&files()));
    let up =
        File::new("etl/Cargo.toml", "name = \"etl\"\n[dependencies]\netl-config.workspace = true\narrow = \"58\"\n");
    assert_eq!(crates(&[up]).len(), 2);
    let sideways = File::new("etl-cli/Cargo.toml", "name = \"etl-cli\"\n[dev-dependencies]\netl-tests = {}\n");
    assert_eq!(crates(&[sideways]).len(), 1);
}

#[test]
fn a_folder_of_the_engine_uses_only_folders_below_it() {
    demand(&folders(&files()));
    let up = File::new("etl/src/data/row.rs", "use crate::{\n    error::E,\n    store::{A, B},\n    schema::T,\n};\n");
    assert_eq!(folders(&[up]), ["etl/src/data/row.rs:1: data must not use store"]);
    let sideways = File::new("etl/src/relay/mod.rs", "fn f() { crate::transform::mask() }\n");
    assert_eq!(folders(&[sideways]).len(), 1);
    let ground = File::new("etl/src/retry.rs", "use crate::clock;\nuse crate::data::Cell;\n");
    assert_eq!(folders(&[ground]), ["etl/src/retry.rs:2: retry must not use data"]);
}

#[test]
fn no_destination_knows_another() {
    demand(&destinations(&files()));
    let manifest = File::new("etl-destinations/Cargo.toml", "# Destinations.\nnull = []\nduckdb = []\n\n");
    let bad = File::new("etl-destinations/src/null.rs", "use crate::duckdb::DuckDb;\n");
    let good = File::new("etl-destinations/src/registry.rs", "use crate::duckdb::DuckDb;\n");
    assert_eq!(destinations(&[manifest, bad, good]).len(), 1);
}
