//! The file of records that both sides read; made once, for all runs with the same options.

use std::{io::Write, path::PathBuf};

use statefn::__private::Wire;

use super::{Case, Messages, Options, name};
use crate::bench::{
    Failure,
    files::{self, put_record},
    numbers::mixed,
};

/// Where the file is.
pub(crate) fn path(options: &Options) -> Result<PathBuf, Failure> {
    let extension = if options.messages == Messages::Json { "jsonl" } else { "pb" };
    let kind = name(options.key_kind);
    Ok(files::directory()?.join(format!("adds-{kind}-{}-{}.{extension}", options.keys, options.events())))
}

/// Makes the file if it is not there, and reads it once, so that it is in the page cache.
pub(crate) fn prepare<C: Case>(options: &Options) -> Result<(), Failure> {
    files::prepare(&path(options)?, |file| {
        let mut record = Vec::new();
        for number in 0..options.events() {
            let random = mixed(number);
            record.clear();
            C::add(random % options.keys, (random >> 40) % 1000).encode(&mut record);
            match options.messages {
                Messages::Json => {
                    record.push(b'\n');
                    file.write_all(&record)?;
                }
                Messages::Protobuf => put_record(file, &record)?,
            }
        }
        Ok(())
    })
}
