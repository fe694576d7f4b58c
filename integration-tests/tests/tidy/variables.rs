//! A rule for variables of the environment: what begins like a setting is one, or is known to be none.

use statefn::settings::OTHER_VARIABLES;

use crate::{
    assert_none, assert_one,
    workspace::{File, files, read},
};

/// Where variables are written that are settings, also wrong ones.
const OF_SETTINGS: [&str; 2] = ["framework/src/settings/", "examples/"];
/// What lists the variables that are none.
const LIST: &str = "framework/src/settings/layers.rs";
const PREFIX: &str = "STATEFN_";

#[test]
fn variables_of_tests_and_tools_are_no_settings() {
    let rule =
        "an app refuses a variable that begins with `STATEFN_` and is neither a setting nor in `OTHER_VARIABLES`";
    let settings = read("framework/docs/SETTINGS.md").text;
    let is_known = |variable: &str| OTHER_VARIABLES.contains(&variable) || settings.contains(&format!("`{variable}`"));
    let sources = files(".rs").into_iter();
    let sources: Vec<File> =
        sources.filter(|file| !OF_SETTINGS.iter().any(|place| file.path.starts_with(place))).collect();
    let problems: Vec<String> = sources.iter().flat_map(|file| strangers(file, is_known)).collect();
    assert_none(rule, &problems);
}

#[test]
fn variables_that_are_let_through_are_read() {
    let sources: Vec<File> = files(".rs").into_iter().filter(|file| file.path != LIST).collect();
    let is_read = |variable: &str| sources.iter().any(|file| variables(file).any(|(_, known)| known == variable));
    let unread = OTHER_VARIABLES.into_iter().filter(|variable| !is_read(variable));
    let problems: Vec<String> = unread.map(|variable| format!("{LIST}: `{variable}` is read nowhere")).collect();
    assert_none("a variable in `OTHER_VARIABLES` is one that a source reads", &problems);
}

#[test]
fn a_strange_variable_is_found() {
    let found = |text: &str| strangers(&File::new("a.rs", text), |variable| variable == "STATEFN_SEED");
    assert!(found("f(\"STATEFN_SEED\"); // \"STATEFN_x\", STATEFN_Y\n").is_empty());
    assert_one(&found("\nf(\"STATEFN_SEEDS\")"), "a.rs:2: `STATEFN_SEEDS`");
}

fn strangers(file: &File, is_known: impl Fn(&str) -> bool) -> Vec<String> {
    let strange = variables(file).filter(|(_, variable)| !is_known(variable));
    strange.map(|(line, variable)| format!("{}:{line}: `{variable}`", file.path)).collect()
}

/// The texts that are the name of a variable of ours and nothing else, with their lines.
fn variables(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let is_variable = |text: &&str| {
        let rest = text.strip_prefix(PREFIX);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    };
    let lines = (1..).zip(file.text.lines());
    lines.flat_map(move |(number, line)| line.split('"').filter(is_variable).map(move |text| (number, text)))
}
