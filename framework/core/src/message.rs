//! Typed values with an encoding: messages, timer payloads, egress records, answers.

use serde::{Serialize, de::DeserializeOwned};

use crate::{error::DecodeError, schema};

/// A value with an encoding.
///
/// Implemented by `#[derive(Message)]` and `#[derive(Reject)]`, and for the plain types below.
///
/// # Panics
/// An `encode` that cannot succeed (a JSON map whose keys are no strings) panics; in a handler
/// that is a fault of the key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no encoding",
    note = "add `#[derive(Serialize, Deserialize, Message)]` and `#[message(name = \"..\")]` to `{Self}`"
)]
pub trait Wire: Sized + Send + 'static {
    /// How its bytes are to be read by those who lack its type.
    const CONTENT: Encoding = Encoding::Json;

    /// Appends the encoding of this value to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value from exactly these bytes.
    ///
    /// # Errors
    /// If the bytes are no such value.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// Reads a value into this one, reusing its memory where the encoding can.
    ///
    /// # Errors
    /// As [`Wire::decode`]; the value is then unspecified but valid.
    fn decode_into(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        *self = Self::decode(bytes)?;
        Ok(())
    }

    /// Makes the default value of this one, keeping its memory where the encoding can.
    fn reset(&mut self)
    where
        Self: Default,
    {
        *self = Self::default();
    }

    /// What its JSON looks like, as JSON Schema; `true` if nothing is known of it, `false` if it has no values.
    #[must_use]
    fn json_schema() -> serde_json::Value {
        schema::anything()
    }

    /// Reads a value from a row of a table, by the names of its columns.
    ///
    /// # Errors
    /// If a column is missing or holds no such value, or if the type is no serde type.
    fn decode_row(row: Row<'_>) -> Result<Self, DecodeError> {
        let _ = row;
        Err(DecodeError::new("a protobuf message cannot be read from CSV: give the ingress a JSON message"))
    }
}

/// A row of a CSV file and the names of its columns.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The values.
    pub fields: &'a csv::StringRecord,
    /// The names.
    pub columns: &'a csv::StringRecord,
}

/// Reads a serde value from a row; what `#[derive(Message)]` calls.
///
/// # Errors
/// If a column is missing or holds no such value.
pub fn decode_row<T: DeserializeOwned>(row: Row<'_>) -> Result<T, DecodeError> {
    row.fields.deserialize(Some(row.columns)).map_err(|error| DecodeError::new(row_error(&error, row)))
}

fn row_error(error: &csv::Error, row: Row<'_>) -> String {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else { return error.to_string() };
    let place = err.field().and_then(|field| usize::try_from(field).ok());
    let column = place.and_then(|place| Some((row.columns.get(place)?, row.fields.get(place)?)));
    match column {
        Some((column, value)) => format!("column `{column}` holds {value:?}: {}", err.kind()),
        None => err.kind().to_string(),
    }
}

/// How a message's bytes are to be read by those who lack its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON value.
    Json,
    /// One protobuf message.
    Protobuf,
}

/// A value that can be sent, set as a timer, or emitted; derived by `#[derive(Message)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message",
    note = "add `#[derive(Serialize, Deserialize, Message)]` and `#[message(name = \"..\")]` to `{Self}`, or `#[derive(prost::Message, Message)]` and `#[message(name = \"..\", prost)]`"
)]
pub trait Message: Wire {
    /// The stable name; it is part of what is on disk, so renaming it is a breaking change.
    const NAME: &'static str;
    /// How its bytes are to be read.
    const ENCODING: Encoding;
}

/// Writes a serde value as JSON; what `#[derive(Message)]` calls.
///
/// # Panics
/// If the value has no JSON form, such as a map whose keys are no strings.
pub fn encode_json<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    if let Err(error) = serde_json::to_writer(out, value) {
        panic!("{} cannot be written as JSON: {error}", std::any::type_name::<T>());
    }
}

/// Reads a serde value from JSON; what `#[derive(Message)]` calls.
///
/// # Errors
/// If the bytes are no JSON, or not of this type.
pub fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(DecodeError::new)
}

/// Writes a prost message; what `#[derive(Message)]` with `#[message(prost)]` calls.
pub fn encode_prost<T: prost::Message>(value: &T, out: &mut Vec<u8>) {
    value.encode_raw(out);
}

/// Reads a prost message; what `#[derive(Message)]` with `#[message(prost)]` calls.
///
/// # Errors
/// If the bytes are no such message.
pub fn decode_prost<T: prost::Message + Default>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::decode(bytes).map_err(DecodeError::new)
}

/// Reads a prost message into one that exists, keeping its buffers.
///
/// # Errors
/// If the bytes are no such message.
pub fn decode_prost_into<T: prost::Message>(value: &mut T, bytes: &[u8]) -> Result<(), DecodeError> {
    value.clear();
    value.merge(bytes).map_err(DecodeError::new)
}

/// Makes the default value of a prost message, keeping its buffers.
pub fn reset_prost<T: prost::Message>(value: &mut T) {
    value.clear();
}

macro_rules! json {
    ($($plain:ty),*) => {$(
        impl Wire for $plain {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_json(bytes)
            }
            fn json_schema() -> serde_json::Value {
                schema::of::<Self>()
            }
        }
    )*};
}
json!((), bool, u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, String);

macro_rules! json_of {
    ($($generic:ident),*) => {$(
        impl<T: Serialize + DeserializeOwned + Send + 'static> Wire for $generic<T> {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_json(bytes)
            }
        }
    )*};
}
json_of!(Option, Vec);
