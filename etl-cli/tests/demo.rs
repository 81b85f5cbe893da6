//! Does the demo end with two equal databases, and leave what it was asked to leave?

use std::process::Command;

#[test]
fn the_demo_ends_with_two_equal_databases() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_etl"));
    demo.current_dir(dir.path()).args(["demo", "--rows", "5000", "--seconds", "1", "--keep"]).arg(&kept);
    let ended = demo.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{out}\n{err}");
    let tables = ["customers", "products", "orders", "order_items", "payments", "reviews", "carts"];
    for table in tables {
        let line = out.lines().find(|line| line.trim_start().starts_with(table));
        assert!(line.is_some_and(|line| line.ends_with(" equal")), "{table}\n{out}");
    }
    assert!(kept.join("shop.duckdb").exists() && kept.join("etl.yaml").exists());

    let again = demo.output().unwrap();
    assert_eq!(again.status.code(), Some(2), "what was kept is not written over");
}
