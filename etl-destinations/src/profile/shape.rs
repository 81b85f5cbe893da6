//! What does a profile say? Its parts, as they were read and found to be right.

use std::time::Duration;

use super::read::{Problems, read};
use super::template::Template;
use crate::bulk::{Limits, Policy};

/// How a system is spoken to.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What system it is for.
    pub about: String,
    /// Where the vendor documents what the profile says.
    pub documents: String,
    /// Of when those documents are.
    pub documents_of: String,
    /// The settings that it asks for.
    pub settings: Vec<Wanted>,
    /// The secrets that it asks for.
    pub secrets: Vec<Wanted>,
    /// What the system takes at a time.
    pub limits: Limits,
    /// How it is dealt with.
    pub policy: Policy,
    /// How long an answer of it may be.
    pub(super) answer_bytes: usize,
    /// Where answers say in words what is wrong.
    pub(super) messages: Vec<String>,
    pub(super) auth: Auth,
    pub(super) discover: Option<Discover>,
    pub(super) check: Request,
    pub(super) encode: Encode,
    pub(super) submit: Vec<Submit>,
    pub(super) errors: Vec<ErrorRule>,
    pub(super) poll: Option<Poll>,
    pub(super) rejects: Vec<Rejects>,
    pub(super) recover: Option<Recover>,
    pub(super) cleanup: Vec<Request>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line.
    pub fn read(text: &str) -> Result<Self, Problems> {
        read(text)
    }
}

/// What a profile asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it stands in the profile.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What it is where it is not given; `None`: it has to be.
    pub default: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Auth {
    None,
    Basic { user: Template, password: Template },
    Header { name: String, value: Template },
    Client(Box<ClientCredentials>),
}

/// OAuth 2: a token for the client itself, which ends.
#[derive(Debug, Clone)]
pub(super) struct ClientCredentials {
    pub(super) url: Template,
    pub(super) id: Template,
    pub(super) secret: Template,
    /// What is asked for besides, such as a scope.
    pub(super) fields: Vec<(String, Template)>,
    /// Whether who asks is in a header, and not in the form.
    pub(super) is_in_header: bool,
    pub(super) token: String,
    pub(super) lasts: String,
}

/// What is asked once, for all requests.
#[derive(Debug, Clone)]
pub(super) struct Discover {
    pub(super) request: Request,
    pub(super) extract: Vec<Extract>,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Where it stands in the profile.
    pub(super) line: usize,
    pub(super) method: http::Method,
    pub(super) url: Template,
    pub(super) query: Vec<(String, Template)>,
    pub(super) headers: Vec<(String, Template)>,
    pub(super) expect: Vec<u16>,
    /// What has to be in an answer that is good.
    pub(super) good_when: Option<Condition>,
    pub(super) sends: Sends,
}

#[derive(Debug, Clone)]
pub(super) enum Sends {
    Nothing,
    Json { body: Template, content_type: String },
    Form(Vec<(String, Template)>),
    Batch(Box<Pack>),
}

/// How a batch's body is wrapped.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) content_type: String,
    pub(super) compress: Compress,
    pub(super) file_name: Template,
    /// The name of the file's field, and the other fields.
    pub(super) multipart: Option<(String, Vec<(String, Template)>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compress {
    None,
    Gzip,
    Zip,
}

/// What is taken from an answer.
#[derive(Debug, Clone)]
pub(super) struct Extract {
    pub(super) name: String,
    pub(super) from: From,
}

#[derive(Debug, Clone)]
pub(super) enum From {
    Body(String),
    Header(String),
}

#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) at: String,
    pub(super) is: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Submit {
    pub(super) request: Request,
    pub(super) extract: Vec<Extract>,
    /// Whether it may be taken again where it is not known whether it was; else all steps are taken anew.
    pub(super) is_repeatable: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ErrorRule {
    /// From, to and with.
    pub(super) statuses: Vec<(u16, u16)>,
    pub(super) when: Option<Condition>,
    pub(super) then: Then,
}

#[derive(Debug, Clone)]
pub(super) enum Then {
    Retry,
    Throttle,
    Reauth,
    Split,
    Refuse,
    Config,
    RejectRows(Box<RowErrors>),
}

/// Where an error says which rows are wrong.
#[derive(Debug, Clone)]
pub(super) struct RowErrors {
    pub(super) items: String,
    pub(super) at: String,
    /// What stands before the row's number.
    pub(super) after: String,
    pub(super) first: u32,
    pub(super) reason: String,
    /// Where an error is of no row.
    pub(super) otherwise: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    JsonLines,
    Separated(char),
}

#[derive(Debug, Clone)]
pub(super) struct Encode {
    pub(super) format: Format,
    /// What stands around all rows; only of JSON.
    pub(super) envelope: Option<Template>,
    /// What stands around one row; only of JSON.
    pub(super) row: Option<Template>,
    /// What the table says of a column where a request names all of them.
    pub(super) column: Option<Template>,
    /// What stands for null; `None`: it is left out, or null in JSON where `keeps_null`.
    pub(super) null: String,
    pub(super) keeps_null: bool,
    pub(super) fields: Vec<Field>,
    /// Where columns go that have no place of their own; `None`: they are refused.
    pub(super) rest: Option<String>,
    /// Where a deleted row is marked.
    pub(super) deleted: Option<String>,
    pub(super) has_metadata: bool,
}

/// Where a column goes.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) column: String,
    pub(super) at: String,
    pub(super) kind: FieldKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Value,
    Text,
    Json,
}

#[derive(Debug, Clone)]
pub(super) struct Poll {
    pub(super) request: Request,
    pub(super) gone: Vec<u16>,
    pub(super) state: String,
    pub(super) states: Vec<(String, State)>,
    pub(super) message: Option<String>,
    pub(super) progress: Option<String>,
    pub(super) total: Option<String>,
    pub(super) failed: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Completed,
    Retry,
    Refuse,
    Split,
    Config,
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Rejects {
    pub(super) request: Request,
    pub(super) format: Format,
    pub(super) items: String,
    pub(super) then: RejectThen,
    pub(super) reason: Vec<String>,
    pub(super) pages: Pages,
    pub(super) correlate: Correlate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectThen {
    Rejected,
    Warned,
    Retry,
}

#[derive(Debug, Clone)]
pub(super) enum Pages {
    One,
    /// The address of the next page is in the answer.
    Link(String),
    /// What names the next page is in the answer, and goes into the query.
    Cursor {
        at: String,
        parameter: String,
    },
    /// The next page begins after so many.
    Offset {
        parameter: String,
        by: u32,
        more: String,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Correlate {
    /// The value of a column, or of the key where none is named.
    Key(Vec<(Option<String>, String)>),
    /// The row's number, counted from `first`.
    Index { at: String, first: u32 },
    /// The row itself comes back.
    Row { at: String },
    /// Nothing.
    None,
}

#[derive(Debug, Clone)]
pub(super) struct Recover {
    pub(super) request: Request,
    pub(super) items: String,
    pub(super) at: String,
    pub(super) is: Template,
    /// Where the answer says that there is more than it shows.
    pub(super) more: Option<String>,
    pub(super) extract: Vec<Extract>,
}

/// How long things take; only to be read into a policy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    pub(super) deadline: Duration,
    pub(super) forgets_after: Option<Duration>,
}
