//! Does the troubleshooting guide have every kind of error, and say whether it is tried again?

use std::fmt::Write;

use etl::{ErrorKind, RetryClass};

use crate::page;

#[test]
fn the_list_of_kinds_is_made_from_the_code() {
    let mut table = "| kind | what helps |\n|---|---|\n".to_owned();
    for kind in ErrorKind::ALL {
        let class = match kind.retry_class() {
            RetryClass::Transient => "it is tried again by itself",
            RetryClass::NeedsUser => "somebody has to change something",
            RetryClass::Bug => "please report it",
        };
        let name = kind.name();
        writeln!(table, "| [`{name}`](#{name}) | {class} |").unwrap();
    }
    page::expect("troubleshooting.md", "kinds", &table);
}

#[test]
fn every_kind_has_a_section_that_says_what_it_means_and_what_to_do() {
    let text = page::read("troubleshooting.md");
    for kind in ErrorKind::ALL {
        let heading = format!("\n### {}\n", kind.name());
        let (_, section) = text.split_once(&heading).unwrap_or_else(|| panic!("no section for `{}`", kind.name()));
        let section = section.split("\n#").next().unwrap_or_default();
        assert!(section.len() > 150, "`{}` says too little:{section}", kind.name());
    }
}
