//! The values of settings: how each kind is read from what a person wrote, and how it is shown.
//!
//! Invariants: what is shown is read as the same value again, but for secrets, which are shown to
//! nobody. A reason says what is wrong and what to write; that of a secret holds nothing of it.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use statefn_runtime::ingress::Format;
use toml::Value;

use super::{DeliveryKind, EgressKind, OverflowKind, StartKind, UntilKind};

/// Why a setting cannot be set.
#[derive(Debug, PartialEq)]
pub(crate) enum Wrong {
    /// There is none of that name.
    Unknown,
    /// The value is none of its kind; what it must be, and what to write.
    Value(String),
}

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// What a value is called, with an example.
    const KIND: &'static str;
    /// What several of them are called, with an example.
    const KIND_OF_SEVERAL: &'static str = "list";
    /// Whether a value is shown to nobody.
    const IS_SECRET: bool = false;

    /// Reads a value; what comes from the environment or the command line is a text.
    ///
    /// # Errors
    /// What it must be, and what to write.
    fn read(value: &Value) -> Result<Self, String>;

    /// The value, as a file would have it.
    fn shown(&self) -> Value;
}

impl Setting for PathBuf {
    const KIND: &'static str = "path, such as `data/bank`";
    const KIND_OF_SEVERAL: &'static str = "list of paths, such as `[\"a.csv\", \"b.csv\"]`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(Self::from).ok_or_else(|| format!("it must be a {}", Self::KIND))
    }

    fn shown(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

impl Setting for String {
    const KIND: &'static str = "text";

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| format!("it must be a {}", Self::KIND))
    }

    fn shown(&self) -> Value {
        Value::String(self.clone())
    }
}

/// Whole numbers.
macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Setting for $type {
            const KIND: &'static str = "whole number, such as `8`";

            fn read(value: &Value) -> Result<Self, String> {
                let number = match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    Value::String(text) => text.parse().ok(),
                    _ => None,
                };
                number.ok_or_else(|| format!("it must be a {}, and at most {}", Self::KIND, Self::MAX))
            }

            fn shown(&self) -> Value {
                i64::try_from(*self).map_or_else(|_| Value::String(self.to_string()), Value::Integer)
            }
        }
    )+};
}

numbers!(u32, usize);

impl Setting for SocketAddr {
    const KIND: &'static str = "address and port, such as `127.0.0.1:8080`";

    fn read(value: &Value) -> Result<Self, String> {
        let address = value.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| format!("it must be an {}", Self::KIND))
    }

    fn shown(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Setting for f64 {
    const KIND: &'static str = "number, such as `2.5`";

    fn read(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::Integer(number) => Some(*number as Self),
            Value::Float(number) => Some(*number),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| format!("it must be a {}", Self::KIND))
    }

    fn shown(&self) -> Value {
        Value::Float(*self)
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration, such as `10ms`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text_of(value, Self::KIND)?;
        humantime::parse_duration(&text).map_err(|error| match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                format!("a duration needs a unit: write such as `{text}ms`, `{text}s` or `{text}min`")
            }
            _ => format!("it must be a {}: {error}", Self::KIND),
        })
    }

    fn shown(&self) -> Value {
        Value::String(humantime::format_duration(*self).to_string())
    }
}

/// The units of sizes, each with its bytes; those that are shown come first, the largest before.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Sizes in bytes.
impl Setting for u64 {
    const KIND: &'static str = "size, such as `64MiB`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text_of(value, Self::KIND)?;
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
        let unit = unit.trim_start();
        if number.is_empty() {
            return Err(format!("it must be a {}", Self::KIND));
        }
        if unit.is_empty() {
            return Err(format!("a size needs a unit: write such as `{number}B`, `{number}KiB` or `{number}MiB`"));
        }
        let Some((_, bytes)) = UNITS.iter().find(|(known, _)| known.eq_ignore_ascii_case(unit)) else {
            let known = UNITS.map(|(known, _)| known).join("`, `");
            return Err(format!("it must be a {}: a whole number and one of the units `{known}`", Self::KIND));
        };
        let size = number.parse::<Self>().ok().and_then(|number| number.checked_mul(*bytes));
        size.ok_or_else(|| format!("it must be less than {}TiB", (Self::MAX >> 40) + 1))
    }

    fn shown(&self) -> Value {
        let fits = |(_, bytes): &&(&str, Self)| *self >= *bytes && self.is_multiple_of(*bytes);
        let (unit, bytes) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        Value::String(format!("{}{unit}", self / bytes))
    }
}

/// The text of a value that is a number with a unit; a number of TOML has none.
fn text_of(value: &Value, kind: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => Err(format!("it must be a {kind}")),
    }
}

/// One of a few words, as serde has them.
macro_rules! words {
    ($($type:ty: $words:literal),+) => {$(
        impl Setting for $type {
            const KIND: &'static str = $words;

            fn read(value: &Value) -> Result<Self, String> {
                value.clone().try_into().map_err(|_| format!("it must be {}", Self::KIND))
            }

            fn shown(&self) -> Value {
                Value::try_from(self).expect("a word can be written down")
            }
        }
    )+};
}

words!(
    Format: "`csv`, `json-lines` or `protobuf`",
    EgressKind: "`file`, `console`, `webhook`, `kafka` or `count`",
    OverflowKind: "`dead-letter` or `stop-ingress`",
    StartKind: "`earliest` or `latest`",
    UntilKind: "`now` or `never`",
    DeliveryKind: "`exactly-once` or `at-least-once`"
);

/// Where an HTTP request goes.
///
/// ```
/// let settings = statefn::Settings::new().with("egress.paid.url=http://127.0.0.1:9000/hook").unwrap();
/// assert_eq!(settings.egress["paid"].url.as_ref().unwrap().as_str(), "http://127.0.0.1:9000/hook");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for Url {
    const KIND: &'static str = "URL, such as `https://example.org/hook`";

    fn read(value: &Value) -> Result<Self, String> {
        let is_url = |text: &&str| text.starts_with("http://") || text.starts_with("https://");
        let text = value.as_str().filter(is_url);
        text.map(|text| Self(text.to_owned())).ok_or_else(|| format!("it must be a {}", Self::KIND))
    }

    fn shown(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// A value that is shown to nobody: not in errors, not among the settings, not in logs.
///
/// ```
/// use statefn::settings::Secret;
/// let token = Secret::new("open sesame");
/// assert_eq!(format!("{token} {token:?}"), "*** ***");
/// assert_eq!(token.reveal(), "open sesame");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What a secret is shown as.
    pub(crate) const SHOWN: &str = "***";

    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SHOWN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SHOWN)
    }
}

impl Setting for Secret {
    const KIND: &'static str = "secret text";
    const IS_SECRET: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(Self::new).ok_or_else(|| format!("it must be a {} that is not empty", Self::KIND))
    }

    fn shown(&self) -> Value {
        Value::String(Self::SHOWN.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for (size, shown) in [(0, "0B"), (1, "1B"), (1_500, "1500B"), (64 << 20, "64MiB"), (3 << 40, "3TiB")] {
            assert_eq!(size.shown(), text(shown));
            assert_eq!(u64::read(&text(shown)), Ok(size));
        }
        assert_eq!(u64::read(&u64::MAX.shown()), Ok(u64::MAX));
        for duration in [Duration::ZERO, Duration::from_millis(1_010), Duration::MAX] {
            assert_eq!(Duration::read(&duration.shown()), Ok(duration));
        }
        assert_eq!(usize::read(&usize::MAX.shown()), Ok(usize::MAX));
        assert_eq!(Format::read(&Format::JsonLines.shown()), Ok(Format::JsonLines));
        assert_eq!(f64::read(&2.5.shown()), Ok(2.5));
        assert_eq!(Url::read(&text("http://a/b")).map(|url| url.shown()), Ok(text("http://a/b")));
    }

    #[test]
    fn units_are_read_as_people_write_them() {
        for (given, bytes) in [("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1kB", 1_000), ("1KiB", 1_024), ("7b", 7)] {
            assert_eq!(u64::read(&text(given)), Ok(bytes), "{given}");
        }
        for (given, milliseconds) in [("10ms", 10), ("1s 5ms", 1_005), ("2min", 120_000), ("0", 0)] {
            assert_eq!(Duration::read(&text(given)), Ok(Duration::from_millis(milliseconds)), "{given}");
        }
        assert_eq!(Duration::read(&Value::Integer(0)), Ok(Duration::ZERO), "nothing is nothing in every unit");
    }

    /// Each reason says what to write instead.
    #[test]
    fn values_of_another_kind_are_refused() {
        let duration = |value: &Value| Duration::read(value).unwrap_err();
        let size = |value: &Value| u64::read(value).unwrap_err();
        let unitless = "a duration needs a unit: write such as `10ms`, `10s` or `10min`";
        assert_eq!([duration(&text("10")), duration(&Value::Integer(10))], [unitless; 2]);
        assert_eq!(duration(&text("soon")), "it must be a duration, such as `10ms`: expected number at 0");
        assert!(duration(&text("10 parsecs")).contains("supported units: ns, us/µs, ms, sec, min"));
        let unitless = "a size needs a unit: write such as `64B`, `64KiB` or `64MiB`";
        assert_eq!([size(&text("64")), size(&Value::Integer(64))], [unitless; 2]);
        assert!(size(&text("1.5GiB")).contains("a whole number and one of the units `TiB`, `GiB`, `MiB`, `KiB`, `B`"));
        assert!(size(&text("64 megs")).contains("one of the units"));
        assert_eq!(size(&text("large")), "it must be a size, such as `64MiB`");
        assert_eq!(size(&text("99999999TiB")), "it must be less than 16777216TiB");
        assert_eq!(size(&Value::Boolean(true)), "it must be a size, such as `64MiB`");
        let number = u32::read(&text("-1")).unwrap_err();
        assert_eq!(number, "it must be a whole number, such as `8`, and at most 4294967295");
        assert_eq!(
            EgressKind::read(&text("printer")).unwrap_err(),
            "it must be `file`, `console`, `webhook`, `kafka` or `count`"
        );
        let url = "it must be a URL, such as `https://example.org/hook`";
        assert_eq!([text("example.org"), Value::Integer(1)].map(|value| Url::read(&value).unwrap_err()), [url; 2]);
        assert_eq!(PathBuf::read(&text("")).unwrap_err(), "it must be a path, such as `data/bank`");
        assert_eq!(PathBuf::read(&Value::Integer(1)).unwrap_err(), "it must be a path, such as `data/bank`");
        assert_eq!(f64::read(&text("fast")).unwrap_err(), "it must be a number, such as `2.5`");
    }

    #[test]
    fn every_word_that_is_offered_is_one() {
        for word in Format::KIND.split('`').skip(1).step_by(2) {
            assert_eq!(Format::read(&text(word)).unwrap().shown(), text(word));
        }
        for word in StartKind::KIND.split('`').skip(1).step_by(2) {
            assert_eq!(StartKind::read(&text(word)).unwrap().shown(), text(word));
        }
        for word in UntilKind::KIND.split('`').skip(1).step_by(2) {
            assert_eq!(UntilKind::read(&text(word)).unwrap().shown(), text(word));
        }
        for word in DeliveryKind::KIND.split('`').skip(1).step_by(2) {
            assert_eq!(DeliveryKind::read(&text(word)).unwrap().shown(), text(word));
        }
        for word in OverflowKind::KIND.split('`').skip(1).step_by(2) {
            assert_eq!(OverflowKind::read(&text(word)).unwrap().shown(), text(word));
        }
        for word in EgressKind::KIND.split('`').skip(1).step_by(2) {
            assert_eq!(EgressKind::read(&text(word)).unwrap().shown(), text(word));
        }
    }
}
