//! Does one module alone read the time, wait, name metrics, read the environment?

use crate::{
    demand,
    tree::{File, files},
};

/// What only one place may do.
struct Owned {
    what: &'static str,
    /// Signs of it in a line of the program.
    signs: &'static [&'static str],
    /// The only places that may do it, by the beginning of their path.
    owners: &'static [&'static str],
}

const OWNED: &[Owned] = &[
    Owned {
        what: "only `clock` reads the time",
        signs: &["SystemTime::now", "Instant::now", "UtcDateTime::now", "Utc::now"],
        owners: &["etl/src/clock.rs"],
    },
    Owned {
        what: "only `retry` waits",
        signs: &["time::sleep", "thread::sleep", "sleep_until(", " sleep("],
        owners: &["etl/src/retry.rs", "etl-local-postgres/"],
    },
    Owned {
        what: "only `metrics` names metrics",
        signs: &["counter!(", "gauge!(", "histogram!("],
        owners: &["etl/src/metrics"],
    },
    Owned {
        what: "only `etl-config` and `etl-cli` read the environment",
        signs: &["env::var"],
        owners: &["etl-config/", "etl-cli/", "etl/src/failpoint.rs", "etl-local-postgres/", "etl-examples/"],
    },
];

fn trespasses(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !file.path.contains("build")) {
        for owned in OWNED.iter().filter(|owned| !owned.owners.iter().any(|owner| file.path.starts_with(owner))) {
            for (at, line) in file.program() {
                if owned.signs.iter().any(|sign| line.contains(sign)) {
                    broken.push(format!("{}:{at}: {}: {}", file.path, owned.what, line.trim()));
                }
            }
        }
    }
    broken
}

#[test]
fn what_one_module_owns_no_other_does() {
    demand(&trespasses(&files()));
    let bad = File::new(
        "etl/src/pipeline/apply.rs",
        "let a = std::time::Instant::now();\ntokio::time::sleep(a).await;\nmetrics::counter!(\"x\");\nenv::var(\"A\");\n",
    );
    assert_eq!(trespasses(&[bad]).len(), 4);
    let owner = File::new("etl/src/clock.rs", "SystemTime::now()");
    let test = File::new("etl/src/a/tests.rs", "Instant::now()");
    assert!(trespasses(&[owner, test]).is_empty());
}
