//! Which part of a page is made from the code? What stands between two marks.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn path(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page)
}

pub(crate) fn read(page: &str) -> String {
    fs::read_to_string(path(page)).unwrap_or_else(|error| panic!("docs/{page}: {error}"))
}

/// That the part of the page says this; writes it with `ETL_WRITE_REFERENCE`.
pub(crate) fn expect(page: &str, part: &str, content: &str) {
    let text = read(page);
    let (begin, end) = (format!("<!-- made from the code: {part} -->\n"), "<!-- end -->");
    let start = text.find(&begin).unwrap_or_else(|| panic!("docs/{page} has no mark {}", begin.trim())) + begin.len();
    let stop = start + text[start..].find(end).unwrap_or_else(|| panic!("docs/{page}: {part} has no end"));
    if text[start..stop] == *content {
        return;
    }
    assert!(
        env::var_os("ETL_WRITE_REFERENCE").is_some(),
        "docs/{page}: `{part}` is not what the code says; `make reference` writes it anew. It should be:\n{content}"
    );
    fs::write(path(page), format!("{}{content}{}", &text[..start], &text[stop..])).unwrap();
}
