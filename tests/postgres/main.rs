//! Does the protocol hold against a real server? Logins, encryption, settings, copies, the stream.

mod attacked;
mod connect;
mod logins;
mod protocols;
mod store;
mod stream;
