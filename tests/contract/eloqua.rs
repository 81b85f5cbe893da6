//! Does the server hold a client to what Eloqua's pages say?

use std::collections::BTreeMap;
use std::time::Duration;

use harness::contract::eloqua::Eloqua;
use harness::contract::raw::{Reply, send};
use harness::contract::{Fate, Fault, On, Server};
use serde_json::{Value, json};

/// `Company\user:secret`.
const BASIC: &str = "Basic Q29tcGFueVx1c2VyOnNlY3JldA==";
const IMPORTS: &str = "/api/bulk/2.0/contacts/imports";
const SYNCS: &str = "POST /api/bulk/2.0/syncs";
const EMAIL: &str = "{{Contact.Field(C_EmailAddress)}}";
const NAME: &str = "{{Contact.Field(C_FirstName)}}";

struct Scene {
    server: Server<Eloqua>,
    _dir: tempfile::TempDir,
}

fn eloqua() -> Eloqua {
    Eloqua::new("Company", "user", "secret").at_pace(0, 0)
}

fn definition() -> Value {
    json!({ "name": "op-1", "fields": { "email": EMAIL, "first": NAME }, "identifierFieldName": "email" })
}

impl Scene {
    async fn new(eloqua: Eloqua) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { server: Server::start(eloqua, dir.path()).await.unwrap(), _dir: dir }
    }

    async fn said(&self, line: &str, kind: &str, body: &[u8]) -> Reply {
        let headers = [("Authorization", BASIC), ("Content-Type", kind)];
        send(self.server.port(), line, &headers, body).await.unwrap()
    }

    async fn json(&self, line: &str, body: &Value) -> Reply {
        self.said(line, "application/json", body.to_string().as_bytes()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.said(&format!("GET /api/bulk/2.0{path}"), "application/json", b"").await
    }

    /// The `uri` of a definition.
    async fn defined(&self, definition: &Value) -> String {
        let reply = self.json(&format!("POST {IMPORTS}"), definition).await;
        assert_eq!(reply.status, 201, "{}", reply.json());
        reply.json()["uri"].as_str().unwrap().to_owned()
    }

    async fn post(&self, import: &str, csv: &str) -> Reply {
        self.said(&format!("POST /api/bulk/2.0{import}/data"), "text/csv", csv.as_bytes()).await
    }

    async fn synced(&self, import: &str) -> String {
        let reply = self.json(SYNCS, &json!({ "syncedInstanceUri": import })).await;
        assert_eq!(reply.status, 201, "{}", reply.json());
        reply.json()["uri"].as_str().unwrap().to_owned()
    }

    async fn states(&self, sync: &str, times: usize) -> Vec<String> {
        let mut states = Vec::new();
        for _ in 0..times {
            states.push(self.get(sync).await.json()["status"].as_str().unwrap().to_owned());
        }
        states
    }

    /// The sync of some CSV.
    async fn imported(&self, csv: &str) -> String {
        let import = self.defined(&definition()).await;
        assert_eq!(self.post(&import, csv).await.status, 204);
        self.synced(&import).await
    }

    fn contacts(&self) -> BTreeMap<String, String> {
        let name =
            |(key, fields): (String, BTreeMap<String, String>)| (key, fields.get(NAME).cloned().unwrap_or_default());
        self.server.look(|eloqua| eloqua.records("contacts")).into_iter().map(name).collect()
    }
}

fn named(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect()
}

#[tokio::test]
async fn an_import_is_defined_filled_synced_and_removed() {
    let scene = Scene::new(eloqua().at_pace(1, 1)).await;
    let reply = scene.json(&format!("POST {IMPORTS}"), &definition()).await;
    assert_eq!((reply.status, &reply.json()["uri"]), (201, &json!("/contacts/imports/1")));
    assert_eq!(reply.json()["fields"], definition()["fields"], "what was sent is there");
    let posted = scene.post("/contacts/imports/1", "email,first\na@b.example,A\n").await;
    assert_eq!((posted.status, posted.body.len()), (204, 0));
    let more = br#"[{"email": "c@d.example", "first": null}]"#;
    assert_eq!(scene.said(&format!("POST {IMPORTS}/1/data"), "application/json", more).await.status, 204);
    let sync = scene.synced("/contacts/imports/1").await;
    assert_eq!(sync, "/syncs/1");
    assert_eq!(scene.said(&format!("DELETE {IMPORTS}/1"), "", b"").await.status, 412, "a sync depends on it");
    assert_eq!(scene.contacts(), named(&[]));
    assert_eq!(scene.states(&sync, 3).await, ["pending", "active", "success"]);
    let done = scene.get(&sync).await.json();
    assert!(done["syncStartedAt"].is_string() && done["syncEndedAt"].is_string());
    assert_eq!(scene.contacts(), named(&[("a@b.example", "A"), ("c@d.example", "")]));
    assert_eq!(scene.said(&format!("DELETE {IMPORTS}/1"), "", b"").await.status, 204);
    assert_eq!(scene.said(&format!("DELETE {IMPORTS}/1"), "", b"").await.status, 404);
    assert!(scene.server.look(|eloqua| eloqua.imports().is_empty()));
    assert_eq!(scene.get(&sync).await.status, 200, "the sync is known all the same");
}

#[tokio::test]
async fn the_login_says_where_the_pod_is() {
    let scene = Scene::new(eloqua().leading_to("https://secure.p07.example")).await;
    let reply = scene.said("GET /id", "", b"").await.json();
    assert_eq!(reply["urls"]["base"], "https://secure.p07.example");
    assert_eq!(reply["urls"]["apis"]["rest"]["bulk"], "https://secure.p07.example/API/Bulk/{version}/");
    let scene = Scene::new(eloqua()).await;
    assert_eq!(scene.said("GET /id", "", b"").await.json()["urls"]["base"], scene.server.url());
    let upper = scene.json("POST /API/Bulk/2.0/contacts/imports", &definition()).await;
    assert_eq!(upper.status, 201, "as that link has it");
    assert_eq!(scene.json("POST /api/bulk/1.0/contacts/imports", &definition()).await.status, 404);
}

#[tokio::test]
async fn who_has_no_good_password_is_not_authorised() {
    let scene = Scene::new(eloqua()).await;
    let ask = async |authorization: &[(&str, &str)]| {
        send(scene.server.port(), "GET /id", authorization, b"").await.unwrap().status
    };
    assert_eq!(ask(&[]).await, 401);
    assert_eq!(ask(&[("Authorization", "Basic dXNlcjpzZWNyZXQ=")]).await, 401, "without the company");
    assert_eq!(ask(&[("Authorization", "Bearer none")]).await, 401);
    assert_eq!(ask(&[("Authorization", BASIC)]).await, 200);
    scene.server.credentials("secret", false);
    assert_eq!(ask(&[("Authorization", BASIC)]).await, 401);
}

#[tokio::test]
async fn an_access_token_is_good_for_eight_hours_and_a_refresh_token_once() {
    let scene = Scene::new(eloqua().with_app("app", "secret", "first")).await;
    let grant = async |body: Value| {
        let headers = [("Authorization", "Basic YXBwOnNlY3JldA=="), ("Content-Type", "application/json")];
        send(scene.server.port(), "POST /auth/oauth2/token", &headers, body.to_string().as_bytes()).await.unwrap()
    };
    let refresh = |token: &Value| json!({ "grant_type": "refresh_token", "refresh_token": token, "scope": "full" });
    let first = grant(refresh(&json!("first"))).await;
    assert_eq!((first.status, &first.json()["expires_in"]), (200, &json!(28_800)));
    assert_eq!(grant(refresh(&json!("first"))).await.json()["error"], "invalid_grant", "it was used up");
    let bearer = format!("Bearer {}", first.json()["access_token"].as_str().unwrap());
    let ask = async || send(scene.server.port(), "GET /id", &[("Authorization", &bearer)], b"").await.unwrap().status;
    assert_eq!(ask().await, 200);
    scene.server.pass(Duration::from_secs(28_800));
    assert_eq!(ask().await, 401);
    assert_eq!(grant(refresh(&first.json()["refresh_token"])).await.status, 200);
    let password =
        json!({ "grant_type": "password", "scope": "full", "username": "Company\\user", "password": "secret" });
    assert_eq!(grant(password).await.status, 200);
    assert_eq!(grant(json!({ "grant_type": "client_credentials" })).await.json()["error"], "unsupported_grant_type");
    let other = send(scene.server.port(), "POST /auth/oauth2/token", &[("Authorization", BASIC)], b"{}").await.unwrap();
    assert_eq!(other.status, 401);
}

#[tokio::test]
async fn a_definition_that_is_not_whole_is_refused_with_its_field() {
    let scene = Scene::new(eloqua()).await;
    let many = |count: usize| (0..count).map(|n| (format!("f{n}"), json!(EMAIL))).collect::<serde_json::Map<_, _>>();
    for (name, value, field) in [
        ("name", json!(""), "name"),
        ("fields", json!({}), "fields"),
        ("fields", json!({ "email": "C_EmailAddress" }), "fields.email"),
        ("fields", json!({ "email": "{{Account.Field(M_Name)}}" }), "fields.email"),
        ("fields", Value::Object(many(101)), "fields"),
        ("identifierFieldName", json!("other"), "identifierFieldName"),
        ("identifierFieldName", json!(null), "identifierFieldName"),
        ("updateRule", json!("sometimes"), "updateRule"),
    ] {
        let mut wrong = definition();
        wrong[name] = value;
        let reply = scene.json(&format!("POST {IMPORTS}"), &wrong).await;
        assert_eq!((reply.status, &reply.json()["failures"][0]["field"]), (400, &json!(field)));
    }
    let mut most = definition();
    most["fields"] = Value::Object(many(100));
    most["identifierFieldName"] = json!("f7");
    assert_eq!(scene.json(&format!("POST {IMPORTS}"), &most).await.status, 201);
    let body = definition().to_string();
    assert_eq!(scene.said(&format!("POST {IMPORTS}"), "text/plain", body.as_bytes()).await.status, 415);
    assert_eq!(scene.said(&format!("POST {IMPORTS}"), "application/json", b"{").await.status, 400);
}

#[tokio::test]
async fn definitions_are_found_by_their_name() {
    let scene = Scene::new(eloqua()).await;
    scene.defined(&definition()).await;
    let mut other = definition();
    other["name"] = json!("op-2");
    scene.defined(&other).await;
    let found = scene.get("/contacts/imports?q=name%3D*op-2*").await.json();
    assert_eq!((&found["count"], &found["items"][0]["uri"]), (&json!(1), &json!("/contacts/imports/2")));
    assert_eq!(scene.get("/contacts/imports?q=name%3Dop-3").await.json()["totalResults"], 0);
    assert_eq!(scene.get("/contacts/imports").await.json()["totalResults"], 2);
    assert_eq!(scene.get("/contacts/imports/2").await.json()["name"], "op-2");
    assert_eq!(scene.get("/contacts/imports/3").await.status, 404);
    assert_eq!(scene.get("/accounts/imports/2").await.status, 404, "it is one of contacts");
}

#[tokio::test]
async fn custom_objects_are_apart() {
    let scene = Scene::new(eloqua()).await;
    let fields = json!({ "id": "{{CustomObject[7].Field[1]}}" });
    let definition = json!({ "name": "n", "fields": fields, "identifierFieldName": "id" });
    let reply = scene.json("POST /api/bulk/2.0/customObjects/7/imports", &definition).await;
    assert_eq!(reply.json()["uri"], "/customObjects/7/imports/1");
    assert_eq!(scene.post("/customObjects/7/imports/1", "id\nx\n").await.status, 204);
    let sync = scene.synced("/customObjects/7/imports/1").await;
    assert_eq!(scene.states(&sync, 1).await, ["success"]);
    assert_eq!(scene.server.look(|eloqua| eloqua.records("customObjects/7").len()), 1);
    assert!(scene.contacts().is_empty());
}

#[tokio::test]
async fn thirty_two_megabytes_are_the_most_and_more_is_not_found() {
    let scene = Scene::new(eloqua()).await;
    let import = scene.defined(&definition()).await;
    let sized = |bytes: usize| {
        let mut csv = "email,first\na@b.example,".to_owned();
        csv.push_str(&"x".repeat(bytes - csv.len()));
        csv
    };
    assert_eq!(scene.post(&import, &sized(32_000_000)).await.status, 204);
    assert_eq!(scene.post(&import, &sized(32_000_001)).await.status, 404);
}

#[tokio::test]
async fn data_is_of_the_definitions_fields_and_in_a_form_that_is_known() {
    let scene = Scene::new(eloqua()).await;
    let import = scene.defined(&definition()).await;
    for csv in ["", "email,colour\na@b.example,red\n", "email\n\"a@b.example\n"] {
        assert_eq!(scene.post(&import, csv).await.status, 400, "{csv:?}");
    }
    let line = format!("POST /api/bulk/2.0{import}/data");
    for (kind, body, status) in [
        ("text/csv", &b"email\n\xff\n"[..], 400),
        ("application/json", b"{}", 400),
        ("application/json", b"[1]", 400),
        ("application/json", br#"[{"colour": "red"}]"#, 400),
        ("application/json", br#"[{"email": "a@b.example"}]"#, 204),
        ("text/csv; charset=utf-8", b"email\nc@d.example\n", 204),
        ("multipart/form-data", b"email\n", 415),
    ] {
        assert_eq!(scene.said(&line, kind, body).await.status, status, "{kind} {body:?}");
    }
    assert_eq!(scene.post("/contacts/imports/9", "email\n").await.status, 404);
}

#[tokio::test]
async fn refused_records_are_told_a_thousand_at_a_time_by_their_index() {
    let refusing = |fields: &BTreeMap<String, String>| {
        (fields["first"] == "bad").then(|| ("ELQ-00055", "Campaign not found.".to_owned()))
    };
    let scene = Scene::new(eloqua().refusing(refusing)).await;
    let mut csv = "email,first\nok@b.example,good\n".to_owned();
    (0..2_100).for_each(|n| csv.push_str(&format!("n{n}@b.example,bad\n")));
    let sync = scene.imported(&csv).await;
    assert_eq!(scene.states(&sync, 1).await, ["warning"]);
    let mut indexes = Vec::new();
    for offset in [0, 1000, 2000] {
        let page = scene.get(&format!("{sync}/rejects?limit=1000&offset={offset}")).await.json();
        assert_eq!((&page["totalResults"], &page["hasMore"]), (&json!(2100), &json!(offset < 2000)));
        indexes.extend(page["items"].as_array().unwrap().iter().map(|item| item["recordIndex"].as_u64().unwrap()));
    }
    assert_eq!(indexes, (2..=2101).collect::<Vec<u64>>(), "from 1, without the header");
    let one = scene.get(&format!("{sync}/rejects?limit=1")).await.json()["items"][0].clone();
    assert_eq!((&one["statusCode"], &one["fieldValues"]["email"]), (&json!("ELQ-00055"), &json!("n0@b.example")));
    assert_eq!(scene.get(&format!("{sync}/rejects")).await.json()["count"], 1000, "where no limit is given");
    for wrong in ["limit=0", "limit=1001", "limit=x", "offset=-1"] {
        assert_eq!(scene.get(&format!("{sync}/rejects?{wrong}")).await.status, 400, "{wrong}");
    }
    let logs = scene.get(&format!("{sync}/logs")).await.json()["items"].clone();
    assert_eq!((&logs[0]["statusCode"], &logs[0]["count"]), (&json!("ELQ-00001"), &json!(2101)));
    assert_eq!(scene.contacts(), named(&[("ok@b.example", "good")]));
}

#[tokio::test]
async fn records_are_refused_by_the_codes_of_the_pages() {
    let scene = Scene::new(eloqua()).await;
    let sync = scene.imported("email,first\nno address,A\n,B\na@b.example,C\na@b.example,D\nx@y.example\n").await;
    assert_eq!(scene.states(&sync, 1).await, ["warning"]);
    let rejects = scene.get(&format!("{sync}/rejects")).await.json();
    let told: Vec<(u64, &str)> = rejects["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["recordIndex"].as_u64().unwrap(), item["statusCode"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(1, "ELQ-00002"), (2, "ELQ-00061"), (4, "ELQ-00026"), (5, "ELQ-00032")]);
    assert_eq!(rejects["items"][0]["invalidFields"], json!(["email"]));
    assert_eq!(scene.contacts(), named(&[("a@b.example", "C")]));
}

#[tokio::test]
async fn what_is_there_is_updated_by_the_definitions_rule() {
    let scene = Scene::new(eloqua()).await;
    let import = async |rule: &str, csv: &str| {
        let mut definition = definition();
        definition["updateRule"] = json!(rule);
        let import = scene.defined(&definition).await;
        assert_eq!(scene.post(&import, csv).await.status, 204);
        let sync = scene.synced(&import).await;
        assert_eq!(scene.states(&sync, 1).await, ["success"]);
        scene.contacts()["a@b.example"].clone()
    };
    assert_eq!(import("always", "email,first\na@b.example,A\n").await, "A");
    assert_eq!(import("ifNewIsNotNull", "email,first\na@b.example,\n").await, "A");
    assert_eq!(import("ifExistingIsNull", "email,first\na@b.example,B\n").await, "A");
    assert_eq!(import("always", "email\na@b.example\n").await, "A", "what is not sent stays");
    assert_eq!(import("always", "email,first\na@b.example,\n").await, "");
    assert_eq!(import("ifExistingIsNull", "email,first\na@b.example,C\n").await, "C");
}

#[tokio::test]
async fn a_sync_of_a_definition_that_is_being_synced_fails() {
    let scene = Scene::new(eloqua().at_pace(1, 0)).await;
    let import = scene.defined(&definition()).await;
    scene.post(&import, "email\na@b.example\n").await;
    let (first, second) = (scene.synced(&import).await, scene.synced(&import).await);
    assert_eq!(scene.states(&first, 2).await, ["pending", "success"]);
    assert_eq!(scene.states(&second, 2).await, ["pending", "error"]);
    assert_eq!(scene.get(&format!("{second}/logs")).await.json()["items"][0]["statusCode"], "ELQ-00107");
    for wrong in [json!({ "syncedInstanceUri": "/contacts/imports/9" }), json!({})] {
        let reply = scene.json(SYNCS, &wrong).await;
        assert_eq!((reply.status, &reply.json()["failures"][0]["field"]), (400, &json!("syncedInstanceUri")));
    }
}

#[tokio::test]
async fn a_definition_may_ask_to_be_synced_with_each_post() {
    let scene = Scene::new(eloqua()).await;
    let mut at_once = definition();
    at_once["isSyncTriggeredOnImport"] = json!(true);
    let import = scene.defined(&at_once).await;
    let reply = scene.post(&import, "email\na@b.example\n").await;
    assert_eq!((reply.status, &reply.json()["uri"]), (201, &json!("/syncs/1")));
    assert_eq!(scene.states("/syncs/1", 1).await, ["success"]);
}

#[tokio::test]
async fn what_is_staged_is_kept_for_a_week() {
    let scene = Scene::new(eloqua()).await;
    let import = scene.defined(&definition()).await;
    scene.post(&import, "email\na@b.example\n").await;
    scene.server.pass(Duration::from_secs(7 * 24 * 3600));
    let sync = scene.synced(&import).await;
    assert_eq!(scene.states(&sync, 1).await, ["success"]);
    assert!(scene.contacts().is_empty(), "there was nothing any more");
}

#[tokio::test]
async fn syncs_have_fates() {
    let scene = Scene::new(eloqua().at_pace(0, 1)).await;
    let sync = async |fate| {
        scene.server.foretell(On::request(SYNCS), fate);
        scene.imported("email,first\nno address,A\nb@c.example,B\n").await
    };
    let lost = sync(Fate::Lost).await;
    assert_eq!((scene.get(&lost).await.status, scene.get(&format!("{lost}/rejects")).await.status), (404, 404));
    let failed = sync(Fate::Cancelled).await;
    assert_eq!(scene.states(&failed, 2).await, ["active", "error"]);
    let stuck = sync(Fate::Stuck).await;
    assert_eq!(scene.states(&stuck, 4).await, ["pending"; 4]);
    let odd = sync(Fate::Says("resting".to_owned())).await;
    assert_eq!(scene.states(&odd, 3).await, ["resting"; 3]);
    assert!(scene.contacts().is_empty());
    let hiding = sync(Fate::Hides).await;
    assert_eq!(scene.states(&hiding, 2).await, ["active", "success"], "it lies");
    assert_eq!(scene.get(&format!("{hiding}/rejects")).await.json()["totalResults"], 1);
    assert_eq!(scene.contacts(), named(&[("b@c.example", "B")]));
}

#[tokio::test]
async fn a_sync_that_nobody_asks_for_is_done_all_the_same_and_a_restart_forgets_none() {
    let scene = Scene::new(eloqua().at_pace(5, 5)).await;
    scene.server.script(On::request(SYNCS), Fault::Unanswered);
    let import = scene.defined(&definition()).await;
    scene.post(&import, "email,first\na@b.example,A\n").await;
    let headers = [("Authorization", BASIC), ("Content-Type", "application/json")];
    let body = json!({ "syncedInstanceUri": import }).to_string();
    send(scene.server.port(), SYNCS, &headers, body.as_bytes()).await.expect_err("no answer");
    scene.server.restart().unwrap();
    assert_eq!(scene.server.look(|eloqua| eloqua.syncs().len()), 1, "it was taken");
    scene.server.pass(Duration::from_secs(600));
    assert_eq!(scene.states("/syncs/1", 1).await, ["success"]);
    scene.server.restart().unwrap();
    assert_eq!(scene.contacts(), named(&[("a@b.example", "A")]));
}

#[tokio::test]
async fn syncs_are_listed_and_found_by_what_they_sync() {
    let scene = Scene::new(eloqua().at_pace(0, 0)).await;
    for _ in 0..3 {
        let sync = scene.imported("email,first\na@b.example,A\n").await;
        assert_eq!(scene.states(&sync, 1).await, ["success"]);
    }
    let uris = async |query: &str| {
        let found = scene.get(&format!("/syncs{query}")).await.json();
        let items = found["items"].as_array().unwrap().iter();
        items.map(|sync| sync["uri"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(uris("").await, ["/syncs/1", "/syncs/2", "/syncs/3"]);
    assert_eq!(uris("?orderBy=createdAt%20DESC&limit=2").await, ["/syncs/3", "/syncs/2"]);
    assert_eq!(uris("?q=%22syncedInstanceUri%3D/contacts/imports/2%22").await, ["/syncs/2"]);
    assert_eq!(uris("?q=syncedInstanceUri%3D/contacts/imports/9").await, [""; 0]);
    assert_eq!(scene.get("/syncs?orderBy=size").await.status, 400);
    assert_eq!(scene.server.look(|eloqua| eloqua.taken()["a@b.example"]), 3, "each sync has taken it");
}
