//! Settings.

/// Where an app runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {}
