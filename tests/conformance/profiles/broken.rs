//! Is every broken profile refused, with its line and what is wrong?

use etl_destinations::profile::Profile;

/// A profile with a bit of everything, which is right.
const WHOLE: &str = r#"name = "whole"
about = "A system"
documents = "https://example.com/docs"
documents_of = "2025-10-15"
resubmit = "idempotent"
[settings]
base = "Where it is"
[secrets]
key = "The key"
[limits]
rows = 10
bytes = "1MB"
row_bytes = "10kB"
[auth]
kind = "bearer"
token = "${secret.key}"
[check]
url = "${setting.base}/me"
[encode]
format = "json"
envelope = '{"rows":${rows},"of":"${table.name}"}'
[[submit]]
url = "${setting.base}/jobs"
batch = { content_type = "application/json" }
extract = { id = "/id" }
[[errors]]
status = [429]
then = "throttle"
[[errors]]
status = ["4xx"]
then = "config"
[[errors]]
status = ["5xx"]
then = "retry"
[poll]
url = "${setting.base}/jobs/${id}"
state = "/state"
documented = ["busy", "done", "failed"]
states = { busy = "pending", done = "completed", failed = "retry" }
schedule = { first = "1s", longest = "1m", deadline = "1h" }
[[rejects]]
url = "${setting.base}/jobs/${id}/errors"
items = "/items"
reason = "/why"
pages = { kind = "offset", parameter = "from", by = 100, at = "/more" }
correlate = { by = "index", at = "/row", first = 0 }
"#;

fn line_of(part: &str) -> usize {
    WHOLE.lines().position(|line| line.contains(part)).unwrap() + 1
}

#[test]
fn a_right_profile_is_read() {
    let profile = Profile::read(WHOLE).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((profile.name.as_str(), profile.limits.max_rows), ("whole", 10));
}

/// What stands in the whole profile, what stands there instead, the line that is named, and what is said.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("rows = 10\n", "", "[limits]", "`limits.rows` is missing"),
    ("row_bytes = \"10kB\"\n", "", "[limits]", "`limits.row_bytes` is missing"),
    ("bytes = \"1MB\"", "bytes = \"much\"", "bytes = \"1MB\"", "`much` is not a size"),
    ("rows = 10", "rows = 0", "[limits]", "a limit of nothing"),
    ("rows = 10", "rows = \"10\"", "rows = 10", "`limits.rows` is a whole number, and not a string"),
    ("resubmit = \"idempotent\"\n", "", "name =", "`resubmit` is missing"),
    ("resubmit = \"idempotent\"", "resubmit = \"discover\"", "name =", "`recover` is missing"),
    ("about =", "abuot =", "about =", "unknown key `abuot`"),
    ("state = \"/state\"", "status = \"/state\"", "state = \"/state\"", "unknown key `poll.status`"),
    ("${id}\"\nstate", "${ids}\"\nstate", "[poll]", "asks by nothing that a step of `[[submit]]` has learnt"),
    ("/${id}/errors", "/${number}/errors", "/errors", "nothing says what `${number}` is"),
    ("${setting.base}/me", "${secret.key}/me", "/me", "secrets are for `[auth]` alone"),
    ("/jobs\"", "/jobs/${id}\"", "/jobs\"", "nothing says what `${id}` is"),
    ("done = \"completed\", ", "", "documented", "the state `done` is not in `poll.states`"),
    ("done = \"completed\"", "done = \"finished\"", "states =", "the state `done` means `finished`, which is none of"),
    ("failed = \"retry\" }", "failed = \"retry\", lost = \"gone\" }", "states =", "`lost` is not among those"),
    ("done = \"completed\"", "done = \"pending\"", "[poll]", "no state in `poll.states` means `completed`"),
    ("status = [\"5xx\"]", "status = [503]", "[[submit]]", "is for the status 500 and 98 more"),
    ("then = \"throttle\"", "then = \"retry\"", "name =", "the status 429 is not `then = \"throttle\"`"),
    ("then = \"config\"", "then = \"giveup\"", "then = \"config\"", "`giveup` is none of"),
    ("status = [429]", "status = [\"4x9\"]", "status = [429]", "`4x9` is no status"),
    ("\"of\":", "of:", "envelope", "this is no JSON once its variables are put in"),
    ("${rows}", "[]", "envelope", "it holds `${rows}` once"),
    ("${table.name}", "${table.name", "envelope", "names no variable"),
    ("deadline = \"1h\"", "deadline = \"soon\"", "schedule", "`soon` is not a duration"),
    (", deadline = \"1h\"", "", "schedule", "`poll.schedule.deadline` is missing"),
    ("at = \"/row\"", "at = \"row\"", "correlate", "`row` is no JSON pointer"),
    (", first = 0", "", "correlate", "`rejects.correlate.first` is missing"),
    ("by = \"index\", at = \"/row\", first = 0", "by = \"none\"", "[[rejects]]", "`poll.failed` is missing"),
    ("token = \"${secret.key}\"", "token = \"x\"", "key = \"The key\"", "`secrets.key` is asked for and never used"),
    (
        "batch = { content_type = \"application/json\" }\n",
        "",
        "[[submit]]",
        "no step of `[[submit]]` sends the `batch`",
    ),
    ("kind = \"bearer\"", "kind = \"bear", "kind = \"bearer\"", "this is no TOML"),
];

#[test]
fn every_broken_profile_is_refused_with_the_line_and_what_is_wrong() {
    assert!(BROKEN.len() >= 20);
    for (from, to, line, what) in BROKEN {
        assert!(WHOLE.contains(from), "{from} is not there to be broken");
        let text = WHOLE.replacen(from, to, 1);
        let problems = Profile::read(&text).expect_err(what);
        let found = problems.0.iter().find(|problem| problem.what.contains(what));
        let found = found.unwrap_or_else(|| panic!("{what}: {problems}"));
        assert_eq!(found.line, line_of(line), "{what}: {problems}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = WHOLE.replace("rows = 10\n", "").replace("about =", "abuot =").replace("state = \"/state\"", "");
    let problems = Profile::read(&text).unwrap_err();
    assert_eq!(problems.0.len(), 4, "{problems}");
    assert!(problems.0.is_sorted(), "in the order of the lines");
    for said in ["`about` is missing", "unknown key `abuot`", "`limits.rows` is missing", "`poll.state` is missing"] {
        assert!(problems.0.iter().any(|problem| problem.what.contains(said)), "{said}: {problems}");
    }
}

/// What is missing hides no other fault, in whichever part it is.
#[test]
fn an_unknown_key_is_told_of_in_each_part_whatever_else_is_missing_there() {
    for (part, needed) in [
        ("[limits]\n", "rows = 10\n"),
        ("[encode]\n", "format = \"json\"\n"),
        ("[[submit]]\n", "url = \"${setting.base}/jobs\"\n"),
        ("[[errors]]\n", "status = [429]\n"),
        ("[poll]\n", "state = \"/state\"\n"),
        ("[[rejects]]\n", "url = \"${setting.base}/jobs/${id}/errors\"\n"),
        ("[check]\n", "url = \"${setting.base}/me\"\n"),
    ] {
        assert!(WHOLE.contains(part) && WHOLE.contains(needed), "{part} {needed}");
        let text = WHOLE.replacen(needed, "", 1).replacen(part, &format!("{part}colour = \"blue\"\n"), 1);
        let text = text.replacen("name = \"whole\"\n", "name = \"whole\"\nsize = 3\n", 1);
        let problems = Profile::read(&text).unwrap_err();
        let is_said = |what: &str| problems.0.iter().any(|problem| problem.what.contains(what));
        assert!(
            is_said("unknown key `size`") && is_said(".colour`; possible here") && is_said("is missing"),
            "{problems}"
        );
    }
}
