//! Which settings does every session need? Those that change text or hide rows (`SOURCE.md` R13).

/// The settings of every connection; a role's or a database's own would change what values look like.
pub(crate) const SESSION: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("search_path", ""),
    ("row_security", "off"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// Known from version 17 on only, so it is set once the version is known.
pub(crate) const TRANSACTION_TIMEOUT: (u32, &str) = (170_000, "SET transaction_timeout = 0");

/// The same as one `options` string.
pub(crate) fn as_options() -> String {
    let setting =
        |(name, value): &(&str, &str)| format!("-c {name}={}", value.replace('\\', "\\\\").replace(' ', "\\ "));
    SESSION.iter().map(setting).collect::<Vec<_>>().join(" ")
}
