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
    pub to: EgressKind,
    /// The file, for that kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// The kinds of places that an egress can write to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressKind {
    /// A file: each record stands in it exactly once.
    #[default]
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
        let settings = EgressSettings { to: EgressKind::File, path: Some(path.into()) };
        self.egress.insert(egress.to_owned(), settings);
        self
    }

    /// Lets an egress write to standard output.
    #[must_use]
    pub fn console(mut self, egress: &str) -> Self {
        self.egress.insert(egress.to_owned(), EgressSettings { to: EgressKind::Console, path: None });
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
    #[must_use]
    pub fn overlaid(mut self, over: Self) -> Self {
        self.ingress.extend(over.ingress);
        self.egress.extend(over.egress);
        Self {
            data: over.data.or(self.data),
            shards: over.shards.or(self.shards),
            threads: over.threads.or(self.threads),
            commit_interval: over.commit_interval.or(self.commit_interval),
            snapshot_tail_bytes: over.snapshot_tail_bytes.or(self.snapshot_tail_bytes),
            segment_bytes: over.segment_bytes.or(self.segment_bytes),
            ingress: self.ingress,
            egress: self.egress,
        }
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

/// Durations as a person writes them: `10ms`, `1s`, `5min`.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::ref_option, reason = "serde hands the field over like this")]
    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = duration.map(|duration| humantime::format_duration(duration).to_string());
        serializer.serialize_str(&text.unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
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
        let both = app.overlaid(file);
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
