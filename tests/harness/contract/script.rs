//! What goes wrong, and when? Rules, each for some requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::asked::{Asked, segments};

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// 429, with `Retry-After` in seconds where it is given; the vendor does not take the request.
    Throttled(Option<u32>),
    /// An error with this status; the vendor does not take the request.
    Fails(u16),
    /// The connection is closed; the vendor does not take the request.
    Unheard,
    /// The vendor takes the request, and the connection is closed before it answers.
    Unanswered,
    /// The vendor takes the request, and answers with an error of this status all the same.
    FailsAfter(u16),
    /// The answer is whole by its length, and its body ends in the middle.
    Truncated,
    /// The connection is closed in the middle of the answer's body.
    Torn,
    /// The answer comes after this.
    Slow(Duration),
    /// The answer comes when the test says so: [`Server::release`](super::Server::release).
    Held,
}

impl Fault {
    /// Whether the vendor takes a request that this happens to.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        !matches!(self, Self::Throttled(_) | Self::Fails(_) | Self::Unheard)
    }
}

/// What becomes of a job, other than that it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// The vendor ends it, and applies nothing.
    Cancelled,
    /// The vendor knows nothing of it afterwards.
    Lost,
    /// It never gets on.
    Stuck,
    /// Its state is always this word, whatever it is; nothing is applied.
    Says(String),
    /// It is done as any other, and says nothing of the rows that were refused: they are not counted.
    Hides,
}

/// Which requests a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct On {
    pattern: Pattern,
    passed: u32,
    times: u32,
}

impl On {
    /// The next request like this: `POST /a/b`, where `*` stands for one part of the path.
    #[must_use]
    pub fn request(pattern: &str) -> Self {
        Self { pattern: Pattern::new(pattern), passed: 0, times: 1 }
    }

    /// Not before so many more of them have passed.
    #[must_use]
    pub fn after(self, passed: u32) -> Self {
        Self { passed, ..self }
    }

    /// So many of them.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// All of them.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }
}

/// A form of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    method: String,
    path: Vec<String>,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Self {
        let (method, path) = pattern.split_once(' ').expect("a method and a path");
        Self { method: method.to_owned(), path: segments(path).into_iter().map(str::to_owned).collect() }
    }

    pub(super) fn matches(&self, asked: &Asked) -> bool {
        let path = asked.segments();
        let same = |(own, other): (&String, &str)| own == "*" || own == other;
        self.method == asked.method && self.path.len() == path.len() && self.path.iter().zip(path).all(same)
    }
}

/// Rules in order: the first that is for a request is used, and used up.
#[derive(Debug, Clone)]
pub(super) struct Script<T>(Vec<(On, T)>);

impl<T> Default for Script<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Script<T> {
    pub(super) fn add(&mut self, on: On, what: T) {
        self.0.push((on, what));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is for this request. Each rule counts it.
    pub(super) fn next(&mut self, asked: &Asked) -> Option<T> {
        let mut chosen = None;
        for (on, what) in self.0.iter_mut().filter(|(on, _)| on.pattern.matches(asked)) {
            if on.passed > 0 {
                on.passed -= 1;
            } else if on.times > 0 && chosen.is_none() {
                on.times = if on.times == u32::MAX { on.times } else { on.times - 1 };
                chosen = Some(what.clone());
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use etl::clock::Timestamp;

    use super::*;

    fn asked(method: &str, path: &str) -> Asked {
        Asked {
            number: 1,
            at: Timestamp(0),
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            fault: None,
            fate: None,
            body: Vec::new(),
        }
    }

    #[test]
    fn a_rule_is_for_the_requests_that_it_names() {
        let pattern = Pattern::new("GET /a/*/c");
        for (method, path, is_meant) in [
            ("GET", "/a/b/c", true),
            ("GET", "/a/b/c/", true),
            ("POST", "/a/b/c", false),
            ("GET", "/a/b", false),
            ("GET", "/a/b/c/d", false),
        ] {
            assert_eq!(pattern.matches(&asked(method, path)), is_meant, "{method} {path}");
        }
    }

    #[test]
    fn rules_are_used_in_order_and_used_up() {
        let mut script = Script::default();
        script.add(On::request("GET /a").after(1).times(2), 'x');
        script.add(On::request("GET /a").after(2), 'y');
        script.add(On::request("GET /b").always(), 'z');
        let said: Vec<_> = (0..5).map(|_| script.next(&asked("GET", "/a"))).collect();
        assert_eq!(said, [None, Some('x'), Some('x'), Some('y'), None]);
        assert_eq!([(); 3].map(|()| script.next(&asked("GET", "/b"))), [Some('z'); 3]);
        script.clear();
        assert_eq!(script.next(&asked("GET", "/b")), None);
    }
}
