//! Which profiles does Klaviyo take, and what do they come to?

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Where something is wrong, from the profile on, and what.
pub(super) type Problem = (String, String);

/// \[spec\] `ProfileUpsertQueryResourceObject`: its attributes that are text or null.
const TEXTS: &[&str] = &[
    "email",
    "phone_number",
    "external_id",
    "_kx",
    "first_name",
    "last_name",
    "organization",
    "locale",
    "title",
    "image",
];

/// \[spec\] `ProfileLocation`.
const LOCATION: &[&str] =
    &["address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip"];

/// By which a profile is known again, the first first.
const IDENTIFIERS: &[&str] = &["external_id", "email", "phone_number"];

/// What is wrong with a profile.
pub(super) fn problems(profile: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut wrong = |at: &str, why: String| found.push((at.to_owned(), why));
    if profile["type"] != "profile" {
        wrong("/type", "The type must be profile.".to_owned());
    }
    let Some(attributes) = profile["attributes"].as_object() else {
        wrong("/attributes", "The field attributes is required.".to_owned());
        return found;
    };
    for (name, value) in attributes {
        let at = format!("/attributes/{name}");
        match name.as_str() {
            name if TEXTS.contains(&name) => {
                if !value.is_string() && !value.is_null() {
                    wrong(&at, format!("'{name}' must be a string."));
                }
            }
            "location" => {
                let fields = value.as_object().into_iter().flat_map(Map::keys);
                for field in fields.filter(|field| !LOCATION.contains(&field.as_str())) {
                    wrong(&format!("{at}/{field}"), format!("'{field}' is not a valid field."));
                }
            }
            "properties" => {
                if !value.is_object() && !value.is_null() {
                    wrong(&at, "'properties' must be an object.".to_owned());
                }
            }
            name => wrong(&at, format!("'{name}' is not a valid field for the resource 'profile'.")),
        }
    }
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    if let Some(email) = text("email").filter(|email| !is_email(email)) {
        wrong("/attributes/email", format!("{email} is not a valid email address."));
    }
    // [spec] "phone number in E.164 format".
    if let Some(number) = text("phone_number").filter(|number| !is_e164(number)) {
        wrong("/attributes/phone_number", format!("{number} is not a valid phone number."));
    }
    if profile["id"].as_str().is_none() && IDENTIFIERS.iter().chain(&["_kx"]).all(|name| text(name).is_none()) {
        wrong("/attributes", "One or more identifiers are required to create a profile.".to_owned());
    }
    found
}

fn is_email(text: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && c != '@');
    text.split_once('@').is_some_and(|(user, host)| is_part(user) && is_part(host) && host.contains('.'))
}

fn is_e164(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
}

/// The profiles of an account.
#[derive(Debug, Clone, Default)]
pub(super) struct Profiles {
    all: Vec<Map<String, Value>>,
    /// By an identifier's name and value.
    known: BTreeMap<(&'static str, String), usize>,
}

impl Profiles {
    pub(super) fn all(&self) -> Vec<Value> {
        self.all.iter().cloned().map(Value::Object).collect()
    }

    /// \[guide\] An upsert: what is there is updated, what is not given stays.
    pub(super) fn upsert(&mut self, attributes: &Value) {
        let Some(attributes) = attributes.as_object() else { return };
        let identifiers: Vec<(&'static str, String)> =
            IDENTIFIERS.iter().filter_map(|name| Some((*name, attributes.get(*name)?.as_str()?.to_owned()))).collect();
        let found = identifiers.iter().find_map(|identifier| self.known.get(identifier).copied());
        let place = found.unwrap_or_else(|| {
            self.all.push(Map::new());
            self.all.len() - 1
        });
        merge(&mut self.all[place], attributes);
        for identifier in identifiers {
            self.known.insert(identifier, place);
        }
    }
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from.iter().filter(|(_, value)| !value.is_null()) {
        match (into.get_mut(name), value) {
            (Some(Value::Object(there)), Value::Object(given)) => merge(there, given),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}
