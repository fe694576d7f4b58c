//! Rules for what README promises: its two commands are the ones that `.ci/run` runs.

use crate::{
    assert_none, assert_one,
    workspace::{File, read},
};

/// The heading of README whose first block of code has the commands.
const HEADING: &str = "Two commands";
/// What stands before a command in `.ci/run`: it prints, runs and times it.
const STEP: &str = "step ";

#[test]
fn the_commands_of_readme_are_those_of_ci() {
    let rule = "README has two commands, and `.ci/run` runs them as they stand there";
    assert_none(rule, &untested(&read("README.md"), &read(".ci/run")));
}

#[test]
fn another_command_is_found() {
    let readme =
        "# A\n## Two commands\nText:\n```sh\n# Runs it:\ncargo run  # flights\n\ncargo test\n```\n```\nelse\n```\n";
    let found = |readme: &str, ci: &str| untested(&File::new("README.md", readme), &File::new(".ci/run", ci));
    let ci = "set -e\nstep cargo test\nstep cargo run\n";
    assert!(found(readme, ci).is_empty(), "{:?}", found(readme, ci));
    assert_one(&found(readme, "step cargo test\n# step cargo run\n"), "`step cargo run`");
    assert_one(&found(readme, "step cargo test --lib\nstep cargo run\n"), "`step cargo test`");
    assert_one(&found(&readme.replace("cargo run  # flights\n", ""), ci), "1 commands");
    assert_one(&found(&readme.replace("cargo test\n", "cargo test\ncargo doc\n"), ci), "3 commands");
    assert_one(&found(&readme.replace("Two commands", "Use"), ci), "0 commands");
}

fn untested(readme: &File, ci: &File) -> Vec<String> {
    let commands = commands(&readme.text);
    if commands.len() != 2 {
        let (path, count) = (&readme.path, commands.len());
        return vec![format!("{path}: the first block of code under `{HEADING}` has {count} commands, not 2")];
    }
    let steps: Vec<&str> = ci.text.lines().filter_map(|line| line.trim().strip_prefix(STEP)).collect();
    let missing = commands.into_iter().filter(|command| !steps.contains(command));
    missing.map(|command| format!("{}: `{STEP}{command}` is not in it", ci.path)).collect()
}

/// The lines of the first block of code under the heading, without comments.
fn commands(text: &str) -> Vec<&str> {
    let is_heading = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == HEADING;
    let section = text.lines().skip_while(|line| !is_heading(line)).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let block = section.skip_while(|line| !line.starts_with("```")).skip(1).take_while(|line| !line.starts_with("```"));
    let commands = block.map(|line| line.split(" #").next().unwrap_or_default().trim());
    commands.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}
