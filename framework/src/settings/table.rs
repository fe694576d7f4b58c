//! The table of settings: what a structure of settings says of each of its fields.
//!
//! Three words: a *group* is a structure of settings, a *field* one of its members (a value, or
//! groups by their names), a *row* what people are told of one setting.
//!
//! Invariant: everything that knows settings by their names (the file, the environment, the command
//! line, `--help-settings`, the docs, the documentation of the structures) has them from the one
//! declaration of [`table!`].

use std::collections::BTreeMap;

use super::value::{Setting, Wrong};

/// Stands in the name of a row for the name of an ingress or egress.
pub(crate) const ANY: &str = "*";

/// What people are told of a setting.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row {
    /// The parts of its name; [`ANY`] for those that an app chooses.
    pub(crate) name: Vec<&'static str>,
    /// What a value of it is, with an example.
    pub(crate) kind: &'static str,
    /// What holds if nobody says anything, in words or as one would write it.
    pub(crate) default: &'static str,
    /// What it is for.
    pub(crate) meaning: &'static str,
    /// Whether its value is shown to nobody.
    pub(crate) is_secret: bool,
}

impl Row {
    /// The row of a member of what this row stands for.
    pub(crate) fn within(&self, part: &'static str, meaning: &'static str, default: &'static str) -> Self {
        let name = self.name.iter().copied().chain([part]).collect();
        Self { name, meaning: meaning.trim(), default, ..Self::default() }
    }

    /// Whether this is the row of a setting with that name, or with one that begins so.
    pub(crate) fn has_prefix(&self, name: &[String]) -> bool {
        name.len() <= self.name.len() && name.iter().zip(&self.name).all(|(given, part)| *part == ANY || given == part)
    }

    /// Whether this is the row of the setting with that name.
    pub(crate) fn is_of(&self, name: &[String]) -> bool {
        name.len() == self.name.len() && self.has_prefix(name)
    }
}

/// A member of a structure of settings.
pub(crate) trait Field: Sized {
    /// The rows of the settings within; `own` has their name so far, and what was said of them.
    fn rows(own: Row) -> Vec<Row>;

    /// Sets the setting that is called so within this field.
    ///
    /// # Errors
    /// If there is none of that name, or the value is none of its kind.
    fn put(&mut self, name: &[String], value: &toml::Value) -> Result<(), Wrong>;

    /// Takes over what `over` says.
    fn overlay(&mut self, over: Self);

    /// Adds the settings within that say something, as they are shown.
    fn list(&self, name: &[String], listed: &mut BTreeMap<Vec<String>, toml::Value>);
}

impl<S: Setting> Field for Option<S> {
    fn rows(own: Row) -> Vec<Row> {
        vec![Row { kind: S::KIND, is_secret: S::IS_SECRET, ..own }]
    }

    fn put(&mut self, name: &[String], value: &toml::Value) -> Result<(), Wrong> {
        if !name.is_empty() {
            return Err(Wrong::Unknown);
        }
        *self = Some(S::read(value).map_err(Wrong::Value)?);
        Ok(())
    }

    fn overlay(&mut self, over: Self) {
        if over.is_some() {
            *self = over;
        }
    }

    fn list(&self, name: &[String], listed: &mut BTreeMap<Vec<String>, toml::Value>) {
        if let Some(setting) = self {
            listed.insert(name.to_vec(), setting.shown());
        }
    }
}

/// Several values; none is the same as not given.
impl<S: Setting> Field for Vec<S> {
    fn rows(own: Row) -> Vec<Row> {
        vec![Row { kind: S::KIND_OF_SEVERAL, is_secret: S::IS_SECRET, ..own }]
    }

    fn put(&mut self, name: &[String], value: &toml::Value) -> Result<(), Wrong> {
        if !name.is_empty() {
            return Err(Wrong::Unknown);
        }
        let toml::Value::Array(values) = value else {
            return Err(Wrong::Value(format!("it must be a {}", S::KIND_OF_SEVERAL)));
        };
        *self = values.iter().map(S::read).collect::<Result<_, _>>().map_err(Wrong::Value)?;
        Ok(())
    }

    fn overlay(&mut self, over: Self) {
        if !over.is_empty() {
            *self = over;
        }
    }

    fn list(&self, name: &[String], listed: &mut BTreeMap<Vec<String>, toml::Value>) {
        if !self.is_empty() {
            listed.insert(name.to_vec(), toml::Value::Array(self.iter().map(Setting::shown).collect()));
        }
    }
}

/// Groups by the names that the app has for them.
impl<G: Field + Default> Field for BTreeMap<String, G> {
    fn rows(own: Row) -> Vec<Row> {
        G::rows(own.within(ANY, "", ""))
    }

    fn put(&mut self, name: &[String], value: &toml::Value) -> Result<(), Wrong> {
        let Some((first, rest)) = name.split_first() else { return nothing(value) };
        let mut group = self.remove(first).unwrap_or_default();
        group.put(rest, value)?;
        self.insert(first.clone(), group);
        Ok(())
    }

    fn overlay(&mut self, over: Self) {
        for (name, group) in over {
            self.entry(name).or_default().overlay(group);
        }
    }

    fn list(&self, name: &[String], listed: &mut BTreeMap<Vec<String>, toml::Value>) {
        for (part, group) in self {
            group.list(&[name, std::slice::from_ref(part)].concat(), listed);
        }
    }
}

/// What may stand for a group instead of its settings: a table without any.
pub(crate) fn nothing(value: &toml::Value) -> Result<(), Wrong> {
    value.as_table().filter(|table| table.is_empty()).map(drop).ok_or(Wrong::Unknown)
}

/// Declares a structure of settings: the comment of a field is the meaning of the setting, what
/// stands behind `=` its default, its type the kind.
macro_rules! table {
    ($(#[$attribute:meta])* $visible:vis struct $group:ident {
        $($(#[doc = $meaning:literal])+ $seen:vis $field:ident: $type:ty $(= $default:literal)?,)+
    }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default, PartialEq)]
        $visible struct $group {
            $($(#[doc = $meaning])+ $(#[doc = concat!("\n\nDefault: ", $default, ".")])? $seen $field: $type,)+
        }

        impl $crate::settings::table::Field for $group {
            fn rows(own: $crate::settings::table::Row) -> Vec<$crate::settings::table::Row> {
                let mut rows = Vec::new();
                $(
                    let row = own.within(stringify!($field), concat!($($meaning),+), concat!($($default)?));
                    rows.extend(<$type as $crate::settings::table::Field>::rows(row));
                )+
                rows
            }

            fn put(&mut self, name: &[String], value: &toml::Value) -> Result<(), $crate::settings::value::Wrong> {
                let Some((first, rest)) = name.split_first() else { return $crate::settings::table::nothing(value) };
                match first.as_str() {
                    $(stringify!($field) => self.$field.put(rest, value),)+
                    _ => Err($crate::settings::value::Wrong::Unknown),
                }
            }

            fn overlay(&mut self, over: Self) {
                $(self.$field.overlay(over.$field);)+
            }

            fn list(
                &self,
                name: &[String],
                listed: &mut std::collections::BTreeMap<Vec<String>, toml::Value>,
            ) {
                $(self.$field.list(&[name, &[stringify!($field).to_owned()]].concat(), listed);)+
            }
        }
    };
}

pub(crate) use table;
