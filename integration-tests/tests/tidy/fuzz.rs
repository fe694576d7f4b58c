//! Rules for the fuzz targets: each has a program, a corpus and a line in the documents.

use std::{collections::BTreeSet, fs};

use crate::{
    assert_none, assert_one,
    workspace::{File, files, read, root},
};

/// The directory of the fuzz targets.
const FUZZ: &str = "framework/fuzz";
/// The list of all checks, in order: `("name", name),`.
const CHECKS: &str = "framework/src/fuzzing.rs";

#[test]
fn every_check_has_a_target_a_corpus_and_a_line_in_the_documents() {
    let document = read("framework/docs/TESTING.md");
    let programs = files(".rs").into_iter().filter_map(|file| {
        let name = file.path.strip_prefix(&format!("{FUZZ}/fuzz_targets/"))?.strip_suffix(".rs")?;
        Some((name.to_owned(), file.text))
    });
    let programs: Vec<(String, String)> = programs.collect();
    let checks = checks(&read(CHECKS));
    assert!(checks.len() >= 10, "the checks are listed in `{CHECKS}`: {checks:?}");
    let problems = lacking(&checks, &programs, &corpora(), &document);
    assert_none("each check of any bytes can be fuzzed and is documented", &problems);
}

#[test]
fn what_a_target_lacks_is_found() {
    let checks = checks(&File::new("a.rs", "const TARGETS: [(&str, Check); 1] = [\n    (\"frames\", frames),\n];\n"));
    assert_eq!(checks, ["frames"]);
    let program = ("frames".to_owned(), "fuzzing::frames(bytes)".to_owned());
    let corpora = BTreeSet::from(["frames".to_owned()]);
    let document = File::new("T.md", "| `frames` | journals |");
    let found = |programs: &[(String, String)], corpora: &BTreeSet<String>, document: &File| {
        lacking(&checks, programs, corpora, document)
    };
    assert!(found(std::slice::from_ref(&program), &corpora, &document).is_empty());
    assert_one(&found(&[], &corpora, &document), "fuzz_targets/frames.rs");
    assert_one(&found(&[("frames".into(), String::new())], &corpora, &document), "fuzz_targets/frames.rs");
    assert_one(&found(std::slice::from_ref(&program), &BTreeSet::new(), &document), "corpus/frames");
    assert_one(&found(std::slice::from_ref(&program), &corpora, &File::new("T.md", "")), "T.md");
    let stray = [program, ("other".to_owned(), "fuzzing::other(bytes)".to_owned())];
    assert_one(&found(&stray, &corpora, &document), "`other`");
}

/// The names in the list of checks.
fn checks(source: &File) -> Vec<String> {
    let name = |line: &str| {
        let (name, function) = line.trim().strip_prefix("(\"")?.strip_suffix("),")?.split_once("\", ")?;
        (name == function).then(|| name.to_owned())
    };
    source.text.lines().filter_map(name).collect()
}

/// The targets whose corpus is not empty.
fn corpora() -> BTreeSet<String> {
    let directory = root().join(FUZZ).join("corpus");
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("`{}`: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("a directory can be listed to its end").path());
    let holds = |path: &std::path::PathBuf| fs::read_dir(path).is_ok_and(|mut files| files.next().is_some());
    paths.filter(holds).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

fn lacking(
    checks: &[String],
    programs: &[(String, String)],
    corpora: &BTreeSet<String>,
    document: &File,
) -> Vec<String> {
    let mut problems = Vec::new();
    for check in checks {
        let call = format!("fuzzing::{check}(");
        if !programs.iter().any(|(name, text)| name == check && text.contains(&call)) {
            problems.push(format!("{FUZZ}/fuzz_targets/{check}.rs must call `{call}..)`"));
        }
        if !corpora.contains(check) {
            problems.push(format!("{FUZZ}/corpus/{check} must hold an input"));
        }
        if !document.text.contains(&format!("| `{check}` |")) {
            problems.push(format!("{}: add a row of the table of targets for `{check}`", document.path));
        }
    }
    let known = programs.iter().map(|(name, _)| name).chain(corpora).filter(|name| !checks.contains(name));
    problems.extend(known.map(|name| format!("`{name}` is no check: add it to `TARGETS` of {CHECKS}, or remove it")));
    problems
}
