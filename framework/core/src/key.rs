//! Keys: the identity of one instance, with the bytes that Kafka's clients would write for it.

use std::fmt::Debug;

use uuid::Uuid;

use crate::error::DecodeError;

/// The identity of one instance of a function.
///
/// The bytes decide the shard, and they are Kafka's: text is UTF-8, a UUID is its text, integers
/// are big-endian. Implement it for a type of your own to get keys that cannot be mixed up.
///
/// ```
/// use statefn_core::{DecodeError, IntoKey, Key};
/// #[derive(Debug, Clone, PartialEq, Eq)]
/// struct AccountId(u64);
/// impl Key for AccountId {
///     fn write(&self, out: &mut Vec<u8>) { self.0.write(out) }
///     fn read(bytes: &[u8]) -> Result<Self, DecodeError> { u64::read(bytes).map(Self) }
/// }
/// let mut bytes = Vec::new();
/// AccountId(258).write(&mut bytes);
/// assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 1, 2]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key",
    note = "keys are `String`, integers, `Uuid`, or a type of yours with `impl statefn::Key for {Self}`"
)]
pub trait Key: Sized + Clone + Eq + Debug + Send + 'static {
    /// Appends the key's bytes; equal keys write equal bytes, unequal keys unequal ones.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a key from exactly the bytes that `write` wrote.
    ///
    /// # Errors
    /// If the bytes are no such key.
    fn read(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// Reads a key into this one, reusing its memory where it has any.
    ///
    /// # Errors
    /// As [`Key::read`]; the key is then unspecified but valid.
    fn read_into(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        *self = Self::read(bytes)?;
        Ok(())
    }
}

/// What can stand where a key of type `K` is wanted: the key, a reference to it, or a literal.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key of this function, whose keys are `{K}`",
    label = "expected a `{K}` or `&{K}`",
    note = "or add `impl statefn::IntoKey<{K}> for {Self}`"
)]
pub trait IntoKey<K> {
    /// Makes the key.
    fn into_key(self) -> K;
}

impl<K: Key> IntoKey<K> for K {
    fn into_key(self) -> K {
        self
    }
}

impl<K: Key> IntoKey<K> for &K {
    fn into_key(self) -> K {
        self.clone()
    }
}

impl IntoKey<String> for &str {
    fn into_key(self) -> String {
        self.to_owned()
    }
}

impl Key for String {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut key = Self::new();
        key.read_into(bytes)?;
        Ok(key)
    }
    fn read_into(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|error| DecodeError::new(format_args!("a text key is UTF-8: {error}")))?;
        self.clear();
        self.push_str(text);
        Ok(())
    }
}

impl Key for Uuid {
    fn write(&self, out: &mut Vec<u8>) {
        let mut text = Uuid::encode_buffer();
        out.extend_from_slice(self.hyphenated().encode_lower(&mut text).as_bytes());
    }
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        Uuid::try_parse_ascii(bytes).map_err(|error| DecodeError::new(format_args!("a UUID key is its text: {error}")))
    }
}

macro_rules! integers {
    ($($integer:ident),*) => {$(
        impl Key for $integer {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
                match <[u8; size_of::<$integer>()]>::try_from(bytes) {
                    Ok(bytes) => Ok(Self::from_be_bytes(bytes)),
                    Err(_) => Err(DecodeError::new(format_args!(
                        "a {} key has {} bytes, not {}", stringify!($integer), size_of::<$integer>(), bytes.len()
                    ))),
                }
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: Key>(key: K, bytes: &[u8]) {
        let mut written = Vec::new();
        key.write(&mut written);
        assert_eq!(written, bytes);
        let mut read = K::read(bytes).expect("reads back");
        assert_eq!(read, key);
        read.read_into(bytes).expect("reads again");
        assert_eq!(read, key);
    }

    #[test]
    fn keys_write_the_bytes_of_kafka() {
        check("äb".to_owned(), "äb".as_bytes());
        check(-2_i32, &[255, 255, 255, 254]);
        check(1_u64, &[0, 0, 0, 0, 0, 0, 0, 1]);
        check(Uuid::from_u128(0x1234), b"00000000-0000-0000-0000-000000001234");
    }

    #[test]
    fn bad_bytes_are_refused() {
        assert!(String::read(&[0xff]).is_err());
        assert!(u32::read(&[1]).is_err());
        assert!(Uuid::read(b"x").is_err());
    }
}
