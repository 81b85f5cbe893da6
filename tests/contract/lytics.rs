//! Does the server hold a client to what Lytics' pages say?

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use harness::contract::lytics::{Lytics, Row};
use harness::contract::raw::{Reply, send};
use harness::contract::{Fault, On, Server};
use serde_json::json;

const KEY: &str = "lytics-key";

struct Scene {
    server: Server<Lytics>,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { server: Server::start(Lytics::new(KEY), dir.path()).await.unwrap(), _dir: dir }
    }

    async fn upload(&self, query: &str, body: &[u8]) -> Reply {
        let headers = [("Authorization", KEY), ("Content-type", "application/csv")];
        send(self.server.port(), &format!("POST /collect/bulk/users{query}"), &headers, body).await.unwrap()
    }

    fn rows(&self) -> Vec<String> {
        let shown = |row: &Row| row.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        self.server.look(|lytics| lytics.rows("users").iter().map(shown).collect())
    }
}

#[tokio::test]
async fn a_file_with_a_header_is_taken_each_time_that_it_is_sent() {
    let scene = Scene::new().await;
    for times in 1..=2 {
        let reply = scene.upload("?timestamp_field=at", b"id,at\n1,\"2026, May\"\n2,\n").await;
        assert_eq!((reply.status, &reply.json()["message_count"]), (200, &json!(2)));
        assert_eq!(scene.rows().len(), 2 * times, "nothing tells a second upload from a first");
    }
    assert_eq!(scene.rows()[..2], ["at=2026, May id=1", "at= id=2"]);
}

#[tokio::test]
async fn who_has_no_good_key_is_not_authorised() {
    let scene = Scene::new().await;
    let csv = ("Content-type", "application/csv");
    let ask = async |line: &str, headers: &[(&str, &str)]| {
        send(scene.server.port(), line, headers, b"id\n1\n").await.unwrap().status
    };
    assert_eq!(ask("POST /collect/bulk/users", &[csv]).await, 401);
    assert_eq!(ask("POST /collect/bulk/users", &[csv, ("Authorization", "other")]).await, 401);
    assert_eq!(ask(&format!("POST /collect/bulk/users?access_token={KEY}"), &[csv]).await, 200);
    scene.server.credentials(KEY, false);
    assert_eq!(scene.upload("", b"id\n1\n").await.status, 401);
    assert_eq!(scene.rows().len(), 1);
}

#[tokio::test]
async fn another_type_or_place_is_refused() {
    let scene = Scene::new().await;
    let ask = async |line: &str, kind: &str| {
        let headers = [("Authorization", KEY), ("Content-type", kind)];
        send(scene.server.port(), line, &headers, b"id\n1\n").await.unwrap().status
    };
    assert_eq!(ask("POST /collect/bulk/users", "text/plain").await, 415);
    assert_eq!(ask("GET /collect/bulk/users", "application/csv").await, 405);
    assert_eq!(ask("POST /collect/bulk", "application/csv").await, 404);
    assert!(scene.rows().is_empty());
}

#[tokio::test]
async fn an_error_stops_it_and_what_came_before_has_been_taken() {
    let scene = Scene::new().await;
    let reply = scene.upload("", b"id,v\n1,a\n2\n3,c\n").await;
    assert_eq!((reply.status, &reply.json()["message"]), (400, &json!("wrong number of fields, row 2")));
    assert_eq!(scene.rows(), ["id=1 v=a"], "the first has, the third has not");
    let reply = scene.upload("", b"id,v\n4,d\n5,\"e\n").await;
    assert_eq!((reply.status, scene.rows().len()), (400, 2), "the parser is strict");
    for (query, body) in [("", &b""[..]), ("", b"id,\n1,2\n"), ("?timestamp_field=at", b"id\n1\n"), ("", b"id\n\xff\n")]
    {
        assert_eq!(scene.upload(query, body).await.status, 400);
    }
    assert_eq!(scene.rows().len(), 2);
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_takes_nothing() {
    let scene = Scene::new().await;
    assert_eq!(scene.upload("?dryrun=true", b"id\n1\n").await.status, 200);
    assert_eq!(scene.upload("?dryrun=true", b"id\n1,2\n").await.status, 400);
    assert_eq!((scene.rows().len(), scene.server.look(Lytics::dry_runs)), (0, 2));
}

#[tokio::test]
async fn errors_may_be_dropped_headers_given_and_fields_appended() {
    let scene = Scene::new().await;
    let reply = scene.upload("?droperrors=true", b"id,v\n1,a\n2\n3,c\n").await;
    assert_eq!((&reply.json()["message_count"], &reply.json()["rejected"]), (&json!(2), &json!(1)));
    let query = "?headers=id,v&delimiter=%3B&append=%7B%22source%22%3A%22crm%22%7D";
    assert_eq!(scene.upload(query, b"9;x\n").await.status, 200);
    assert_eq!(scene.rows(), ["id=1 v=a", "id=3 v=c", "id=9 source=crm v=x"]);
    assert_eq!(scene.upload("?append=crm", b"id\n1\n").await.status, 400);
}

#[tokio::test]
async fn a_file_may_be_gzipped() {
    let scene = Scene::new().await;
    let mut zipped = GzEncoder::new(Vec::new(), Compression::default());
    zipped.write_all(b"id\n1\n").unwrap();
    assert_eq!(scene.upload("", &zipped.finish().unwrap()).await.status, 200);
    assert_eq!(scene.rows(), ["id=1"]);
    assert_eq!(scene.upload("", b"\x1f\x8bbroken").await.status, 400);
}

#[tokio::test]
async fn what_was_taken_and_not_answered_is_there_after_a_restart() {
    let scene = Scene::new().await;
    scene.server.script(On::request("POST /collect/bulk/*"), Fault::FailsAfter(503));
    assert_eq!(scene.upload("", b"id\n1\n").await.status, 503);
    scene.server.restart().unwrap();
    assert_eq!(scene.rows(), ["id=1"]);
}
