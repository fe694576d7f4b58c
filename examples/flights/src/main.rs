//! Runs the flights of 2013 through the app and prints what came of them.

use std::process::ExitCode;

fn main() -> ExitCode {
    flights::app().main()
}
