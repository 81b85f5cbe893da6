//! How does a destination speak HTTP? One client with a pool, TLS as everywhere, and errors that say what helps.

mod client;
mod tls;

#[cfg(feature = "profile")]
pub(crate) use client::encoded;
pub(crate) use client::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
