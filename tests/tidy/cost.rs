//! What does a destination cost at least? A folder, and a few lines where the others are listed too.

use crate::tree::{File, files};

/// The smallest destination that writes rows.
const SMALLEST: &str = "log";

/// The lines of the program in its folder, and each line elsewhere that is there for it alone.
fn cost(files: &[File]) -> (usize, Vec<String>) {
    let folder = format!("etl-destinations/src/{SMALLEST}/");
    let own = |file: &&File| file.path.starts_with(&folder);
    let lines = files.iter().filter(own).flat_map(File::program).filter(|(_, line)| !line.trim().is_empty()).count();
    let marks = [format!("open_{SMALLEST}"), format!("crate::{SMALLEST}::"), format!("feature = \"{SMALLEST}\"")];
    let is_for_it = |line: &&str| marks.iter().any(|mark| line.contains(mark));
    let places = files.iter().filter(|file| !file.path.starts_with(&folder) && file.is_rust() && !file.is_test());
    let named =
        places.flat_map(|file| file.text.lines().filter(is_for_it).map(|line| format!("{}: {line}", file.path)));
    (lines, named.collect())
}

#[test]
fn the_smallest_destination_costs_a_folder_of_few_lines_and_one_place_elsewhere() {
    let (lines, elsewhere) = cost(&files());
    println!("`{SMALLEST}`: {lines} lines in its folder; elsewhere:\n{}", elsewhere.join("\n"));
    assert!((1..600).contains(&lines), "{lines} lines");
    assert!(!elsewhere.is_empty() && elsewhere.len() <= 6, "{}", elsewhere.join("\n"));
    let registry = "etl-destinations/src/registry.rs: ";
    assert!(elsewhere.iter().all(|line| line.starts_with(registry)), "{}", elsewhere.join("\n"));
}
