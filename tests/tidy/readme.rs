//! Does the README's table tell of every destination?

use crate::{
    demand,
    tree::{File, destination_features, files},
};

fn untold(files: &[File]) -> Vec<String> {
    let Some(readme) = files.iter().find(|file| file.path == "README.md") else { return Vec::new() };
    let rows: Vec<&str> = readme.text.lines().filter(|line| line.starts_with('|')).collect();
    let told = |feature: &String| rows.iter().any(|row| row.contains(&format!("`{feature}`")));
    let missing = destination_features(files).into_iter().filter(|feature| !told(feature));
    missing.map(|feature| format!("README.md: no table has a row for the destination `{feature}`")).collect()
}

#[test]
fn every_destination_has_a_row_in_the_readme() {
    demand(&untold(&files()));
    let manifest = File::new("etl-destinations/Cargo.toml", "# Destinations.\nnull = []\nduckdb = []\n\n");
    let readme = File::new("README.md", "| `null` | drops rows |\nProse about `duckdb`.\n");
    assert_eq!(untold(&[manifest, readme]).len(), 1);
}
