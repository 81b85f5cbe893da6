//! Is the config right? Reads file and environment, and finds every problem before anything is connected.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::app::{AppConfig, SourceSection, StoreConfig, Telemetry};
use crate::checks::Checks;
use crate::environment::Environment;
use crate::libpq::Libpq;
use crate::problems::{Problem, Problems};
use crate::table_entry::{Defaults, TableEntry};
use crate::tree::{Content, Node, Step};
use crate::{reader, secrets, spelling, tree};

const SECTIONS: &[&str] = &["pipeline", "relay", "source", "store", "destination", "defaults", "tables", "telemetry"];

impl AppConfig {
    /// Reads the file and what this process's environment says.
    ///
    /// # Errors
    /// Every problem at once, with path, value and hint; secrets are not among the values.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Problems> {
        let path = path.as_ref();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_text(&path.display().to_string(), &text, &Environment::of_process()),
            Err(error) => {
                let problem = Problem::new("", format!("the config cannot be read: {error}"));
                let hint = match error.kind() {
                    std::io::ErrorKind::NotFound => "`etl init` writes one to begin with; `-c FILE` names another",
                    _ => "Check that it is a text file that this user may read",
                };
                Err(Problems::new(path.display().to_string(), vec![problem.hint(hint)]))
            }
        }
    }

    /// Reads a text; `file` is what problems call it.
    ///
    /// # Errors
    /// As of [`AppConfig::load`].
    pub fn from_text(file: &str, text: &str, environment: &Environment) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut tree = tree::parse(text, &mut problems);
        if !problems.is_empty() {
            return Err(Problems::new(file, problems));
        }
        secrets::fill_in(&mut tree, environment, &mut problems);
        environment.replace_keys(&mut tree, &mut problems);
        let written = tree.clone();
        let libpq = Libpq::of(environment);
        let sections = Sections { tree, written: &written, problems: &mut problems, libpq };
        match sections.read() {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems::new(file, problems)),
        }
    }
}

/// The sections of the file, each read apart from the others.
struct Sections<'t> {
    tree: Node,
    written: &'t Node,
    problems: &'t mut Vec<Problem>,
    libpq: Libpq,
}

impl Sections<'_> {
    fn read(mut self) -> Option<AppConfig> {
        self.unknown_sections();
        let pipeline = self.required("pipeline");
        let relay = self.optional("relay").unwrap_or_default();
        let found_before = self.problems.len();
        let source: Option<SourceSection> = self.required("source");
        let source_is_whole = self.problems.len() == found_before;
        let mut store: StoreConfig = self.optional("store").unwrap_or_default();
        let destination = self.required("destination");
        let defaults: Defaults = self.optional("defaults").unwrap_or_default();
        let tables = self.tables();
        let telemetry: Telemetry = self.optional("telemetry").unwrap_or_default();
        let mut source = source.map(|SourceSection::Postgres(postgres)| postgres);
        source.iter_mut().for_each(|source| source.take_from(self.libpq.clone()));
        if let StoreConfig::Postgres(postgres) = &mut store {
            postgres.libpq = self.libpq.clone();
        }

        let mut checks = Checks::new(self.written, self.problems);
        pipeline.iter().for_each(|pipeline| checks.pipeline(pipeline));
        checks.relay(&relay);
        source.iter().for_each(|source| checks.source(source, source_is_whole));
        checks.store(&store);
        destination.iter().for_each(|destination| checks.destination(destination));
        checks.tables(&defaults, &tables);
        destination.iter().for_each(|destination| checks.write_modes(destination, &defaults, &tables));
        checks.telemetry(&telemetry);
        let (pipeline, source, destination) = (pipeline?, source?, destination?);
        Some(AppConfig { pipeline, relay, source, store, destination, defaults, tables, telemetry })
    }

    fn unknown_sections(&mut self) {
        let entries = match &self.tree.content {
            Content::Map(entries) => entries.as_slice(),
            Content::Null => &[],
            _ => {
                let problem = Problem::new("", "a config begins with keys such as `pipeline:`");
                return self.problems.push(problem.hint("`etl init` writes one to begin with"));
            }
        };
        for (key, value) in entries.iter().filter(|(key, _)| !SECTIONS.contains(&key.as_str())) {
            let hint = match spelling::nearest(key, SECTIONS.iter().copied()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("Possible here: {}", SECTIONS.join(", ")),
            };
            self.problems.push(Problem::new(key, format!("unknown key `{key}`")).at(&value.origin).hint(hint));
        }
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if self.tree.get(key).is_none_or(|section| matches!(section.content, Content::Null)) {
            self.problems.push(Problem::new(key, "this section is missing").hint("`etl init` writes an example"));
            return None;
        }
        self.optional(key)
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let mut section = self.tree.take(key)?;
        if matches!(section.content, Content::Null | Content::Removed) {
            return None;
        }
        reader::read(&mut section, &[Step::Key(key.to_owned())], self.problems)
    }

    fn tables(&mut self) -> Vec<TableEntry> {
        let Some(section) = self.tree.take("tables") else { return Vec::new() };
        let Content::List(rules) = section.content else {
            if !matches!(section.content, Content::Null | Content::Removed) {
                let problem = Problem::new("tables", "here belongs a list of rules").at(&section.origin);
                self.problems.push(problem.hint("Such as `- match: public.users`"));
            }
            return Vec::new();
        };
        let path = |place| [Step::Key("tables".to_owned()), Step::Item(place)];
        let rules = rules.into_iter().enumerate();
        rules.filter_map(|(place, mut rule)| reader::read(&mut rule, &path(place), self.problems)).collect()
    }
}

#[cfg(test)]
mod tests;
