//! Is a profile right? Read strictly: every problem at once, each with its line and what is wrong.

mod answers;
mod coverage;
mod errors;
mod parts;
mod requests;
mod scope;
mod section;

use std::fmt;

use self::section::Text;
use super::shape::Profile;

/// Something that is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// Where, from 1.
    pub line: usize,
    /// What.
    pub what: String,
}

/// All that is wrong with a profile, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

pub(super) fn read(text: &str) -> Result<Profile, Problems> {
    let text = Text::new(text);
    let profile = text.root().and_then(|root| parts::profile(&text, root));
    if let Some(profile) = &profile {
        scope::check(&text, profile);
        coverage::check(&text, profile);
    }
    let mut problems = text.problems();
    problems.sort();
    problems.dedup();
    match profile {
        Some(profile) if problems.is_empty() => Ok(profile),
        _ => Err(Problems(problems)),
    }
}
