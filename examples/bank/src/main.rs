//! Runs the orders through the bank; statements and audits are files in its data directory.

use std::process::ExitCode;

fn main() -> ExitCode {
    bank::app().main()
}
