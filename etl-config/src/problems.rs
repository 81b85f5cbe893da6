//! What is wrong with a config? Every problem, each with its path, its value and what to do.

use std::fmt;

use crate::tree::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `pipeline.batch.max_age` or `tables[1].match`; empty for the file as a whole.
    pub path: String,
    /// Where it was written: a line of the file or an environment variable.
    pub place: Option<String>,
    /// What was written; never the value of a secret or of a variable.
    pub value: Option<String>,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: None, value: None, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub(crate) fn on_line(mut self, line: usize) -> Self {
        self.place = Some(format!("line {line}"));
        self
    }

    pub(crate) fn in_variable(mut self, name: &str) -> Self {
        self.place = Some(format!("environment variable {name}"));
        self
    }

    pub(crate) fn at(self, origin: &Origin) -> Self {
        match origin {
            Origin::Line(line) => self.on_line(*line),
            Origin::Variable(name) => self.in_variable(name),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), &self.place) {
            ("", None) => {}
            ("", Some(place)) => write!(f, "{place}: ")?,
            (path, None) => write!(f, "{path}: ")?,
            (path, Some(place)) => write!(f, "{path} ({place}): ")?,
        }
        match &self.value {
            Some(value) if !self.message.contains(&format!("`{value}`")) => write!(f, "`{value}`: {}", self.message)?,
            _ => f.write_str(&self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, ". {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a config, in the order of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    file: String,
    all: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file: impl Into<String>, all: Vec<Problem>) -> Self {
        Self { file: file.into(), all }
    }

    /// The problems; at least one.
    pub fn all(&self) -> &[Problem] {
        &self.all
    }

    /// The file that has them.
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.all.as_slice() {
            return write!(f, "{}: {only}", self.file);
        }
        write!(f, "{} has {} problems:", self.file, self.all.len())?;
        self.all.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}
