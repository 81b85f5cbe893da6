//! What does the environment say? Its variables, and the keys of the config that some of them replace.

use std::collections::BTreeMap;
use std::fmt;

use crate::problems::Problem;
use crate::tree::{Content, Node};

/// How the name of a variable begins that replaces a key: `ETL__PIPELINE__BATCH__MAX_AGE=50ms`.
const PREFIX: &str = "ETL__";

/// The environment variables that a config may use.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process; what is not Unicode is left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Puts the values of the variables that name a key into the tree.
    pub(crate) fn replace_keys(&self, tree: &mut Node, problems: &mut Vec<Problem>) {
        for (name, value) in &self.0 {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            match Node::from_variable(name, value) {
                Ok(node) => put(tree, &path, node),
                Err(problem) => problems.push(Problem { path: path.join("."), ..problem }),
            }
        }
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    /// Without the values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Puts a value under its path; a text or a list on the way gives way to a mapping.
fn put(tree: &mut Node, path: &[String], value: Node) {
    let Some((key, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !matches!(tree.content, Content::Map(_)) {
        tree.content = Content::Map(Vec::new());
    }
    let Content::Map(entries) = &mut tree.content else { return };
    match entries.iter_mut().find(|(name, _)| name == key) {
        Some((_, child)) => put(child, rest, value),
        None => {
            let mut child = Node::null(value.origin.clone());
            put(&mut child, rest, value);
            entries.push((key.clone(), child));
        }
    }
}
