//! Which profiles are in the folder? Written as a list for the program.

use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs, io};

/// Writes the list of the files of `profiles`, by name.
pub(crate) fn list() -> io::Result<()> {
    println!("cargo::rerun-if-changed=profiles");
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("profiles");
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    found.sort();
    let mut text = "/// The profiles that come with `etl`, by name.\npub const BUILT_IN: &[BuiltIn] = &[\n".to_owned();
    for path in found {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        // A text can always be written to.
        let _ = writeln!(text, "    BuiltIn {{ name: {name:?}, text: include_str!({path:?}) }},");
    }
    text.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("profiles.rs"), text)
}
