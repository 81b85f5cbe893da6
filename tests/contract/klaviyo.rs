//! Does the server hold a client to what Klaviyo's pages say?

use std::time::Duration;

use harness::contract::klaviyo::Klaviyo;
use harness::contract::raw::{Reply, send};
use harness::contract::{Fate, Fault, On, Server};
use serde_json::{Value, json};

const JSON_API: &str = "application/vnd.api+json";
const KEY: &str = "pk_test";
const IMPORT: &str = "POST /api/profile-bulk-import-jobs";

struct Scene {
    server: Server<Klaviyo>,
    _dir: tempfile::TempDir,
}

fn headers(key: &str) -> Vec<(&'static str, String)> {
    let authorization = ("Authorization", format!("Klaviyo-API-Key {key}"));
    vec![authorization, ("revision", "2026-07-15".to_owned()), ("Content-Type", JSON_API.to_owned())]
}

impl Scene {
    async fn new(klaviyo: Klaviyo) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { server: Server::start(klaviyo, dir.path()).await.unwrap(), _dir: dir }
    }

    async fn patient() -> Self {
        Self::new(Klaviyo::new(KEY).without_rates()).await
    }

    async fn said(&self, line: &str, headers: &[(&str, String)], body: &[u8]) -> Reply {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        send(self.server.port(), line, &headers, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Reply {
        self.said(&format!("GET {path}"), &headers(KEY), b"").await
    }

    async fn import(&self, profiles: Vec<Value>) -> Reply {
        self.said(IMPORT, &headers(KEY), body(profiles).to_string().as_bytes()).await
    }

    async fn imported(&self, profiles: Vec<Value>) -> String {
        let reply = self.import(profiles).await;
        assert_eq!(reply.status, 202, "{}", reply.json());
        format!("/api/profile-bulk-import-jobs/{}", reply.json()["data"]["id"].as_str().unwrap())
    }

    /// What its job says, one question after the other.
    async fn states(&self, job: &str, times: usize) -> Vec<String> {
        let mut states = Vec::new();
        for _ in 0..times {
            states.push(self.get(job).await.json()["data"]["attributes"]["status"].as_str().unwrap().to_owned());
        }
        states
    }
}

fn body(profiles: Vec<Value>) -> Value {
    json!({ "data": { "type": "profile-bulk-import-job", "attributes": { "profiles": { "data": profiles } } } })
}

fn profile(attributes: Value) -> Value {
    json!({ "type": "profile", "attributes": attributes })
}

fn numbered(count: usize) -> Vec<Value> {
    (0..count).map(|n| profile(json!({ "external_id": n.to_string() }))).collect()
}

fn pointers(reply: &Reply) -> Vec<String> {
    let body = reply.json();
    let of = |error: &Value| error["source"]["pointer"].as_str().unwrap_or_default().to_owned();
    body["errors"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn an_import_is_queued_then_processed_then_complete() {
    let scene = Scene::new(Klaviyo::new(KEY).at_pace(2, 1)).await;
    let reply = scene.import(vec![profile(json!({ "email": "a@example.com", "first_name": "A" }))]).await;
    assert_eq!((reply.status, reply.header("content-type")), (202, Some(JSON_API)));
    let data = &reply.json()["data"];
    assert_eq!((&data["type"], &data["attributes"]["status"]), (&json!("profile-bulk-import-job"), &json!("queued")));
    assert_eq!(data["attributes"]["total_count"], 1);
    let job = format!("/api/profile-bulk-import-jobs/{}", data["id"].as_str().unwrap());
    assert_eq!(data["links"]["self"], format!("{}{job}", scene.server.url()));
    assert_eq!(scene.server.look(Klaviyo::profiles), Vec::<Value>::new());
    assert_eq!(scene.states(&job, 4).await, ["queued", "queued", "processing", "complete"]);
    let done = scene.get(&job).await.json()["data"]["attributes"].clone();
    assert_eq!((&done["completed_count"], &done["failed_count"]), (&json!(1), &json!(0)));
    assert_eq!(scene.server.look(Klaviyo::profiles), [json!({ "email": "a@example.com", "first_name": "A" })]);
}

#[tokio::test]
async fn who_has_no_good_key_is_not_authorised() {
    let scene = Scene::patient().await;
    let import = body(numbered(1)).to_string();
    for (key, code) in [
        ("Klaviyo-API-Key wrong", "authentication_failed"),
        ("Bearer none", "authentication_failed"),
        (KEY, "not_authenticated"),
    ] {
        let mut said = headers(KEY);
        said[0].1 = key.to_owned();
        let reply = scene.said(IMPORT, &said, import.as_bytes()).await;
        assert_eq!((reply.status, reply.json()["errors"][0]["code"].as_str()), (401, Some(code)), "{key}");
    }
    assert_eq!(scene.said(IMPORT, &headers(KEY)[1..], import.as_bytes()).await.status, 401, "no header at all");
    scene.server.credentials(KEY, false);
    assert_eq!(scene.get("/api/profile-bulk-import-jobs").await.status, 401, "it was revoked");
    scene.server.credentials(KEY, true);
    assert_eq!(scene.get("/api/profile-bulk-import-jobs").await.status, 200);
}

#[tokio::test]
async fn an_access_token_is_good_for_an_hour() {
    let scene = Scene::new(Klaviyo::new(KEY).without_rates().with_app("app", "secret", "again")).await;
    let basic = ("Authorization", "Basic YXBwOnNlY3JldA==".to_owned());
    let form = ("Content-Type", "application/x-www-form-urlencoded".to_owned());
    let grant = b"grant_type=refresh_token&refresh_token=again";
    let reply = scene.said("POST /oauth/token", &[basic.clone(), form.clone()], grant).await;
    assert_eq!((reply.status, &reply.json()["expires_in"]), (200, &json!(3600)));
    let mut said = headers(KEY);
    said[0].1 = format!("Bearer {}", reply.json()["access_token"].as_str().unwrap());
    let ask = async || scene.said("GET /api/profile-bulk-import-jobs", &said, b"").await.status;
    assert_eq!(ask().await, 200);
    scene.server.pass(Duration::from_secs(3600));
    assert_eq!(ask().await, 401);
    let refused = async |headers: &[_], body: &[u8]| scene.said("POST /oauth/token", headers, body).await;
    assert_eq!(refused(std::slice::from_ref(&form), grant).await.status, 401);
    let wrong = refused(&[basic.clone(), form.clone()], b"grant_type=refresh_token&refresh_token=other").await;
    assert_eq!((wrong.status, &wrong.json()["error"]), (400, &json!("invalid_grant")));
    assert_eq!(refused(&[basic.clone(), form], b"grant_type=password").await.status, 400);
    assert_eq!(refused(&[basic], grant).await.status, 400, "no form");
}

#[tokio::test]
async fn a_request_names_its_revision_and_its_type() {
    let scene = Scene::patient().await;
    let import = body(numbered(1)).to_string();
    let status = async |name: &str, value: Option<&str>| {
        let mut said = headers(KEY);
        said.retain(|(other, _)| *other != name);
        said.extend(
            value.map(|value| (if name == "revision" { "revision" } else { "Content-Type" }, value.to_owned())),
        );
        scene.said(IMPORT, &said, import.as_bytes()).await.status
    };
    assert_eq!(status("revision", None).await, 400);
    assert_eq!(status("revision", Some("v3")).await, 400);
    assert_eq!(status("revision", Some("2026-04-15.pre")).await, 202);
    assert_eq!(status("Content-Type", Some("text/csv")).await, 415);
    assert_eq!(status("Content-Type", Some("application/json")).await, 415);
    assert_eq!(status("Content-Type", None).await, 415);
}

#[tokio::test]
async fn ten_thousand_profiles_are_the_most() {
    let scene = Scene::patient().await;
    assert_eq!(scene.import(numbered(10_000)).await.status, 202);
    let reply = scene.import(numbered(10_001)).await;
    assert_eq!((reply.status, pointers(&reply)), (400, vec!["/data/attributes/profiles/data".to_owned()]));
    assert_eq!(scene.import(Vec::new()).await.status, 400);
}

#[tokio::test]
async fn five_megabytes_and_a_hundred_kilobytes_a_profile_are_the_most() {
    let scene = Scene::patient().await;
    let sized = |id: &str, bytes: usize| {
        let with = |text: String| profile(json!({ "external_id": id, "title": text }));
        let frame = with(String::new()).to_string().len();
        with("x".repeat(bytes - frame))
    };
    assert_eq!(scene.import(vec![sized("a", 100_000)]).await.status, 202);
    let reply = scene.import(vec![sized("a", 100), sized("b", 100_001)]).await;
    assert_eq!((reply.status, pointers(&reply)), (400, vec!["/data/attributes/profiles/data/1".to_owned()]));
    let whole = |bytes: usize| {
        let mut body = body((0..50).map(|n| sized(&n.to_string(), 99_000)).collect()).to_string();
        body.push_str(&" ".repeat(bytes - body.len()));
        body
    };
    assert_eq!(scene.said(IMPORT, &headers(KEY), whole(5_000_000).as_bytes()).await.status, 202);
    assert_eq!(scene.said(IMPORT, &headers(KEY), whole(5_000_001).as_bytes()).await.status, 413);
}

#[tokio::test]
async fn one_profile_that_is_wrong_refuses_all_and_is_pointed_at() {
    let scene = Scene::patient().await;
    let good = profile(json!({ "external_id": "1", "properties": { "a": [1] }, "location": { "city": "x" } }));
    let wrong = [
        (json!({ "email": "no address" }), "/attributes/email"),
        (json!({ "email": "a@b.example", "phone_number": "555 0006" }), "/attributes/phone_number"),
        (json!({ "first_name": "nobody" }), "/attributes"),
        (json!({ "external_id": null }), "/attributes"),
        (json!({ "external_id": "1", "colour": "red" }), "/attributes/colour"),
        (json!({ "external_id": "1", "title": 3 }), "/attributes/title"),
        (json!({ "external_id": "1", "properties": [] }), "/attributes/properties"),
        (json!({ "external_id": "1", "location": { "planet": "" } }), "/attributes/location/planet"),
    ];
    for (attributes, at) in &wrong {
        let reply = scene.import(vec![good.clone(), profile(attributes.clone())]).await;
        assert_eq!((reply.status, pointers(&reply)), (400, vec![format!("/data/attributes/profiles/data/1{at}")]));
    }
    let all = scene.import(wrong.iter().map(|(attributes, _)| profile(attributes.clone())).collect()).await;
    assert_eq!(pointers(&all).len(), wrong.len(), "each is told of");
    assert!(scene.server.look(|klaviyo| klaviyo.jobs().is_empty()), "and nothing was taken");
}

#[tokio::test]
async fn a_body_of_another_form_is_refused_with_a_pointer() {
    let scene = Scene::patient().await;
    for (body, at) in [
        ("{", "/data"),
        (r#"{"data": {"type": "profile"}}"#, "/data/type"),
        (r#"{"data": {"type": "profile-bulk-import-job"}}"#, "/data/attributes/profiles/data"),
        (
            r#"{"data": {"type": "profile-bulk-import-job", "attributes": {"profiles": {"data": [{"attributes": {"email": "a@b.c"}}]}}}}"#,
            "/data/attributes/profiles/data/0/type",
        ),
    ] {
        let reply = scene.said(IMPORT, &headers(KEY), body.as_bytes()).await;
        assert_eq!((reply.status, pointers(&reply)), (400, vec![at.to_owned()]));
    }
}

#[tokio::test]
async fn refused_profiles_are_told_page_by_page_with_what_they_were() {
    let refusing =
        |profile: &Value| profile["external_id"].as_str()?.ends_with('7').then(|| ("invalid", "no sevens".to_owned()));
    let scene = Scene::new(Klaviyo::new(KEY).without_rates().at_pace(0, 0).refusing(refusing)).await;
    let job = scene.imported(numbered(250)).await;
    let done = scene.get(&job).await.json()["data"]["attributes"].clone();
    assert_eq!(
        (&done["status"], &done["completed_count"], &done["failed_count"]),
        (&json!("complete"), &json!(225), &json!(25))
    );
    let first = scene.get(&format!("{job}/import-errors")).await.json();
    assert_eq!(first["data"].as_array().unwrap().len(), 20, "where no size is given");
    let next = first["links"]["next"].as_str().unwrap().strip_prefix(&scene.server.url()).unwrap().to_owned();
    let second = scene.get(&next).await.json();
    assert_eq!((second["data"].as_array().unwrap().len(), &second["links"]["next"]), (5, &json!(null)));
    let one = &second["data"][4];
    assert_eq!(
        (&one["type"], &one["attributes"]["original_payload"]),
        (&json!("import-error"), &json!({ "external_id": "247" }))
    );
    assert_eq!((&one["attributes"]["code"], &one["attributes"]["detail"]), (&json!("invalid"), &json!("no sevens")));
    assert_eq!(
        scene.get(&format!("{job}/import-errors?page%5Bsize%5D=100")).await.json()["data"].as_array().unwrap().len(),
        25
    );
    for wrong in ["page[size]=0", "page[size]=101", "page[size]=x", "page[cursor]=mine"] {
        let reply = scene.get(&format!("{job}/import-errors?{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}");
        assert!(wrong.starts_with(reply.json()["errors"][0]["source"]["parameter"].as_str().unwrap()));
    }
    assert_eq!(scene.server.look(Klaviyo::profiles).len(), 225);
}

#[tokio::test]
async fn a_profile_is_known_again_by_any_identifier_and_keeps_what_is_not_given() {
    let scene = Scene::new(Klaviyo::new(KEY).without_rates().at_pace(0, 0)).await;
    for attributes in [
        json!({ "external_id": "1", "email": "a@b.example", "first_name": "A", "properties": { "x": 1, "y": 2 } }),
        json!({ "email": "a@b.example", "first_name": null, "properties": { "y": 3 } }),
    ] {
        let job = scene.imported(vec![profile(attributes)]).await;
        scene.states(&job, 1).await;
    }
    let expected =
        json!({ "external_id": "1", "email": "a@b.example", "first_name": "A", "properties": { "x": 1, "y": 3 } });
    assert_eq!(scene.server.look(Klaviyo::profiles), [expected]);
}

#[tokio::test]
async fn jobs_have_fates() {
    let refusing = |_: &Value| Some(("invalid", "none".to_owned()));
    let scene = Scene::new(Klaviyo::new(KEY).without_rates().at_pace(0, 1).refusing(refusing)).await;
    let job = async |fate| {
        scene.server.foretell(On::request(IMPORT), fate);
        scene.imported(numbered(2)).await
    };
    let lost = job(Fate::Lost).await;
    assert_eq!((scene.get(&lost).await.status, scene.get(&format!("{lost}/import-errors")).await.status), (404, 404));
    let cancelled = job(Fate::Cancelled).await;
    assert_eq!(scene.states(&cancelled, 2).await, ["processing", "cancelled"]);
    let stuck = job(Fate::Stuck).await;
    assert_eq!(scene.states(&stuck, 5).await, ["queued"; 5]);
    let odd = job(Fate::Says("archived".to_owned())).await;
    assert_eq!(scene.states(&odd, 3).await, ["archived"; 3]);
    let hiding = job(Fate::Hides).await;
    assert_eq!(scene.states(&hiding, 2).await, ["processing", "complete"]);
    assert_eq!(scene.get(&hiding).await.json()["data"]["attributes"]["failed_count"], 0, "it lies");
    assert_eq!(scene.get(&format!("{hiding}/import-errors")).await.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(scene.get("/api/profile-bulk-import-jobs/none").await.status, 404);
}

#[tokio::test]
async fn jobs_are_listed_and_in_the_end_forgotten() {
    let scene = Scene::patient().await;
    let jobs = [scene.imported(numbered(1)).await, scene.imported(numbered(2)).await];
    let ids = async |query: &str| -> Vec<Value> {
        let reply = scene.get(&format!("/api/profile-bulk-import-jobs/{query}")).await;
        reply.json()["data"].as_array().unwrap().iter().map(|job| job["attributes"]["total_count"].clone()).collect()
    };
    assert_eq!(ids("").await, [1, 2]);
    assert_eq!(ids("?sort=-created_at").await, [2, 1]);
    assert_eq!(ids("?sort=-created_at&page[size]=1").await, [2]);
    assert_eq!(scene.get("/api/profile-bulk-import-jobs?sort=size").await.status, 400);
    scene.server.pass(Duration::from_secs(600));
    assert_eq!(scene.states(&jobs[0], 1).await, ["complete"], "whether it was asked for or not");
    assert_eq!(scene.server.look(Klaviyo::profiles).len(), 2);
    scene.server.pass(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(scene.get(&jobs[0]).await.status, 404);
}

#[tokio::test]
async fn more_than_the_account_may_ask_is_throttled() {
    let scene = Scene::new(Klaviyo::new(KEY)).await;
    // However slow the machine is: a minute has 150, and sixteen are in no more than two of its seconds or beyond.
    let mut throttled = None;
    for n in 0..400 {
        let reply = scene.get("/api/profile-bulk-import-jobs").await;
        if reply.status == 429 {
            throttled = Some((n, reply));
            break;
        }
        assert_eq!(reply.header("ratelimit-limit"), Some("150"));
    }
    let (asked, reply) = throttled.expect("a limit");
    assert!(asked >= 10, "{asked}");
    assert_eq!(
        (reply.header("ratelimit-limit"), reply.json()["errors"][0]["code"].as_str()),
        (None, Some("throttled"))
    );
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(scene.import(numbered(1)).await.status, 202, "another endpoint is counted apart");
    scene.server.pass(Duration::from_secs(after));
    assert_eq!(scene.get("/api/profile-bulk-import-jobs").await.status, 200);
}

#[tokio::test]
async fn nothing_else_is_there() {
    let scene = Scene::patient().await;
    assert_eq!(scene.get("/api/other").await.status, 404);
    assert_eq!(scene.said("DELETE /api/profile-bulk-import-jobs/1", &headers(KEY), b"").await.status, 405);
    scene.server.script(On::request(IMPORT), Fault::Fails(503));
    let reply = scene.import(numbered(1)).await;
    assert_eq!((reply.status, reply.json()["errors"][0]["detail"].is_string()), (503, true), "in its own form");
}

#[tokio::test]
async fn a_restart_finds_the_jobs_where_they_were() {
    let scene = Scene::new(Klaviyo::new(KEY).without_rates().at_pace(2, 1)).await;
    let job = scene.imported(numbered(3)).await;
    assert_eq!(scene.states(&job, 2).await, ["queued", "queued"]);
    scene.server.restart().unwrap();
    assert_eq!(scene.states(&job, 2).await, ["processing", "complete"]);
    scene.server.restart().unwrap();
    assert_eq!(scene.server.look(Klaviyo::profiles).len(), 3);
}
