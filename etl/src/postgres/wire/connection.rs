//! How are questions asked? One connection, one query at a time.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;

use super::coalesced_reads::CoalescedReads;
use super::frame::ReadBuffer;
use super::hosts::first_fit;
use super::settings::TRANSACTION_TIMEOUT;
use super::socket::Socket;
use super::startup::{self, Purpose};
use super::{CopyOut, ReplicationStream, server_error, tls};
use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::memory::{MemoryBudget, Part};
use crate::postgres::options::{ConnectOptions, Host, ServerRole};

/// A connection of our own, for copies and for the stream.
#[derive(Debug)]
pub struct Connection {
    pub(super) socket: Socket,
    pub(super) buffer: ReadBuffer,
    server_version: u32,
    role: ServerRole,
    /// Whether what comes in little pieces piles up before it is read.
    coalesces: bool,
    /// A copy was left before its end: what comes next is of that copy.
    pub(super) is_cut_off: bool,
}

impl Connection {
    /// Connects, logs in, and sets what every session needs (`SOURCE.md` R13).
    ///
    /// # Errors
    /// Where the server cannot be reached, refuses the login or the encryption.
    pub async fn connect(options: &ConnectOptions) -> EtlResult<Self> {
        Self::begin(options, Purpose::Query).await
    }

    /// The same for replication commands; queries are answered too.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); also where the role may not replicate.
    pub async fn connect_replication(options: &ConnectOptions) -> EtlResult<Self> {
        Self::begin(options, Purpose::Replication).await
    }

    async fn begin(options: &ConnectOptions, purpose: Purpose) -> EtlResult<Self> {
        first_fit(options, async |host: Host| {
            let connection = Self::begin_at(options, &host, purpose).await?;
            let role = connection.role;
            Ok((connection, role))
        })
        .await
    }

    async fn begin_at(options: &ConnectOptions, host: &Host, purpose: Purpose) -> EtlResult<Self> {
        let socket = Socket::connect(options, host).await?;
        let role = ServerRole::default();
        let coalesces = options.coalesced_reads;
        let mut connection =
            Self { socket, buffer: ReadBuffer::default(), server_version: 0, role, coalesces, is_cut_off: false };
        let beginning = async {
            startup::begin(&mut connection, options, purpose).await?;
            let (since, set) = TRANSACTION_TIMEOUT;
            if connection.server_version >= since {
                connection.query(set).await?;
            }
            Ok(())
        };
        tokio::time::timeout(options.connect_timeout, beginning)
            .await
            .unwrap_or_else(|_| {
                Err(EtlError::new(ErrorKind::SourceUnavailable, "the source did not answer the login in time")
                    .with("server", host))
            })
            .map_err(tls::explained)?;
        Ok(connection)
    }

    /// One that has logged in already.
    #[cfg(test)]
    pub(super) fn over(socket: Socket, coalesces: bool) -> Self {
        let (buffer, role) = (ReadBuffer::default(), ServerRole::default());
        Self { socket, buffer, server_version: 180_000, role, coalesces, is_cut_off: false }
    }

    /// What is read from now on, of a copy or of the stream, counts for this part of the budget.
    pub fn within(&mut self, memory: &MemoryBudget, part: Part) {
        self.buffer.within(memory, part);
    }

    /// Lets go of the memory for what was read, if all of it was taken; whether it was.
    pub(crate) fn rest(&mut self) -> bool {
        let is_empty = self.buffer.is_empty();
        if is_empty {
            self.buffer = ReadBuffer::default();
        }
        is_empty
    }

    /// Whether a copy was left before its end, so that nothing else can be asked.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// The server's version, such as 150018.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Runs a query or a command and returns its rows, as text.
    ///
    /// # Errors
    /// What the server says.
    pub async fn query(&mut self, sql: &str) -> EtlResult<Vec<Row>> {
        self.ask(sql).await?;
        let (mut columns, mut rows, mut failed) = (Vec::new(), Vec::new(), None);
        loop {
            let (tag, body) = self.raw_message().await?;
            match tag {
                b'T' => columns = column_names(&body)?,
                b'D' => rows.push(Row::read(&columns, body)?),
                b'E' => failed = Some(server_error::parse(&body)),
                b'S' => self.note_parameter(&body),
                b'Z' => return failed.map_or(Ok(rows), Err),
                // Completion, empty query and notices.
                _ => {}
            }
        }
    }

    /// Starts `COPY ... TO STDOUT`.
    ///
    /// # Errors
    /// What the server says.
    pub async fn copy_out(&mut self, sql: &str) -> EtlResult<CopyOut<'_>> {
        self.ask(sql).await?;
        self.expect(b'H').await?;
        Ok(CopyOut::new(self))
    }

    /// Starts a replication stream.
    ///
    /// # Errors
    /// What the server says; [`SlotBusy`](ErrorKind::SlotBusy) while another connection reads the slot.
    pub async fn start_replication(mut self, sql: &str) -> EtlResult<ReplicationStream> {
        self.ask(sql).await?;
        self.expect(b'W').await?;
        let reads = self.reads(true);
        Ok(ReplicationStream::new(self.socket, self.buffer, reads))
    }

    /// How the stream and copies are read. Where nobody says when enough has come, the stream pauses before it reads.
    pub(super) fn reads(&self, pauses: bool) -> CoalescedReads {
        if self.coalesces { CoalescedReads::of(&self.socket, pauses) } else { CoalescedReads::at_once() }
    }

    /// Waits for the answer with this tag; an error ends the query.
    async fn expect(&mut self, expected: u8) -> EtlResult<()> {
        loop {
            let (tag, body) = self.raw_message().await?;
            match tag {
                b'E' => {
                    let error = server_error::parse(&body);
                    self.until_ready().await?;
                    return Err(error);
                }
                b'N' | b'S' => {}
                tag if tag == expected => return Ok(()),
                tag => {
                    return Err(EtlError::new(ErrorKind::Protocol, "the server answered something else")
                        .with("expected", char::from(expected))
                        .with("got", char::from(tag)));
                }
            }
        }
    }

    /// Reads up to the end of the query.
    pub(super) async fn until_ready(&mut self) -> EtlResult<()> {
        while self.raw_message().await?.0 != b'Z' {}
        Ok(())
    }

    async fn ask(&mut self, sql: &str) -> EtlResult<()> {
        let mut packet = BytesMut::new();
        frontend::query(sql, &mut packet).or_etl(ErrorKind::Internal, "write a query")?;
        self.send(&packet).await
    }

    /// The next message; a server's error is an error.
    pub(super) async fn message(&mut self) -> EtlResult<(u8, Bytes)> {
        let (tag, body) = self.raw_message().await?;
        if tag == b'E' { Err(server_error::parse(&body)) } else { Ok((tag, body)) }
    }

    async fn raw_message(&mut self) -> EtlResult<(u8, Bytes)> {
        loop {
            if let Some(message) = self.buffer.take_message()? {
                return Ok(message);
            }
            self.buffer.fill(&mut self.socket).await?;
        }
    }

    pub(super) fn server_end_point(&self) -> Option<Vec<u8>> {
        self.socket.server_end_point()
    }

    /// Remembers what the server reports of itself.
    pub(super) fn note_parameter(&mut self, body: &[u8]) {
        let mut parts = body.split(|byte| *byte == 0);
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match name {
            b"server_version" => {
                self.server_version = parse_version(&String::from_utf8_lossy(value)).unwrap_or(self.server_version);
            }
            b"in_hot_standby" => self.role.is_standby = value == b"on",
            b"default_transaction_read_only" => self.role.is_read_only = value == b"on",
            _ => {}
        }
    }
}

/// `15.18 (Debian ...)`, `18beta1` and the like, as `server_version_num` writes them.
pub(crate) fn parse_version(text: &str) -> Option<u32> {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(text);
    let minor = text[major.len()..].strip_prefix('.').map(digits).unwrap_or_default();
    Some(major.parse::<u32>().ok()? * 10_000 + minor.parse::<u32>().unwrap_or(0))
}

/// A row of text values.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Vec<(String, Option<String>)>,
}

impl Row {
    /// The value of the column with this name; `None` for null and for no such column.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.columns.iter().find(|(column, _)| column == name).and_then(|(_, value)| value.as_deref())
    }

    fn read(names: &[String], body: Bytes) -> EtlResult<Self> {
        let mut at = 2;
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let length = number(&body, at..at + 4)?;
            at += 4;
            let value = match usize::try_from(length.cast_signed()) {
                Err(_) => None,
                Ok(length) => {
                    let value = body.get(at..at + length).ok_or_else(too_short)?;
                    at += length;
                    Some(String::from_utf8(value.to_vec()).or_etl(ErrorKind::Protocol, "read a row as UTF-8")?)
                }
            };
            columns.push((name.clone(), value));
        }
        Ok(Self { columns })
    }
}

/// `RowDescription`: a count, then a name and 18 bytes a column.
fn column_names(body: &[u8]) -> EtlResult<Vec<String>> {
    let mut rest = body.get(2..).ok_or_else(too_short)?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let end = memchr::memchr(0, rest).ok_or_else(too_short)?;
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = rest.get(end + 19..).ok_or_else(too_short)?;
    }
    Ok(names)
}

fn number(body: &[u8], at: Range<usize>) -> EtlResult<u32> {
    let bytes = body.get(at).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    bytes.map(u32::from_be_bytes).ok_or_else(too_short)
}

fn too_short() -> EtlError {
    EtlError::new(ErrorKind::Protocol, "a row of the server is too short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_coalesced_unless_that_is_turned_off() {
        for coalesces in [true, false] {
            let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
            let mut connection = Connection::over(Socket::Unix(ours), coalesces);
            let mut reads = connection.reads(true);
            reads.hurry();
            tokio::io::AsyncWriteExt::write_all(&mut theirs, b"d\0\0\0\x04").await.unwrap();
            if let Socket::Unix(stream) = &connection.socket {
                stream.readable().await.unwrap();
            }
            let filling = reads.fill(&mut connection.buffer, &mut connection.socket);
            let at_once = futures_util::FutureExt::now_or_never(filling).is_some();
            assert_eq!(at_once, !coalesces);
        }
    }

    #[test]
    fn versions_are_numbers() {
        for (text, number) in [("15.18 (Debian 15.18-0)", 150_018), ("18beta1", 180_000), ("17.10", 170_010)] {
            assert_eq!(parse_version(text), Some(number), "{text}");
        }
        assert_eq!(parse_version("devel"), None);
    }

    #[test]
    fn a_row_has_values_and_nulls_and_is_never_too_short_to_fail_well() {
        let body = Bytes::from([&[0, 2, 0, 0, 0, 1][..], b"x", &[255; 4]].concat());
        let names = ["a".to_owned(), "b".to_owned()];
        let row = Row::read(&names, body.clone()).unwrap();
        assert_eq!((row.get("a"), row.get("b"), row.get("c")), (Some("x"), None, None));
        for cut in 2..body.len() {
            assert!(Row::read(&names, body.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
