//! The figures of a row, printed as they come.

use std::fs;

use crate::bench::{
    Failure,
    figures::{digits, print, print_json},
};

/// What was found out.
pub(crate) struct Results {
    row: &'static str,
    is_json: bool,
    values: Vec<(String, f64)>,
}

impl Results {
    pub(super) fn new(row: &'static str, is_json: bool) -> Self {
        Self { row, is_json, values: Vec::new() }
    }

    /// Notes a figure; `target` says what it should be, if anything.
    pub(super) fn add(&mut self, name: &str, value: f64, target: &str) -> Result<(), Failure> {
        self.values.push((name.to_owned(), value));
        if self.is_json {
            return Ok(());
        }
        let target = if target.is_empty() { String::new() } else { format!("   target {target}") };
        print(&format!("{name:<44}{:>12}{target}", digits(value)))
    }

    /// Notes how many threads wanted to run in the last minute, on average.
    pub(super) fn tell_load(&mut self, name: &str) -> Result<(), Failure> {
        let text = fs::read_to_string("/proc/loadavg")?;
        let load = text.split_whitespace().next().ok_or("the system does not say its load")?;
        self.add(name, load.parse()?, "")
    }

    /// Prints everything for a program, if it is for one.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.is_json { print_json(self.row, &[], &self.values) } else { Ok(()) }
    }
}
