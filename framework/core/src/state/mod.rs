//! The state of one key and its encoding.
//!
//! A stored state is `[codec id][version][body]`: codec 1 is MessagePack with named fields, which
//! can be read without the Rust type, and to which fields can be added (with `#[serde(default)]`)
//! or taken away. The version is the one of `#[state(version = ..)]`, 1 if none is given.

use serde::{Serialize, de::DeserializeOwned};

use crate::{codec, error::DecodeError};

/// MessagePack with named fields.
const CODEC_MESSAGE_PACK: u8 = 1;

/// One field of a state, for those who read it without the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its Rust type, as written.
    pub ty: &'static str,
}

/// What a function keeps for each key; derived by `#[derive(State)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no state",
    note = "add `#[derive(Default, Clone, Serialize, Deserialize, State)]` to `{Self}`"
)]
pub trait State: Sized + Send + 'static {
    /// The fields, in the order they are declared.
    const FIELDS: &'static [Field];
    /// The version of the layout, from 1.
    const VERSION: u32;

    /// Appends the encoding of this state to `out`.
    fn encode_state(&self, out: &mut Vec<u8>);

    /// Reads a state.
    ///
    /// # Errors
    /// If the bytes are no such state.
    fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Writes a state; what `#[derive(State)]` calls.
///
/// # Panics
/// If a field's `Serialize` fails; in a handler that is a fault of the key.
pub fn encode<T: Serialize>(state: &T, version: u32, out: &mut Vec<u8>) {
    out.push(CODEC_MESSAGE_PACK);
    codec::put_varint(out, u64::from(version));
    if let Err(error) = rmp_serde::encode::write_named(out, state) {
        panic!("the state {} cannot be written: {error}", std::any::type_name::<T>());
    }
}

/// Reads a state; what `#[derive(State)]` calls.
///
/// # Errors
/// If the codec is unknown, the version newer than `version`, or the body not of this type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], version: u32) -> Result<T, DecodeError> {
    let body = body(bytes, version)?;
    rmp_serde::from_slice(body).map_err(|error| {
        DecodeError::new(format_args!(
            "the stored state is no {}: {error}; a new field needs `#[serde(default)]`",
            std::any::type_name::<T>()
        ))
    })
}

/// Reads a state without its type, for people and tools.
///
/// Bytes and keys of maps that JSON has no form for become text.
///
/// # Errors
/// If the codec is unknown or the body damaged.
pub fn to_value(bytes: &[u8]) -> Result<serde_json::Value, DecodeError> {
    let mut body = body(bytes, u32::MAX)?;
    let value = rmpv::decode::read_value(&mut body).map_err(DecodeError::new)?;
    Ok(json(value))
}

/// Writes a state that was given as JSON, for people and tools; whether it is one only its type says.
///
/// # Errors
/// If the value is nested too deeply.
pub fn from_value(value: &serde_json::Value, version: u32) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![CODEC_MESSAGE_PACK];
    codec::put_varint(&mut out, u64::from(version));
    rmp_serde::encode::write_named(&mut out, value).map_err(DecodeError::new)?;
    Ok(out)
}

fn json(value: rmpv::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        rmpv::Value::Nil => Json::Null,
        rmpv::Value::Boolean(value) => value.into(),
        rmpv::Value::Integer(value) => value.as_u64().map_or_else(|| value.as_i64().into(), Json::from),
        rmpv::Value::F32(value) => value.into(),
        rmpv::Value::F64(value) => value.into(),
        rmpv::Value::String(value) => String::from_utf8_lossy(value.as_bytes()).into_owned().into(),
        rmpv::Value::Binary(value) | rmpv::Value::Ext(_, value) => crate::dead_letter::printable_key(&value).into(),
        rmpv::Value::Array(values) => values.into_iter().map(json).collect(),
        rmpv::Value::Map(entries) => {
            let text = |key| match json(key) {
                Json::String(text) => text,
                other => other.to_string(),
            };
            entries.into_iter().map(|(key, value)| (text(key), json(value))).collect()
        }
    }
}

fn body(bytes: &[u8], version: u32) -> Result<&[u8], DecodeError> {
    let mut reader = codec::Reader::new(bytes);
    let header = reader.byte().and_then(|codec| Ok((codec, reader.varint()?)));
    match header {
        Ok((CODEC_MESSAGE_PACK, stored)) if stored <= u64::from(version) => Ok(&bytes[reader.at()..]),
        Ok((CODEC_MESSAGE_PACK, stored)) => Err(DecodeError::new(format_args!(
            "the stored state has version {stored}, this program knows up to {version}: run the newer program"
        ))),
        Ok((codec, _)) => Err(DecodeError::new(format_args!("the stored state has the unknown codec {codec}"))),
        Err(error) => Err(DecodeError::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        sum: u64,
        name: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        name: String,
        #[serde(default)]
        added: Vec<u32>,
    }

    #[test]
    fn fields_can_be_added_removed_and_reordered() {
        let mut bytes = Vec::new();
        encode(&Old { sum: 1, name: "a".into() }, 1, &mut bytes);
        let new: New = decode(&bytes, 2).expect("an older version is read");
        assert_eq!(new, New { name: "a".into(), added: vec![] });
    }

    #[test]
    fn a_newer_version_is_refused() {
        let mut bytes = Vec::new();
        encode(&1_u8, 3, &mut bytes);
        let error = decode::<u8>(&bytes, 2).expect_err("refused");
        assert!(error.to_string().contains("version 3"), "{error}");
    }

    #[test]
    fn a_state_is_read_without_its_type() {
        let mut bytes = Vec::new();
        let state = (1_u8, Some(-2_i64), std::collections::BTreeMap::from([(7_u64, Old { sum: 3, name: "ä".into() })]));
        encode(&state, 1, &mut bytes);
        let value = to_value(&bytes).expect("is whole");
        assert_eq!(value.to_string(), r#"[1,-2,{"7":{"name":"ä","sum":3}}]"#);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(sum: u64, name: String) {
            let old = Old { sum, name };
            let mut bytes = Vec::new();
            encode(&old, 1, &mut bytes);
            prop_assert_eq!(decode::<Old>(&bytes, 1).expect("decodes"), old);
        }

        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode::<Old>(&bytes, 1);
        }
    }
}
