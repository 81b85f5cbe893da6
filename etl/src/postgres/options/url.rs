//! What does a URL say? The forms that libpq reads, and the parameters that mean something here.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{ChannelBinding, ConnectOptions, Host, TargetSession, TlsMode};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::secret::Secret;

impl ConnectOptions {
    /// Reads `postgres://user:password@host:port,other:port/database?sslmode=verify-full&sslrootcert=ca.pem`; `host` may
    /// also be given as a parameter, for the directory of a unix socket.
    ///
    /// # Errors
    /// Says which part is wrong; neither the URL nor the password is shown.
    pub fn from_url(url: &str) -> EtlResult<Self> {
        Self::from_url_or_user(url, None)
    }

    /// The same where a URL without a user is this one's.
    ///
    /// # Errors
    /// As of [`from_url`](Self::from_url).
    pub fn from_url_or_user(url: &str, user: Option<&str>) -> EtlResult<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, addresses) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (name, password) = match login.split_once(':') {
            Some((name, password)) => (name, Some(Secret::new(decode(password)?))),
            None => (login, None),
        };
        let mut options = Self::new("", decode(path)?, decode(name)?);
        options.password = password;
        let mut hosts = Address::list(addresses)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match key {
                "host" => hosts = value.split(',').map(|name| Address { name: name.to_owned(), port: None }).collect(),
                "port" => Address::set_ports(&mut hosts, &value)?,
                _ => options.set(key, value)?,
            }
        }
        options.set_hosts(hosts);
        if options.user.is_empty() {
            options.user = user.ok_or_else(|| wrong("it names no user"))?.to_owned();
        }
        if options.database.is_empty() {
            options.database.clone_from(&options.user);
        }
        Ok(options)
    }

    /// Takes the hosts of a list such as `db1,db2:5433`; those without a port have this one.
    ///
    /// # Errors
    /// `Config` where a port is no number.
    pub fn with_hosts(mut self, list: &str, port: u16) -> EtlResult<Self> {
        let mut hosts = Address::list_of_names(list)?;
        hosts.iter_mut().for_each(|host| host.port = host.port.or(Some(port)));
        self.set_hosts(hosts);
        Ok(self)
    }

    fn set_hosts(&mut self, hosts: Vec<Address>) {
        let default = self.port;
        let host = |Address { name, port }| Host {
            name: if name.is_empty() { "localhost".to_owned() } else { name },
            port: port.unwrap_or(default),
        };
        let mut hosts = hosts.into_iter().map(host);
        if let Some(first) = hosts.next() {
            (self.host, self.port) = (first.name, first.port);
        }
        self.other_hosts = hosts.collect();
    }

    fn set(&mut self, key: &str, value: String) -> EtlResult<()> {
        match key {
            "user" => self.user = value,
            "password" => self.password = Some(Secret::new(value)),
            "dbname" => self.database = value,
            "application_name" => self.application_name = value,
            "sslrootcert" => self.tls.ca = Some(value.into()),
            "sslcert" => self.tls.certificate = Some(PathBuf::from(value)),
            "sslkey" => self.tls.key = Some(PathBuf::from(value)),
            "connect_timeout" => self.connect_timeout = seconds(key, &value)?,
            "keepalives_idle" => self.keepalive.idle = seconds(key, &value)?,
            "keepalives_interval" => self.keepalive.interval = seconds(key, &value)?,
            "keepalives_count" => self.keepalive.retries = number(key, &value)?,
            "tcp_user_timeout" => self.keepalive.unanswered = Duration::from_millis(number(key, &value)?),
            "sslmode" => {
                let modes = "disable, prefer, require, verify-ca, verify-full";
                self.tls.mode = Some(TlsMode::parse(&value).ok_or_else(|| none_of(key, modes))?);
            }
            "channel_binding" => {
                let known = ChannelBinding::parse(&value).ok_or_else(|| none_of(key, "disable, prefer, require"))?;
                self.channel_binding = known;
            }
            "target_session_attrs" => {
                let all = "any, read-write, read-only, primary, standby, prefer-standby";
                self.target_session_attrs = Some(TargetSession::parse(&value).ok_or_else(|| none_of(key, all))?);
            }
            _ => return Err(wrong("it has an unknown parameter").with("parameter", key)),
        }
        Ok(())
    }
}

/// A host as it is written.
struct Address {
    name: String,
    port: Option<u16>,
}

impl Address {
    fn list(addresses: &str) -> EtlResult<Vec<Self>> {
        addresses.split(',').map(|address| Self::parse(address, decode)).collect()
    }

    fn list_of_names(addresses: &str) -> EtlResult<Vec<Self>> {
        addresses.split(',').map(|address| Self::parse(address.trim(), |name| Ok(name.to_owned()))).collect()
    }

    fn parse(address: &str, decode: impl Fn(&str) -> EtlResult<String>) -> EtlResult<Self> {
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("its address has no closing bracket"))?;
                (host, after.strip_prefix(':'))
            }
            // An address of version 6 alone has more than one colon.
            None if address.matches(':').count() > 1 => (address, None),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| wrong("its port is not a number"))).transpose()?;
        Ok(Self { name: decode(host)?, port })
    }

    /// One port for all, or one a host.
    fn set_ports(hosts: &mut [Self], list: &str) -> EtlResult<()> {
        let ports = list.split(',').map(|port| port.parse().map_err(|_| wrong("its port is not a number")));
        let ports = ports.collect::<EtlResult<Vec<u16>>>()?;
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(wrong("it has another number of ports than of hosts"));
        }
        for (host, port) in hosts.iter_mut().zip(ports.iter().cycle()) {
            host.port = Some(*port);
        }
        Ok(())
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> EtlResult<T> {
    value.parse().map_err(|_| wrong("a parameter of it is not a number").with("parameter", key))
}

fn seconds(key: &str, value: &str) -> EtlResult<Duration> {
    number(key, value).map(Duration::from_secs)
}

fn none_of(key: &str, values: &str) -> EtlError {
    wrong(&format!("its {key} is none of {values}"))
}

fn decode(text: &str) -> EtlResult<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit(), digit());
        let byte = high.zip(low).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(byte.ok_or_else(|| wrong("a % in it is not followed by two hexadecimal digits"))?);
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 once decoded"))
}

fn wrong(what: &str) -> EtlError {
    EtlError::new(ErrorKind::Config, format!("the url is wrong: {what}"))
        .hint("Write postgres://user:password@host:5432/database; encode special characters as %XX")
}
