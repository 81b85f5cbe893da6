//! Is libduckdb there when the feature `duckdb` wants it, and which profiles are there?

#[path = "build/libduckdb.rs"]
mod libduckdb;
#[path = "build/profiles.rs"]
mod profiles;

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed=DUCKDB_DOWNLOAD_LIB");
    libduckdb::link();
    if let Err(error) = profiles::list() {
        println!("cargo::error=the profiles cannot be listed: {error}");
    }
    let wanted = env::var_os("CARGO_FEATURE_DUCKDB").is_some() && env::var_os("CARGO_FEATURE_DUCKDB_BUNDLED").is_none();
    if wanted && !is_there() {
        println!(
            "cargo::error=the feature `duckdb` needs libduckdb, and it was not found: run `make setup`, which fetches it \
             once, or build with the feature `duckdb-bundled`, which compiles it (over half an hour on 2 cores)"
        );
    }
}

fn is_there() -> bool {
    if env::var_os("DUCKDB_LIB_DIR").is_some() {
        return libduckdb::directory().is_some();
    }
    let downloads = env::var("DUCKDB_DOWNLOAD_LIB").is_ok_and(|value| matches!(value.as_str(), "1" | "true"));
    downloads || ["/usr/lib", "/usr/local/lib", "/usr/lib64"].iter().any(|dir| installed_in(Path::new(dir)))
}

fn installed_in(dir: &Path) -> bool {
    dir.join("libduckdb.so").exists() || dir.join("libduckdb.dylib").exists()
}
