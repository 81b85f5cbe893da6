//! Does the demo show what it promises: the same rows on both sides, and a file to look at?

use std::process::Command;

#[test]
fn the_demo_ends_with_equal_sides_and_keeps_what_it_was_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let demo = || {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_etl"));
        demo.args(["demo", "--rows", "5000", "--seconds", "1", "--keep"]).arg(&kept).current_dir(&dir);
        let output = demo.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, said, complained) = demo();
    assert_eq!(code, Some(0), "{said}{complained}");
    for table in ["customers", "products", "orders", "order_items", "payments", "reviews", "carts"] {
        let line = said.lines().find(|line| line.trim_start().starts_with(&format!("{table} ")));
        assert!(line.is_some_and(|line| line.ends_with(" equal")), "{table}: {said}");
    }
    for file in ["shop.duckdb", "etl.yaml"] {
        assert!(kept.join(file).is_file(), "{file} is not there");
    }
    let (code, _, complained) = demo();
    assert_eq!(code, Some(2), "{complained}");
    assert!(complained.contains("holds an earlier demo"), "{complained}");
}
