//! `etl dlq`: which rows were refused for good? Lists, shows, hands over again, removes.

use std::path::Path;
use std::process::ExitCode;

use etl_config::{AppConfig, DeskRequest};
use serde_json::Value;

use crate::args::{Dlq, DlqVerb, Letters};
use crate::control_socket::ask_at_desk;
use crate::failure::Failure;
use crate::stdout::say;

/// How many names fit into one request.
const AT_A_TIME: usize = 200;

pub(crate) async fn dlq(config: &Path, args: Dlq) -> Result<ExitCode, Failure> {
    let config = AppConfig::load(config)?;
    match args.verb {
        DlqVerb::List { table, after, most, json } => {
            let found = ask_at_desk(&config, DeskRequest::DeadLetters { table, after, most }).await?;
            tell(&found, json, |found| lines(found, most));
        }
        DlqVerb::Show { id, json } => {
            let found = ask_at_desk(&config, DeskRequest::DeadLetter { id }).await?;
            tell(&found, json, page);
        }
        DlqVerb::Replay(letters) => {
            let found = each(&config, letters, |ids, table| DeskRequest::Replay { ids, table }).await?;
            let [delivered, overtaken, left] = ["delivered", "overtaken", "left"].map(|key| sum(&found, key));
            say(&format!("{delivered} dead letters are delivered, {overtaken} were overtaken, {left} stay"));
        }
        DlqVerb::Drop(letters) => {
            let found = each(&config, letters, |ids, table| DeskRequest::Drop { ids, table }).await?;
            say(&format!("{} dead letters are removed", sum(&found, "dropped")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for these letters, so many at a time.
async fn each(
    config: &AppConfig,
    letters: Letters,
    request: impl Fn(Vec<String>, Option<String>) -> DeskRequest,
) -> Result<Vec<Value>, Failure> {
    let mut parts: Vec<Vec<String>> = letters.ids.chunks(AT_A_TIME).map(<[String]>::to_vec).collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let mut found = Vec::with_capacity(parts.len());
    for ids in parts {
        found.push(ask_at_desk(config, request(ids, letters.table.clone())).await?);
    }
    Ok(found)
}

fn sum(found: &[Value], key: &str) -> u64 {
    found.iter().filter_map(|answer| answer.get(key)?.as_u64()).sum()
}

fn tell(found: &Value, is_json: bool, told: impl FnOnce(&Value) -> Vec<String>) {
    if is_json {
        say(&found.to_string());
    } else {
        told(found).iter().for_each(|line| say(line));
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or("-").to_owned()
}

fn key(letter: &Value) -> String {
    let words = letter.get("key").and_then(Value::as_array);
    let words = words.map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    words.unwrap_or_else(|| "-".to_owned())
}

fn lines(found: &Value, most: u32) -> Vec<String> {
    let letters = found.as_array().map_or(&[][..], Vec::as_slice);
    let Some(last) = letters.last() else { return vec!["there are no dead letters".to_owned()] };
    let line = |letter: &Value| {
        let [id, table, change, code, reason] =
            ["id", "table", "change", "code", "reason"].map(|key| text(letter, key));
        format!("{id}  {table}  {change}  key {}  {code}: {reason}", key(letter))
    };
    let mut lines: Vec<String> = letters.iter().map(line).collect();
    if letters.len() as u64 >= u64::from(most) {
        lines.push(format!("`etl dlq list --after {}` shows the next", text(last, "id")));
    }
    lines
}

fn page(letter: &Value) -> Vec<String> {
    let mut lines = vec![
        format!("letter    {}", text(letter, "id")),
        format!("table     {}, key {}", text(letter, "table"), key(letter)),
        format!("change    {} at {}", text(letter, "change"), text(letter, "position")),
        format!("refused   {}, tried {} times", text(letter, "at"), letter["attempts"]),
        format!("code      {}", text(letter, "code")),
        format!("reason    {}", text(letter, "reason")),
    ];
    for (column, value) in letter.get("row").and_then(Value::as_object).into_iter().flatten() {
        lines.push(format!("  {column} = {value}"));
    }
    lines
}
