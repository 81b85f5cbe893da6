//! What does Oracle Eloqua say that its bulk API 2.0 does with an import?
//!
//! From its documents as of 2024 to 2026; each rule names its page:
//! - `[base]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/DeterminingBaseURL.html>
//! - `[basic]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/Authentication_Basic.html>
//! - `[oauth]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/Authentication_Auth.html>
//! - `[define]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/op-api-bulk-2.0-contacts-imports-post.html>
//! - `[data]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/op-api-bulk-2.0-contacts-imports-id-data-post.html>
//! - `[syncs]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/op-api-bulk-2.0-syncs-get.html>
//! - `[sync]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/op-api-bulk-2.0-syncs-post.html>
//! - `[rejects]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-rest-api/op-api-bulk-2.0-syncs-id-rejects-get.html>
//! - `[logs]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-develop/Developers/BulkAPI/Reference/troubleshooting.htm>
//! - `[limits]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-develop/Developers/BulkAPI/Reference/bulk-limits.htm>
//! - `[codes]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-develop/Developers/GettingStarted/APIRequests/eloqua-status-codes.htm>
//! - `[practice]` <https://docs.oracle.com/en/cloud/saas/marketing/eloqua-develop/Developers/BulkAPI/BestPractices/best-practices.htm>
//!
//! The same host plays the login (`/id`, `/auth/oauth2/token`) and the pod, unless the pod is said to be elsewhere. Where the
//! documents are silent, this is taken instead: 32 MB are decimal; what is wrong with a definition or a sync is answered with
//! 400 and `failures`; a header of CSV that is not of the definition's fields is too; `recordIndex` counts from 1 over all that
//! was posted, in order; a sync with rejects ends in `warning`.

mod import;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etl::clock::Timestamp;
use serde_json::{Value, json};

pub use self::import::{Import, Records};
use self::import::{Refused, posted};
use super::{Answer, Asked, Fate, Tokens, Vendor};

/// \[limits\] "a hard limit of 32 MB per request": what is larger is answered with 404.
const LARGEST_POST: usize = 32_000_000;
/// \[define\] `dataRetentionDuration` is seven days where it is not given.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// \[oauth\] An access token is good for eight hours.
const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 3600);
/// A sync is done at the latest after this, whether or not anybody asks for it.
const LONGEST_SYNC: Duration = Duration::from_secs(600);

/// Refuses a record by its fields, with a code of \[codes\] and a message.
type Refuse = dyn Fn(&BTreeMap<String, String>) -> Option<(&'static str, String)> + Send + Sync;

/// The vendor.
#[derive(Clone)]
pub struct Eloqua {
    /// Company, user and password.
    login: (String, String, String),
    is_login_good: bool,
    /// The client's id and secret, and the refresh token that is good now.
    app: (String, String, String),
    tokens: Tokens,
    pod: Option<String>,
    refuses: Arc<Refuse>,
    pace: (u32, u32),
    imports: Vec<Import>,
    syncs: Vec<Job>,
    /// By what they were imported to.
    records: BTreeMap<String, Records>,
    /// How often each record was taken from a sync, by its identifier.
    taken: BTreeMap<String, u32>,
}

impl fmt::Debug for Eloqua {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eloqua").field("syncs", &self.syncs.len()).finish_non_exhaustive()
    }
}

/// The moving of what was posted to where it belongs.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// When it was made.
    pub created: Timestamp,
    /// The import that it syncs.
    pub import: u64,
    /// Its state.
    pub status: &'static str,
    /// How many records it has, and which were refused.
    pub total: usize,
    refused: Vec<Refused>,
    asked: u32,
    fate: Option<Fate>,
    /// Another sync of the same definition was under way.
    conflicts: bool,
}

impl Eloqua {
    /// A site with this user.
    #[must_use]
    pub fn new(company: &str, user: &str, password: &str) -> Self {
        Self {
            login: (company.to_owned(), user.to_owned(), password.to_owned()),
            is_login_good: true,
            app: Default::default(),
            tokens: Tokens::default(),
            pod: None,
            refuses: Arc::new(|_| None),
            pace: (1, 1),
            imports: Vec::new(),
            syncs: Vec::new(),
            records: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// With an app that gets access tokens, by the user's password or by this refresh token.
    #[must_use]
    pub fn with_app(self, id: &str, secret: &str, refresh: &str) -> Self {
        Self { app: (id.to_owned(), secret.to_owned(), refresh.to_owned()), ..self }
    }

    /// The login leads to a pod elsewhere, by its base URL.
    #[must_use]
    pub fn leading_to(self, pod: &str) -> Self {
        Self { pod: Some(pod.to_owned()), ..self }
    }

    /// A sync is pending for so many questions, and then active for so many.
    #[must_use]
    pub fn at_pace(self, pending: u32, active: u32) -> Self {
        Self { pace: (pending, active), ..self }
    }

    /// Refuses records while they are synced, by their fields.
    #[must_use]
    pub fn refusing(
        self,
        refuses: impl Fn(&BTreeMap<String, String>) -> Option<(&'static str, String)> + Send + Sync + 'static,
    ) -> Self {
        Self { refuses: Arc::new(refuses), ..self }
    }

    /// The definitions that are there.
    #[must_use]
    pub fn imports(&self) -> Vec<&Import> {
        self.imports.iter().filter(|import| !import.is_deleted).collect()
    }

    /// Every sync that was accepted.
    #[must_use]
    pub fn syncs(&self) -> &[Job] {
        &self.syncs
    }

    /// What was imported to `contacts`, `accounts` or `customObjects/7`, by its identifier.
    #[must_use]
    pub fn records(&self, of: &str) -> Records {
        self.records.get(of).cloned().unwrap_or_default()
    }

    /// How often each record was taken from a sync, by its identifier.
    #[must_use]
    pub fn taken(&self) -> &BTreeMap<String, u32> {
        &self.taken
    }

    fn route(&mut self, asked: &Asked) -> Result<Answer, Answer> {
        let segments = asked.segments();
        if (asked.method.as_str(), segments.as_slice()) == ("POST", &["auth", "oauth2", "token"]) {
            return self.token(asked);
        }
        self.authorised(asked)?;
        let method = asked.method.as_str();
        if (method, segments.as_slice()) == ("GET", &["id"]) {
            return Ok(self.id(asked));
        }
        // [base] `{base}/API/Bulk/{version}/`, in either case.
        let [api, bulk, "2.0", rest @ ..] = segments.as_slice() else { return Err(self.failure(404)) };
        if !api.eq_ignore_ascii_case("api") || !bulk.eq_ignore_ascii_case("bulk") {
            return Err(self.failure(404));
        }
        match (method, rest) {
            ("POST", ["syncs"]) => self.sync(asked),
            ("GET", ["syncs"]) => self.listed(asked),
            ("GET", ["syncs", id]) => self.status(id),
            ("GET", ["syncs", id, "rejects"]) => self.rejects(asked, id),
            ("GET", ["syncs", id, "logs"]) => self.logs(asked, id),
            (_, ["contacts" | "accounts", rest @ ..]) => self.entity(asked, rest_of(&segments, 1), rest),
            (_, ["customObjects", _, rest @ ..]) => self.entity(asked, rest_of(&segments, 2), rest),
            _ => Err(self.failure(404)),
        }
    }

    /// What is under `contacts`, `accounts` or a custom object.
    fn entity(&mut self, asked: &Asked, of: String, rest: &[&str]) -> Result<Answer, Answer> {
        match (asked.method.as_str(), rest) {
            ("POST", ["imports"]) => self.define(asked, of),
            ("GET", ["imports"]) => self.definitions(asked, &of),
            ("GET", ["imports", id]) => Ok(Answer::json(200, &self.imports[self.import(&of, id)?].shown())),
            ("DELETE", ["imports", id]) => self.delete(&of, id),
            ("POST", ["imports", id, "data"]) => self.post(asked, &of, id),
            _ => Err(self.failure(404)),
        }
    }

    /// \[basic\] `COMPANY\user:password`; \[oauth\] or a bearer token.
    fn authorised(&self, asked: &Asked) -> Result<(), Answer> {
        let (company, user, password) = &self.login;
        let is_good = match asked.header("authorization").and_then(|said| said.strip_prefix("Bearer ")) {
            Some(token) => self.tokens.is_good(token, asked.at),
            None => self.is_login_good && asked.basic() == Some((format!("{company}\\{user}"), password.clone())),
        };
        if is_good { Ok(()) } else { Err(self.failure(401)) }
    }

    /// \[base\] Where the APIs of this site are.
    fn id(&self, asked: &Asked) -> Answer {
        let base = self.pod.clone().unwrap_or_else(|| asked.origin());
        let (company, user, _) = &self.login;
        Answer::json(
            200,
            &json!({
                "site": { "id": 42, "name": company },
                "user": { "id": 314, "username": user, "displayName": user, "emailAddress": format!("{user}@example.com") },
                "urls": {
                    "base": base,
                    "apis": {
                        "soap": { "standard": format!("{base}/API/{{version}}/Service.svc") },
                        "rest": {
                            "standard": format!("{base}/API/REST/{{version}}/"),
                            "bulk": format!("{base}/API/Bulk/{{version}}/"),
                        },
                    },
                },
            }),
        )
    }

    /// \[oauth\] The client by basic authentication, the grant as JSON. A refresh token is good once: another comes with the
    /// access token.
    fn token(&mut self, asked: &Asked) -> Result<Answer, Answer> {
        let refused = |status: u16, why: &str| Err(Answer::json(status, &json!({ "error": why })));
        let (id, secret, refresh) = self.app.clone();
        if id.is_empty() || asked.basic() != Some((id.clone(), secret.clone())) {
            return refused(401, "invalid_client");
        }
        let Some(grant) = asked.json() else { return refused(400, "invalid_request") };
        let (company, user, password) = &self.login;
        let is_granted = match grant["grant_type"].as_str() {
            Some("refresh_token") => grant["refresh_token"] == refresh.as_str(),
            Some("password") => {
                self.is_login_good
                    && grant["username"] == format!("{company}\\{user}")
                    && grant["password"] == password.as_str()
            }
            _ => return refused(400, "unsupported_grant_type"),
        };
        if !is_granted {
            return refused(400, "invalid_grant");
        }
        let token = self.tokens.give(asked.at, TOKEN_LIFETIME);
        let next = format!("refresh-{}", self.tokens.given());
        self.app = (id, secret, next.clone());
        Ok(Answer::json(
            200,
            &json!({
                "access_token": token, "token_type": "bearer", "expires_in": TOKEN_LIFETIME.as_secs(), "refresh_token": next,
            }),
        ))
    }

    /// \[define\] A definition: a name, and fields with what they are at Eloqua.
    fn define(&mut self, asked: &Asked, of: String) -> Result<Answer, Answer> {
        if asked.content_type() != "application/json" {
            return Err(self.failure(415));
        }
        let Some(definition) = asked.json() else { return Err(self.failure(400)) };
        let id = self.imports.len() as u64 + 1;
        let import = Import::new(id, of, asked.at, &self.login.1, &definition).map_err(|failure| failures(&failure))?;
        let answer = Answer::json(201, &import.shown());
        self.imports.push(import);
        Ok(answer)
    }

    /// \[define\] A list, by `q=name=*text*` where it is given.
    fn definitions(&self, asked: &Asked, of: &str) -> Result<Answer, Answer> {
        let wanted = asked.parameter("q").map(|q| q.trim_matches('"').trim_start_matches("name=").trim_matches('*'));
        let is_meant = |import: &&Import| import.of == of && wanted.is_none_or(|text| import.name().contains(text));
        let shown: Vec<Value> = self.imports().into_iter().filter(is_meant).map(Import::shown).collect();
        page(asked, &shown).ok_or_else(|| self.failure(400))
    }

    fn import(&self, of: &str, id: &str) -> Result<usize, Answer> {
        let is_it = |import: &Import| import.of == of && import.id.to_string() == id && !import.is_deleted;
        self.imports.iter().position(is_it).ok_or_else(|| self.failure(404))
    }

    /// \[data\] What depends on it keeps it: 412.
    fn delete(&mut self, of: &str, id: &str) -> Result<Answer, Answer> {
        let place = self.import(of, id)?;
        if self.is_under_way(self.imports[place].id) {
            return Err(self.failure(412));
        }
        self.imports[place].is_deleted = true;
        Ok(Answer::empty(204))
    }

    fn is_under_way(&self, import: u64) -> bool {
        self.syncs.iter().any(|sync| sync.import == import && matches!(sync.status, "pending" | "active"))
    }

    /// \[data\] JSON or CSV in UTF-8 into the staging area: 204, or 201 with a sync where the definition asks for it.
    fn post(&mut self, asked: &Asked, of: &str, id: &str) -> Result<Answer, Answer> {
        if asked.body.len() > LARGEST_POST {
            return Err(self.failure(404));
        }
        let place = self.import(of, id)?;
        let records = match asked.content_type().as_str() {
            kind @ ("text/csv" | "application/json") => {
                posted(kind == "text/csv", &asked.body, &self.imports[place]).map_err(|failure| failures(&failure))?
            }
            _ => return Err(self.failure(415)),
        };
        self.imports[place].post(asked.at, records);
        if self.imports[place].definition["isSyncTriggeredOnImport"] == true {
            return Ok(Answer::json(201, &self.begin(asked, place)));
        }
        Ok(Answer::empty(204))
    }

    /// \[sync\] `syncedInstanceUri` is the `uri` of a definition.
    fn sync(&mut self, asked: &Asked) -> Result<Answer, Answer> {
        if asked.content_type() != "application/json" {
            return Err(self.failure(415));
        }
        let Some(body) = asked.json() else { return Err(self.failure(400)) };
        let is_it = |import: &Import| !import.is_deleted && body["syncedInstanceUri"] == import.uri();
        match self.imports.iter().position(is_it) {
            Some(place) => Ok(Answer::json(201, &self.begin(asked, place))),
            None => Err(failures(&(
                "syncedInstanceUri".to_owned(),
                "Must be a reference to an existing object.".to_owned(),
            ))),
        }
    }

    /// \[syncs\] All of them, or those of a definition by `q=syncedInstanceUri=/contacts/imports/1`; the oldest first, unless
    /// `orderBy` says otherwise.
    fn listed(&self, asked: &Asked) -> Result<Answer, Answer> {
        let wanted =
            asked.parameter("q").map(|q| q.trim_matches('"').trim_start_matches("syncedInstanceUri=").to_owned());
        let places = (0..self.syncs.len()).filter(|place| self.syncs[*place].fate != Some(Fate::Lost));
        let mut shown: Vec<Value> = places.map(|place| self.shown(place)).collect();
        shown.retain(|sync| wanted.as_ref().is_none_or(|uri| sync["syncedInstanceUri"] == uri.as_str()));
        match asked.parameter("orderBy") {
            None | Some("createdAt ASC") => {}
            Some("createdAt DESC") => shown.reverse(),
            Some(_) => return Err(self.failure(400)),
        }
        page(asked, &shown).ok_or_else(|| self.failure(400))
    }

    fn begin(&mut self, asked: &Asked, place: usize) -> Value {
        let import = self.imports[place].id;
        let sync = Job {
            id: self.syncs.len() as u64 + 1,
            created: asked.at,
            import,
            status: "pending",
            total: 0,
            refused: Vec::new(),
            asked: 0,
            fate: asked.fate.clone(),
            // [practice] "Syncing the same definition when the sync is in progress in another sync could lead to syncs failing".
            conflicts: self.is_under_way(import),
        };
        self.syncs.push(sync);
        self.shown(self.syncs.len() - 1)
    }

    fn find(&self, id: &str) -> Result<usize, Answer> {
        let is_it = |sync: &Job| sync.id.to_string() == id && sync.fate != Some(Fate::Lost);
        self.syncs.iter().position(is_it).ok_or_else(|| self.failure(404))
    }

    fn status(&mut self, id: &str) -> Result<Answer, Answer> {
        let place = self.find(id)?;
        let (pending, active) = self.pace;
        let sync = &mut self.syncs[place];
        sync.asked += 1;
        if matches!(sync.status, "pending" | "active") && sync.fate != Some(Fate::Stuck) {
            if sync.asked > pending + active {
                self.finish(place);
            } else if sync.asked > pending {
                sync.status = "active";
            }
        }
        Ok(Answer::json(200, &self.shown(place)))
    }

    fn finish(&mut self, place: usize) {
        let sync = &mut self.syncs[place];
        match &sync.fate {
            Some(Fate::Stuck | Fate::Lost | Fate::Says(_)) => return,
            Some(Fate::Cancelled) => {
                sync.status = "error";
                return;
            }
            Some(Fate::Hides) | None => {}
        }
        let Some(import) = self.imports.iter_mut().find(|import| import.id == sync.import) else { return };
        if sync.conflicts || import.is_deleted {
            sync.status = "error";
            return;
        }
        let into = self.records.entry(import.of.clone()).or_default();
        (sync.total, sync.refused) = import.apply(into, &mut self.taken, &*self.refuses);
        let is_clean = sync.refused.is_empty() || sync.fate == Some(Fate::Hides);
        sync.status = if is_clean { "success" } else { "warning" };
    }

    /// \[sync\] A sync as it is; the times only where it has come so far.
    fn shown(&self, place: usize) -> Value {
        let sync = &self.syncs[place];
        let import = self.imports.iter().find(|import| import.id == sync.import);
        let status = match &sync.fate {
            Some(Fate::Says(word)) => word,
            _ => sync.status,
        };
        let mut shown = json!({
            "syncedInstanceUri": import.map(Import::uri),
            "status": status,
            "createdAt": super::time(sync.created, "Z"),
            "createdBy": self.login.1,
            "uri": format!("/syncs/{}", sync.id),
        });
        if sync.status != "pending" {
            shown["syncStartedAt"] = super::time(sync.created, "Z").into();
        }
        if !matches!(sync.status, "pending" | "active") {
            shown["syncEndedAt"] = super::time(sync.created, "Z").into();
        }
        shown
    }

    /// \[rejects\] From 1 to 1000 at a time.
    fn rejects(&self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let refused = &self.syncs[self.find(id)?].refused;
        page(asked, &refused.iter().map(Refused::shown).collect::<Vec<_>>()).ok_or_else(|| self.failure(400))
    }

    /// \[logs\] What became of all, by code.
    fn logs(&self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let sync = &self.syncs[self.find(id)?];
        let line = |code: &str, message: &str, severity: &str, count: usize| {
            let at = super::time(sync.created, "Z");
            json!({ "syncUri": format!("/syncs/{}", sync.id), "count": count, "severity": severity,
                "statusCode": code, "message": message, "createdAt": at })
        };
        let lines = match sync.status {
            "pending" | "active" => Vec::new(),
            "error" => vec![line("ELQ-00107", "There was an error processing the sync.", "error", 0)],
            _ => vec![
                line("ELQ-00001", "Total records processed.", "information", sync.total),
                line("ELQ-00060", "Total rejected records.", "warning", sync.refused.len()),
            ],
        };
        page(asked, &lines).ok_or_else(|| self.failure(400))
    }

    /// Lets the syncs that nobody asks for get on as well, and empties staging areas that were kept too long.
    fn age(&mut self, at: Timestamp) {
        for place in 0..self.syncs.len() {
            let sync = &self.syncs[place];
            if matches!(sync.status, "pending" | "active") && at.since(sync.created) >= LONGEST_SYNC {
                self.finish(place);
            }
        }
        for import in &mut self.imports {
            import.empty(at, RETENTION);
        }
    }
}

impl Vendor for Eloqua {
    fn answer(&mut self, asked: &Asked) -> Answer {
        self.age(asked.at);
        self.route(asked).unwrap_or_else(|refused| refused)
    }

    fn failure(&self, status: u16) -> Answer {
        let message = match status {
            400 => "There was a parsing error.",
            401 => "Not authenticated.",
            404 => "The requested resource was not found.",
            412 => "The resource you are attempting to delete has dependencies, and cannot be deleted.",
            415 => "The media type is not supported.",
            429 => "Too many requests.",
            503 => "There was a timeout processing the request.",
            _ => "The service has encountered an error.",
        };
        Answer::json(status, &json!(message))
    }

    fn credentials(&mut self, secret: &str, are_good: bool) {
        if secret == self.login.2 {
            self.is_login_good = are_good;
        }
        self.tokens.take_back(secret);
    }
}

/// `contacts`, or `customObjects/7`: the parts of the path after the version.
fn rest_of(segments: &[&str], parts: usize) -> String {
    segments[3..3 + parts].join("/")
}

fn failures((field, constraint): &(String, String)) -> Answer {
    Answer::json(400, &json!({ "failures": [{ "field": field, "value": null, "constraint": constraint }] }))
}

/// \[rejects\] `limit` is 1 to 1000, and 1000 where it is not given.
fn page(asked: &Asked, all: &[Value]) -> Option<Answer> {
    let number = |name: &str, default: usize| asked.parameter(name).map_or(Some(default), |text| text.parse().ok());
    let limit = number("limit", 1000).filter(|limit| (1..=1000).contains(limit))?;
    let offset = number("offset", 0)?;
    let items: Vec<&Value> = all.iter().skip(offset).take(limit).collect();
    let has_more = offset + items.len() < all.len();
    Some(Answer::json(
        200,
        &json!({ "items": items, "count": items.len(), "hasMore": has_more, "limit": limit, "offset": offset, "totalResults": all.len() }),
    ))
}
