//! Keys: the identity of one instance, with the bytes that Kafka's clients would write for it.

use std::fmt::{self, Debug, Display};

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
    /// How a person or a URL writes it. A type of your own that is an integer inside says so, with
    /// `const KIND: KeyKind = u64::KIND`; else its text is the very bytes that `write` writes.
    const KIND: KeyKind = KeyKind::Bytes;

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

/// How the text of a key becomes its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Text is UTF-8.
    Text,
    /// A UUID is its text.
    Uuid,
    /// An integer is decimal.
    Integer {
        /// How many bytes it has.
        bytes: u8,
        /// Whether it may be negative.
        is_signed: bool,
    },
    /// A type of the app: its text is its bytes.
    Bytes,
}

impl KeyKind {
    /// The bytes of the key that is written as `text`; each key is written in one way only.
    ///
    /// # Errors
    /// If it is no integer of this size, or not as one is written: `7`, and not `+7` or `07`.
    pub fn bytes(self, text: &[u8]) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Integer { bytes, is_signed } => integer(text, usize::from(bytes), is_signed),
            Self::Text | Self::Uuid | Self::Bytes => Ok(text.to_vec()),
        }
    }

    /// How a person writes the key that has these bytes, which [`Self::bytes`] reads again.
    ///
    /// ```
    /// use statefn_core::{Key, key::KeyKind};
    /// assert_eq!(i32::KIND.text(&[0xff, 0xff, 0xff, 0xfe]), b"-2");
    /// assert_eq!(KeyKind::Text.text(b"alice"), b"alice");
    /// ```
    #[must_use]
    pub fn text(self, bytes: &[u8]) -> Vec<u8> {
        let Self::Integer { is_signed, .. } = self else { return bytes.to_vec() };
        let sign = if is_signed && bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
        let mut all = [sign; 16];
        let Some(front) = all.len().checked_sub(bytes.len()) else { return bytes.to_vec() };
        all[front..].copy_from_slice(bytes);
        if is_signed { i128::from_be_bytes(all).to_string() } else { u128::from_be_bytes(all).to_string() }.into_bytes()
    }
}

impl Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Uuid => f.write_str("uuid"),
            Self::Integer { bytes, is_signed } => {
                write!(f, "{}{}", if *is_signed { 'i' } else { 'u' }, u32::from(*bytes) * 8)
            }
            Self::Bytes => f.write_str("bytes"),
        }
    }
}

fn integer(text: &[u8], bytes: usize, is_signed: bool) -> Result<Vec<u8>, DecodeError> {
    let kind = KeyKind::Integer { bytes: bytes as u8, is_signed };
    let wrong = || {
        let text = String::from_utf8_lossy(text);
        DecodeError::new(format_args!("`{text}` is no {kind}: write it in decimal, without `+` or zeros in front"))
    };
    let digits = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (all, is_canonical) = if is_signed {
        let number: i128 = digits.parse().map_err(|_| wrong())?;
        (number.to_be_bytes(), number.to_string() == digits)
    } else {
        let number: u128 = digits.parse().map_err(|_| wrong())?;
        (number.to_be_bytes(), number.to_string() == digits)
    };
    let (front, own) = all.split_at(all.len() - bytes);
    // What is cut off must say nothing: zeros, or the sign again.
    let sign = if is_signed && own[0] & 0x80 != 0 { 0xff } else { 0 };
    if !is_canonical || front.iter().any(|byte| *byte != sign) {
        return Err(wrong());
    }
    Ok(own.to_vec())
}

/// The bytes of the key of type `K` that is written as `text`.
///
/// # Errors
/// If it is no such key.
pub fn from_text<K: Key>(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    // Reading and writing again gives keys with several texts, such as UUIDs, their one form.
    let key = K::read(&K::KIND.bytes(text)?)?;
    Ok(KeyBytes::of(&key).get().to_vec())
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
    const KIND: KeyKind = KeyKind::Text;

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
    const KIND: KeyKind = KeyKind::Uuid;

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
            const KIND: KeyKind =
                KeyKind::Integer { bytes: size_of::<$integer>() as u8, is_signed: $integer::MIN != 0 };

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
    fn a_key_has_one_text() {
        let bytes = |key: Result<Vec<u8>, DecodeError>| key.map_err(|error| error.to_string());
        assert_eq!(bytes(from_text::<String>("ä/b".as_bytes())), Ok("ä/b".as_bytes().to_vec()));
        assert_eq!(bytes(from_text::<u16>(b"258")), Ok(vec![1, 2]));
        assert_eq!(bytes(from_text::<i8>(b"-128")), Ok(vec![0x80]));
        assert_eq!(bytes(from_text::<i128>(b"-1")), Ok(vec![0xff; 16]));
        assert_eq!(bytes(from_text::<u128>(u128::MAX.to_string().as_bytes())), Ok(vec![0xff; 16]));
        let uuid = b"00000000-0000-0000-0000-00000000ABCD";
        assert_eq!(bytes(from_text::<Uuid>(uuid)), Ok(uuid.to_ascii_lowercase()));
        for text in ["", "+7", "07", "-0", "256", "-1", " 7", "7 ", "0x7", "7.0", "seven", "\u{661}"] {
            assert!(from_text::<u8>(text.as_bytes()).is_err(), "{text:?}");
        }
        for text in ["128", "-129", "-", "--1", "-01"] {
            assert!(from_text::<i8>(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(from_text::<String>(&[0xff]).is_err());
        assert!(from_text::<Uuid>(b"00000000").is_err());
        assert_eq!((u64::KIND.to_string(), i8::KIND.to_string()), ("u64".into(), "i8".into()));
    }

    #[test]
    fn bad_bytes_are_refused() {
        assert!(String::read(&[0xff]).is_err());
        assert!(u32::read(&[1]).is_err());
        assert!(Uuid::read(b"x").is_err());
    }
}
