//! The small binary encoding of frames and snapshots: varints, zigzag, length-prefixed bytes.

use thiserror::Error;

/// Bytes that end too early or hold a number that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the bytes end in the middle of a value, or hold a number out of range")]
pub struct Truncated;

/// Appends `value` in 1 to 10 bytes, 7 bits each, lowest first (LEB128, as protobuf).
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] writes for `value`.
#[inline]
#[must_use]
pub fn varint_length(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a signed number so that small absolute values stay small.
#[inline]
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends bytes behind their length.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends what `fill` writes, behind its length; without a second buffer.
#[inline]
pub fn put_with(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    fill(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut prefix = [0_u8; 10];
    let mut prefix_len = 0;
    let mut rest = length as u64;
    while rest >= 0x80 {
        prefix[prefix_len] = rest as u8 | 0x80;
        prefix_len += 1;
        rest >>= 7;
    }
    prefix[prefix_len] = rest as u8;
    prefix_len += 1;
    out.resize(out.len() + prefix_len - 1, 0);
    out.copy_within(at + 1..at + 1 + length, at + prefix_len);
    out[at..at + prefix_len].copy_from_slice(&prefix[..prefix_len]);
}

/// A few numbers, encoded one behind the other before they are appended to a buffer at once: that
/// looks for room once, not for each byte. It has room for a byte and five numbers.
#[derive(Debug)]
pub(crate) struct Short {
    bytes: [u8; 51],
    length: usize,
}

impl Short {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 51], length: 0 }
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// As [`put_varint`].
    #[inline]
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// As [`put_signed`].
    #[inline]
    pub(crate) fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A place in bytes that are read front to back.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether all bytes were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// [`Truncated`] at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Truncated> {
        let byte = *self.bytes.get(self.at).ok_or(Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// [`Truncated`] if there are fewer.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let end = self.at.checked_add(length).ok_or(Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// Reads what [`put_varint`] wrote.
    ///
    /// # Errors
    /// [`Truncated`] at the end or above `u64::MAX`.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Truncated> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Truncated);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Truncated)
    }

    /// Reads a varint that fits `T`.
    ///
    /// # Errors
    /// [`Truncated`] at the end or out of range.
    #[inline]
    pub fn number<T: TryFrom<u64>>(&mut self) -> Result<T, Truncated> {
        T::try_from(self.varint()?).map_err(|_| Truncated)
    }

    /// Reads what [`put_signed`] wrote.
    ///
    /// # Errors
    /// [`Truncated`] at the end or out of range.
    #[inline]
    pub fn signed(&mut self) -> Result<i64, Truncated> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads what [`put_bytes`] or [`put_with`] wrote.
    ///
    /// # Errors
    /// [`Truncated`] at the end.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.number()?;
        self.take(length)
    }

    /// Reads a length-prefixed text.
    ///
    /// # Errors
    /// [`Truncated`] at the end or if it is no UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Truncated> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Truncated)
    }

    /// Reads a little-endian `u32`.
    ///
    /// # Errors
    /// [`Truncated`] at the end.
    pub fn u32_fixed(&mut self) -> Result<u32, Truncated> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_length_of_a_varint_is_known_before_it_is_written() {
        for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_length(value), "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(unsigned: u64, signed: i64, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_varint(&mut out, unsigned);
            put_signed(&mut out, signed);
            put_bytes(&mut out, &bytes);
            put_with(&mut out, |out| out.extend_from_slice(&bytes));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(unsigned));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(reader.bytes(), Ok(&bytes[..]));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_ok() && reader.bytes().is_ok() && !reader.is_empty() {}
        }
    }
}
