//! One server for all tests of a process, and what to do where it cannot be had.

use std::{
    env,
    io::{self, Write},
};

use crate::Error;

/// Returns the server, or none where it is not installed and that may be.
///
/// # Panics
/// If it cannot be started; if it is not installed and the variable `CI` is set.
pub(crate) fn available<T>(started: Result<T, Error>, tests: &str) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(error @ Error::Missing { .. }) if env::var_os("CI").is_none() => {
            // Not by the macro, whose text the test harness keeps to itself when a test succeeds.
            // Where standard error is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "\nnote: {tests} of this binary do NOT run: {error}\n");
            None
        }
        Err(error @ Error::Missing { .. }) => {
            panic!("{tests} cannot run, and the variable `CI` says that they must: {error}")
        }
        Err(error) => panic!("{tests} cannot run: {error}"),
    }
}
