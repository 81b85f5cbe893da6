//! Does the binary do what it is told, say what it does, and refuse what cannot be?

mod choices;
mod compact;
mod demo;
mod gc;
mod in_use;
mod modes;
mod operations;
mod profiles;
mod quarantine;
mod refusals;
mod scene;
mod status;
mod traces;
mod words;
