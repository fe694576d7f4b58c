//! Every limit of the core, by name, with its unit.

/// The longest key, in bytes of its encoding.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest message, timer payload or egress record, in bytes of its encoding.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest state of one key, in bytes of its encoding.
pub const STATE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest name of a function, message, ingress, egress or timer, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The most shards an app can have.
pub const SHARDS_MAX: u32 = 4096;
/// The most names (functions, messages, ingresses, egresses) an app can have.
pub const NAMES_MAX: usize = 16_384;
/// The most calls of handlers in one epoch; what is left is carried to the next.
pub const EPOCH_CALLS_MAX: usize = 100_000;
/// The most bytes of effects in one epoch before its remaining messages are carried to the next.
pub const EPOCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest frame, in bytes; above all that one epoch can hold.
pub const FRAME_BYTES_MAX: usize = 1 << 30;
/// How many bytes a journal grows behind its newest snapshot before the next is taken, at least.
pub const SNAPSHOT_TAIL_BYTES_MIN: u64 = 1024 * 1024;
/// The most bytes of an unreadable record that its dead letter keeps; the record stays in its ingress.
pub const DEAD_LETTER_BYTES_MAX: usize = 256 * 1024;
