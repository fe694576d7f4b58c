//! Rules for the core: nothing that could differ from run to run, and no unsafe code.
//!
//! The core has no clock, chance, threads, IO or environment, and iterates over nothing whose order
//! depends on a hash. `hashbrown::HashTable` is allowed, to find things by: it must never be
//! iterated over, so the order of its entries cannot reach a frame. `framework/core/clippy.toml`
//! bans the same by path and sees through imports; this test reads names, also in code that is
//! not compiled here.

use crate::{
    assert_none, assert_one,
    tokens::{Token, places, tokens},
    workspace::{File, files, read},
};

/// Names that the core must not have, each with what it should do instead.
const BANNED: [(&[&str], &str); 5] = [
    (&["Instant", "SystemTime", "UNIX_EPOCH", "elapsed"], "time comes in as an argument"),
    (&["rand", "fastrand", "getrandom", "RandomState", "new_v4", "now_v7"], "a nonce comes in as an argument"),
    (
        &["thread", "thread_local", "spawn", "Mutex", "RwLock", "Condvar", "tokio", "actix"],
        "the runtime has the threads",
    ),
    (
        &["fs", "net", "io", "env", "process", "File", "print", "println", "eprint", "eprintln", "dbg"],
        "give the runtime an action to execute",
    ),
    (&["HashMap", "HashSet"], "use `BTreeMap`, `BTreeSet`, or `hashbrown::HashTable` that is never iterated over"),
];

/// What iterates over a table.
const ITERATIONS: [&str; 9] =
    ["iter", "iter_mut", "iter_hash", "into_iter", "drain", "retain", "extract_if", "iter_buckets", "iter_hash_mut"];

/// The roots of the crates that forbid unsafe code.
const SAFE_ROOTS: [&str; 4] =
    ["framework/core/src/lib.rs", "macros/src/lib.rs", "framework/src/lib.rs", "framework/sim/src/lib.rs"];

#[test]
fn the_core_is_pure() {
    let problems = over_core(|file, tokens| [impurities(file, tokens), foreign_hashes(file, tokens)].concat());
    assert_none("the core has no clock, chance, threads, IO or hash order", &problems);
}

#[test]
fn hash_tables_of_the_core_are_not_iterated_over() {
    assert_none("a `HashTable` in the core is there to find things by, not to iterate over", &over_core(iterations));
}

#[test]
fn crates_that_need_no_unsafe_code_forbid_it() {
    let problems: Vec<String> = SAFE_ROOTS.iter().flat_map(|path| unsafety(&read(path))).collect();
    assert_none("core, macros, facade and simulator forbid unsafe code", &problems);
}

#[test]
fn an_impure_core_is_found() {
    let found = |text: &str| {
        let file = File::new("core/src/a.rs", text);
        [impurities(&file, &tokens(&file)), foreign_hashes(&file, &tokens(&file))].concat()
    };
    let good = "// std::fs\n/// std::fs\nfn a(threads: usize) -> &str { \"std::fs\" }\nuse hashbrown::{HashTable};";
    assert!(found(good).is_empty(), "{:?}", found(good));
    assert_one(&found("fn a() {\n    std::time::Instant::now();\n}"), "a.rs:2: `Instant`");
    assert_one(&found("use std::{fmt, thread};"), "`thread`");
    assert_one(&found("use std::fs;"), "`fs`");
    assert_one(&found("fn a() { std::io::stdout(); }"), "`io`");
    assert_one(&found("fn a() { tokio::join!() }"), "`tokio`");
    assert_one(&found("use std::collections::{BTreeMap, HashMap as Map};"), "`HashMap`");
    assert_one(&found("fn a() { println!(); }"), "`println`");
    assert_one(&found("fn a() -> &str { env!(\"HOME\") }"), "`env`");
    assert_one(&found("use hashbrown::*;"), "`hashbrown`");
}

#[test]
fn an_iteration_over_a_hash_table_is_found() {
    let found = |text: &str| {
        let file = File::new("core/src/a.rs", text);
        iterations(&file, &tokens(&file))
    };
    let table = "struct A { table: HashTable<u32>, list: Vec<u32> }\n";
    assert!(
        found(&format!("{table}fn a(a: A) {{ a.table.find(1, eq); a.list.iter(); for _ in &a.list {{}} }}")).is_empty()
    );
    assert_one(&found(&format!("{table}fn a(a: A) {{ a.table.iter(); }}")), "a.rs:2: `table.iter`");
    assert_one(&found(&format!("{table}fn a(a: A) {{ a.table.drain(); }}")), "`table.drain`");
    assert_one(&found(&format!("{table}fn a(a: A) {{ for entry in &mut a.table {{}} }}")), "`for .. in .. table`");
    assert_one(&found("fn a() { let t = hashbrown::HashTable::new(); t.retain(f); }"), "`t.retain`");
}

#[test]
fn a_root_without_forbid_is_found() {
    assert!(unsafety(&File::new("lib.rs", "//! A.\n#![forbid(unsafe_code)]\n")).is_empty());
    assert_one(&unsafety(&File::new("lib.rs", "//! A.\n#![deny(unsafe_code)]\n")), "lib.rs");
    assert_one(&unsafety(&File::new("lib.rs", "// #![forbid(unsafe_code)]\n")), "lib.rs");
}

fn over_core(rule: impl Fn(&File, &[Token]) -> Vec<String>) -> Vec<String> {
    let sources = files(".rs").into_iter().filter(|file| file.path.starts_with("framework/core/src/"));
    sources.flat_map(|file| rule(&file, &tokens(&file))).collect()
}

fn impurities(file: &File, tokens: &[Token]) -> Vec<String> {
    let mut problems = Vec::new();
    for token in tokens.iter().filter(|token| token.is_identifier) {
        if let Some((_, instead)) = BANNED.iter().find(|(names, _)| names.contains(&token.text.as_str())) {
            problems.push(format!("{}:{}: `{}`: {instead}", file.path, token.line, token.text));
        }
    }
    problems
}

/// Of `hashbrown` only the table that brings no hasher of its own is allowed.
fn foreign_hashes(file: &File, tokens: &[Token]) -> Vec<String> {
    let uses = places(tokens, &["hashbrown", "::"]);
    let foreign = uses.filter(|place| {
        let used = tokens[place + 2..].iter().find(|token| token.text != "{");
        !used.is_some_and(|token| ["HashTable", "hash_table"].contains(&token.text.as_str()))
    });
    let told = foreign
        .map(|place| format!("{}:{}: of `hashbrown` name `HashTable`, and that alone", file.path, tokens[place].line));
    told.collect()
}

/// Names that are declared as a table, and then iterated over in the same file.
fn iterations(file: &File, tokens: &[Token]) -> Vec<String> {
    let tables = table_names(tokens);
    let mut problems = Vec::new();
    for (place, token) in tokens.iter().enumerate().filter(|(_, token)| tables.contains(&token.text.as_str())) {
        let (line, name) = (token.line, &token.text);
        let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
        if text(place + 1) == "." && ITERATIONS.contains(&text(place + 2)) {
            problems.push(format!("{}:{line}: `{name}.{}` has no order", file.path, text(place + 2)));
        }
        if text(place + 1) == "{" && is_in_for(&tokens[..place]) {
            problems.push(format!("{}:{line}: `for .. in .. {name}` has no order", file.path));
        }
    }
    problems
}

/// Names of fields and bindings: `name: HashTable` and `let name = .. HashTable`.
fn table_names(tokens: &[Token]) -> Vec<&str> {
    let mut names = Vec::new();
    for (place, _) in tokens.iter().enumerate().filter(|(_, token)| token.text == "HashTable") {
        let path = tokens[..place].iter().rev().take_while(|token| token.text == "::" || token.text == "hashbrown");
        let place = place - path.count();
        if place >= 2 && tokens[place - 2].is_identifier && [":", "="].contains(&tokens[place - 1].text.as_str()) {
            names.push(tokens[place - 2].text.as_str());
        }
    }
    names
}

/// Whether the tokens end in `for .. in` and a plain path.
fn is_in_for(tokens: &[Token]) -> bool {
    let plain =
        |token: &&Token| token.text != "in" && (token.is_identifier || ["&", ".", "*"].contains(&token.text.as_str()));
    let path = tokens.iter().rev().take_while(plain).count();
    tokens[..tokens.len() - path].last().is_some_and(|token| token.text == "in")
}

fn unsafety(root: &File) -> Vec<String> {
    let tokens = tokens(root);
    let forbids = places(&tokens, &["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"]).next().is_some();
    if forbids { Vec::new() } else { vec![format!("{}: add `#![forbid(unsafe_code)]`", root.path)] }
}
