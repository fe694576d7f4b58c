//! Why an app could not start or run on, by what the user can do about it.

use statefn_core::{LinkError, shard::TakeOverError};
use statefn_runtime::{egress::EgressError, embedded::OpenError, engine::RunError, ingress::SourceError};
use thiserror::Error;

/// Why an app could not start or run on; each text names the value, the place and the fix.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings are not right: correct them.
    #[error("{0}")]
    Settings(String),
    /// The parts of the app do not fit together: correct the program.
    #[error("the parts of the app do not fit together:\n{0}")]
    Link(#[from] LinkError),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// What is stored is damaged, or does not fit this program.
    #[error(transparent)]
    Stored(TakeOverError),
    /// An input cannot be read; what came before is committed.
    #[error(transparent)]
    Input(SourceError),
    /// An output cannot be written.
    #[error(transparent)]
    Output(EgressError),
    /// The machine does not do what it must.
    #[error("{0}")]
    Broken(String),
}

impl From<statefn_cli::Error> for Error {
    fn from(error: statefn_cli::Error) -> Self {
        match error {
            statefn_cli::Error::Usage(text) => Self::Settings(text),
            error => Self::Broken(error.to_string()),
        }
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Open(error) => Self::Open(error),
            RunError::TakeOver(error) => Self::Stored(error),
            RunError::Source(error) => Self::Input(error),
            RunError::Egress(error) => Self::Output(error),
            RunError::Broken(reason) => Self::Broken(reason),
        }
    }
}
