//! What must hold for any bytes in the place of an input file.

use std::fs;

use serde::Deserialize;
use statefn_core::{
    EventTime,
    address::{murmur2, shard_of},
    effect::Call,
    ingress::{Batches, ErasedIngress, Logged, RawRecord},
    message::{decode_json, decode_row},
    ports::ingress,
    shard::frame::Position,
};

use super::{FileSource, Format, SourceError};

/// A file of rows.
///
/// # Panics
/// If its source does not do what it should.
pub fn csv(bytes: &[u8]) {
    check(bytes, Format::Csv);
}

/// A file of lines of JSON.
///
/// # Panics
/// If its source does not do what it should.
pub fn json_lines(bytes: &[u8]) {
    check(bytes, Format::JsonLines);
}

/// A file of records behind their lengths.
///
/// # Panics
/// If its source does not do what it should.
pub fn protobuf(bytes: &[u8]) {
    check(bytes, Format::Protobuf);
}

fn check(bytes: &[u8], format: Format) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    fs::write(file.path(), bytes).expect("a temporary file can be written");
    let name = file.path().display().to_string();
    let open = |from| FileSource::open(file.path(), format, from);
    match open(Position::default()) {
        Ok(_) => ingress::check(
            &Sales,
            |from| open(from).unwrap_or_else(|error| panic!("what was read before can be read again: {error}")),
            |error: &SourceError| assert!(error.to_string().contains(&name), "an error names the file: {error}"),
        ),
        Err(error) => assert!(error.to_string().contains(&name), "an error names the file: {error}"),
    }
}

/// An ingress of sales.
struct Sales;

#[derive(Deserialize)]
struct Sale {
    store: String,
    cents: Option<u64>,
    #[serde(default)]
    at_ms: i64,
}

impl ErasedIngress for Sales {
    fn name(&self) -> &'static str {
        "sales"
    }

    fn route(&self, offset: u64, record: RawRecord<'_>, batches: &mut Batches) -> Result<EventTime, String> {
        let sale = match record {
            RawRecord::Bytes(bytes) | RawRecord::Logged(Logged { value: bytes, .. }) => decode_json::<Sale>(bytes),
            RawRecord::Row(row) => decode_row(row),
        };
        let Sale { store, cents, at_ms } = sale.map_err(|error| error.to_string())?;
        let hash = murmur2(store.as_bytes());
        let shard = shard_of(hash, batches.shards.len() as u32);
        let batch = &mut batches.shards[shard as usize];
        let payload = cents.unwrap_or_default().to_le_bytes();
        batch.calls.push(Call::message(0, 0, hash, EventTime(at_ms)), store.as_bytes(), &payload);
        batch.offsets.push(offset);
        Ok(EventTime(at_ms))
    }

    fn generate(&self, _: u64, _: &mut Batches) -> Option<Result<EventTime, String>> {
        None
    }

    fn is_generator(&self) -> bool {
        false
    }
}
