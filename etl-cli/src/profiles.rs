//! `etl profiles`: how are systems spoken to that answer later? Lists and shows profiles, and says what is wrong with one.

use std::path::Path;
use std::process::ExitCode;

use etl_destinations::profile::{BUILT_IN, BuiltIn, Problem, Profile};
use serde::Serialize;
use serde_json::json;

use crate::args::{LintProfiles, Profiles, ProfilesVerb, ShowProfile};
use crate::failure::Failure;
use crate::stdout::say;

/// A profile is not right, as a config may not be.
const WRONG: u8 = 2;

pub(crate) fn profiles(args: &Profiles) -> Result<ExitCode, Failure> {
    match &args.verb {
        ProfilesVerb::List(args) => list(args.json),
        ProfilesVerb::Show(args) => show(args),
        ProfilesVerb::Lint(args) => lint(args),
    }
}

fn read(built_in: &BuiltIn) -> Result<Profile, Failure> {
    Profile::read(built_in.text).map_err(|problems| Failure::Other(format!("{}: {problems}", built_in.name)))
}

fn list(as_json: bool) -> Result<ExitCode, Failure> {
    let all = BUILT_IN.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if as_json {
        let all = all.iter().map(|profile| {
            json!({
                "name": profile.name, "about": profile.about, "documents": profile.documents,
                "documents_of": profile.documents_of,
            })
        });
        return say_json(&all.collect::<Vec<_>>());
    }
    let longest = all.iter().map(|profile| profile.name.len()).max().unwrap_or_default();
    for profile in &all {
        say(&format!("{:longest$}  {}", profile.name, profile.about));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ShowProfile) -> Result<ExitCode, Failure> {
    let built_in = BuiltIn::find(&args.name).ok_or_else(|| {
        let names: Vec<&str> = BUILT_IN.iter().map(|profile| profile.name).collect();
        Failure::Usage(format!("there is no profile `{}`; there are {}", args.name, names.join(", ")))
    })?;
    if args.toml {
        say(built_in.text.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let profile = read(&built_in)?;
    say(&format!("{}\n", profile.about));
    say(&format!("conforms to the vendor's documents of {}\n  {}\n", profile.documents_of, profile.documents));
    for (section, wanted) in [("settings", &profile.settings), ("secrets", &profile.secrets)] {
        for wanted in wanted {
            let default = wanted.default.as_ref().map(|default| format!(" (default {default})")).unwrap_or_default();
            say(&format!("{section}.{}  {}{default}", wanted.name, wanted.about));
        }
    }
    let limits = &profile.limits;
    say(&format!(
        "\na batch has at most {} rows and {} bytes, and a row {} bytes",
        limits.max_rows, limits.max_bytes, limits.max_row_bytes
    ));
    if let Some(rate) = limits.rate {
        say(&format!("{} requests at once, and one more after each {:?}", rate.burst, rate.every));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with a file.
#[derive(Serialize)]
struct Linted<'f> {
    file: &'f Path,
    problems: Vec<Problem>,
}

fn lint(args: &LintProfiles) -> Result<ExitCode, Failure> {
    let mut all = Vec::with_capacity(args.files.len());
    for file in &args.files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("{}: the profile cannot be read: {error}", file.display())))?;
        let problems = Profile::read(&text).err().map(|problems| problems.0).unwrap_or_default();
        all.push(Linted { file, problems });
    }
    let code = if all.iter().all(|linted| linted.problems.is_empty()) { 0 } else { WRONG };
    if args.json {
        say_json(&all)?;
        return Ok(ExitCode::from(code));
    }
    for Linted { file, problems } in &all {
        if problems.is_empty() {
            say(&format!("{}: right", file.display()));
        }
        for problem in problems {
            say(&format!("{}:{}: {}", file.display(), problem.line, problem.what));
        }
    }
    Ok(ExitCode::from(code))
}

fn say_json(what: &impl Serialize) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(what);
    say(&text.map_err(|error| Failure::Other(format!("it cannot be written as JSON: {error}")))?);
    Ok(ExitCode::SUCCESS)
}
