//! How is something said without failing where nobody listens?

use std::io::Write;

/// Says a line to whoever reads standard output; nobody may.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _nobody_reads = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Says what went wrong on standard error; nothing where there is nothing to say.
pub(crate) fn complain(text: &str) {
    if !text.is_empty() {
        let _nobody_reads = writeln!(std::io::stderr().lock(), "{text}");
    }
}
