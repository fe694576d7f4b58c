//! Keys: the identity of one instance, with the bytes that Kafka's clients would write for it.

use std::fmt::{self, Debug};

use uuid::Uuid;

use crate::error::DecodeError;

/// The identity of one instance of a function.
///
/// The bytes decide the shard, and they are Kafka's: text is UTF-8, a UUID is its text, integers
/// are big-endian. Implement it for a type of your own to get keys that cannot be mixed up.
///
/// ```
/// use statefn_core::{DecodeError, Key, KeyBytes};
/// #[derive(Debug, Clone, PartialEq, Eq)]
/// struct AccountId(u64);
/// impl Key for AccountId {
///     fn write(&self, out: &mut KeyBytes) { self.0.write(out) }
///     fn read(bytes: &[u8]) -> Result<Self, DecodeError> { u64::read(bytes).map(Self) }
/// }
/// assert_eq!(KeyBytes::of(&AccountId(258)).get(), [0, 0, 0, 0, 0, 0, 1, 2]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key",
    note = "keys are `String`, integers, `Uuid`, or a type of yours with `impl statefn::Key for {Self}`"
)]
pub trait Key: Sized + Clone + Eq + Debug + Send + 'static {
    /// Appends the key's bytes; equal keys write equal bytes, unequal keys unequal ones.
    fn write(&self, out: &mut KeyBytes);

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

/// The bytes of a key; up to `INLINE` of them stand in the value itself, so that most keys need no
/// allocation.
///
/// ```
/// use statefn_core::KeyBytes;
/// let mut bytes = KeyBytes::<4>::new(b"ab");
/// bytes.push(b"cd");
/// assert_eq!(bytes.get(), b"abcd");
/// bytes.push(b"e");
/// assert_eq!(bytes.get(), b"abcde");
/// ```
#[derive(Clone)]
pub struct KeyBytes<const INLINE: usize = 38>(Place<INLINE>);

/// Where the bytes are: on the heap only when they are many.
#[derive(Clone)]
enum Place<const INLINE: usize> {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl<const INLINE: usize> KeyBytes<INLINE> {
    /// These bytes.
    #[inline]
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        const { assert!(INLINE <= u8::MAX as usize, "the length stands in one byte") };
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..key.len()) {
            Some(inline) => {
                inline.copy_from_slice(key);
                Self(Place::Inline { length: key.len() as u8, bytes })
            }
            None => Self(Place::Heap(key.into())),
        }
    }

    /// The bytes themselves.
    #[inline]
    #[must_use]
    pub fn get(&self) -> &[u8] {
        match &self.0 {
            Place::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Place::Heap(bytes) => bytes,
        }
    }

    /// Appends bytes.
    #[inline]
    pub fn push(&mut self, more: &[u8]) {
        if let Place::Inline { length, bytes } = &mut self.0
            && let Some(room) = bytes[usize::from(*length)..].get_mut(..more.len())
        {
            room.copy_from_slice(more);
            *length += more.len() as u8;
            return;
        }
        self.push_to_heap(more);
    }

    #[cold]
    #[inline(never)]
    fn push_to_heap(&mut self, more: &[u8]) {
        self.0 = Place::Heap([self.get(), more].concat().into());
    }
}

impl KeyBytes {
    /// The bytes of a key.
    #[inline]
    #[must_use]
    pub fn of<K: Key>(key: &K) -> Self {
        let mut bytes = Self::new(&[]);
        key.write(&mut bytes);
        bytes
    }
}

impl<const INLINE: usize> Debug for KeyBytes<INLINE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get().escape_ascii())
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

    /// Its bytes, made without the key where that is less work.
    fn into_bytes(self) -> KeyBytes
    where
        Self: Sized,
        K: Key,
    {
        KeyBytes::of(&self.into_key())
    }
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
    fn into_bytes(self) -> KeyBytes {
        KeyBytes::of(self)
    }
}

impl IntoKey<String> for &str {
    fn into_key(self) -> String {
        self.to_owned()
    }
    fn into_bytes(self) -> KeyBytes {
        KeyBytes::new(self.as_bytes())
    }
}

impl Key for String {
    fn write(&self, out: &mut KeyBytes) {
        out.push(self.as_bytes());
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
    fn write(&self, out: &mut KeyBytes) {
        let mut text = Uuid::encode_buffer();
        out.push(self.hyphenated().encode_lower(&mut text).as_bytes());
    }
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        Uuid::try_parse_ascii(bytes).map_err(|error| DecodeError::new(format_args!("a UUID key is its text: {error}")))
    }
}

macro_rules! integers {
    ($($integer:ident),*) => {$(
        impl Key for $integer {
            fn write(&self, out: &mut KeyBytes) {
                out.push(&self.to_be_bytes());
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
        assert_eq!(KeyBytes::of(&key).get(), bytes);
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
