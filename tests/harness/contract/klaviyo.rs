//! What does Klaviyo say that its bulk import of profiles does?
//!
//! From its documents of revision 2026-07-15; each rule names its page:
//! - `[import]` <https://developers.klaviyo.com/en/reference/bulk_import_profiles>
//! - `[job]` <https://developers.klaviyo.com/en/reference/get_bulk_import_profiles_job>
//! - `[jobs]` <https://developers.klaviyo.com/en/reference/get_bulk_import_profiles_jobs>
//! - `[errors]` <https://developers.klaviyo.com/en/reference/get_errors_for_bulk_import_profiles_job>
//! - `[guide]` <https://developers.klaviyo.com/en/docs/use_klaviyos_bulk_profile_import_api>
//! - `[limits]` <https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling>
//! - `[overview]` <https://developers.klaviyo.com/en/reference/api_overview>
//! - `[oauth]` <https://developers.klaviyo.com/en/docs/set_up_oauth>
//! - `[spec]` <https://github.com/klaviyo/openapi>, `openapi/stable/apis`, what the reference is made from
//!
//! Where they are silent, this is taken instead: a megabyte and a kilobyte are the decimal ones, so that who keeps to these
//! keeps to either; a body that is too large is answered with 413, a content type with 415; a job is forgotten when it
//! expires, seven days after it was made; a profile that comes twice is merged by its identifiers in the order
//! `external_id`, `email`, `phone_number`; what is null does not clear what is there.

mod profile;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etl::clock::Timestamp;
use serde_json::{Map, Value, json};

use self::profile::{Problem, Profiles, problems};
use super::{Answer, Asked, Fate, Rate, Rates, Tokens, Vendor};

/// \[spec\] The only type of a body.
const JSON_API: &str = "application/vnd.api+json";
/// \[import\] "up to 10,000 profiles per request".
const MOST_PROFILES: usize = 10_000;
/// \[import\] "maximum allowed payload size is 5MB".
const LARGEST_BODY: usize = 5_000_000;
/// \[import\] "maximum allowed payload size per-profile is 100KB".
const LARGEST_PROFILE: usize = 100_000;
/// \[oauth\] How long an access token is good.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// A job is done at the latest after this, whether or not anybody asks for it.
const LONGEST_JOB: Duration = Duration::from_secs(600);
const EXPIRES_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a profile is refused while its job is processed: a code and a detail.
pub type Refusal = (&'static str, String);
type Refuse = dyn Fn(&Value) -> Option<Refusal> + Send + Sync;

/// The vendor.
#[derive(Clone)]
pub struct Klaviyo {
    key: String,
    is_key_good: bool,
    /// The client's id and secret, and its refresh token.
    app: (String, String, String),
    tokens: Tokens,
    rates: Rates,
    refuses: Arc<Refuse>,
    /// For how many questions a job is queued, and processed.
    pace: (u32, u32),
    jobs: Vec<Job>,
    profiles: Profiles,
}

impl fmt::Debug for Klaviyo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Klaviyo").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

/// A bulk import.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// What it was made of: the attributes of each profile.
    pub profiles: Vec<Value>,
    /// The lists that they are put on.
    pub lists: Vec<String>,
    /// Its state.
    pub status: &'static str,
    /// The places of the profiles that were refused, and why.
    pub refused: Vec<(usize, Refusal)>,
    asked: u32,
    fate: Option<Fate>,
}

impl Klaviyo {
    /// An account with this private key.
    #[must_use]
    pub fn new(key: &str) -> Self {
        // [import] "Burst: 10/s, Steady: 150/m", the same on the other pages; [limits] fixed windows.
        let rate = |most, seconds| Rate { most, window: Duration::from_secs(seconds) };
        Self {
            key: key.to_owned(),
            is_key_good: true,
            app: Default::default(),
            tokens: Tokens::default(),
            rates: Rates::new(vec![rate(10, 1), rate(150, 60)]),
            refuses: Arc::new(|_| None),
            pace: (1, 1),
            jobs: Vec::new(),
            profiles: Profiles::default(),
        }
    }

    /// With an app that gets access tokens by this refresh token.
    #[must_use]
    pub fn with_app(self, id: &str, secret: &str, refresh: &str) -> Self {
        Self { app: (id.to_owned(), secret.to_owned(), refresh.to_owned()), ..self }
    }

    /// Without limits of its rate, for tests that are about something else.
    #[must_use]
    pub fn without_rates(self) -> Self {
        Self { rates: Rates::default(), ..self }
    }

    /// A job is queued for so many questions, and then processed for so many.
    #[must_use]
    pub fn at_pace(self, queued: u32, processed: u32) -> Self {
        Self { pace: (queued, processed), ..self }
    }

    /// Refuses profiles while their job is processed, by their attributes.
    #[must_use]
    pub fn refusing(self, refuses: impl Fn(&Value) -> Option<Refusal> + Send + Sync + 'static) -> Self {
        Self { refuses: Arc::new(refuses), ..self }
    }

    /// Every job that was accepted and is not lost, the oldest first.
    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// The profiles as they are, by the identifier that they were made with.
    #[must_use]
    pub fn profiles(&self) -> Vec<Value> {
        self.profiles.all()
    }

    fn route(&mut self, asked: &Asked) -> Result<Answer, Answer> {
        let segments = asked.segments();
        if (asked.method.as_str(), segments.as_slice()) == ("POST", &["oauth", "token"]) {
            return self.token(asked);
        }
        let account = self.account(asked)?;
        let endpoint = match (asked.method.as_str(), segments.as_slice()) {
            ("POST", ["api", "profile-bulk-import-jobs"]) => "import",
            ("GET", ["api", "profile-bulk-import-jobs"]) => "jobs",
            ("GET", ["api", "profile-bulk-import-jobs", _]) => "job",
            ("GET", ["api", "profile-bulk-import-jobs", _, "import-errors"]) => "errors",
            (_, ["api", "profile-bulk-import-jobs", ..]) => return Err(self.failure(405)),
            _ => return Err(self.failure(404)),
        };
        // [limits] Per account; 429 has `Retry-After` in seconds in place of the other headers.
        let of = format!("{account} {endpoint}");
        if let Err(after) = self.rates.count(&of, asked.at) {
            return Err(self.failure(429).with("retry-after", after));
        }
        let answer = revision(asked).and_then(|()| match endpoint {
            "import" => self.import(asked),
            "jobs" => self.list(asked),
            "job" => self.job(asked, segments[2]),
            _ => self.errors(asked, segments[2]),
        });
        // [limits] What does not hit a limit says how far it is.
        let told = |answer: Answer| match self.rates.left(&of, asked.at) {
            None => answer,
            Some((left, most, reset)) => {
                answer.with("ratelimit-limit", most).with("ratelimit-remaining", left).with("ratelimit-reset", reset)
            }
        };
        answer.map(told).map_err(told)
    }

    /// \[overview\] `Klaviyo-API-Key` and a private key; \[oauth\] or `Bearer` and an access token. \[limits\] Else 401.
    fn account(&self, asked: &Asked) -> Result<String, Answer> {
        let said = asked.header("authorization").unwrap_or_default();
        let is_good = match said.split_once(' ') {
            Some(("Klaviyo-API-Key", key)) => self.is_key_good && key == self.key,
            Some(("Bearer", token)) => self.tokens.is_good(token, asked.at),
            _ => return Err(error(401, "not_authenticated", "Authentication credentials were not provided.", None)),
        };
        let wrong = "Incorrect authentication credentials.";
        if is_good { Ok(said.to_owned()) } else { Err(error(401, "authentication_failed", wrong, None)) }
    }

    /// \[oauth\] The client by basic authentication, the grant in a form.
    fn token(&mut self, asked: &Asked) -> Result<Answer, Answer> {
        let (id, secret, refresh) = &self.app;
        let refused = |why: &str| Err(Answer::json(400, &json!({ "error": why })));
        if id.is_empty() || asked.basic() != Some((id.clone(), secret.clone())) {
            return Err(Answer::json(401, &json!({ "error": "invalid_client" })));
        }
        let form = asked.form();
        let field = |name: &str| form.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        if asked.content_type() != "application/x-www-form-urlencoded" {
            return refused("invalid_request");
        }
        match field("grant_type") {
            Some("refresh_token") if field("refresh_token") == Some(refresh) => {}
            Some("refresh_token") => return refused("invalid_grant"),
            _ => return refused("unsupported_grant_type"),
        }
        let token = self.tokens.give(asked.at, TOKEN_LIFETIME);
        Ok(Answer::json(
            200,
            &json!({
                "access_token": token, "token_type": "bearer", "expires_in": TOKEN_LIFETIME.as_secs(),
                "refresh_token": refresh, "scope": "lists:write profiles:read profiles:write lists:read",
            }),
        ))
    }

    fn import(&mut self, asked: &Asked) -> Result<Answer, Answer> {
        if asked.content_type() != JSON_API {
            return Err(self.failure(415));
        }
        if asked.body.len() > LARGEST_BODY {
            return Err(self.failure(413));
        }
        let (profiles, lists) = batch(asked)?;
        let number = self.jobs.len() as u64 + 1;
        let job = Job {
            id: format!("01J{number:023}"),
            created: asked.at,
            profiles: profiles.into_iter().map(|mut profile| profile["attributes"].take()).collect(),
            lists,
            status: "queued",
            refused: Vec::new(),
            asked: 0,
            fate: asked.fate.clone(),
        };
        let answer = document(asked, 202, &self.shown(asked, &job));
        self.jobs.push(job);
        Ok(answer)
    }

    /// Lets the jobs that nobody asks for get on as well, and forgets those that are expired.
    fn age(&mut self, at: Timestamp) {
        let old = |job: &Job, age| at.since(job.created) >= age;
        for place in 0..self.jobs.len() {
            let job = &self.jobs[place];
            if matches!(job.status, "queued" | "processing") && old(job, LONGEST_JOB) {
                self.finish(place);
            }
        }
        for job in self.jobs.iter_mut().filter(|job| old(job, EXPIRES_AFTER)) {
            job.fate = Some(Fate::Lost);
        }
    }

    /// \[guide\] The profiles are updated where they are known, and made where they are not.
    fn finish(&mut self, place: usize) {
        let job = &mut self.jobs[place];
        match &job.fate {
            Some(Fate::Stuck | Fate::Lost | Fate::Says(_)) => return,
            Some(Fate::Cancelled) => {
                job.status = "cancelled";
                return;
            }
            Some(Fate::Hides) | None => {}
        }
        job.status = "complete";
        let refuse = |(place, profile): (usize, &Value)| Some((place, (self.refuses)(profile)?));
        job.refused = job.profiles.iter().enumerate().filter_map(refuse).collect();
        for (place, profile) in job.profiles.iter().enumerate() {
            if !job.refused.iter().any(|(refused, _)| *refused == place) {
                self.profiles.upsert(profile);
            }
        }
    }

    fn find(&self, id: &str) -> Result<usize, Answer> {
        let is_it = |job: &Job| job.id == id && job.fate != Some(Fate::Lost);
        self.jobs.iter().position(is_it).ok_or_else(|| self.failure(404))
    }

    fn job(&mut self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let place = self.find(id)?;
        let job = &mut self.jobs[place];
        job.asked += 1;
        let (queued, processed) = self.pace;
        if matches!(job.status, "queued" | "processing") && job.fate != Some(Fate::Stuck) {
            if job.asked > queued + processed {
                self.finish(place);
            } else if job.asked > queued {
                job.status = "processing";
            }
        }
        Ok(document(asked, 200, &self.shown(asked, &self.jobs[place])))
    }

    /// \[jobs\] A page of the jobs, by when they were made.
    fn list(&self, asked: &Asked) -> Result<Answer, Answer> {
        let known = self.jobs.iter().filter(|job| job.fate != Some(Fate::Lost));
        let mut jobs: Vec<Value> = known.map(|job| self.shown(asked, job)).collect();
        match asked.parameter("sort") {
            Some("created_at") | None => {}
            Some("-created_at") => jobs.reverse(),
            Some(_) => return Err(wrong_parameter("sort", "The sort field is not supported.")),
        }
        page(asked, &jobs)
    }

    /// \[errors\] A page of what was refused, each with the payload that it was.
    fn errors(&self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let job = &self.jobs[self.find(id)?];
        let shown = |(place, (code, detail)): &(usize, Refusal)| {
            json!({
                "type": "import-error",
                "id": format!("{}-{place}", job.id),
                "attributes": {
                    "code": code, "title": "Invalid input.", "detail": detail,
                    "source": { "pointer": format!("/data/attributes/profiles/data/{place}/attributes") },
                    "original_payload": job.profiles[*place],
                },
            })
        };
        page(asked, &job.refused.iter().map(shown).collect::<Vec<_>>())
    }

    /// \[job\] A job as a resource.
    fn shown(&self, asked: &Asked, job: &Job) -> Value {
        let (total, failed) = (job.profiles.len(), job.refused.len());
        let is_done = job.status == "complete";
        let shown_failed = if job.fate == Some(Fate::Hides) { 0 } else { failed };
        let status = match &job.fate {
            Some(Fate::Says(word)) => word,
            _ => job.status,
        };
        let link = format!("{}/api/profile-bulk-import-jobs/{}", asked.origin(), job.id);
        let lists: Vec<Value> = job.lists.iter().map(|id| json!({ "type": "list", "id": id })).collect();
        let after = |by: Duration| Timestamp(job.created.0 + by.as_micros() as i64);
        json!({
            "type": "profile-bulk-import-job",
            "id": job.id,
            "attributes": {
                "status": status,
                "created_at": time(job.created),
                "total_count": total,
                "completed_count": if is_done { total - shown_failed } else { 0 },
                "failed_count": if is_done { shown_failed } else { 0 },
                "completed_at": is_done.then(|| time(asked.at)),
                "expires_at": time(after(EXPIRES_AFTER)),
                "started_at": (job.status != "queued").then(|| time(job.created)),
            },
            "links": { "self": link },
            "relationships": {
                "lists": { "data": lists, "links": { "self": format!("{link}/relationships/lists"), "related": format!("{link}/lists") } },
                "profiles": { "links": { "self": format!("{link}/relationships/profiles"), "related": format!("{link}/profiles") } },
                "import-errors": { "links": { "related": format!("{link}/import-errors") } },
            },
        })
    }
}

impl Vendor for Klaviyo {
    fn answer(&mut self, asked: &Asked) -> Answer {
        self.age(asked.at);
        self.route(asked).unwrap_or_else(|refused| refused)
    }

    fn failure(&self, status: u16) -> Answer {
        let (code, detail) = match status {
            404 => ("not_found", "The requested resource could not be found."),
            405 => ("method_not_allowed", "The method is not allowed for this resource."),
            413 => ("payload_too_large", "The request payload exceeds the maximum size."),
            415 => ("unsupported_media_type", "The content type must be application/vnd.api+json."),
            429 => ("throttled", "Request was throttled."),
            500.. => ("error", "A server error occurred."),
            _ => ("invalid", "The request could not be processed."),
        };
        error(status, code, detail, None)
    }

    fn credentials(&mut self, secret: &str, are_good: bool) {
        if secret == self.key {
            self.is_key_good = are_good;
        }
        self.tokens.take_back(secret);
    }
}

/// The profiles of a request, and the lists that they are put on.
fn batch(asked: &Asked) -> Result<(Vec<Value>, Vec<String>), Answer> {
    let Some(mut body) = asked.json() else { return Err(invalid("/data", "The payload is not valid JSON.")) };
    // [spec] What a request is made of, and what of it is required.
    if body["data"]["type"] != "profile-bulk-import-job" {
        return Err(invalid("/data/type", "The type must be profile-bulk-import-job."));
    }
    let place = "/data/attributes/profiles/data";
    let Value::Array(profiles) = body["data"]["attributes"]["profiles"]["data"].take() else {
        return Err(invalid(place, "The field profiles is required."));
    };
    if profiles.is_empty() || profiles.len() > MOST_PROFILES {
        return Err(invalid(place, "A request has from 1 to 10000 profiles."));
    }
    let lists = match &body["data"]["relationships"]["lists"]["data"] {
        Value::Array(lists) => lists.iter().filter_map(|list| Some(list["id"].as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    };
    // One profile that is wrong refuses all; [spec] each error points at what it is about.
    let mut wrong: Vec<Problem> = Vec::new();
    for (ordinal, profile) in profiles.iter().enumerate() {
        if serde_json::to_vec(profile).map_or(0, |bytes| bytes.len()) > LARGEST_PROFILE {
            wrong.push((format!("{place}/{ordinal}"), "The profile exceeds 100KB.".to_owned()));
        }
        wrong.extend(problems(profile).into_iter().map(|(at, why)| (format!("{place}/{ordinal}{at}"), why)));
    }
    if wrong.is_empty() {
        return Ok((profiles, lists));
    }
    let all: Vec<Value> = wrong.iter().map(|(at, why)| shown_error(400, "invalid", why, Some(at))).collect();
    Err(api(400, &json!({ "errors": all })))
}

/// \[overview\] Every request names the revision that it is written for; \[spec\] `YYYY-MM-DD[.suffix]`.
fn revision(asked: &Asked) -> Result<(), Answer> {
    let is_date = |text: &str| {
        let date = text.split('.').next().unwrap_or_default();
        date.len() == 10
            && date.bytes().enumerate().all(|(place, byte)| match place {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
    };
    match asked.header("revision") {
        Some(text) if is_date(text) => Ok(()),
        Some(_) => Err(error(400, "invalid", "The revision is not a date.", None)),
        None => Err(error(400, "invalid", "The revision header is required.", None)),
    }
}

/// \[errors\] `page[size]` is 1 to 100 and 20 where it is not given; \[overview\] `page[cursor]` is as a link had it.
fn page(asked: &Asked, all: &[Value]) -> Result<Answer, Answer> {
    let size = match asked.parameter("page[size]").map(str::parse::<usize>) {
        None => 20,
        Some(Ok(size @ 1..=100)) => size,
        Some(_) => return Err(wrong_parameter("page[size]", "The page size must be from 1 to 100.")),
    };
    let offset = match asked.parameter("page[cursor]") {
        None => 0,
        Some(cursor) => {
            let offset = cursor.strip_prefix("bmV4dDo6").and_then(|rest| usize::from_str_radix(rest, 16).ok());
            offset.ok_or_else(|| wrong_parameter("page[cursor]", "Invalid cursor provided."))?
        }
    };
    let link = |offset: usize| {
        let origin = asked.origin();
        format!("{origin}{}?page%5Bcursor%5D=bmV4dDo6{offset:08x}&page%5Bsize%5D={size}", asked.path)
    };
    let shown: Vec<&Value> = all.iter().skip(offset).take(size).collect();
    let next = (offset + size < all.len()).then(|| link(offset + size));
    let prev = (offset > 0).then(|| link(offset.saturating_sub(size)));
    Ok(api(200, &json!({ "data": shown, "links": { "self": link(offset), "next": next, "prev": prev } })))
}

fn document(asked: &Asked, status: u16, resource: &Value) -> Answer {
    let link = format!("{}{}", asked.origin(), asked.path);
    api(status, &json!({ "data": resource, "links": { "self": link } }))
}

fn api(status: u16, body: &Value) -> Answer {
    Answer::json(status, body).with("content-type", JSON_API)
}

fn invalid(at: &str, why: &str) -> Answer {
    error(400, "invalid", why, Some(at))
}

fn wrong_parameter(name: &str, why: &str) -> Answer {
    let mut one = shown_error(400, "invalid", why, None);
    one["source"] = json!({ "parameter": name });
    api(400, &json!({ "errors": [one] }))
}

fn error(status: u16, code: &str, detail: &str, pointer: Option<&str>) -> Answer {
    api(status, &json!({ "errors": [shown_error(status, code, detail, pointer)] }))
}

/// \[spec\] `id`, `code`, `title` and `detail` are always there.
fn shown_error(status: u16, code: &str, detail: &str, pointer: Option<&str>) -> Value {
    let source: Map<String, Value> = pointer.map(|at| ("pointer".to_owned(), at.into())).into_iter().collect();
    let id = "5b6a2f0e-0000-4000-8000-000000000000";
    json!({ "id": id, "status": status, "code": code, "title": "Invalid input.", "detail": detail, "source": source, "links": {}, "meta": {} })
}

/// \[job\] ISO 8601.
fn time(at: Timestamp) -> String {
    super::time(at, "+00:00")
}
