//! Where is libduckdb at build time, and how does an executable find it at run time?
//!
//! Included by the build script of every package that makes executables.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Lets the executables of this package run without `LD_LIBRARY_PATH`: they look beside themselves, in `deps`, and in
/// the directory that the library was linked from.
pub(crate) fn link() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(dir) = env::var("DUCKDB_LIB_DIR") {
        println!("cargo::rerun-if-changed={dir}");
    }
    if env::var("CARGO_CFG_TARGET_FAMILY").as_deref() != Ok("unix") {
        return;
    }
    let beside = if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") { "@loader_path" } else { "$ORIGIN" };
    for place in [beside.to_owned(), format!("{beside}/deps")] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{place}");
    }
    if let Some(dir) = directory() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", dir.display());
    }
}

/// The directory that really holds libduckdb, behind every link; `None` where `DUCKDB_LIB_DIR` names none.
pub(crate) fn directory() -> Option<PathBuf> {
    let dir = Path::new(&env::var_os("DUCKDB_LIB_DIR")?).canonicalize().ok()?;
    ["libduckdb.so", "libduckdb.dylib", "libduckdb.a", "duckdb.lib"]
        .iter()
        .any(|name| dir.join(name).exists())
        .then_some(dir)
}
