//! Running an app in this process.

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct Summary {}
