//! Is the server the one that is meant? Its key says, which has to be known beforehand.

use std::path::Path;

use etl::error::{ErrorKind, EtlError, EtlResult};
use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, KnownHosts, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::config::SftpConfig;

/// The keys by which the server is known.
#[derive(Debug, Clone)]
pub(super) struct HostKeys {
    server: String,
    source: String,
    fingerprints: Vec<String>,
    keys: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

impl HostKeys {
    /// Those of the config.
    ///
    /// # Errors
    /// `Config` where the file of known hosts cannot be read.
    pub(super) fn read(config: &SftpConfig) -> EtlResult<Self> {
        let mut known = Self {
            server: format!("{}:{}", config.host, config.port),
            source: "host_keys".to_owned(),
            fingerprints: config.host_keys.clone(),
            keys: Vec::new(),
            revoked: Vec::new(),
        };
        if let Some(path) = &config.known_hosts {
            known.source = path.display().to_string();
            known.add_known_hosts(&config.host, config.port, path)?;
        }
        Ok(known)
    }

    fn add_known_hosts(&mut self, host: &str, port: u16, path: &Path) -> EtlResult<()> {
        let unreadable = |why: String| {
            EtlError::new(ErrorKind::Config, "the file of known hosts cannot be read")
                .with("known_hosts", path.display())
                .because(why)
                .hint("Make it with `ssh-keyscan`, and compare what it finds with what the server's owner says")
        };
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let exact = known_host_keys_path(host, port, path).map_err(|error| unreadable(error.to_string()))?;
        self.keys.extend(exact.into_iter().map(|(_, key)| key));
        let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        // A line that cannot be read is about a key that we could not check either.
        for entry in KnownHosts::new(&text).flatten().filter(|entry| is_about(entry, &name)) {
            match entry.marker() {
                None => self.keys.push(entry.public_key().clone()),
                Some(Marker::Revoked) => self.revoked.push(entry.public_key().clone()),
                Some(Marker::CertAuthority) => {}
            }
        }
        Ok(())
    }

    /// The kinds of keys that are asked for: those that are known, where it is known which.
    pub(super) fn preferred(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let is_known = |kind: &Algorithm| self.keys.iter().any(|key| is_alike(&key.algorithm(), kind));
        let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    /// Whether the key that the server shows is one of them.
    ///
    /// # Errors
    /// `Config`, with the fingerprint that was shown, and what to do.
    pub(super) fn check(&self, offered: &PublicKey) -> EtlResult<()> {
        let fingerprint = offered.fingerprint(HashAlg::Sha256).to_string();
        let is_in = |keys: &[PublicKey]| keys.iter().any(|key| key.key_data() == offered.key_data());
        let error = |message: &str, hint: String| {
            Err(EtlError::new(ErrorKind::Config, message)
                .with("server", &self.server)
                .with("step", "host key")
                .with("kind", offered.algorithm())
                .with("fingerprint", &fingerprint)
                .with("known_by", &self.source)
                .hint(hint))
        };
        if is_in(&self.revoked) {
            let hint = "Do not connect there before its owner has given it another key";
            return error("the server shows a host key that is marked as revoked", hint.to_owned());
        }
        if self.fingerprints.contains(&fingerprint) || is_in(&self.keys) {
            return Ok(());
        }
        let add = format!("add `{fingerprint}` to `host_keys`, or the key to `known_hosts`");
        if self.fingerprints.is_empty() && self.keys.is_empty() {
            let hint = format!("Ask the server's owner for its fingerprint; if it is this one, {add}");
            return error("the server's host key is not known", hint);
        }
        let hint = format!(
            "Somebody may be between you and the server: ask its owner whether it has a new key. Only if this is its \
             fingerprint, {add} in place of the old one"
        );
        error("the server's host key is another than the known one", hint)
    }
}

fn is_alike(known: &Algorithm, kind: &Algorithm) -> bool {
    let is_rsa = |kind: &Algorithm| matches!(kind, Algorithm::Rsa { .. });
    known == kind || (is_rsa(known) && is_rsa(kind))
}

/// Whether a line with patterns, or with a mark, is about the server.
fn is_about(entry: &Entry, name: &str) -> bool {
    let HostPatterns::Patterns(patterns) = entry.host_patterns() else { return false };
    let is_meant = |pattern: &str| is_like(pattern.as_bytes(), name.as_bytes());
    let (not, yes): (Vec<_>, Vec<_>) =
        patterns.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
    yes.into_iter().any(is_meant) && !not.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(is_meant)
}

/// `*` is any text, `?` any character.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|from| is_like(rest, &name[from..])),
        (Some((b'?', rest)), Some((_, name))) => is_like(rest, name),
        (Some((one, rest)), Some((other, name))) => one.eq_ignore_ascii_case(other) && is_like(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn known(lines: &str, host: &str, port: u16) -> HostKeys {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        let known_hosts = Some(file.path().to_owned());
        HostKeys::read(&SftpConfig { port, known_hosts, ..SftpConfig::new(host, "u") }).unwrap()
    }

    fn said(lines: &str, host: &str, port: u16) -> String {
        let checked = known(lines, host, port).check(&PublicKey::from_openssh(ONE).unwrap());
        checked.map_or_else(|error| error.to_string(), |()| "known".to_owned())
    }

    #[test]
    fn a_key_is_known_by_a_line_about_the_server_and_by_no_other() {
        for (line, host, port, expected) in [
            (format!("h {ONE}"), "h", 22, "known"),
            (format!("[h]:2222 {ONE}"), "h", 2222, "known"),
            (format!("h {ONE}"), "h", 2222, "not known"),
            (format!("*.example.com,!bad.example.com {ONE}"), "a.example.com", 22, "known"),
            (format!("*.example.com,!bad.example.com {ONE}"), "bad.example.com", 22, "not known"),
            (format!("h {OTHER}"), "h", 22, "another than the known one"),
            (format!("h {OTHER}\nh {ONE}"), "h", 22, "known"),
            (format!("@revoked * {ONE}\nh {ONE}"), "h", 22, "revoked"),
            (format!("@cert-authority * {ONE}"), "h", 22, "not known"),
            (String::new(), "h", 22, "not known"),
        ] {
            let said = said(&line, host, port);
            assert!(said == expected || (expected != "known" && said.contains(expected)), "{line}: {said}");
        }
    }

    #[test]
    fn a_key_that_is_refused_is_shown_by_its_fingerprint_with_what_to_do() {
        let fingerprint = PublicKey::from_openssh(ONE).unwrap().fingerprint(HashAlg::Sha256).to_string();
        let said = said(&format!("h {OTHER}"), "h", 22);
        assert!(said.contains(&fingerprint) && said.contains("host_keys") && said.contains("owner"), "{said}");
        let config = SftpConfig { host_keys: vec![fingerprint], ..SftpConfig::new("h", "u") };
        HostKeys::read(&config).unwrap().check(&PublicKey::from_openssh(ONE).unwrap()).unwrap();
    }

    #[test]
    fn the_kinds_of_the_known_keys_are_asked_for_first() {
        let all = [Algorithm::Rsa { hash: None }, Algorithm::Ed25519];
        assert_eq!(known(&format!("h {ONE}"), "h", 22).preferred(&all), [Algorithm::Ed25519, all[0].clone()]);
        assert_eq!(known("", "h", 22).preferred(&all), all);
    }
}
