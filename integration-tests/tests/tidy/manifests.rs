//! Rules for the manifests: which package may depend on which, and what stands in one place only.

use toml::{Table, Value};

use crate::{
    assert_none, assert_one,
    workspace::{File, files, read},
};

/// What a package may depend on of ours; `macros` has more for its tests.
const ARROWS: [(&str, &[&str]); 12] = [
    ("statefn-macros", &[]),
    ("statefn-core", &[]),
    ("statefn-runtime", &["statefn-core"]),
    ("statefn-http", &["statefn-core"]),
    ("statefn-kafka", &["statefn-core", "services"]),
    ("statefn-snapshots", &["statefn-core", "services"]),
    ("services", &[]),
    ("statefn-cli", &["statefn-core", "statefn-runtime"]),
    ("statefn-sim", &["statefn-core"]),
    (
        "statefn",
        &[
            "statefn-cli",
            "statefn-core",
            "statefn-http",
            "statefn-kafka",
            "statefn-macros",
            "statefn-runtime",
            "statefn-sim",
            "statefn-snapshots",
        ],
    ),
    ("xtask", &["services", "statefn", "statefn-sim"]),
    ("statefn-fuzz", &["statefn"]),
];
/// What a package that is not among [`ARROWS`] may depend on: one that uses statefn.
const ARROWS_OF_USERS: &[&str] = &["services", "statefn"];
/// The directories of such packages.
const USERS: [&str; 2] = ["examples/", "integration-tests/"];

/// What every package has from the workspace.
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn packages_depend_on_each_other_in_one_direction() {
    let rule = "a package depends on those of ours that ARCHITECTURE.md allows, dev-dependencies included";
    assert_none(rule, &over_packages(|file, manifest| arrows(file, manifest, &ours())));
}

#[test]
fn packages_have_lints_and_version_from_the_workspace() {
    assert_none("what all packages share stands in the workspace's manifest", &over_members(inheritance));
}

#[test]
fn versions_of_dependencies_stand_in_the_workspace() {
    let rule = "`[workspace.dependencies]` has every version, packages say `workspace = true`";
    assert_none(rule, &over_members(versions));
}

#[test]
fn every_package_is_a_member() {
    let rule = "every manifest belongs to a member of the workspace, or nothing checks it";
    let paths: Vec<String> = members().into_iter().map(|(file, _)| file.path).collect();
    assert_none(rule, &strangers(&workspace(), &paths));
}

#[test]
fn a_wrong_arrow_is_found() {
    let ours = ["statefn", "statefn-core", "statefn-macros"].map(str::to_owned);
    let found = |path: &str, text: &str| {
        let file = File::new(path, text);
        arrows(&file, &table(&file), &ours)
    };
    let core = "package.name = 'statefn-core'\n";
    assert!(found("core", &format!("{core}dependencies.serde.workspace = true")).is_empty());
    assert_one(&found("core", &format!("{core}dependencies.statefn.workspace = true")), "`statefn`");
    assert_one(&found("core", &format!("{core}dev-dependencies.statefn.workspace = true")), "`statefn`");
    assert_one(&found("core", &format!("{core}build-dependencies.statefn.workspace = true")), "`statefn`");
    assert_one(&found("core", &format!("{core}target.'cfg(unix)'.dependencies.statefn.workspace = true")), "`statefn`");
    let renamed = format!("{core}dependencies.harmless = {{ package = 'statefn', version = '1' }}");
    assert_one(&found("core", &renamed), "`statefn`");
    assert!(found("core", &format!("{core}dev-dependencies.statefn-core.workspace = true")).is_empty());
    let macros = "package.name = 'statefn-macros'\n";
    assert!(found("macros", &format!("{macros}dev-dependencies.statefn.workspace = true")).is_empty());
    assert_one(&found("macros", &format!("{macros}dependencies.statefn.workspace = true")), "`statefn`");
    let example = "package.name = 'shop'\n";
    assert!(found("examples/shop", &format!("{example}dependencies.statefn.workspace = true")).is_empty());
    assert_one(
        &found("examples/shop", &format!("{example}dev-dependencies.statefn-core.workspace = true")),
        "`statefn-core`",
    );
    assert_one(&found("framework/new", "package.name = 'statefn-new'"), "say in");
}

#[test]
fn what_is_not_inherited_is_found() {
    let good = "[package]\nversion.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n\
                license.workspace = true\n[lints]\nworkspace = true";
    let found = |text: &str| inheritance(&File::new("a", text), &table(&File::new("a", text)));
    assert!(found(good).is_empty());
    assert_one(&found(&good.replace("edition.workspace = true", "edition = '2024'")), "`edition`");
    assert_one(&found(&good.replace("license.workspace = true", "")), "`license`");
    assert_one(&found(&good.replace("[lints]\nworkspace = true", "")), "`[lints]`");
    assert_one(&found(&good.replace("[lints]\nworkspace = true", "[lints.rust]\nunused = 'allow'")), "`[lints]`");
}

#[test]
fn a_version_outside_of_the_workspace_is_found() {
    let found = |text: &str| versions(&File::new("a", text), &table(&File::new("a", text)));
    assert!(found("dependencies.serde = { workspace = true, features = ['rc'] }").is_empty());
    assert_one(&found("dependencies.serde = '1'"), "`serde`");
    assert_one(&found("dev-dependencies.serde = { version = '1' }"), "`serde`");
    assert_one(&found("dependencies.serde = { path = '../serde' }"), "`serde`");
    assert_one(&found("target.'cfg(unix)'.dependencies.libc = '1'"), "`libc`");
}

#[test]
fn a_package_that_is_no_member_is_found() {
    let workspace = table(&File::new("Cargo.toml", "workspace.members = ['a', 'b']"));
    let paths = ["a/Cargo.toml", "b/Cargo.toml", "c/Cargo.toml"].map(str::to_owned);
    assert!(strangers(&workspace, &paths[..2]).is_empty());
    assert_one(&strangers(&workspace, &paths), "`c`");
}

fn over_packages(rule: impl Fn(&File, &Table) -> Vec<String>) -> Vec<String> {
    packages().iter().flat_map(|(file, manifest)| rule(file, manifest)).collect()
}

fn over_members(rule: impl Fn(&File, &Table) -> Vec<String>) -> Vec<String> {
    members().iter().flat_map(|(file, manifest)| rule(file, manifest)).collect()
}

/// The packages but for those that are a workspace of their own, and so share nothing.
fn members() -> Vec<(File, Table)> {
    packages().into_iter().filter(|(_, manifest)| !manifest.contains_key("workspace")).collect()
}

fn packages() -> Vec<(File, Table)> {
    let manifests = files("/Cargo.toml").into_iter();
    manifests.map(|file| (table(&file), file)).map(|(manifest, file)| (file, manifest)).collect()
}

fn workspace() -> Table {
    table(&read("Cargo.toml"))
}

/// The names of our own packages: those that the workspace has by path.
fn ours() -> Vec<String> {
    let workspace = workspace();
    let shared = workspace["workspace"]["dependencies"].as_table().expect("the workspace has dependencies");
    let ours: Vec<String> =
        shared.iter().filter(|(_, given)| given.get("path").is_some()).map(|(name, _)| name.clone()).collect();
    assert!(ours.len() >= 5, "the workspace's own packages stand in `[workspace.dependencies]` by path: {ours:?}");
    ours
}

#[track_caller]
fn table(file: &File) -> Table {
    file.text.parse().unwrap_or_else(|error| panic!("`{}` is not TOML: {error}", file.path))
}

/// All dependencies of a manifest: the kind, the name, and what is given; those of targets too.
fn dependencies(manifest: &Table) -> Vec<(&'static str, &str, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables: Vec<&Table> = targets.filter_map(Value::as_table).chain([manifest]).collect();
    let mut found = Vec::new();
    for table in tables {
        for kind in DEPENDENCIES {
            let listed = table.get(kind).and_then(Value::as_table).into_iter().flatten();
            found.extend(listed.map(|(name, given)| (kind, name.as_str(), given)));
        }
    }
    found
}

fn arrows(file: &File, manifest: &Table, ours: &[String]) -> Vec<String> {
    let name = manifest["package"]["name"].as_str().expect("a package has a name");
    let known = ARROWS.iter().find(|(package, _)| *package == name).map(|(_, allowed)| *allowed);
    let known = known.or_else(|| USERS.iter().any(|user| file.path.starts_with(user)).then_some(ARROWS_OF_USERS));
    let Some(allowed) = known else {
        return vec![format!("{}: `{name}` is new; say in `ARROWS` of {} what it may depend on", file.path, file!())];
    };
    let mut problems = Vec::new();
    for (kind, dependency, given) in dependencies(manifest) {
        let dependency = given.get("package").and_then(Value::as_str).unwrap_or(dependency);
        // The tests of the macros need what the printed code calls, those of the commands an app to ask; a
        // package's own tests may need a feature of it that nobody else does.
        let needs_an_app = ["statefn-macros", "statefn-cli"].contains(&name) && dependency == "statefn";
        let is_for_tests = kind == "dev-dependencies" && (needs_an_app || dependency == name);
        if ours.iter().any(|our| our == dependency) && !allowed.contains(&dependency) && !is_for_tests {
            problems.push(format!("{}: `{name}` may not depend on `{dependency}` (`[{kind}]`)", file.path));
        }
    }
    problems
}

fn inheritance(file: &File, manifest: &Table) -> Vec<String> {
    let is_inherited =
        |given: Option<&Value>| given.and_then(|given| given.get("workspace")) == Some(&Value::Boolean(true));
    let wanted = INHERITED.into_iter().filter(|key| !is_inherited(manifest["package"].get(key)));
    let mut problems: Vec<String> =
        wanted.map(|key| format!("{}: `{key}` must be `{key}.workspace = true`", file.path)).collect();
    if !is_inherited(manifest.get("lints")) {
        problems.push(format!("{}: `[lints]` must be there with `workspace = true`", file.path));
    }
    problems
}

fn versions(file: &File, manifest: &Table) -> Vec<String> {
    let is_shared = |given: &Value| {
        let given = given.as_table();
        given.is_some_and(|given| {
            given.get("workspace") == Some(&Value::Boolean(true))
                && ["version", "path", "git", "registry"].iter().all(|key| !given.contains_key(*key))
        })
    };
    let outside = dependencies(manifest).into_iter().filter(|(_, _, given)| !is_shared(given));
    let told = outside
        .map(|(kind, name, _)| format!("{}: `{name}` in `[{kind}]` must be `{name}.workspace = true`", file.path));
    told.collect()
}

fn strangers(workspace: &Table, manifests: &[String]) -> Vec<String> {
    let members = workspace["workspace"]["members"].as_array().expect("the workspace lists its members");
    let directories = manifests.iter().map(|path| path.trim_end_matches("/Cargo.toml"));
    let strangers = directories.filter(|directory| !members.iter().any(|member| member.as_str() == Some(directory)));
    strangers.map(|directory| format!("`{directory}` is no member: add it to `[workspace] members`")).collect()
}
