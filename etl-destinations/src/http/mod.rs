//! How does a destination speak HTTP? One client with a pool, TLS as everywhere, and errors that say what helps.

mod client;
#[cfg(feature = "profile")]
mod retry_after;
mod tls;

#[cfg(feature = "profile")]
pub(crate) use client::encoded;
pub(crate) use client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
#[cfg(feature = "profile")]
pub(crate) use retry_after::retry_after;
