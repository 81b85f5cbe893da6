//! What do the next bytes say? A reader that checks every length before it reads.

use crate::error::{ErrorKind, EtlError};

/// What is wrong with the bytes; becomes an error only where it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Malformed {
    /// The error about `what`, such as a pgoutput message.
    #[cold]
    pub(crate) fn in_the(self, what: &str) -> EtlError {
        EtlError::new(ErrorKind::Protocol, format!("malformed {what}: {}", self.0))
            .hint("The server speaks another protocol than expected, or the bytes were damaged on the way")
    }
}

pub(crate) type Scan<T> = Result<T, Malformed>;

const SHORT: Malformed = Malformed("it ends too early");

/// Reads forward through bytes; `at` counts from their beginning.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads `block[range]`, with offsets that count from the beginning of the block.
    pub(crate) fn within(block: &'a [u8], range: std::ops::Range<usize>) -> Scan<Self> {
        let bytes = block.get(..range.end).ok_or(SHORT)?;
        if range.start > range.end {
            return Err(SHORT);
        }
        Ok(Self { bytes, at: range.start })
    }

    /// The offset of the next byte.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// That everything was read.
    pub(crate) fn end(&self) -> Scan<()> {
        if self.is_empty() { Ok(()) } else { Err(Malformed("bytes follow its end")) }
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Scan<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(SHORT)?;
        let taken = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Scan<[u8; N]> {
        let rest = self.bytes.get(self.at..).ok_or(SHORT)?;
        let taken = *rest.first_chunk::<N>().ok_or(SHORT)?;
        self.at += N;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Scan<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Scan<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Scan<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Scan<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Scan<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Scan<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A length that is not negative.
    #[inline]
    pub(crate) fn length(&mut self) -> Scan<usize> {
        usize::try_from(self.i32()?).map_err(|_| Malformed("a length is negative"))
    }

    /// Text up to a zero byte.
    pub(crate) fn text(&mut self) -> Scan<&'a str> {
        let rest = self.bytes.get(self.at..).ok_or(SHORT)?;
        let length = memchr::memchr(0, rest).ok_or(Malformed("a text has no end"))?;
        let text = self.take(length)?;
        self.at += 1;
        std::str::from_utf8(text).map_err(|_| Malformed("a text is not UTF-8"))
    }
}
