//! Which files make up the house, and which of their lines count as the program?

use std::{fs, path::Path, process::Command};

/// A text file of the checkout.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// From the root of the checkout, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the whole file is about testing.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/benches/")
    }

    /// The lines of the program with their numbers: without tests, comments and what follows `//`.
    pub(crate) fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        let text = if self.is_test() { "" } else { self.text.as_str() };
        let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        let lines = text[..end].lines().enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }
}

/// Every text file that git tracks or would track.
pub(crate) fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<File> = String::from_utf8(output.stdout)
        .expect("paths are UTF-8")
        .lines()
        .filter_map(|path| Some(File { path: path.to_owned(), text: fs::read_to_string(root.join(path)).ok()? }))
        .collect();
    assert!(files.iter().any(|file| file.path == "etl/src/lib.rs"), "the checkout's files were not found");
    files
}

/// The destination features that `etl-destinations/Cargo.toml` lists under `# Destinations.`
pub(crate) fn destination_features(files: &[File]) -> Vec<String> {
    let manifest = files.iter().find(|file| file.path == "etl-destinations/Cargo.toml");
    let text = manifest.map_or("", |file| file.text.as_str());
    text.lines()
        .skip_while(|line| *line != "# Destinations.")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().to_owned()))
        .filter(|name| !name.ends_with("-bundled"))
        .collect()
}

#[test]
fn the_program_is_what_is_left_without_tests_and_comments() {
    let file = File::new("etl/src/a.rs", "//! Doc.\nfn a() {} // why\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n");
    let lines: Vec<_> = file.program().filter(|(_, line)| !line.trim().is_empty()).collect();
    assert_eq!(lines, [(2, "fn a() {} ")]);
    assert_eq!(File::new("etl/src/a/tests.rs", "fn t() {}").program().count(), 0);
}

#[test]
fn the_destination_features_are_found() {
    let features = destination_features(&files());
    assert!(features.contains(&"duckdb".to_owned()) && !features.contains(&"duckdb-bundled".to_owned()));
}
