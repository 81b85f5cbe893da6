//! Is anything in the house about one machine: a path of its, or the host of a registry?

use crate::{
    demand,
    tree::{File, files},
};

/// Written in two parts, so that this file does not break its own rule.
const MACHINE: &[(&str, &str)] = &[("/wo", "rk"), ("/ro", "ot"), ("/ho", "me")];
const HOSTS: &[(&str, &str)] = &[
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("registry.", "npmjs"),
    ("pypi", ".org"),
    ("files.", "pythonhosted"),
    ("deb.", "debian.org"),
];

fn bound_to_a_machine(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        for (at, line) in file.text.lines().enumerate() {
            let path = MACHINE.iter().map(|(a, b)| format!("{a}{b}")).find(|path| names_path(line, path));
            let host = HOSTS.iter().map(|(a, b)| format!("{a}{b}")).find(|host| line.contains(host.as_str()));
            if let Some(what) = path.or(host) {
                broken.push(format!("{}:{}: {what} belongs to one machine", file.path, at + 1));
            }
        }
    }
    broken
}

/// Whether an absolute path starts here, and not a longer word or a relative path.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let relative = before.is_some_and(|c| c.is_alphanumeric() || "._-~*})$".contains(c));
        !relative && after.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == '-'))
    })
}

#[test]
fn nothing_is_bound_to_one_machine() {
    demand(&bound_to_a_machine(&files()));
    let line = |(a, b): &(&str, &str), rest: &str| format!("x = \"{a}{b}{rest}\"");
    let bad: String = MACHINE.iter().chain(HOSTS).map(|parts| line(parts, "/x") + "\n").collect();
    assert_eq!(bound_to_a_machine(&[File::new("a.md", &bad)]).len(), MACHINE.len() + HOSTS.len());
    let good = format!("{}\n{}\n", line(&MACHINE[0], "ers"), "https://crates.io/crates/etl src/work/x");
    assert!(bound_to_a_machine(&[File::new("a.md", &good)]).is_empty());
}
