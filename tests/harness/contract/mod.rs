//! What do vendors say that they do? Servers that hold a client to the vendors' public documents.
//!
//! A vendor is one module: what its documents promise, and what they forbid, as a [`Vendor`]. It is written from the
//! documents, never from our client, and names the page at each rule; where a page is silent, the module says what it takes
//! instead. All the rest is here, the same for every vendor: a port of loopback that the system gives, a log of every request
//! in memory and on disk, a script of faults, a time of its own, tokens that expire, rate windows.
//!
//! Nothing but the log is kept: a server that is started again in the same directory asks its vendor all of it once more, and
//! has the same state. So a vendor's answer depends on what it was asked, and when, and on nothing else.
//!
//! A further vendor:
//! 1. `contract/NAME.rs` with a struct that is `Clone` and a `Vendor`. `answer` matches on the method and on
//!    [`Asked::segments`]; `failure` is an error in the vendor's own form. What tests vary (its pace, which rows it refuses) are
//!    methods that return `Self`, before it is started.
//! 2. The pages that it was written from, at its head, each with a short name that the rules refer to.
//! 3. `tests/contract/NAME.rs`: by [`raw::send`], each rule kept and broken, and what each [`Fate`] does to a job. What faults
//!    do to a request is shown once for all, in `tests/contract/faults.rs`.
//!
//! What passes here conforms to the documents of their dates. Whether the vendor does is another question.

mod asked;
mod csv;
pub mod eloqua;
mod journal;
pub mod klaviyo;
pub mod lytics;
mod rates;
pub mod raw;
mod script;
mod server;
mod tokens;

pub use self::{
    asked::{Answer, Asked},
    rates::{Rate, Rates},
    script::{Fate, Fault, On},
    server::{Exchange, Server},
    tokens::Tokens,
};

use etl::{clock::Timestamp, data::decode::write_timestamptz};

/// What a vendor does with requests.
pub trait Vendor: Clone + Send + 'static {
    /// Takes a request in, and says what the documents say.
    fn answer(&mut self, asked: &Asked) -> Answer;

    /// How it says that a request failed with this status.
    fn failure(&self, status: u16) -> Answer;

    /// Somebody takes credentials back (`false`) or gives them again: a key, a password or a token, as it was handed out.
    fn credentials(&mut self, secret: &str, are_good: bool);
}

/// ISO 8601, with this for UTC.
fn time(at: Timestamp, zone: &str) -> String {
    let mut text = String::new();
    write_timestamptz(at.to_postgres(), &mut text);
    text.replacen(' ', "T", 1).replace("+00", zone)
}
