//! Does `etl profiles` list and show what there is, and say of a broken profile what is wrong, and where?

use std::path::Path;
use std::process::Output;

use crate::scene::etl;

async fn run(dir: &Path, words: &[&str]) -> Option<(Option<i32>, String)> {
    let Output { status, stdout, stderr } = etl(dir, words).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if said.contains("feature `profile`") {
        println!("SKIPPED: the binary was built without `profile`");
        return None;
    }
    Some((status.code(), said))
}

#[tokio::test]
async fn profiles_are_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let Some((code, listed)) = run(dir.path(), &["profiles", "list"]).await else { return };
    assert_eq!(code, Some(0), "{listed}");
    assert!(listed.contains("klaviyo") && listed.contains("eloqua"), "{listed}");
    let (_, json) = run(dir.path(), &["profiles", "list", "--json"]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json.as_array().unwrap().iter().any(|profile| profile["name"] == "klaviyo"), "{json}");
    let (_, shown) = run(dir.path(), &["profiles", "show", "klaviyo"]).await.unwrap();
    for expected in ["conforms to the vendor's documents of 20", "secrets.api_key", "10000 rows"] {
        assert!(shown.contains(expected), "{shown}");
    }
    let (code, said) = run(dir.path(), &["profiles", "show", "nothing"]).await.unwrap();
    assert!(code == Some(2) && said.contains("there is no profile `nothing`; there are "), "{said}");
}

#[tokio::test]
async fn a_profile_is_looked_at_and_each_problem_has_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_, toml)) = run(dir.path(), &["profiles", "show", "klaviyo", "--toml"]).await else { return };
    std::fs::write(dir.path().join("mine.toml"), &toml).unwrap();
    let (code, said) = run(dir.path(), &["profiles", "lint", "mine.toml"]).await.unwrap();
    assert_eq!((code, said.as_str()), (Some(0), "mine.toml: right\n"));

    let line = toml.lines().position(|line| line.contains("rate = ")).unwrap() + 1;
    std::fs::write(dir.path().join("bad.toml"), toml.replace("rate = ", "rates = ")).unwrap();
    let (code, said) = run(dir.path(), &["profiles", "lint", "mine.toml", "bad.toml"]).await.unwrap();
    assert_eq!(code, Some(2));
    assert!(said.contains(&format!("bad.toml:{line}: unknown key `limits.rates`")), "{said}");
    let (_, json) = run(dir.path(), &["profiles", "lint", "--json", "bad.toml"]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["problems"][0]["line"], line, "{json}");
    let (code, _) = run(dir.path(), &["profiles", "lint", "nowhere.toml"]).await.unwrap();
    assert_eq!(code, Some(2));
}
