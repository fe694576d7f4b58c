//! Settings: where an app runs, reads and writes; plain values with documented defaults.
//!
//! They come from, each over the one before: the app itself ([`App::settings`](crate::App::settings)),
//! the file `statefn.toml` or the one given by `--settings`, and the command line.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn_runtime::ingress::Format;

use crate::Error;
pub use crate::http::HttpSettings;

/// Where an app runs, reads and writes.
///
/// ```
/// use statefn::Settings;
/// let settings = Settings::from_toml(r#"
///     data = "data/bank"
///     shards = 16
///     commit_interval = "10ms"
///     [ingress.transfers]
///     path = "transfers.jsonl"
///     [egress.statements]
///     path = "out/statements.jsonl"
/// "#).unwrap();
/// assert_eq!(settings.shards(), 16);
/// let error = Settings::from_toml("shard = 16").unwrap_err();
/// assert!(error.to_string().contains("unknown field `shard`"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The directory for journal, snapshots and marks; without it nothing survives a stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// How many shards the app has, 1 to 4,096; 64 if not given. Fixed once there are data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// How many threads run the shards; one for each core if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The shortest time between two commits, such as `10ms`; 0 if not given.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub commit_interval: Option<Duration>,
    /// How many bytes the journal of a shard grows before its next snapshot, at least; 1 MiB if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_tail_bytes: Option<u64>,
    /// How large a segment file of the log is, in bytes; 64 MiB if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_bytes: Option<u64>,
    /// Where it listens for HTTP; it does not if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSettings>,
    /// Where each ingress reads, by its name; a generator needs none.
    pub ingress: BTreeMap<String, IngressSettings>,
    /// Where each egress writes, by its name; `<data>/<name>.jsonl` if not given.
    pub egress: BTreeMap<String, EgressSettings>,
}

/// Where an ingress reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngressSettings {
    /// The file; it may end in `.gz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Several files; each is a partition of its own, and they are read side by side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// `csv`, `json-lines` or `protobuf`; by the name of the file if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The most records a second; as many as possible if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<f64>,
}

/// Where an egress writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSettings {
    /// The kind of place; a file if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<EgressKind>,
    /// The file, for that kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// The kinds of places that an egress can write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressKind {
    /// A file: each record stands in it exactly once.
    File,
    /// Standard output: at least once.
    Console,
    /// Nowhere; records are counted.
    Count,
}

impl Settings {
    /// The default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the data directory.
    #[must_use]
    pub fn data(self, directory: impl Into<PathBuf>) -> Self {
        Self { data: Some(directory.into()), ..self }
    }

    /// Sets the file that an ingress reads.
    #[must_use]
    pub fn input(mut self, ingress: &str, path: impl Into<PathBuf>) -> Self {
        self.ingress.entry(ingress.to_owned()).or_default().path = Some(path.into());
        self
    }

    /// Sets the file that an egress writes.
    #[must_use]
    pub fn output(mut self, egress: &str, path: impl Into<PathBuf>) -> Self {
        let settings = EgressSettings { to: Some(EgressKind::File), path: Some(path.into()) };
        self.egress.insert(egress.to_owned(), settings);
        self
    }

    /// Lets an egress write to standard output.
    #[must_use]
    pub fn console(mut self, egress: &str) -> Self {
        self.egress.insert(egress.to_owned(), EgressSettings { to: Some(EgressKind::Console), path: None });
        self
    }

    /// Reads settings from TOML.
    ///
    /// # Errors
    /// [`Error::Settings`] if it is no TOML, or names a setting that there is not.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Settings(error.to_string()))
    }

    /// Reads settings from a file.
    ///
    /// # Errors
    /// [`Error::Settings`] that names the file, if it cannot be read or is not right.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|error| Error::Settings(format!("cannot read the settings `{}`: {error}", path.display())))?;
        Self::from_toml(&text).map_err(|error| Error::Settings(format!("in `{}`: {error}", path.display())))
    }

    /// These settings, but where `over` says something.
    ///
    /// # Errors
    /// [`Error::Settings`] if they cannot be written down, such as a path that is no text.
    pub fn overlaid(&self, over: &Self) -> Result<Self, Error> {
        let wrong = |error: toml::ser::Error| Error::Settings(format!("the settings cannot be written down: {error}"));
        let mut table = toml::Table::try_from(self).map_err(wrong)?;
        merge(&mut table, toml::Table::try_from(over).map_err(wrong)?);
        Self::from_table(table)
    }

    /// These settings with one of them set, as `name=value` says: `ingress.sales.path=sales.csv`.
    ///
    /// # Errors
    /// [`Error::Settings`] that names the assignment.
    ///
    /// ```
    /// use statefn::Settings;
    /// let settings = Settings::new().with("ingress.sales.path=sales.csv").unwrap().with("shards=8").unwrap();
    /// assert_eq!(settings.shards(), 8);
    /// ```
    pub fn with(&self, assignment: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Settings(format!("`--set {assignment}`: {reason}"));
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(wrong("write it as NAME=VALUE, such as ingress.sales.path=sales.csv".into()));
        };
        // What is no TOML value by itself is a text.
        let as_text = || toml::from_str::<toml::Table>(&format!("{name} = {}", toml::Value::from(value)));
        let given = toml::from_str::<toml::Table>(&format!("{name} = {value}")).or_else(|_| as_text());
        let mut table = toml::Table::try_from(self).map_err(|error| wrong(error.to_string()))?;
        merge(&mut table, given.map_err(|error| wrong(error.to_string()))?);
        Self::from_table(table).map_err(|error| wrong(error.to_string()))
    }

    fn from_table(table: toml::Table) -> Result<Self, Error> {
        table.try_into().map_err(|error: toml::de::Error| Error::Settings(error.to_string()))
    }

    /// How many shards the app has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards.unwrap_or(64)
    }

    /// How many threads run the shards.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// Puts what `over` says into `table`, tables within tables too.
fn merge(table: &mut toml::Table, over: toml::Table) {
    for (name, value) in over {
        match (table.get_mut(&name), value) {
            (Some(toml::Value::Table(known)), toml::Value::Table(value)) => merge(known, value),
            (_, value) => _ = table.insert(name, value),
        }
    }
}

/// Durations as a person writes them: `10ms`, `1s`, `5min`.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::ref_option, reason = "serde hands the field over like this")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = duration.map(|duration| humantime::format_duration(duration).to_string());
        serializer.serialize_str(&text.unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = humantime::parse_duration(&text);
        duration.map(Some).map_err(|error| D::Error::custom(format!("`{text}` is no duration such as `10ms`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_win() {
        let app = Settings::new().data("a").input("sales", "sales.csv");
        let file = Settings::from_toml("data = \"b\"\ncommit_interval = \"1s\"").expect("is right");
        let both = app.overlaid(&file).expect("can be written down");
        let both = both.with("ingress.sales.records_per_second=10.0").expect("is right");
        assert_eq!(both.data, Some("b".into()));
        assert_eq!(both.commit_interval, Some(Duration::from_secs(1)));
        assert_eq!(both.ingress["sales"].path, Some("sales.csv".into()));
        assert_eq!(Settings::from_toml(&toml::to_string(&both).expect("writes")).expect("reads"), both);
    }

    #[test]
    fn mistakes_name_the_value_and_the_place() {
        for (text, expected) in [
            ("commit_interval = \"soon\"", "`soon` is no duration such as `10ms`"),
            ("[ingress.sales]\nfile = \"x\"", "unknown field `file`"),
            ("[egress.sales]\nto = \"printer\"", "unknown variant `printer`"),
            ("shards = -1", "line 1"),
        ] {
            let error = Settings::from_toml(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
