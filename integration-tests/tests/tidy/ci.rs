//! Rules for what README promises: its two commands are the ones that `.ci/run` runs, its tasks those of the
//! nightly tests.

use crate::{
    assert_none, assert_one,
    workspace::{File, read},
};

/// The heading of README whose first block of code has the commands.
const HEADING: &str = "Two commands";
/// What stands before a command in `.ci/run`: it prints, runs and times it.
const STEP: &str = "step ";
/// The nightly tests, which have commands of README in quotes.
const NIGHTLY: &str = "framework/xtask/src/ci.rs";

#[test]
fn the_commands_of_readme_are_those_of_ci() {
    let rule = "README has two commands, and `.ci/run` runs them as they stand there";
    assert_none(rule, &untested(&read("README.md"), &read(".ci/run")));
}

#[test]
fn the_tasks_of_readme_are_run() {
    let rule = "a task that README tells people to run is a step of `.ci/run`, or a part of the nightly tests";
    assert_none(rule, &unrun(&read("README.md"), &read(".ci/run"), &read(NIGHTLY)));
}

#[test]
fn a_task_that_nobody_runs_is_found() {
    let readme = "A `cargo xtask a`.\n```console\ncargo xtask setup\ncargo xtask fleet --workers 3  # or more\n```\n";
    let found = |ci: &str, nightly: &str| {
        unrun(&File::new("README.md", readme), &File::new(".ci/run", ci), &File::new(NIGHTLY, nightly))
    };
    assert!(found("step cargo xtask setup\n", "x = \"cargo xtask fleet --workers 3\";").is_empty());
    assert_one(&found("step cargo xtask setup\n", "x = \"cargo xtask fleet --workers 30\";"), "fleet --workers 3");
    assert_one(&found("# step cargo xtask setup\n", "x = \"cargo xtask fleet --workers 3\";"), "setup");
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

fn unrun(readme: &File, ci: &File, nightly: &File) -> Vec<String> {
    let is_step = |command: &str| ci.text.lines().any(|line| line.trim().strip_prefix(STEP) == Some(command));
    let blocks = readme.text.split("```").skip(1).step_by(2).flat_map(str::lines);
    let tasks = blocks.filter(|line| line.starts_with("cargo xtask ")).map(without_comment);
    let unrun = tasks.filter(|task| !is_step(task) && !nightly.text.contains(&format!("\"{task}\"")));
    unrun.map(|task| format!("{}: nothing runs `{task}`", readme.path)).collect()
}

/// The lines of the first block of code under the heading, without comments.
fn commands(text: &str) -> Vec<&str> {
    let is_heading = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == HEADING;
    let section = text.lines().skip_while(|line| !is_heading(line)).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let block = section.skip_while(|line| !line.starts_with("```")).skip(1).take_while(|line| !line.starts_with("```"));
    block.map(without_comment).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn without_comment(line: &str) -> &str {
    line.split(" #").next().unwrap_or_default().trim()
}
