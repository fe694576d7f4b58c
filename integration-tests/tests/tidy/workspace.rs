//! The files of the workspace.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Directories that hold no work of ours, by their paths in the workspace.
const SKIPPED: [&str; 2] = ["target", "data"];

/// A text file: its path in the workspace, `/` between its parts, and what it says.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// A sample.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// The directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the package stands in the workspace").to_owned()
}

/// Reads one file of the workspace.
#[track_caller]
pub(crate) fn read(path: &str) -> File {
    match fs::read_to_string(root().join(path)) {
        Ok(text) => File::new(path, &text),
        Err(error) => panic!("`{path}` cannot be read: {error}"),
    }
}

/// The files whose names end in `suffix`, in the order of their paths.
pub(crate) fn files(suffix: &str) -> Vec<File> {
    let mut paths = Vec::new();
    walk("", &mut paths);
    let mut found: Vec<File> = paths.iter().filter(|path| path.ends_with(suffix)).map(|path| read(path)).collect();
    assert!(!found.is_empty(), "the workspace has no `{suffix}`");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn walk(directory: &str, paths: &mut Vec<String>) {
    let entries = fs::read_dir(root().join(directory));
    for entry in entries.unwrap_or_else(|error| panic!("`{directory}` cannot be listed: {error}")) {
        let entry = entry.expect("a directory can be listed to its end");
        let name = entry.file_name().into_string().expect("file names are text");
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() {
            if !name.starts_with(".git") && !SKIPPED.contains(&path.as_str()) {
                walk(&path, paths);
            }
        } else if kind.is_file() {
            paths.push(path);
        }
    }
}
