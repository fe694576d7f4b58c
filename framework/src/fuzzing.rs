//! What must hold for any bytes that reach a decoder: the checks that `framework/fuzz` calls.
//!
//! Each check takes any bytes, and panics iff a decoder does not do what it should: what decodes is
//! encoded to the same again, an error says what is wrong and where.

pub use statefn_core::fuzzing::{envelopes, frames, images, journals, mail, messages, progress, states, take_overs};
pub use statefn_runtime::fuzzing::{csv, json_lines, marks, protobuf, segments, snapshots, superblocks};

use crate::Settings;

/// A check of any bytes.
pub type Check = fn(&[u8]);

/// Every check, by the name of its target and of the directory of its corpus.
pub const TARGETS: [(&str, Check); 17] = [
    ("csv", csv),
    ("envelopes", envelopes),
    ("frames", frames),
    ("images", images),
    ("journals", journals),
    ("json_lines", json_lines),
    ("mail", mail),
    ("marks", marks),
    ("messages", messages),
    ("progress", progress),
    ("protobuf", protobuf),
    ("segments", segments),
    ("settings", settings),
    ("snapshots", snapshots),
    ("states", states),
    ("superblocks", superblocks),
    ("take_overs", take_overs),
];

/// A file of settings, and an assignment on the command line.
///
/// # Panics
/// If a decoder does not do what it should.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for settings in [Settings::from_toml(text), Settings::new().with(text)] {
        match settings {
            Ok(settings) => {
                // By their text: a number of TOML may be none that equals itself.
                let written = |settings: &Settings| toml::to_string(settings).expect("what was read can be written");
                let text = written(&settings);
                let again =
                    Settings::from_toml(&text).unwrap_or_else(|error| panic!("what was written is read: {error}"));
                assert_eq!(written(&again), text, "what is read is written again");
                let overlaid = Settings::new().overlaid(&settings);
                assert_eq!(written(&overlaid), text, "over nothing they stay what they are");
            }
            Err(error) => assert!(!error.to_string().is_empty(), "an error says what is wrong"),
        }
    }
}
