//! Does a profile of one's own do what its keys say: who asks, how rows are written and wrapped, which row is meant?

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use etl::destination::Destination;
use etl::{ErrorKind, Secret};
use etl_destinations::profile::{ProfileConfig, System};
use etl_destinations::registry::DestinationConfig;
use harness::contract::{Answer, Asked, Fault, On, Server, Vendor};
use serde_json::json;

use super::scene::Scene;

/// A vendor that says what a test says.
#[derive(Clone)]
struct Plain(Arc<dyn Fn(&Asked) -> Answer + Send + Sync>);

impl Vendor for Plain {
    fn answer(&mut self, asked: &Asked) -> Answer {
        (self.0)(asked)
    }

    fn failure(&self, status: u16) -> Answer {
        Answer::empty(status)
    }

    fn credentials(&mut self, _secret: &str, _are_good: bool) {}
}

/// A profile with these parts, the others as short as can be.
fn profile(auth: &str, encode: &str, submit: &str, later: &str) -> String {
    let secret = if auth.contains("secret.key") { "key = \"A key\"" } else { "" };
    let resubmit = if later.contains("[recover]") { "discover" } else { "idempotent" };
    format!(
        r#"name = "own"
about = "A system"
documents = "none"
documents_of = "2026-01-01"
resubmit = "{resubmit}"
messages = ["/message"]
[settings]
base = "Where it is"
[secrets]
{secret}
[limits]
rows = 1000
bytes = "1MB"
row_bytes = "10kB"
answer_bytes = "100kB"
[auth]
{auth}
[check]
url = "${{setting.base}}/me"
[encode]
{encode}
{submit}
[[errors]]
status = [429]
then = "throttle"
[[errors]]
status = [422]
then = "split"
[[errors]]
status = ["4xx"]
then = "config"
[[errors]]
status = ["5xx"]
then = "retry"
{later}
"#
    )
}

const JOB: &str = r#"
[poll]
url = "${setting.base}/jobs/${id}"
gone = [404]
state = "/state"
documented = ["busy", "done"]
states = { busy = "pending", done = "completed" }
schedule = { first = "1ms", longest = "20ms", deadline = "1m" }
"#;

const SUBMIT: &str = r#"
[[submit]]
url = "${setting.base}/jobs"
batch = { content_type = "text/plain" }
extract = { id = "/id" }
"#;

async fn started(text: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Server<Plain>, Scene) {
    let scene = Scene::of(text, &["k", "v"]).await;
    let server = Server::start(Plain(Arc::new(answer)), &scene.dir.path().join("vendor")).await.unwrap();
    let secrets: &[(&str, &str)] = if text.contains("key = \"A key\"") { &[("key", "hunter2")] } else { &[] };
    let scene = scene.with(&[("base", &server.url())], secrets);
    (server, scene)
}

/// Takes every job and says that it is done.
fn agreeing(asked: &Asked) -> Answer {
    match asked.method.as_str() {
        "POST" => Answer::json(201, &json!({"id": "7"})),
        _ => Answer::json(200, &json!({"state": "done"})),
    }
}

async fn sent(auth: &str, encode: &str, submit: &str) -> Asked {
    let (server, scene) = started(&profile(auth, encode, submit, JOB), agreeing).await;
    let rows = vec![scene.row(&["1", "a,\"b\""]), scene.row(&["2", "-"])];
    scene.copy(rows).await.unwrap_or_else(|error| panic!("{error}"));
    server.asked("POST /jobs").remove(0).asked
}

#[tokio::test]
async fn rows_are_written_in_each_format() {
    let body = |encode: &'static str| async move {
        String::from_utf8(sent("kind = \"none\"", encode, SUBMIT).await.body).unwrap()
    };
    assert_eq!(body("format = \"json\"").await, r#"[{"k":"1","v":"a,\"b\""},{"k":"2"}]"#);
    assert_eq!(
        body("format = \"json\"\nenvelope = '{\"of\":\"${table.name}\",\"all\":${rows}}'\nkeeps_null = true").await,
        r#"{"of":"people","all":[{"k":"1","v":"a,\"b\""},{"k":"2","v":null}]}"#
    );
    assert_eq!(
        body("format = \"jsonl\"\nrest = \"/x/y\"").await,
        "{\"x\":{\"y\":{\"k\":\"1\",\"v\":\"a,\\\"b\\\"\"}}}\n{\"x\":{\"y\":{\"k\":\"2\"}}}\n"
    );
    assert_eq!(body("format = \"csv\"\nnull = \"NULL\"").await, "k,v\n1,\"a,\"\"b\"\"\"\n2,NULL\n");
    assert_eq!(body("format = \"tsv\"").await, "k\tv\n1\t\"a,\"\"b\"\"\"\n2\t\n");
}

#[tokio::test]
async fn a_body_is_compressed_archived_and_put_into_a_form() {
    let csv = "format = \"csv\"";
    let plain = b"k,v\n1,\"a,\"\"b\"\"\"\n2,\n";
    let with = |batch: &str| SUBMIT.replace("batch = { content_type = \"text/plain\" }", batch);
    let gzip =
        sent("kind = \"none\"", csv, &with("batch = { content_type = \"text/csv\", compress = \"gzip\" }")).await;
    assert_eq!((gzip.header("content-encoding"), gzip.content_type().as_str()), (Some("gzip"), "text/csv"));
    assert_eq!(
        unpacked("import gzip,sys;sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))", &gzip.body),
        plain
    );
    let zip = sent(
        "kind = \"none\"",
        csv,
        &with("batch = { content_type = \"application/zip\", compress = \"zip\", file_name = \"${table.name}.csv\" }"),
    )
    .await;
    let read = "import io,sys,zipfile;z=zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()));assert z.testzip() is None;sys.stdout.buffer.write(z.read('people.csv'))";
    assert_eq!(unpacked(read, &zip.body), plain);
    let form = sent(
        "kind = \"none\"",
        csv,
        &with("batch = { content_type = \"text/csv\", file_name = \"rows.csv\", multipart = { file = \"file\", fields = { format = \"csv\" } } }"),
    )
    .await;
    let boundary = form.header("content-type").unwrap().split("boundary=").nth(1).unwrap().to_owned();
    let text = String::from_utf8(form.body).unwrap();
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4, "{text}");
    assert!(parts[1].contains("name=\"format\"\r\n\r\ncsv\r\n"), "{text}");
    assert!(parts[2].contains("filename=\"rows.csv\"") && parts[2].contains("\r\n\r\nk,v\n1,"), "{text}");
    assert_eq!(parts[3], "--\r\n");
}

/// What Python makes of it.
fn unpacked(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut python = Command::new("python3");
    let mut child = python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[tokio::test]
async fn who_asks_is_said_in_each_way() {
    let json = "format = \"json\"";
    let basic = sent("kind = \"basic\"\nuser = \"me\"\npassword = \"${secret.key}\"", json, SUBMIT).await;
    assert_eq!(basic.basic(), Some(("me".to_owned(), "hunter2".to_owned())));
    let bearer = sent("kind = \"bearer\"\ntoken = \"${secret.key}\"", json, SUBMIT).await;
    assert_eq!(bearer.header("authorization"), Some("Bearer hunter2"));
    let header = sent("kind = \"header\"\nname = \"X-Key\"\nvalue = \"k ${secret.key}\"", json, SUBMIT).await;
    assert_eq!(header.header("x-key"), Some("k hunter2"));
}

#[tokio::test]
async fn a_token_that_has_ended_is_fetched_again_once() {
    let tokens = Arc::new(AtomicU32::new(0));
    let auth = "kind = \"oauth2_client_credentials\"\nurl = \"${setting.base}/token\"\nclient_id = \"me\"\n\
                client_secret = \"${secret.key}\"\nfields = { scope = \"all\" }";
    let given = Arc::clone(&tokens);
    let (server, scene) = started(&profile(auth, "format = \"json\"", SUBMIT, JOB), move |asked| {
        if asked.path == "/token" {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::json(200, &json!({"access_token": format!("t{number}"), "expires_in": 3600}));
        }
        // The first one is taken back at once, and in the end none is good.
        match asked.header("authorization") {
            Some("Bearer t2") => agreeing(asked),
            _ => Answer::empty(401),
        }
    })
    .await;
    scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap();
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    let form = server.asked("POST /token")[0].asked.form();
    assert!(
        form.contains(&("scope".to_owned(), "all".to_owned()))
            && form.contains(&("client_secret".to_owned(), "hunter2".to_owned())),
        "{form:?}"
    );
    let (_server, scene) = started(&profile(auth, "format = \"json\"", SUBMIT, JOB), |asked| match &*asked.path {
        "/token" => Answer::json(200, &json!({"access_token": "t"})),
        _ => Answer::empty(401),
    })
    .await;
    let error = scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

/// Rejects are found by their key, their number, and by what they looked like, over pages; what is counted and not shown is
/// no success.
#[tokio::test]
async fn a_rejected_row_is_found_in_each_way() {
    let rejects = |correlate: &str, format: &str| {
        format!(
            "{JOB}\n[[rejects]]\nurl = \"${{setting.base}}/jobs/${{id}}/errors\"\nformat = \"{format}\"\nitems = \"/items\"\n\
             reason = \"/why\"\npages = {{ kind = \"offset\", parameter = \"from\", by = 1, at = \"/more\" }}\n\
             correlate = {{ {correlate} }}"
        )
    };
    let cases = [
        ("by = \"key\", at = \"/key\"", json!({"why": "no", "key": "3"})),
        ("by = \"key\", columns = { v = \"/v\" }", json!({"why": "no", "v": "v3"})),
        ("by = \"index\", at = \"/row\", first = 1", json!({"why": "no", "row": 4})),
        ("by = \"row\", at = \"/was\"", json!({"why": "no", "was": {"v": "v3", "k": "3"}})),
    ];
    for (correlate, item) in cases {
        let text = profile("kind = \"none\"", "format = \"json\"", SUBMIT, &rejects(correlate, "json"));
        let (server, scene) =
            started(&text, move |asked| match (asked.path.ends_with("/errors"), asked.parameter("from")) {
                (true, None) => Answer::json(200, &json!({"items": [item], "more": true})),
                (true, Some(_)) => Answer::json(200, &json!({"items": [], "more": false})),
                _ => agreeing(asked),
            })
            .await;
        scene.copy((0..20).map(|n| scene.row(&[format!("{n}"), format!("v{n}")])).collect()).await.unwrap();
        let dead = scene.dead().await;
        assert_eq!(dead.len(), 1, "{correlate}");
        assert_eq!((&dead[0].row["k"], dead[0].reason.as_str()), (&json!("3"), "no"), "{correlate}");
        assert_eq!(server.asked("POST /jobs").len(), 1, "{correlate}");
    }
    let text = profile("kind = \"none\"", "format = \"csv\"", SUBMIT, &rejects("by = \"row\", at = \"\"", "csv"));
    let (_server, scene) = started(&text, |asked| match asked.path.ends_with("/errors") {
        true => Answer { status: 200, headers: Vec::new(), body: b"why,v,k\n\"no, \"\"never\"\"\",v3,3\n".to_vec() },
        false => agreeing(asked),
    })
    .await;
    scene.copy((0..20).map(|n| scene.row(&[format!("{n}"), format!("v{n}")])).collect()).await.unwrap();
    let dead = scene.dead().await;
    assert_eq!((dead.len(), dead[0].reason.as_str(), &dead[0].row["k"]), (1, "no, \"never\"", &json!("3")));
}

#[tokio::test]
async fn what_is_counted_and_not_shown_is_no_success() {
    let later = JOB.replace("gone = [404]", "gone = [404]\nfailed = \"/failed\"\nunattributed = \"hold\"");
    let later = format!(
        "{later}\n[[rejects]]\nurl = \"${{setting.base}}/jobs/${{id}}/errors\"\nitems = \"\"\nreason = \"/why\"\n\
         correlate = {{ by = \"none\" }}"
    );
    let (_server, scene) = started(&profile("kind = \"none\"", "format = \"json\"", SUBMIT, &later), |asked| {
        match (asked.path.ends_with("/errors"), &*asked.method) {
            (true, _) => Answer::json(200, &json!([])),
            (_, "POST") => agreeing(asked),
            _ => Answer::json(200, &json!({"state": "done", "failed": 2})),
        }
    })
    .await;
    let error = scene.copy((0..20).map(|n| scene.row(&[format!("{n}"), "x".to_owned()])).collect()).await.unwrap_err();
    assert!(error.to_string().contains("what became of"), "{error}");
    assert!(scene.held().await.contains("20 rows"), "{}", scene.held().await);
}

#[tokio::test]
async fn a_batch_that_may_have_arrived_is_looked_for() {
    let later = format!(
        "{JOB}\n[recover]\nurl = \"${{setting.base}}/jobs\"\nitems = \"/jobs\"\nat = \"/comment\"\nis = \"${{batch.id}}\"\n\
         extract = {{ id = \"/id\" }}"
    );
    let submit = format!("{SUBMIT}query = {{ comment = \"${{batch.id}}\" }}");
    for is_there in [true, false] {
        let comment = Arc::new(std::sync::Mutex::new(String::new()));
        let (server, scene) =
            started(&profile("kind = \"none\"", "format = \"json\"", &submit, &later), move |asked| {
                match (&*asked.method, &*asked.path) {
                    ("POST", _) => {
                        *comment.lock().unwrap() = asked.parameter("comment").unwrap().to_owned();
                        agreeing(asked)
                    }
                    ("GET", "/jobs") if is_there => {
                        Answer::json(200, &json!({"jobs": [{"comment": *comment.lock().unwrap(), "id": "7"}]}))
                    }
                    ("GET", "/jobs") => Answer::json(200, &json!({"jobs": []})),
                    _ => agreeing(asked),
                }
            })
            .await;
        server.script(On::request("POST /jobs"), Fault::Unanswered);
        scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap();
        assert_eq!(server.asked("POST /jobs").len(), if is_there { 1 } else { 2 });
    }
}

#[tokio::test]
async fn what_a_system_refuses_as_a_whole_is_split_until_the_bad_row_stands_alone() {
    let (_server, scene) =
        started(&profile("kind = \"none\"", "format = \"json\"", SUBMIT, JOB), |asked| match String::from_utf8_lossy(
            &asked.body,
        )
        .contains("\"13\"")
        {
            true => Answer::json(422, &json!({"message": "13 is no number"})),
            false => agreeing(asked),
        })
        .await;
    scene.copy((0..20).map(|n| scene.row(&[format!("{n}"), "x".to_owned()])).collect()).await.unwrap();
    let dead = scene.dead().await;
    assert_eq!((dead.len(), &dead[0].row["k"]), (1, &json!("13")));
    assert!(dead[0].reason.contains("13 is no number"), "{}", dead[0].reason);
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_leads_elsewhere_is_not_followed() {
    let text = profile("kind = \"none\"", "format = \"json\"", SUBMIT, JOB)
        .replace("deadline = \"1m\"", "deadline = \"300ms\"");
    let (_server, scene) = started(&text, |asked| match &*asked.method {
        "POST" => agreeing(asked),
        _ => Answer::json(200, &json!({"state": "done", "more": "x".repeat(200_000)})),
    })
    .await;
    let error = scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap_err();
    assert!(error.to_string().contains("longer than it may be"), "{error}");
    let later = format!(
        "{JOB}\n[[rejects]]\nurl = \"${{setting.base}}/jobs/${{id}}/errors\"\nitems = \"/items\"\nreason = \"/why\"\n\
         pages = {{ kind = \"link\", at = \"/next\" }}\ncorrelate = {{ by = \"key\", at = \"/k\" }}"
    );
    let later = later.replace("deadline = \"1m\"", "deadline = \"300ms\"");
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!("http://{}/x", elsewhere.local_addr().unwrap());
    let (_server, scene) = started(
        &profile("kind = \"bearer\"\ntoken = \"${secret.key}\"", "format = \"json\"", SUBMIT, &later),
        move |asked| match asked.path.ends_with("/errors") {
            true => Answer::json(200, &json!({"items": [], "next": link})),
            false => agreeing(asked),
        },
    )
    .await;
    let error = scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "nobody was told who asks");
}

#[tokio::test]
async fn a_table_may_have_settings_of_its_own() {
    let text =
        profile("kind = \"none\"", "format = \"json\"", &SUBMIT.replace("/jobs\"", "/jobs/${setting.to}\""), JOB);
    let text = text.replace("[settings]", "[settings]\nto = { about = \"Where to\", default = \"all\" }");
    for (pattern, expected) in [("public.people", "POST /jobs/some"), ("public.other", "POST /jobs/all")] {
        let (server, mut scene) = started(&text, agreeing).await;
        let config = format!("{{\"match\": \"{pattern}\", \"settings\": {{\"to\": \"some\"}}}}");
        scene.config.tables = vec![serde_json::from_str(&config).unwrap()];
        scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap();
        assert_eq!(server.asked(expected).len(), 1, "{pattern}");
    }
}

#[test]
fn a_profile_is_named_or_a_file_and_asks_for_what_it_needs() {
    let refused = |config: &ProfileConfig| System::open(config).unwrap_err().to_string();
    let mut config = ProfileConfig::named("nothing");
    assert!(refused(&config).contains("etl profiles list"));
    config.path = Some("x.toml".into());
    assert!(refused(&config).contains("either a profile or a file"));
    config.name = None;
    assert!(refused(&config).contains("x.toml"));
    let mut config = ProfileConfig::named("klaviyo");
    assert!(refused(&config).contains("secrets.api_key"));
    config.secrets.insert("api_key".to_owned(), Secret::new("hunter2"));
    config.settings.insert("colour".to_owned(), "blue".to_owned());
    assert!(refused(&config).contains("settings.colour") && refused(&config).contains("base, revision"));
    config.settings.clear();
    let system = System::open(&config).unwrap();
    assert!(!format!("{system:?} {config:?}").contains("hunter2"));
}

#[test]
fn batches_are_kept_in_the_data_directory_unless_the_config_says_otherwise() {
    let mut config = ProfileConfig::named("klaviyo");
    assert_eq!(System::settings(&config).unwrap_err().kind(), ErrorKind::Config);
    config.spool = Some("/elsewhere".into());
    assert_eq!(System::settings(&config).unwrap().spool.to_str(), Some("/elsewhere"));
    let destination = DestinationConfig::Profile(ProfileConfig::named("klaviyo"));
    let destination = destination.of_pipeline("shop", std::path::Path::new("/data"));
    let DestinationConfig::Profile(config) = destination else { panic!() };
    assert_eq!(System::settings(&config).unwrap().spool.to_str(), Some("/data/bulk"));
}

#[tokio::test]
async fn a_system_that_says_nothing_is_left_after_the_timeout() {
    let (server, mut scene) = started(&profile("kind = \"none\"", "format = \"json\"", SUBMIT, JOB), agreeing).await;
    scene.config.timeout = Duration::from_millis(200);
    server.script(On::request("GET /me"), Fault::Held);
    let error = scene.open().check_connection().await.unwrap_err();
    assert!(error.to_string().contains("did not answer in time"), "{error}");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_config_says() {
    let (server, mut scene) = started(&profile("kind = \"none\"", "format = \"json\"", SUBMIT, JOB), agreeing).await;
    scene.config.connections = 1;
    server.script(On::request("GET /me"), Fault::Held);
    let destination = scene.open();
    let first = destination.check_connection();
    let second = destination.check_connection();
    let held = async {
        server.until_asked("GET /me", 1).await;
        assert_eq!(server.asked("GET /me").len(), 1, "the second waits for the first");
        server.release();
    };
    let (first, second, ()) = tokio::join!(first, second, held);
    first.and(second).unwrap();
    assert_eq!(server.asked("GET /me").len(), 2);
}

#[test]
fn a_server_is_trusted_by_its_certificate() {
    let mut config = ProfileConfig::named("klaviyo");
    config.secrets.insert("api_key".to_owned(), Secret::new("x"));
    config.ca = Some("/nowhere/ca.pem".into());
    let error = System::open(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    config.ca = Some(dir.path().join("ca.pem"));
    assert!(System::open(&config).unwrap_err().to_string().contains("it holds no certificate"));
}

#[tokio::test]
async fn a_throttled_request_waits_for_the_date_that_it_is_told() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let text = profile("kind = \"none\"", "format = \"json\"", SUBMIT, JOB);
    let (server, scene) = started(&text, move |asked| {
        if asked.method == "POST" && count.fetch_add(1, Ordering::SeqCst) == 0 {
            // By the server's own time, which is not ours.
            let throttled = Answer::empty(429).with("date", "Sun, 06 Nov 1994 08:49:37 GMT");
            return throttled.with("retry-after", "Sun, 06 Nov 1994 08:49:38 GMT");
        }
        agreeing(asked)
    })
    .await;
    scene.copy(vec![scene.row(&["1", "a"])]).await.unwrap();
    let asked = server.asked("POST /jobs");
    assert_eq!(asked.len(), 2);
    assert!(asked[1].asked.at.since(asked[0].asked.at).as_millis() >= 1000, "as long as it was told to wait");
}
