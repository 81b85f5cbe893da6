//! What is an import of Eloqua made of, and what do its records come to?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etl::clock::Timestamp;
use serde_json::{Value, json};

use super::Refuse;
use crate::contract::csv;

/// What is wrong: a field, and what it must be.
type Failure = (String, String);

/// Records by their identifier: each field by its statement at Eloqua.
pub type Records = BTreeMap<String, BTreeMap<String, String>>;

/// \[limits\] "a maximum of 100 fields".
const MOST_FIELDS: usize = 100;
/// A sync has at most so many posts (notice of 24D, November 2024).
const MOST_POSTS: usize = 500;

/// A definition, and what was posted to it.
#[derive(Debug, Clone)]
pub struct Import {
    /// Its number.
    pub id: u64,
    /// What it is imported to: `contacts`, `accounts` or `customObjects/7`.
    pub of: String,
    /// As it was sent.
    pub definition: Value,
    /// Whether somebody deleted it.
    pub is_deleted: bool,
    created: Timestamp,
    user: String,
    staged: Vec<(Timestamp, Vec<Record>)>,
}

/// A record as it was posted: its fields by the definition's names, or what it was where it cannot be read.
pub(super) type Record = Result<BTreeMap<String, String>, String>;

/// A record that was refused.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    index: usize,
    code: &'static str,
    message: String,
    fields: BTreeMap<String, String>,
    invalid: Vec<String>,
}

impl Refused {
    /// \[rejects\] `SyncReject`.
    pub(super) fn shown(&self) -> Value {
        json!({
            "fieldValues": self.fields, "invalidFields": self.invalid, "message": self.message,
            "statusCode": self.code, "recordIndex": self.index,
        })
    }
}

impl Import {
    pub(super) fn new(id: u64, of: String, at: Timestamp, user: &str, definition: &Value) -> Result<Self, Failure> {
        let failure = |field: &str, must: &str| Err((field.to_owned(), must.to_owned()));
        if definition["name"].as_str().is_none_or(str::is_empty) {
            return failure("name", "Must be a string value, at least 1 character long.");
        }
        let Some(fields) = definition["fields"].as_object().filter(|fields| !fields.is_empty()) else {
            return failure("fields", "Must have at least one field.");
        };
        if fields.len() > MOST_FIELDS {
            return failure("fields", "Must have at most 100 fields.");
        }
        for (name, statement) in fields {
            // [define] Eloqua markup language: `{{Contact.Field(C_EmailAddress)}}`, of what it is imported to.
            let inner = statement.as_str().and_then(|text| text.strip_prefix("{{")?.strip_suffix("}}"));
            let root = match of.split('/').next() {
                Some("contacts") => "Contact.",
                Some("accounts") => "Account.",
                _ => "CustomObject[",
            };
            if inner.is_none_or(|inner| !inner.starts_with(root)) {
                return failure(&format!("fields.{name}"), "Must be a valid field statement.");
            }
        }
        let identifier = definition["identifierFieldName"].as_str();
        if identifier.is_none_or(|name| !fields.contains_key(name)) {
            return failure("identifierFieldName", "Must be the name of one of the fields.");
        }
        let rules = ["always", "ifNewIsNotNull", "ifExistingIsNull", "useFieldRule"];
        if definition["updateRule"].as_str().is_some_and(|rule| !rules.contains(&rule)) {
            return failure("updateRule", "Must be a valid rule.");
        }
        let (definition, user) = (definition.clone(), user.to_owned());
        Ok(Self { id, of, definition, is_deleted: false, created: at, user, staged: Vec::new() })
    }

    /// What links name it by.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("/{}/imports/{}", self.of, self.id)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.definition["name"].as_str().unwrap_or_default()
    }

    /// \[define\] What was sent, with what was not, and its `uri`.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({
            "isSyncTriggeredOnImport": false, "dataRetentionDuration": "P7D", "isUpdatingMultipleMatchedRecords": false,
            "updateRule": "always", "kbUsed": 0,
        });
        let at = crate::contract::time(self.created, "Z");
        let own = json!({ "uri": self.uri(), "createdBy": self.user, "createdAt": at, "updatedBy": self.user, "updatedAt": at });
        for (name, value) in [&self.definition, &own].iter().filter_map(|part| part.as_object()).flatten() {
            shown[name] = value.clone();
        }
        shown
    }

    pub(super) fn post(&mut self, at: Timestamp, records: Vec<Record>) {
        self.staged.push((at, records));
    }

    /// Removes what was staged too long ago.
    pub(super) fn empty(&mut self, at: Timestamp, retention: Duration) {
        self.staged.retain(|(posted, _)| at.since(*posted) < retention);
    }

    /// Moves what is staged to where it belongs: how many records there were, and which were refused.
    pub(super) fn apply(
        &mut self,
        into: &mut Records,
        taken: &mut BTreeMap<String, u32>,
        refuses: &Refuse,
    ) -> (usize, Vec<Refused>) {
        let staged = std::mem::take(&mut self.staged);
        let is_too_much = staged.len() > MOST_POSTS;
        let records: Vec<Record> = staged.into_iter().flat_map(|(_, records)| records).collect();
        let mut refused = Vec::new();
        let mut seen = BTreeSet::new();
        for (place, record) in records.iter().enumerate() {
            let index = place + 1;
            let why = match record {
                _ if is_too_much => Some(("ELQ-00107", "Too many files in a sync.".to_owned(), Vec::new())),
                Err(_) => Some(("ELQ-00032", "Malformed records.".to_owned(), Vec::new())),
                Ok(fields) => self.wrong(fields, &mut seen).or_else(|| {
                    let (code, message) = refuses(fields)?;
                    Some((code, message, Vec::new()))
                }),
            };
            match (why, record) {
                (Some((code, message, invalid)), _) => {
                    let fields = record.clone().unwrap_or_default();
                    refused.push(Refused { index, code, message, fields, invalid });
                }
                (None, Ok(fields)) => {
                    let key = fields.get(self.identifier()).cloned().unwrap_or_default();
                    *taken.entry(key).or_default() += 1;
                    self.upsert(into, fields);
                }
                (None, Err(_)) => {}
            }
        }
        (records.len(), refused)
    }

    fn identifier(&self) -> &str {
        self.definition["identifierFieldName"].as_str().unwrap_or_default()
    }

    fn statement(&self, name: &str) -> &str {
        self.definition["fields"][name].as_str().unwrap_or_default()
    }

    /// \[codes\] What is wrong with a record, whoever sends it.
    fn wrong(
        &self,
        fields: &BTreeMap<String, String>,
        seen: &mut BTreeSet<String>,
    ) -> Option<(&'static str, String, Vec<String>)> {
        let identifier = self.identifier().to_owned();
        let key = fields.get(&identifier).filter(|key| !key.is_empty());
        let Some(key) = key else {
            return Some(("ELQ-00061", "Rejected records (missing fields).".to_owned(), vec![identifier]));
        };
        let email = fields.iter().find(|(name, _)| self.statement(name) == "{{Contact.Field(C_EmailAddress)}}");
        if let Some((name, address)) = email.filter(|(_, address)| !address.contains('@') || address.contains(' ')) {
            return Some(("ELQ-00002", format!("Invalid email addresses. {address}"), vec![name.clone()]));
        }
        let is_new = seen.insert(key.clone());
        (!is_new).then(|| ("ELQ-00026", "Duplicate identifier.".to_owned(), vec![identifier]))
    }

    /// \[define\] `updateRule`.
    fn upsert(&self, into: &mut Records, fields: &BTreeMap<String, String>) {
        let Some(key) = fields.get(self.identifier()) else { return };
        let there = into.entry(key.clone()).or_default();
        for (name, value) in fields {
            let statement = self.statement(name);
            let has_value = there.get(statement).is_some_and(|value| !value.is_empty());
            let is_updated = match self.definition["updateRule"].as_str() {
                Some("ifNewIsNotNull") => !value.is_empty(),
                Some("ifExistingIsNull") => !has_value,
                _ => true,
            };
            if is_updated {
                there.insert(statement.to_owned(), value.clone());
            }
        }
    }
}

/// The records of a post.
pub(super) fn posted(is_csv: bool, body: &[u8], import: &Import) -> Result<Vec<Record>, Failure> {
    let failure = |must: &str| Err(("data".to_owned(), must.to_owned()));
    // [data] "Eloqua expects that data to be encoded with UTF-8".
    let Ok(text) = std::str::from_utf8(body) else { return failure("Must be UTF-8.") };
    let is_known = |name: &str| import.definition["fields"].get(name).is_some();
    if !is_csv {
        let Ok(Value::Array(items)) = serde_json::from_str(text) else {
            return failure("Must be an array of objects.");
        };
        let Some(items) = items.iter().map(Value::as_object).collect::<Option<Vec<_>>>() else {
            return failure("Must be an array of objects.");
        };
        if items.iter().flat_map(|item| item.keys()).any(|name| !is_known(name)) {
            return failure("Must have no other fields than the definition.");
        }
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
        };
        return Ok(items
            .iter()
            .map(|item| Ok(item.iter().map(|(name, value)| (name.clone(), text(value))).collect()))
            .collect());
    }
    let (records, true) = csv::records(text, ',') else { return failure("Must be CSV.") };
    let Some((header, records)) = records.split_first() else { return failure("Must have a header.") };
    if header.iter().any(|name| !is_known(name)) {
        return failure("Must have no other fields than the definition.");
    }
    let record = |record: &Vec<String>| match record.len() == header.len() {
        true => Ok(header.iter().cloned().zip(record.iter().cloned()).collect()),
        false => Err(record.join(",")),
    };
    Ok(records.iter().map(record).collect())
}
