//! What does a system look like that takes lines of changes now and says later that it has them? It knows a batch again by its
//! name, and refuses lines that say that they are bad.

use std::collections::BTreeMap;

use harness::change_log::Logged;
use harness::contract::{Answer, Asked, Vendor};
use serde_json::{Value, json};

/// How it is spoken to.
pub(super) const PROFILE: &str = r#"name = "depot"
about = "A log of changes"
documents = "none"
documents_of = "2026-01-01"
resubmit = "client_id"
[settings]
base = "Where it is"
[limits]
rows = 100
bytes = "1MB"
row_bytes = "100kB"
[auth]
kind = "none"
[check]
url = "${setting.base}/me"
[encode]
format = "jsonl"
keeps_null = true
metadata = true
[[submit]]
url = "${setting.base}/tables/${table.name}/jobs"
query = { name = "${batch.id}" }
batch = { content_type = "application/x-ndjson" }
expect = [200, 202]
extract = { id = "/id" }
[[errors]]
status = [429]
then = "throttle"
[[errors]]
status = ["4xx"]
then = "config"
[[errors]]
status = ["5xx"]
then = "retry"
[poll]
url = "${setting.base}/jobs/${id}"
state = "/state"
documented = ["working", "done"]
states = { working = "pending", done = "completed" }
# What nobody speaks for would hold its table, and end the test.
unattributed = "hold"
schedule = { first = "2ms", longest = "50ms", deadline = "10m" }
[[rejects]]
url = "${setting.base}/jobs/${id}/errors"
items = "/items"
reason = "/why"
pages = { kind = "offset", parameter = "from", by = 2, at = "/more" }
correlate = { by = "index", at = "/row", first = 0 }
"#;

/// How often a job is asked for before it is done.
const SLOW: u32 = 3;

/// How many errors a page has.
const PAGE: usize = 2;

/// The system.
#[derive(Clone, Default)]
pub(super) struct Depot {
    jobs: Vec<Job>,
    /// What was taken of each table, in the order in which it was.
    taken: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone)]
struct Job {
    name: String,
    table: String,
    lines: Vec<Value>,
    asked: u32,
    refused: Option<Vec<usize>>,
}

impl Depot {
    /// All that was taken of a table, as a log of changes.
    pub(super) fn log(&self, table: &str) -> Vec<Logged> {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let logged = |line: &Value| {
            let number = |name: &str| line[name].as_u64().expect("a number");
            let values = line.as_object().expect("an object").iter().filter(|(name, _)| !name.starts_with('_'));
            Logged {
                values: values.map(|(name, value)| (name.clone(), text(value))).collect(),
                change_type: line["_CHANGE_TYPE"].as_str().expect("a text").to_owned(),
                position: (number("_LSN"), number("_ORDINAL")),
            }
        };
        self.taken.get(table).into_iter().flatten().map(logged).collect()
    }

    /// Where in the log the last copy of a table begins. Several may have the same position: one that was cut short is begun
    /// again from there, and its rows stay. The time of the snapshot tells them apart.
    pub(super) fn last_copy(&self, table: &str) -> usize {
        let log = self.taken.get(table).map_or(&[][..], Vec::as_slice);
        let snapshot = |line: &Value| {
            let is_copied = line["_CHANGE_TYPE"] == "UPSERT";
            is_copied.then(|| line["_TIMESTAMP"].as_str().expect("a time").to_owned())
        };
        let last = log.iter().filter_map(snapshot).max();
        last.map_or(0, |last| log.iter().position(|line| snapshot(line).as_ref() == Some(&last)).unwrap_or(0))
    }

    fn begin(&mut self, table: &str, asked: &Asked) -> Answer {
        let name = asked.parameter("name").unwrap_or_default().to_owned();
        if let Some(known) = self.jobs.iter().position(|job| job.name == name) {
            return Answer::json(200, &json!({ "id": known }));
        }
        let lines = asked.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect();
        self.jobs.push(Job { name, table: table.to_owned(), lines, asked: 0, refused: None });
        Answer::json(202, &json!({ "id": self.jobs.len() - 1 }))
    }

    fn state(&mut self, place: usize) -> Answer {
        let job = &mut self.jobs[place];
        job.asked += 1;
        if job.asked < SLOW {
            return Answer::json(200, &json!({ "state": "working" }));
        }
        if job.refused.is_none() {
            let is_bad = |line: &Value| line["words"].as_str().is_some_and(|words| words.starts_with("bad"));
            let taken = self.taken.entry(job.table.clone()).or_default();
            taken.extend(job.lines.iter().filter(|line| !is_bad(line)).cloned());
            job.refused = Some((0..job.lines.len()).filter(|row| is_bad(&job.lines[*row])).collect());
        }
        Answer::json(200, &json!({ "state": "done" }))
    }

    fn errors(&self, place: usize, from: usize) -> Answer {
        let refused = self.jobs[place].refused.as_deref().unwrap_or_default();
        let item = |row: &usize| json!({ "row": row, "why": "it says that it is bad" });
        let items: Vec<Value> = refused.iter().skip(from).take(PAGE).map(item).collect();
        Answer::json(200, &json!({ "items": items, "more": from + PAGE < refused.len() }))
    }
}

impl Vendor for Depot {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let job = |text: &str| text.parse().ok().filter(|place| *place < self.jobs.len());
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["me"]) => Answer::empty(200),
            ("POST", ["tables", table, "jobs"]) => self.begin(table, asked),
            ("GET", ["jobs", id]) => match job(id) {
                Some(place) => self.state(place),
                None => self.failure(404),
            },
            ("GET", ["jobs", id, "errors"]) => match job(id) {
                Some(place) => {
                    let from = asked.parameter("from").and_then(|from| from.parse().ok());
                    self.errors(place, from.unwrap_or(0))
                }
                None => self.failure(404),
            },
            _ => self.failure(404),
        }
    }

    fn failure(&self, status: u16) -> Answer {
        Answer::empty(status)
    }

    fn credentials(&mut self, _secret: &str, _are_good: bool) {}
}
