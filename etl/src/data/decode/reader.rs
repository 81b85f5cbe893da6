//! How are numbers and values taken off the front of a binary form? Every length is checked.

use super::{DecodeError, Decoded, fixed};
use crate::data::RawValue;

/// What is left of a binary form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        fixed(self.bytes(N)?)
    }

    /// So many bytes.
    #[inline]
    pub(super) fn bytes(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Binary)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Decoded<u8> {
        Ok(u8::from_be_bytes(self.take()?))
    }

    pub(super) fn u16(&mut self) -> Decoded<u16> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    pub(super) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    pub(super) fn i32(&mut self) -> Decoded<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    pub(super) fn i64(&mut self) -> Decoded<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    pub(super) fn f32(&mut self) -> Decoded<f32> {
        Ok(f32::from_be_bytes(self.take()?))
    }

    pub(super) fn f64(&mut self) -> Decoded<f64> {
        Ok(f64::from_be_bytes(self.take()?))
    }

    /// A count of things that have at least so many bytes each.
    pub(super) fn count(&mut self, size: usize) -> Decoded<usize> {
        let count = usize::try_from(self.i32()?).map_err(|_| DecodeError::Binary)?;
        if count > self.0.len() / size { Err(DecodeError::Binary) } else { Ok(count) }
    }

    /// A length and a value, or -1 and nothing for a null.
    #[inline]
    pub(super) fn value(&mut self) -> Decoded<RawValue<'a>> {
        match self.i32()? {
            -1 => Ok(RawValue::Null),
            length => {
                let length = usize::try_from(length).map_err(|_| DecodeError::Binary)?;
                Ok(RawValue::Binary(self.bytes(length)?))
            }
        }
    }

    /// A text with a zero byte behind it.
    pub(super) fn zero_ended(&mut self) -> Decoded<&'a str> {
        let length = memchr::memchr(0, self.0).ok_or(DecodeError::Binary)?;
        let text = super::utf8(self.bytes(length)?)?;
        self.bytes(1)?;
        Ok(text)
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Binary) }
    }
}
