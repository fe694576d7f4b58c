//! Rules for Markdown: links that lead somewhere, and words that are written out.

use std::path::Path;

use crate::{
    assert_none, assert_one,
    sources::ABBREVIATIONS,
    workspace::{File, files, read, root},
};

/// The line that stands before a block of code which shows a source.
const SHOWN: (&str, &str) = ("<!-- ", ".rs -->");

#[test]
fn links_lead_somewhere() {
    let exists = |path: &str| root().join(path).exists();
    let problems: Vec<String> = files(".md").iter().flat_map(|file| dead_links(file, exists)).collect();
    assert_none("relative links in Markdown lead to files of the workspace", &problems);
}

#[test]
fn documents_are_written_out() {
    let problems: Vec<String> = files(".md").iter().flat_map(abbreviated).collect();
    assert_none("words in Markdown are written out", &problems);
}

#[test]
fn shown_sources_are_the_sources() {
    let source = |path: &str| root().join(path).is_file().then(|| read(path).text);
    let problems: Vec<String> = files(".md").iter().flat_map(|file| outdated(file, source)).collect();
    assert_none("a block of code behind `<!-- path.rs -->` is that file, but for its tests", &problems);
}

#[test]
fn an_outdated_source_is_found() {
    let source = |path: &str| (path == "a.rs").then(|| "fn a() {}\n\n#[cfg(test)]\nmod tests {}\n".to_owned());
    let found = |text: &str| outdated(&File::new("a.md", text), source);
    assert!(found("one\n<!-- a.rs -->\n```rust\nfn a() {}\n```\ntwo\n").is_empty());
    assert_one(&found("one\n<!-- a.rs -->\n```rust\nfn a() { }\n```\n"), "a.md:2: `a.rs`");
    assert_one(&found("<!-- a.rs -->\n"), "a.md:1: `a.rs`");
    assert_one(&found("<!-- b.rs -->\n```rust\nfn a() {}\n```\n"), "`b.rs`");
}

#[test]
fn a_dead_link_is_found() {
    let exists = |path: &str| path == "docs/here.md" || path == "LICENSE";
    let found = |text: &str| dead_links(&File::new("docs/a.md", text), exists);
    let good = "[a](here.md) [b](here.md#part) [c](../LICENSE \"title\") [d](https://a.b/c) [e](#part)\n\
                `[f](code.md)`\n```\n[g](code.md)\n```\n![h](./here.md)\n[i]: here.md\n";
    assert!(found(good).is_empty(), "{:?}", found(good));
    assert_one(&found("one\n[a](gone.md)"), "docs/a.md:2: `gone.md`");
    assert_one(&found("[a](here.md) and [b](../gone.md#part)"), "`../gone.md#part`");
    assert_one(&found("[a]: gone.md"), "`gone.md`");
    assert_one(&found("[![a](gone.svg)](here.md)"), "`gone.svg`");
    assert_one(&found("[a](../../LICENSE)"), "`../../LICENSE`");
}

#[test]
fn an_abbreviation_is_found() {
    let found = |text: &str| abbreviated(&File::new("a.md", text));
    assert!(found("An index, and `idx` in code.\n```\nidx\n```\n").is_empty());
    assert_one(&found("one\nan idx"), "a.md:2: `idx`");
}

/// The lines with their numbers, without code.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            return None;
        }
        (!is_code).then(|| (number, line.split('`').step_by(2).collect::<Vec<_>>().join("`")))
    })
}

fn dead_links(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in prose(&file.text) {
        for link in links(&line) {
            let path = link.split('#').next().unwrap_or_default();
            let is_elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !is_elsewhere && !resolve(&file.path, path).is_some_and(|path| exists(&path)) {
                problems.push(format!("{}:{number}: `{link}` does not exist", file.path));
            }
        }
    }
    problems
}

fn outdated(file: &File, source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for (place, line) in file.text.lines().enumerate() {
        let Some(path) = line.strip_prefix(SHOWN.0).filter(|_| line.ends_with(SHOWN.1)) else { continue };
        let path = path.trim_end_matches(" -->");
        let block = file.text.lines().skip(place + 1).skip_while(|line| line.is_empty());
        let block: Vec<&str> = block.skip(1).take_while(|line| *line != "```").collect();
        let shown = source(path).map(|text| text.split("\n#[cfg(test)]").next().unwrap_or_default().trim().to_owned());
        if shown.is_none_or(|shown| shown != block.join("\n")) {
            problems.push(format!("{}:{}: `{path}` is not what is shown behind this", file.path, place + 1));
        }
    }
    problems
}

/// The targets of `[text](target)` and `[label]: target`.
fn links(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).map(|rest| rest.split([')', ' ']).next().unwrap_or_default());
    let label = line.starts_with('[').then(|| line.split_once("]: ")).flatten();
    let label = label.map(|(_, target)| target.split(' ').next().unwrap_or_default());
    inline.chain(label).collect()
}

/// The path in the workspace that a link of the file at `from` means; none outside of it.
fn resolve(from: &str, link: &str) -> Option<String> {
    let directory = Path::new(from).parent()?.to_str()?;
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn abbreviated(file: &File) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in prose(&file.text) {
        for word in line.split(|letter: char| !letter.is_alphanumeric()) {
            if let Some((short, instead)) = ABBREVIATIONS.iter().find(|(short, _)| word.eq_ignore_ascii_case(short)) {
                problems.push(format!("{}:{number}: `{short}`: write {instead}", file.path));
            }
        }
    }
    problems
}

/// The parts of README's first Rust block that do not stand in the program it is taken from.
fn parts_missing_in(readme: &str, program: &str) -> Vec<String> {
    let block = readme.split("```rust,ignore\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let parts = block.trim().split("\n\n");
    parts.filter(|part| !program.contains(part)).map(str::to_owned).collect()
}

#[test]
fn readme_shows_the_code_of_hello() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("readable");
    let missing = parts_missing_in(&read("README.md"), &read("examples/hello/src/main.rs"));
    assert_eq!(missing, Vec::<String>::new(), "README shows code that examples/hello/src/main.rs does not have");
}

#[test]
fn code_that_a_program_lacks_is_noticed() {
    let readme = "text\n```rust,ignore\nfn a() {}\n\nfn b() {}\n```\n";
    assert_eq!(parts_missing_in(readme, "fn a() {}\n"), ["fn b() {}"]);
}
