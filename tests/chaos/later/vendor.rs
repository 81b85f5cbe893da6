//! What does a system look like that takes batches over HTTP and says later what became of them? Its state is beyond the
//! process that writes to it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How often a job is asked for before it is done.
const SLOW: u32 = 2;

/// How many rejects a page has.
const PAGE: usize = 2;

/// What the system has.
#[derive(Default)]
pub(crate) struct Content {
    jobs: Vec<Job>,
    definitions: Vec<Definition>,
    /// The rows by their keys, as the committed jobs left them.
    pub(crate) rows: BTreeMap<String, String>,
    /// How often each change was committed, by key and position.
    pub(crate) committed: HashMap<(String, u64, u64), u32>,
    /// How often each batch was handed over, by the name that we have for it.
    pub(crate) submits: BTreeMap<String, u32>,
    /// So many of the next submissions are taken, and their answers are lost.
    pub(crate) lost_answers: u32,
}

struct Job {
    /// A name that nobody else may use, or a word to be found by.
    name: Option<String>,
    rows: Vec<Value>,
    asked: u32,
    rejects: Option<Vec<Value>>,
}

#[derive(Default)]
struct Definition {
    data: Vec<Value>,
    job: Option<usize>,
}

/// The running system; it ends with the test.
#[derive(Clone, Default)]
pub(crate) struct Vendor(Arc<Mutex<Content>>);

struct Asked<'a> {
    method: &'a str,
    path: Vec<&'a str>,
    query: HashMap<&'a str, &'a str>,
    body: &'a [u8],
}

impl Vendor {
    /// Listens on a port of its own.
    pub(crate) async fn open() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (vendor, address) = (Self::default(), listener.local_addr().unwrap());
        let serving = vendor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let vendor = serving.clone();
                // One that is cut off is asked again.
                tokio::spawn(async move { vendor.serve(stream).await });
            }
        });
        (vendor, address)
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        stream.read_line(&mut first).await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? <= 2 {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let mut words = first.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.split('/').filter(|part| !part.is_empty()).collect();
        let query = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let Some((status, answer)) = self.content().answer(&Asked { method, path, query, body: &body }) else {
            return Ok(());
        };
        let text = answer.to_string();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(text.as_bytes()).await
    }
}

impl Content {
    /// What it says; `None` where that is lost.
    fn answer(&mut self, asked: &Asked<'_>) -> Option<(u16, Value)> {
        let number = |place: usize| asked.path.get(place).and_then(|text| text.parse::<usize>().ok());
        match (asked.method, &asked.path[..]) {
            ("POST", ["jobs"]) => {
                let known = asked.query.get("name").and_then(|name| self.named(name).next());
                self.count(asked);
                let job = known.unwrap_or_else(|| {
                    let name = asked.query.get("name").or_else(|| asked.query.get("tag"));
                    self.begin(name.map(|name| (*name).to_owned()), rows(asked.body))
                });
                self.unless_lost(if known.is_some() { 409 } else { 202 }, json!({ "job": job }))
            }
            ("GET", ["jobs"]) => {
                let jobs: Vec<usize> = asked.query.get("tag").map_or(Vec::new(), |tag| self.named(tag).collect());
                Some((200, json!({ "jobs": jobs })))
            }
            ("POST", ["definitions"]) => {
                self.definitions.push(Definition::default());
                Some((201, json!({ "definition": self.definitions.len() - 1 })))
            }
            ("PUT", ["definitions", _, "data"]) => {
                self.definitions[number(1)?].data = rows(asked.body);
                Some((200, json!({})))
            }
            ("POST", ["definitions", _, "sync"]) => {
                self.count(asked);
                let place = number(1)?;
                let job = match self.definitions[place].job {
                    Some(job) => job,
                    None => self.begin(None, self.definitions[place].data.clone()),
                };
                self.definitions[place].job = Some(job);
                self.unless_lost(202, json!({ "job": job }))
            }
            ("GET", ["jobs", _]) => {
                let place = number(1)?;
                self.jobs[place].asked += 1;
                let is_done = self.jobs[place].asked >= SLOW;
                if is_done && self.jobs[place].rejects.is_none() {
                    self.commit(place);
                }
                Some((200, json!({ "state": if is_done { "done" } else { "working" } })))
            }
            ("GET", ["jobs", _, "rejects"]) => {
                let all = self.jobs[number(1)?].rejects.clone().unwrap_or_default();
                let from: usize = asked.query.get("from").and_then(|from| from.parse().ok()).unwrap_or(0);
                let page: Vec<&Value> = all.iter().skip(from).take(PAGE).collect();
                let next = (from + PAGE < all.len()).then_some(from + PAGE);
                Some((200, json!({ "rejects": page, "next": next })))
            }
            _ => Some((404, json!({ "error": "no such place" }))),
        }
    }

    fn named<'c>(&'c self, name: &'c str) -> impl Iterator<Item = usize> + 'c {
        self.jobs.iter().enumerate().filter(move |(_, job)| job.name.as_deref() == Some(name)).map(|(place, _)| place)
    }

    fn count(&mut self, asked: &Asked<'_>) {
        let batch = asked.query.get("batch").copied().unwrap_or_default();
        *self.submits.entry(batch.to_owned()).or_default() += 1;
    }

    /// Jobs are done one after the other, whether somebody asks for them or not.
    fn begin(&mut self, name: Option<String>, rows: Vec<Value>) -> usize {
        for place in 0..self.jobs.len() {
            if self.jobs[place].rejects.is_none() {
                self.commit(place);
            }
        }
        self.jobs.push(Job { name, rows, asked: 0, rejects: None });
        self.jobs.len() - 1
    }

    fn unless_lost(&mut self, status: u16, answer: Value) -> Option<(u16, Value)> {
        if self.lost_answers > 0 {
            self.lost_answers -= 1;
            return None;
        }
        Some((status, answer))
    }

    /// Takes the rows of a job, all but those that are bad.
    fn commit(&mut self, place: usize) {
        let mut rejects = Vec::new();
        for (index, row) in self.jobs[place].rows.clone().into_iter().enumerate() {
            let (key, value) = (row["key"].as_str().unwrap().to_owned(), row["v"].as_str().map(str::to_owned));
            if value.as_deref().is_some_and(|value| value.contains("bad")) {
                rejects.push(json!({ "index": index, "key": key, "row": row, "id": row["id"], "why": "bad value" }));
                continue;
            }
            let at = |name: &str| row[name].as_u64().unwrap();
            *self.committed.entry((key.clone(), at("commit"), at("ordinal"))).or_default() += 1;
            match value.filter(|_| row["change"] != "DELETE") {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        self.jobs[place].rejects = Some(rejects);
    }
}

fn rows(body: &[u8]) -> Vec<Value> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}
