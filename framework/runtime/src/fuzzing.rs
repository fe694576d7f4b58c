//! What must hold for any bytes that reach a decoder of this crate: the checks that fuzzers call.
//!
//! Each check takes any bytes, and panics iff a decoder does not do what it should. Decoders stand
//! behind checksums, which bytes by chance never have, so a check also looks at the bytes with the
//! right checksums put in.

pub use crate::{
    egress::fuzzing::marks,
    embedded::fuzzing::{segments, snapshots, superblocks},
    ingress::fuzzing::{csv, json_lines, protobuf},
};
