//! The file of records that both sides read; made once, for all runs with the same options.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use statefn::__private::Wire;

use super::{
    Case, Failure, KeyKind, Messages, Options,
    case::{number_json, number_protobuf, text_json, text_protobuf},
    options::name,
};

/// Makes the file if it is not there, and reads it once, so that it is in the page cache.
pub(crate) fn prepare(options: &Options, directory: &Path) -> Result<PathBuf, Failure> {
    let extension = if options.messages == Messages::Json { "jsonl" } else { "pb" };
    let kind = name(options.key_kind);
    let path = directory.join(format!("adds-{kind}-{}-{}.{extension}", options.keys, options.events()));
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        match (options.key_kind, options.messages) {
            (KeyKind::Text, Messages::Protobuf) => write::<text_protobuf::Here>(options, &unfinished),
            (KeyKind::Text, Messages::Json) => write::<text_json::Here>(options, &unfinished),
            (KeyKind::U64, Messages::Protobuf) => write::<number_protobuf::Here>(options, &unfinished),
            (KeyKind::U64, Messages::Json) => write::<number_json::Here>(options, &unfinished),
        }?;
        fs::rename(&unfinished, &path)?;
    }
    io::copy(&mut File::open(&path)?, &mut io::sink())?;
    Ok(path)
}

fn write<C: Case>(options: &Options, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut record = Vec::new();
    for number in 0..options.events() {
        let random = mixed(number);
        record.clear();
        C::add(random % options.keys, (random >> 40) % 1000).encode(&mut record);
        match options.messages {
            Messages::Json => record.push(b'\n'),
            Messages::Protobuf => {
                let mut length = Vec::new();
                prost::encode_length_delimiter(record.len(), &mut length)?;
                file.write_all(&length)?;
            }
        }
        file.write_all(&record)?;
    }
    file.flush()
}

/// Number `number` of a fixed sequence without order (SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
