//! The layers of settings: the program, a file, the environment and the command line, each over the
//! one before; and where each setting came from.
//!
//! Invariants: a name that no row of the table has is refused in every layer, with the nearest one
//! that there is; every mistake of all layers is told at once; what is told never holds a secret, nor
//! the value of an unknown name, which may be a secret whose name was mistyped.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{
    Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{
    table::{ANY, Field, Row},
    value::{Secret, Wrong},
};
use crate::Error;

/// What the variables of settings begin with.
pub(crate) const PREFIX: &str = "STATEFN_";

/// The variables that begin like those of settings and are none: commands that ask a running app, and the
/// tests and tools of statefn, read them.
pub const OTHER_VARIABLES: [&str; 15] = [
    "STATEFN_ADMIN_TOKEN",
    "STATEFN_BENCH_BEGUN_US",
    "STATEFN_DISK_FLIPS",
    "STATEFN_DISK_IMAGES",
    "STATEFN_FAILPOINT",
    "STATEFN_FAILPOINT_COUNTS",
    "STATEFN_FLEET_KILLS",
    "STATEFN_FUZZ_CHANGES",
    "STATEFN_PLAN",
    "STATEFN_SEED",
    "STATEFN_SEEDS",
    "STATEFN_SERVICES",
    "STATEFN_WORKLOAD",
    "STATEFN_WRITE_DOCS",
    "STATEFN_WRITE_FIXTURES",
];

/// How much of a value is told.
const VALUE_LETTERS_MAX: usize = 80;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody has said anything.
    Default,
    /// The app itself.
    Program,
    /// A line of a text that is no file.
    Text { line: usize },
    /// A line of a file.
    File { path: PathBuf, line: usize },
    /// A variable of the environment.
    Variable { name: String },
    /// An option of the command line, without its value.
    Option { name: String },
}

impl Origin {
    /// What a program calls it.
    pub(crate) fn layer(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Program => "program",
            Self::Text { .. } | Self::File { .. } => "file",
            Self::Variable { .. } => "environment",
            Self::Option { .. } => "command line",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "the default"),
            Self::Program => write!(f, "the program"),
            Self::Text { line } => write!(f, "line {line}"),
            Self::File { path, line } => write!(f, "`{}`, line {line}", path.display()),
            Self::Variable { name } => write!(f, "the variable `{name}`"),
            Self::Option { name } => write!(f, "the option `{name}`"),
        }
    }
}

/// Where the settings came from that the app itself has not said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Origins(BTreeMap<Vec<String>, Origin>);

impl Origins {
    /// Where a setting came from; `is_set` says whether anybody has said something.
    pub(crate) fn of(&self, name: &[String], is_set: bool) -> Origin {
        let unsaid = if is_set { Origin::Program } else { Origin::Default };
        self.0.get(name).cloned().unwrap_or(unsaid)
    }

    /// Whether no layer over the program has said a setting.
    pub(crate) fn is_of_program(&self, name: &[&str]) -> bool {
        !self.0.keys().any(|known| known == name)
    }

    /// Where the first of the settings came from that begin so.
    fn of_group(&self, name: &[&str]) -> Origin {
        let mut within = self.0.iter().filter(|(known, _)| known.iter().zip(name).all(|(known, name)| known == name));
        within.next().map_or(Origin::Program, |(_, origin)| origin.clone())
    }

    /// The error of a setting that is not right, and not secret.
    pub(crate) fn wrong(&self, name: &[&str], value: impl fmt::Display, reason: &str) -> Error {
        let parts: Vec<String> = name.iter().map(|&part| part.to_owned()).collect();
        let origin = self.of(&parts, true);
        Error::Settings(format!("`{}` is `{value}`, from {origin}: {reason}", written(name)))
    }

    /// The error of settings for something that the app does not have.
    pub(crate) fn unknown(&self, kind: &str, name: &str, known: &[String]) -> Error {
        let origin = self.of_group(&[kind, name]);
        let fix = match nearest(name, known) {
            Some(nearest) => format!("the nearest that it has is `{nearest}`, all are `{}`", known.join("`, `")),
            None => format!("it has none; remove `{}`", written(&[kind, name])),
        };
        Error::Settings(format!("the app has no {kind} `{name}`, which is named by {origin}: {fix}"))
    }
}

/// The names that an app has for what settings speak of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) ingresses: Vec<String>,
    pub(crate) egresses: Vec<String>,
}

impl Names {
    /// The names that a group goes by.
    fn of(&self, group: &str) -> &[String] {
        match group {
            "ingress" => &self.ingresses,
            "egress" => &self.egresses,
            _ => panic!("`{group}` has groups by names: say here which names an app has for them"),
        }
    }

    /// The settings of a row in this app.
    pub(crate) fn settings_of(&self, row: &Row) -> Vec<Vec<String>> {
        let part = |part: &str, name: &str| if part == ANY { name.to_owned() } else { part.to_owned() };
        let with = |name: &str| row.name.iter().map(|&own| part(own, name)).collect();
        if row.name.contains(&ANY) {
            self.of(row.name[0]).iter().map(|name| with(name)).collect()
        } else {
            vec![with("")]
        }
    }
}

/// Settings that are put together from their layers.
pub(crate) struct Layers<S> {
    settings: S,
    origins: Origins,
    names: Names,
    rows: Vec<Row>,
    problems: Vec<String>,
}

impl<S: Field> Layers<S> {
    /// Begins with what the app itself says.
    pub(crate) fn new(program: S, names: Names) -> Self {
        let rows = S::rows(Row::default());
        Self { settings: program, origins: Origins::default(), names, rows, problems: Vec::new() }
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.toml(&text, |line| Origin::File { path: path.to_owned(), line }),
            Err(error) => self.problems.push(format!(
                "cannot read the settings `{}`: {error}; correct `--settings`, or make the file readable",
                path.display()
            )),
        }
    }

    /// Adds a text as a file has it.
    pub(crate) fn toml(&mut self, text: &str, origin: impl Fn(usize) -> Origin) {
        let origin_at = |byte: usize| {
            let before = &text.as_bytes()[..byte.min(text.len())];
            origin(1 + before.iter().filter(|byte| **byte == b'\n').count())
        };
        match DeTable::parse(text) {
            Ok(table) => self.lines(&mut Vec::new(), table.into_inner(), &origin_at),
            Err(error) => {
                // Without the text of the line, which may hold a secret.
                let at = origin_at(error.span().map_or(0, |span| span.start));
                self.problems.push(format!("{at}: this is no TOML: {}", error.message().replace('\n', ", ")));
            }
        }
    }

    fn lines(&mut self, name: &mut Vec<String>, table: DeTable<'_>, origin_at: &impl Fn(usize) -> Origin) {
        for (key, value) in table {
            let origin = origin_at(key.span().start);
            name.push(key.into_inner().into_owned());
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(within) if !within.is_empty() => self.lines(name, within, origin_at),
                value => match Value::deserialize(ValueDeserializer::from(toml::Spanned::new(span, value))) {
                    Ok(value) => self.put(name, value, &origin),
                    // TOML has no larger numbers; the message would tell it, and it may be a secret.
                    Err(_) => self.problems.push(format!(
                        "`{}`, from {origin}, holds a number that is too large: write a smaller one, or a text in quotes",
                        shortened(&written(name))
                    )),
                },
            }
            name.pop();
        }
    }

    /// Adds the variables of the environment.
    pub(crate) fn environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        let known = self.variables();
        // In the order of their names, so that the same mistakes are told in the same way.
        let variables: BTreeMap<OsString, OsString> = variables.collect();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str().filter(|variable| variable.starts_with(PREFIX)) else { continue };
            if OTHER_VARIABLES.contains(&variable) {
                continue;
            }
            match known.get(variable).map(Vec::as_slice) {
                Some([name]) => self.text(name, value, &Origin::Variable { name: variable.to_owned() }),
                Some(names) => {
                    let names = names.iter().map(|name| written(name)).collect::<Vec<_>>().join("` and `");
                    self.problems.push(format!("the variable `{variable}` means `{names}`: set them in the file"));
                }
                None => {
                    let nearest = nearest(variable, known.keys()).map_or("", String::as_str);
                    self.problems.push(format!(
                        "the variable `{variable}` is no setting: the nearest is `{nearest}`, `--help-settings` lists all; unset it if it is not meant for this app"
                    ));
                }
            }
        }
    }

    /// The variables of this app's settings.
    fn variables(&self) -> BTreeMap<String, Vec<Vec<String>>> {
        let mut variables: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for name in self.rows.iter().flat_map(|row| self.names.settings_of(row)) {
            variables.entry(variable_of(&name)).or_default().push(name);
        }
        variables
    }

    fn text(&mut self, name: &[String], value: OsString, origin: &Origin) {
        match value.into_string() {
            Ok(text) => self.put(name, self.value_of(name, &text), origin),
            Err(_) => self.problems.push(format!("`{}`, from {origin}, is no UTF-8: write it as text", written(name))),
        }
    }

    /// Adds what stands behind `--set`.
    pub(crate) fn assignment(&mut self, assignment: &str) {
        let Some((name, value)) = assignment.split_once('=') else {
            // What was given may be the value of a secret.
            self.problems.push("`--set` has no `=`: write such as `--set ingress.sales.path=sales.csv`".into());
            return;
        };
        let origin = Origin::Option { name: format!("--set {}", shortened(name.trim())) };
        match parts_of(name) {
            Some(parts) => self.put(&parts, self.value_of(&parts, value.trim()), &origin),
            None => self.problems.push(format!(
                "`{}` is no name of a setting, from {origin}: write such as `ingress.sales.path`",
                shortened(name.trim())
            )),
        }
    }

    /// Adds an option that is called like its setting.
    pub(crate) fn option(&mut self, name: &str, value: OsString) {
        let origin = Origin::Option { name: option_of(name) };
        self.text(&[name.to_owned()], value, &origin);
    }

    /// The value that a text of the environment or the command line has: a text in quotes, a list or
    /// a table are TOML, everything else, and every secret, is as it stands.
    fn value_of(&self, name: &[String], text: &str) -> Value {
        let is_toml = text.starts_with(['"', '\'', '[', '{']) && !self.is_secret(name);
        let value = || Value::deserialize(ValueDeserializer::parse(text).ok()?).ok();
        is_toml.then(value).flatten().unwrap_or_else(|| Value::from(text))
    }

    fn is_secret(&self, name: &[String]) -> bool {
        self.rows.iter().any(|row| row.is_of(name) && row.is_secret)
    }

    fn put(&mut self, name: &[String], value: Value, origin: &Origin) {
        match value {
            Value::Table(within) if !within.is_empty() => {
                for (part, value) in within {
                    self.put(&[name, &[part]].concat(), value, origin);
                }
            }
            value => match self.settings.put(name, &value) {
                Ok(()) => _ = self.origins.0.insert(name.to_vec(), origin.clone()),
                Err(wrong) => self.refuse(name, &value, origin, wrong),
            },
        }
    }

    fn refuse(&mut self, name: &[String], value: &Value, origin: &Origin, wrong: Wrong) {
        let name_text = shortened(&written(name));
        self.problems.push(match wrong {
            Wrong::Unknown => {
                let nearest = self.nearest(name);
                format!(
                    "there is no setting `{name_text}`, from {origin}: the nearest is `{nearest}`, `--help-settings` lists all"
                )
            }
            Wrong::Value(reason) => {
                let value = if self.is_secret(name) { Secret::SHOWN.to_owned() } else { shortened(&text_of(value)) };
                format!("`{name_text}` is `{value}`, from {origin}: {reason}")
            }
        });
    }

    /// The name of the setting that somebody meant, most likely.
    fn nearest(&self, name: &[String]) -> String {
        let group = self.rows.iter().find(|row| row.has_prefix(name));
        let known = |row: &Row| {
            let parts = row.name.iter().enumerate();
            let given = |place: usize| name.get(place).map_or("NAME", String::as_str);
            written(
                &parts
                    .map(|(place, &part)| if part == ANY { given(place) } else { part }.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let known: Vec<String> = group.map_or_else(|| self.rows.iter().map(known).collect(), |row| vec![known(row)]);
        nearest(&written(name), &known).cloned().unwrap_or_default()
    }

    /// What all layers say.
    ///
    /// # Errors
    /// [`Error::Settings`] with a line for each mistake.
    pub(crate) fn finish(self) -> Result<(S, Origins), Error> {
        if self.problems.is_empty() {
            return Ok((self.settings, self.origins));
        }
        Err(Error::Settings(self.problems.join("\n")))
    }
}

/// A name as TOML has it: parts that are no plain words in quotes.
pub(crate) fn written(name: &[impl AsRef<str>]) -> String {
    let is_plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let part = |part: &str| if is_plain(part) { part.to_owned() } else { Value::from(part).to_string() };
    name.iter().map(|name| part(name.as_ref())).collect::<Vec<_>>().join(".")
}

/// The variable of a setting.
pub(crate) fn variable_of(name: &[String]) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    let parts = name.iter().map(|part| part.chars().map(letter).collect::<String>());
    format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("__"))
}

/// The option of a setting whose name has one part.
pub(crate) fn option_of(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

/// The parts of a name that is written as in TOML.
fn parts_of(name: &str) -> Option<Vec<String>> {
    let text = format!("{name} = 0");
    let mut table = DeTable::parse(&text).ok()?.into_inner();
    let mut parts = Vec::new();
    loop {
        let mut entries = table.into_iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else { return None };
        parts.push(key.into_inner().into_owned());
        match value.into_inner() {
            DeValue::Table(within) => table = within,
            _ => return Some(parts),
        }
    }
}

/// A value as a person would read it.
pub(crate) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The first of several lines, and not more of it than one can read.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(VALUE_LETTERS_MAX) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None if line.len() < text.len() => format!("{line}.."),
        None => line.to_owned(),
    }
}

/// The name that is the fewest changes away.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a String>) -> Option<&'a String> {
    known.into_iter().min_by_key(|known| strsim::osa_distance(name, known))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{Settings, table::table};

    /// Adds a layer.
    type Add<'a, S> = &'a dyn Fn(&mut Layers<S>);

    fn names() -> Names {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Names { ingresses: names(&["sales", "more.sales"]), egresses: names(&["dead-letters", "a-b", "a_b"]) }
    }

    fn layers() -> Layers<Settings> {
        Layers::new(Settings::new(), names())
    }

    fn file(layers: &mut Layers<impl Field>, text: &str) {
        layers.toml(text, |line| Origin::File { path: "statefn.toml".into(), line });
    }

    fn variable(layers: &mut Layers<impl Field>, name: &str, value: &str) {
        layers.environment([(name.into(), value.into()), ("PATH".into(), "/bin".into())].into_iter());
    }

    /// What is wrong with what `add` adds, line by line.
    fn problems(add: impl FnOnce(&mut Layers<Settings>)) -> Vec<String> {
        let mut layers = layers();
        add(&mut layers);
        let Err(Error::Settings(problems)) = layers.finish().map(drop) else { panic!("nothing is refused") };
        problems.lines().map(str::to_owned).collect()
    }

    /// Each layer says `commit_interval`; the last of those that are there holds.
    #[test]
    fn each_layer_lies_over_the_one_before() {
        let name = ["commit_interval".to_owned()];
        let mut found = Vec::new();
        for count in 0..=5 {
            let program =
                Settings { commit_interval: (count > 0).then_some(Duration::from_secs(1)), ..Settings::new() };
            let mut layers = Layers::new(program, names());
            let add: [Add<'_, Settings>; 4] = [
                &|layers| file(layers, "\ncommit_interval = \"2s\""),
                &|layers| variable(layers, "STATEFN_COMMIT_INTERVAL", "3s"),
                &|layers| layers.assignment("commit_interval=4s"),
                &|layers| layers.option("commit_interval", "5s".into()),
            ];
            add.iter().take(usize::max(count, 1) - 1).for_each(|add| add(&mut layers));
            let (settings, origins) = layers.finish().expect("is right");
            let is_set = settings.commit_interval.is_some();
            found.push((settings.commit_interval().as_secs(), origins.of(&name, is_set).to_string()));
        }
        let expected = [
            "the default",
            "the program",
            "`statefn.toml`, line 2",
            "the variable `STATEFN_COMMIT_INTERVAL`",
            "the option `--set commit_interval`",
            "the option `--commit-interval`",
        ];
        assert_eq!(found, Vec::from_iter((0..).zip(expected.map(str::to_owned))));
    }

    /// The layers lie over each other setting by setting, not group by group.
    #[test]
    fn settings_of_one_group_come_from_several_layers() {
        let mut layers = Layers::new(Settings::new().input("sales", "a.csv"), names());
        file(&mut layers, "ingress.sales = { format = \"csv\", records_per_second = 10 }\negress.a-b.to = \"count\"");
        variable(&mut layers, "STATEFN_INGRESS__SALES__RECORDS_PER_SECOND", "2.5");
        variable(&mut layers, "STATEFN_EGRESS__DEAD_LETTERS__PATH", "dead");
        variable(&mut layers, "STATEFN_INGRESS__MORE_SALES__PATHS", "['b.csv', \"c.csv\"]");
        layers.assignment("ingress.\"more.sales\".format=csv");
        layers.assignment("ingress.sales={ path = 'd.csv' }");
        let (settings, _) = layers.finish().expect("is right");
        let expected = "\
            [egress.a-b]\nto = \"count\"\n\n\
            [egress.dead-letters]\npath = \"dead\"\n\n\
            [ingress.\"more.sales\"]\nformat = \"csv\"\npaths = [\"b.csv\", \"c.csv\"]\n\n\
            [ingress.sales]\nformat = \"csv\"\npath = \"d.csv\"\nrecords_per_second = 2.5\n";
        assert_eq!(toml::to_string(&settings).expect("can be written down"), expected);
    }

    #[test]
    fn unknown_names_are_refused_in_each_layer_with_the_nearest() {
        for (text, expected) in [
            ("\nshard = 3", "there is no setting `shard`, from `statefn.toml`, line 2: the nearest is `shards`"),
            (
                "[ingress.sales]\n\nfile = 'x'",
                "there is no setting `ingress.sales.file`, from `statefn.toml`, line 3: the nearest is `ingress.sales.path`",
            ),
            (
                "egress.a-b = {}\n[ingres.sales]",
                "there is no setting `ingres.sales`, from `statefn.toml`, line 2: the nearest is",
            ),
            (
                "shards = 99999999999999999999",
                "`shards`, from `statefn.toml`, line 1, holds a number that is too large: write",
            ),
            (
                "[ingres.sales]\npath = 'x'",
                "there is no setting `ingres.sales.path`, from `statefn.toml`, line 2: the nearest is `ingress.sales.path`",
            ),
            ("[ingres]", "there is no setting `ingres`, from `statefn.toml`, line 1: the nearest is"),
            (
                "ingress = 3",
                "there is no setting `ingress`, from `statefn.toml`, line 1: the nearest is `ingress.NAME.path`",
            ),
            (
                "shards.least = 3",
                "there is no setting `shards.least`, from `statefn.toml`, line 1: the nearest is `shards`",
            ),
        ] {
            let found = problems(|layers| file(layers, text));
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
        }
        for (name, expected) in [
            (
                "STATEFN_COMIT_INTERVAL",
                "the variable `STATEFN_COMIT_INTERVAL` is no setting: the nearest is `STATEFN_COMMIT_INTERVAL`, `--help-settings` lists all",
            ),
            (
                "STATEFN_INGRESS_SALES_PATH",
                "the variable `STATEFN_INGRESS_SALES_PATH` is no setting: the nearest is `STATEFN_INGRESS__SALES__PATH`",
            ),
            (
                "STATEFN_INGRESS__SALE__PATH",
                "the variable `STATEFN_INGRESS__SALE__PATH` is no setting: the nearest is `STATEFN_INGRESS__SALES__PATH`",
            ),
            (
                "STATEFN_EGRESS__A_B__TO",
                "the variable `STATEFN_EGRESS__A_B__TO` means `egress.a-b.to` and `egress.a_b.to`: set them in the file",
            ),
        ] {
            let found = problems(|layers| variable(layers, name, "s3cret"));
            assert!(found.len() == 1 && found[0].starts_with(expected), "{name}: {found:?}");
            assert!(!found[0].contains("s3cret"), "it may be a secret: {found:?}");
        }
        for (assignment, expected) in [
            (
                "segment_byte=64MiB",
                "there is no setting `segment_byte`, from the option `--set segment_byte`: the nearest is `segment_bytes`, `--help-settings` lists all",
            ),
            (
                "ingress.sales.rate=1",
                "there is no setting `ingress.sales.rate`, from the option `--set ingress.sales.rate`: the nearest is `ingress.sales.path`, `--help-settings` lists all",
            ),
            ("=3", "`` is no name of a setting, from the option `--set `: write such as `ingress.sales.path`"),
            ("s3cret", "`--set` has no `=`: write such as `--set ingress.sales.path=sales.csv`"),
        ] {
            assert_eq!(problems(|layers| layers.assignment(assignment)), [expected]);
        }
    }

    #[test]
    fn bad_values_are_refused_in_each_layer() {
        let unitless = "a duration needs a unit: write such as `10ms`, `10s` or `10min`";
        assert_eq!(
            problems(|layers| {
                file(layers, "commit_interval = 10\nsegment_bytes = 64\nshards = -1");
                variable(layers, "STATEFN_COMMIT_INTERVAL", "10");
                layers.assignment("commit_interval=10");
                layers.option("commit_interval", "10".into());
                layers.assignment(&format!("egress.a-b.to={}", "x".repeat(1_000)));
            }),
            [
                format!("`commit_interval` is `10`, from `statefn.toml`, line 1: {unitless}"),
                "`segment_bytes` is `64`, from `statefn.toml`, line 2: a size needs a unit: write such as `64B`, `64KiB` or `64MiB`".into(),
                "`shards` is `-1`, from `statefn.toml`, line 3: it must be a whole number, such as `8`, and at most 4294967295".into(),
                format!("`commit_interval` is `10`, from the variable `STATEFN_COMMIT_INTERVAL`: {unitless}"),
                format!("`commit_interval` is `10`, from the option `--set commit_interval`: {unitless}"),
                format!("`commit_interval` is `10`, from the option `--commit-interval`: {unitless}"),
                format!("`egress.a-b.to` is `{}..`, from the option `--set egress.a-b.to`: it must be `file`, `console`, `webhook`, `kafka` or `count`", "x".repeat(80)),
            ]
        );
    }

    #[test]
    fn files_that_are_none_are_refused_with_their_line() {
        let found = problems(|layers| file(layers, "shards = 3\ntoken = \"s3cret\n"));
        assert!(found.len() == 1 && found[0].starts_with("`statefn.toml`, line 2: this is no TOML: "), "{found:?}");
        assert!(!found[0].contains("s3cret"), "the line may hold a secret: {found:?}");
        let found = problems(|layers| layers.file("no/such/file".as_ref()));
        assert_eq!(
            found,
            [
                "cannot read the settings `no/such/file`: No such file or directory (os error 2); correct `--settings`, or make the file readable"
            ]
        );
    }

    #[test]
    fn what_tests_and_tools_read_is_no_setting() {
        let mut layers = layers();
        layers.environment(OTHER_VARIABLES.iter().map(|name| (name.into(), "1".into())));
        assert_eq!(layers.finish().expect("nothing is refused").0, Settings::new());
        let variables = super::super::rows()
            .iter()
            .flat_map(|row| names().settings_of(row))
            .map(|name| variable_of(&name))
            .collect::<Vec<_>>();
        assert!(variables.iter().all(|variable| !OTHER_VARIABLES.contains(&variable.as_str())), "{variables:?}");
    }

    table! {
        /// An interface that only some may use.
        struct Interface {
            /// What one must show.
            token: Option<Secret> = "none",
        }
    }

    table! {
        /// Settings with a secret.
        struct WithSecret {
            /// The interface.
            admin: Interface,
        }
    }

    #[test]
    fn secrets_are_read_as_they_stand_and_never_shown() {
        let token = ["admin".to_owned(), "token".to_owned()];
        let layers: [Add<'_, WithSecret>; 3] = [
            &|layers| file(layers, "admin.token = \"['s3cret']\""),
            &|layers| variable(layers, "STATEFN_ADMIN__TOKEN", "['s3cret']"),
            &|layers| layers.assignment("admin.token=['s3cret']"),
        ];
        for add in layers {
            let mut layers = Layers::new(WithSecret::default(), Names::default());
            add(&mut layers);
            let (settings, origins) = layers.finish().expect("is right");
            assert_eq!(settings.admin.token.as_ref().map(Secret::reveal), Some("['s3cret']"));
            let mut listed = BTreeMap::new();
            settings.list(&[], &mut listed);
            assert_eq!(listed, [(token.to_vec(), Value::from("***"))].into());
            assert!(!format!("{settings:?} {origins:?}").contains("s3cret"));
        }
    }

    #[test]
    fn errors_of_secrets_do_not_show_them() {
        let mut layers = Layers::new(WithSecret::default(), Names::default());
        file(&mut layers, "admin.token = [\"s3cret\"]");
        layers.assignment("admin.tokne=s3cret");
        variable(&mut layers, "STATEFN_ADMIN__TOKNE", "s3cret");
        let error = layers.finish().map(drop).expect_err("three mistakes").to_string();
        assert_eq!(
            error,
            "`admin.token` is `***`, from `statefn.toml`, line 1: it must be a secret text that is not empty\n\
             there is no setting `admin.tokne`, from the option `--set admin.tokne`: the nearest is `admin.token`, `--help-settings` lists all\n\
             the variable `STATEFN_ADMIN__TOKNE` is no setting: the nearest is `STATEFN_ADMIN__TOKEN`, `--help-settings` lists all; unset it if it is not meant for this app"
        );
    }
}
