//! What went wrong with a local server, and what can be done?

use std::{fmt, io};

/// A failure to find, start, stop or ask a local server. The text ends with what to do, where that is known.
#[derive(Debug)]
pub struct Error {
    doing: String,
    detail: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(doing: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { doing: doing.into(), detail: detail.into(), hint: None, source: None }
    }

    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self { detail: source.to_string(), source: Some(Box::new(source)), doing: doing.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.detail.trim_end())?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}
