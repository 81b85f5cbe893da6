//! Does a server do to a request what it is told to, and is all of it there again after a restart?

use std::time::Duration;

use harness::contract::raw::{Reply, send};
use harness::contract::{Answer, Asked, Exchange, Fate, Fault, On, Server, Vendor};
use serde_json::json;

/// A vendor that makes a job of each request and knows nothing else.
#[derive(Debug, Clone, Default)]
struct Counter {
    jobs: Vec<Option<Fate>>,
    bodies: Vec<Vec<u8>>,
    refused: Vec<String>,
}

impl Vendor for Counter {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.header("authorization").is_some_and(|secret| self.refused.iter().any(|refused| refused == secret)) {
            return self.failure(401);
        }
        self.jobs.push(asked.fate.clone());
        self.bodies.push(asked.body.clone());
        Answer::json(202, &json!({ "job": self.jobs.len(), "at": asked.at.0, "padding": "so that there is a half" }))
    }

    fn failure(&self, status: u16) -> Answer {
        Answer::json(status, &json!({ "failed": status }))
    }

    fn credentials(&mut self, secret: &str, are_good: bool) {
        self.refused.retain(|refused| refused != secret);
        if !are_good {
            self.refused.push(secret.to_owned());
        }
    }
}

struct Scene {
    server: Server<Counter>,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { server: Server::start(Counter::default(), dir.path()).await.unwrap(), dir }
    }

    async fn post(&self, body: &[u8]) -> std::io::Result<Reply> {
        send(self.server.port(), "POST /jobs?a%5Bb%5D=c+d", &[("Authorization", "key")], body).await
    }

    fn taken(&self) -> usize {
        self.server.look(|counter| counter.jobs.len())
    }
}

const JOBS: &str = "POST /jobs";

#[tokio::test]
async fn every_request_is_noted_with_its_answer() {
    let scene = Scene::new().await;
    let reply = scene.post(b"\xff\x00body\n").await.unwrap();
    assert_eq!((reply.status, reply.json()["job"].clone()), (202, json!(1)));
    let [exchange] = &scene.server.exchanges()[..] else { panic!() };
    let Exchange { asked, status } = exchange;
    assert_eq!((asked.number, asked.method.as_str(), asked.path.as_str(), *status), (1, "POST", "/jobs", Some(202)));
    assert_eq!((asked.parameter("a[b]"), asked.header("authorization")), (Some("c d"), Some("key")));
    assert_eq!(asked.body, b"\xff\x00body\n");
    assert_eq!((scene.server.asked(JOBS).len(), scene.server.asked("GET /jobs").len()), (1, 0));
}

#[tokio::test]
async fn what_is_refused_before_it_is_taken_was_not_taken() {
    let scene = Scene::new().await;
    scene.server.script(On::request(JOBS), Fault::Throttled(Some(7)));
    scene.server.script(On::request(JOBS), Fault::Throttled(None));
    scene.server.script(On::request(JOBS), Fault::Fails(503));
    scene.server.script(On::request(JOBS), Fault::Unheard);
    let throttled = scene.post(b"").await.unwrap();
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("7")));
    let throttled = scene.post(b"").await.unwrap();
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, None));
    assert_eq!(scene.post(b"").await.unwrap().json(), json!({ "failed": 503 }));
    scene.post(b"").await.expect_err("no answer");
    assert_eq!(scene.taken(), 0);
    let said: Vec<_> = scene.server.exchanges().iter().map(|exchange| exchange.status).collect();
    assert_eq!(said, [Some(429), Some(429), Some(503), None]);
    assert_eq!(scene.post(b"").await.unwrap().status, 202, "the script is used up");
}

#[tokio::test]
async fn what_goes_wrong_after_it_is_taken_was_taken() {
    let scene = Scene::new().await;
    for fault in [Fault::Unanswered, Fault::FailsAfter(500), Fault::Truncated, Fault::Torn] {
        scene.server.script(On::request(JOBS), fault);
    }
    scene.post(b"").await.expect_err("no answer");
    assert_eq!(scene.post(b"").await.unwrap().status, 500);
    let truncated = scene.post(b"").await.unwrap();
    assert_eq!((truncated.status, truncated.is_whole(), truncated.json()), (202, true, json!(null)));
    let torn = scene.post(b"").await.unwrap();
    assert_eq!((torn.status, torn.is_whole(), torn.json()), (202, false, json!(null)));
    assert_eq!(scene.taken(), 4);
    scene.server.script(On::request(JOBS).always(), Fault::Unheard);
    scene.server.forgive();
    assert!(scene.post(b"").await.unwrap().is_whole());
}

#[tokio::test]
async fn an_answer_is_held_until_it_is_released() {
    let scene = Scene::new().await;
    scene.server.script(On::request(JOBS), Fault::Held);
    scene.server.script(On::request(JOBS), Fault::Slow(Duration::from_millis(1)));
    let released = async {
        scene.server.until_asked(JOBS, 1).await;
        assert_eq!(scene.taken(), 1, "it is taken, and not answered");
        scene.server.release();
    };
    let (reply, ()) = tokio::join!(scene.post(b""), released);
    assert_eq!(reply.unwrap().status, 202);
    assert_eq!(scene.post(b"").await.unwrap().status, 202, "it only takes longer");
}

#[tokio::test]
async fn jobs_have_the_fates_that_were_foretold() {
    let scene = Scene::new().await;
    scene.server.foretell(On::request(JOBS).after(1), Fate::Cancelled);
    scene.server.script(On::request(JOBS).after(1), Fault::Unanswered);
    scene.post(b"").await.unwrap();
    scene.post(b"").await.expect_err("a fault and a fate have nothing to do with each other");
    scene.post(b"").await.unwrap();
    assert_eq!(scene.server.look(|counter| counter.jobs.clone()), [None, Some(Fate::Cancelled), None]);
}

#[tokio::test]
async fn a_restart_ends_connections_and_forgets_nothing() {
    let scene = Scene::new().await;
    scene.server.foretell(On::request(JOBS), Fate::Lost);
    scene.server.script(On::request(JOBS), Fault::Unanswered);
    scene.server.script(On::request(JOBS).after(1), Fault::Fails(500));
    scene.post(b"one\n").await.expect_err("no answer");
    scene.post(b"not taken").await.unwrap();
    scene.server.credentials("key", false);
    assert_eq!(scene.post(b"refused").await.unwrap().status, 401);
    scene.server.pass(Duration::from_secs(86_400));
    let (before, state) = (scene.server.exchanges(), scene.server.look(|counter| counter.bodies.clone()));
    assert_eq!(state, [b"one\n"]);

    scene.server.script(On::request(JOBS), Fault::Held);
    let stopped = async {
        scene.server.until_asked(JOBS, 4).await;
        scene.server.stop();
    };
    let (reply, ()) = tokio::join!(scene.post(b"held"), stopped);
    reply.expect_err("its connection ended");
    scene.post(b"").await.expect_err("nobody is there");
    scene.server.restart().unwrap();
    assert_eq!(scene.server.exchanges()[..3], before);
    assert_eq!(
        scene.server.look(|counter| (counter.jobs.clone(), counter.bodies.clone())),
        (vec![Some(Fate::Lost)], state)
    );
    assert_eq!(scene.post(b"").await.unwrap().status, 401, "the same port, and credentials as they were left");

    // The same in another process: another server in the same directory.
    let Scene { server, dir } = scene;
    drop(server);
    let mut log = std::fs::File::options().append(true).open(dir.path().join("requests.log")).unwrap();
    std::io::Write::write_all(&mut log, b"{\"Asked\": half").unwrap();
    let scene = Scene { server: Server::start(Counter::default(), dir.path()).await.unwrap(), dir };
    assert_eq!(scene.server.exchanges().len(), 5);
    scene.server.credentials("key", true);
    let at = scene.post(b"").await.unwrap().json()["at"].as_i64().unwrap();
    let ahead = etl::clock::Timestamp(at).since(etl::clock::now());
    assert!(ahead > Duration::from_secs(86_000), "its time is ahead as it was: {ahead:?}");
}
