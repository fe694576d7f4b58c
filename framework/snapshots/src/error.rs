//! Why a place for snapshots cannot be used.

/// Why a place for snapshots cannot be used; the text names the place, the cause and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL or an option is wrong: correct the settings.
    #[error("{0}")]
    Settings(String),
    /// The place answers, and refuses: correct the settings, or what the place allows.
    #[error("{0}")]
    Refused(String),
    /// The place does not answer: it may do so later, without any change.
    #[error("{0}")]
    Unreachable(String),
}
