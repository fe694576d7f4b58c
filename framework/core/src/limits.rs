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
/// How many bytes of messages may be on their way from one shard to another; the rest stays in the
/// source's state.
pub const MAIL_IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After how many milliseconds without an acknowledgement messages are sent again.
pub const RESEND_INTERVAL_MS: i64 = 1_000;
/// How often a shard repeats its progress record, in milliseconds.
pub const PROGRESS_INTERVAL_MS: i64 = 1_000;
/// How often a mailbox is trimmed at most, in milliseconds.
pub const MAILBOX_TRIM_INTERVAL_MS: i64 = 1_000;
/// How many bytes of effects a thread gathers before it stops taking input until it can seal; at
/// half of it the thread seals before the commit interval has passed.
pub const UNSEALED_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How many bytes of unacknowledged messages a thread's shards have before they stop taking input.
pub const UNACKNOWLEDGED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The most bytes of an unreadable record that its dead letter keeps; the record stays in its ingress.
pub const DEAD_LETTER_BYTES_MAX: usize = 256 * 1024;
/// The longest idempotency key, in bytes.
pub const ONCE_BYTES_MAX: usize = 255;
/// How long answers are remembered for idempotency keys, in milliseconds, if settings do not say.
pub const ANSWERS_KEPT_MS: i64 = 60 * 60 * 1_000;
/// How many bytes of remembered answers a shard holds; then requests with a new idempotency key are
/// refused until some are forgotten.
pub const ANSWERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many calls of activities of a shard may wait for their results before the shards of its thread
/// stop taking input.
pub const ACTIVITIES_MAX: usize = 10_000;
/// How long it is remembered that a dead letter was replayed, in milliseconds, at least: a year.
pub const REPLAYS_KEPT_MS: i64 = 365 * 24 * 60 * 60 * 1_000;
/// How many bytes of calls a parked key waits with, if settings do not say.
pub const PARKED_KEY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many bytes of calls all parked keys of a shard wait with, if settings do not say.
pub const PARKED_SHARD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a shard that shares its log with other processes lets event time wait for a frame of its own,
/// in milliseconds: what comes along with messages does not wait.
pub const QUIET_INTERVAL_MS: i64 = 100;
/// How often a shard makes a frame of nothing but a reading of the clock, at most, in milliseconds.
pub const IDLE_INTERVAL_MS: i64 = 1_000;
