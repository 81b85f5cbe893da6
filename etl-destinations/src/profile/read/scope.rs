//! Does every variable of a profile have a value where it stands, and is all that it asks for used?

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::section::Text;
use crate::profile::shape::{Auth, Extract, Profile, Request, Sends};
use crate::profile::template::Template;

/// What is known at a place.
#[derive(Clone)]
struct Scope<'p> {
    text: &'p Text<'p>,
    names: BTreeSet<String>,
    used: &'p RefCell<BTreeSet<String>>,
}

impl Scope<'_> {
    fn with(&self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut scope = self.clone();
        scope.names.extend(names.into_iter().map(Into::into));
        scope
    }

    fn extracted(&self, extracts: &[Extract]) -> Self {
        self.with(extracts.iter().map(|extract| extract.name.as_str()))
    }

    fn template(&self, template: &Template) {
        for name in template.variables() {
            self.used.borrow_mut().insert(name.to_owned());
            if !self.names.contains(name) {
                let why = match name.strip_prefix("secret.") {
                    Some(_) => "secrets are for `[auth]` alone, and have to be under `[secrets]`".to_owned(),
                    None => {
                        let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
                        format!("known here: {}", known.join(", "))
                    }
                };
                self.text.wrong(template.line, format!("nothing says what `${{{name}}}` is; {why}"));
            }
        }
    }

    fn pairs(&self, pairs: &[(String, Template)]) {
        pairs.iter().for_each(|(_, template)| self.template(template));
    }

    fn request(&self, request: &Request) {
        self.template(&request.url);
        self.pairs(&request.query);
        self.pairs(&request.headers);
        match &request.sends {
            Sends::Nothing => {}
            Sends::Json { body, .. } => self.template(body),
            Sends::Form(fields) => self.pairs(fields),
            Sends::Batch(pack) => {
                self.template(&pack.file_name);
                pack.multipart.iter().for_each(|(_, fields)| self.pairs(fields));
            }
        }
    }
}

/// Says which variables have no value, and what is asked for in vain.
pub(super) fn check(text: &Text<'_>, profile: &Profile) {
    let used = RefCell::default();
    let names = profile.settings.iter().map(|setting| format!("setting.{}", setting.name)).collect();
    let settings = Scope { text, names, used: &used };
    auth(&settings.with(profile.secrets.iter().map(|secret| format!("secret.{}", secret.name))), &profile.auth);
    let mut all = settings.clone();
    if let Some(discover) = &profile.discover {
        settings.request(&discover.request);
        all = all.extracted(&discover.extract);
    }
    all.request(&profile.check);
    encode(&settings.with(TABLE.iter().copied()), profile);
    let columns: &[&str] = if profile.encode.column.is_some() { &["columns"] } else { &[] };
    let mut steps = all.with([TABLE, BATCH, columns].concat());
    for step in &profile.submit {
        steps.request(&step.request);
        steps = steps.extracted(&step.extract);
        all = all.extracted(&step.extract);
    }
    if let Some(recover) = &profile.recover {
        steps.request(&recover.request);
        steps.template(&recover.is);
    }
    profile.poll.iter().for_each(|poll| all.request(&poll.request));
    profile.rejects.iter().for_each(|rejects| all.request(&rejects.request));
    profile.cleanup.iter().for_each(|request| all.request(request));
    in_vain(text, profile, &used.borrow());
}

const TABLE: &[&str] = &["table.name", "table.schema", "table.key"];

const BATCH: &[&str] = &["batch.id", "batch.rows"];

fn auth(scope: &Scope<'_>, auth: &Auth) {
    match auth {
        Auth::None => {}
        Auth::Basic { user, password } => [user, password].into_iter().for_each(|part| scope.template(part)),
        Auth::Header { value, .. } => scope.template(value),
        Auth::Client(client) => {
            [&client.url, &client.id, &client.secret].into_iter().for_each(|part| scope.template(part));
            scope.pairs(&client.fields);
        }
    }
}

fn encode(scope: &Scope<'_>, profile: &Profile) {
    let encode = &profile.encode;
    encode.envelope.iter().for_each(|envelope| scope.with(["rows"]).template(envelope));
    encode.row.iter().for_each(|row| scope.with(["row"]).template(row));
    encode.column.iter().for_each(|column| scope.with(["column"]).template(column));
}

fn in_vain(text: &Text<'_>, profile: &Profile, used: &BTreeSet<String>) {
    let all = [("setting", "settings", &profile.settings), ("secret", "secrets", &profile.secrets)];
    for (kind, section, list) in all {
        for wanted in list.iter().filter(|wanted| !used.contains(&format!("{kind}.{}", wanted.name))) {
            text.wrong(wanted.line, format!("`{section}.{}` is asked for and never used", wanted.name));
        }
    }
}
