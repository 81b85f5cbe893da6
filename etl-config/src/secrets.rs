//! Where do passwords come from? `${VAR}`, `${VAR:-default}` and `${file:/run/secrets/x}` in the texts of a config.

use std::path::Path;

use crate::environment::Environment;
use crate::problems::Problem;
use crate::spelling;
use crate::tree::{Content, Node, Step, path_text};

/// Puts the values of variables and files into every text; `$${` stays as `${`.
pub(crate) fn fill_in(node: &mut Node, environment: &Environment, problems: &mut Vec<Problem>) {
    fill_in_below(node, environment, &mut Vec::new(), problems);
}

fn fill_in_below(node: &mut Node, environment: &Environment, path: &mut Vec<Step>, problems: &mut Vec<Problem>) {
    match &mut node.content {
        Content::Null | Content::Removed => {}
        Content::List(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                path.push(Step::Item(place));
                fill_in_below(item, environment, path, problems);
                path.pop();
            }
        }
        Content::Map(entries) => {
            for (key, value) in entries {
                path.push(Step::Key(key.clone()));
                fill_in_below(value, environment, path, problems);
                path.pop();
            }
        }
        Content::Scalar(scalar) if scalar.text.contains("${") => match filled(&scalar.text, environment) {
            Ok(text) => {
                let written = std::mem::replace(&mut scalar.text, text);
                scalar.written.get_or_insert(written);
            }
            Err((message, hint)) => {
                let problem = Problem::new(&path_text(path), message).value(&scalar.text).hint(hint);
                problems.push(problem.at(&node.origin));
                node.content = Content::Removed;
            }
        },
        Content::Scalar(_) => {}
    }
}

/// The text with everything put in, or a message and a hint.
fn filled(text: &str, environment: &Environment) -> Result<String, (String, String)> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            filled.extend([before, "${"]);
            rest = after;
            continue;
        }
        let Some(end) = after.find('}') else {
            return Err(("`${` without its `}`".to_owned(), "Close it, or write `$${` for the text itself".to_owned()));
        };
        filled.push_str(before);
        filled.push_str(&value_of(&after[..end], environment)?);
        rest = &after[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value_of(reference: &str, environment: &Environment) -> Result<String, (String, String)> {
    if let Some(path) = reference.strip_prefix("file:") {
        return read_file(Path::new(path));
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    match (environment.get(name), default) {
        (Some(""), Some(default)) | (None, Some(default)) => Ok(default.to_owned()),
        (Some(value), _) => Ok(value.to_owned()),
        (None, None) => {
            let hint = match spelling::nearest_as_written(name, environment.names()) {
                Some(near) => format!("Set it, or did you mean `{near}`?"),
                None => format!("Set it, or give a default: `${{{name}:-default}}`"),
            };
            Err((format!("the environment variable {name} is not set"), hint))
        }
    }
}

fn read_file(path: &Path) -> Result<String, (String, String)> {
    let shown = path.display();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
        Err(error) => Err((
            format!("the file {shown} cannot be read: {error}"),
            "Check that it exists, that this user may read it, and that it holds text".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn references_are_put_in() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "hunter2").unwrap();
        let environment: Environment = [("HOST", "db"), ("EMPTY", ""), ("OPEN", "${HOST}")]
            .map(|(k, v)| (k.into(), v.into()))
            .into_iter()
            .collect();
        let from_file = format!("x${{file:{}}}y", file.path().display());
        let cases = [
            ("${HOST}", "db"),
            ("postgres://${HOST}:${PORT:-5432}/${NAME:-}", "postgres://db:5432/"),
            ("${EMPTY:-filled}|${EMPTY}", "filled|"),
            ("a $${HOST} b $HOST", "a ${HOST} b $HOST"),
            ("${OPEN}", "${HOST}"),
            (from_file.as_str(), "xhunter2y"),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text, &environment).as_deref(), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("${HOTS}", "did you mean `HOST`"),
            ("${GONE}", "${GONE:-default}"),
            ("${HOST", "without its `}`"),
            ("${file:/nowhere/at/all}", "/nowhere/at/all cannot be read"),
        ] {
            let (message, hint) = filled(text, &environment).unwrap_err();
            assert!(format!("{message}. {hint}").contains(expected), "{text}: {message}. {hint}");
        }
    }
}
