//! What must hold for any bytes in the place of a mark.

use std::path::Path;

use super::mark::{Copy, Mark, read_copy};

const PATH: &str = "data/egress.mark.0";

/// One copy of a mark.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn marks(bytes: &[u8]) {
    for bytes in [bytes, &Mark::sealed(bytes)] {
        match read_copy(Path::new(PATH), bytes) {
            Ok(Copy::Empty) => assert!(bytes.is_empty(), "only no bytes are no mark"),
            Ok(Copy::Good(mark)) => {
                let Ok(Copy::Good(again)) = read_copy(Path::new(PATH), &mark.encode()) else {
                    panic!("what was written is read: {mark:?}");
                };
                assert_eq!(again, mark, "what is read is written again");
            }
            Ok(Copy::Damaged(reason)) => assert!(reason.contains(PATH), "an error names the file: {reason}"),
            Err(error) => assert!(error.to_string().contains(PATH), "an error names the file: {error}"),
        }
    }
}
