//! The figures of runs: medians, ratios, and how they are printed.

use std::{
    fmt,
    io::{self, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Failure, audit::Audit};

/// What one run took, by name, in the order in which it is printed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    values: Vec<(String, f64)>,
    audit: Audit,
}

impl Figures {
    pub(crate) fn new(audit: Audit) -> Self {
        Self { values: Vec::new(), audit }
    }

    pub(crate) fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.values.push((name.into(), value));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Notes the records that went out as they stand in the output, if it is kept.
    pub(crate) fn with_output<'a>(
        mut self,
        is_kept: bool,
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, Failure> {
        if is_kept {
            self.audit = self.audit.with_output(records)?;
        }
        Ok(self)
    }

    /// Notes the states that are left, in any order.
    pub(crate) fn with_states(mut self, states: impl Iterator<Item = (u64, u64)>) -> Self {
        self.audit = self.audit.with_states(states);
        self
    }

    /// Fails unless the loop by hand came to the same.
    pub(crate) fn check(&self, by_hand: &Self) -> Result<(), Failure> {
        if self.audit == by_hand.audit {
            return Ok(());
        }
        Err(format!("the app did not do what the loop did: {:?} instead of {:?}", self.audit, by_hand.audit).into())
    }
}

/// The figures of all runs of a point that count.
#[derive(Debug)]
pub(crate) struct Report {
    row: &'static str,
    point: String,
    merit: &'static str,
    app: Vec<Figures>,
    by_hand: Vec<Figures>,
}

impl Report {
    pub(crate) fn new(row: &'static str, point: String, merit: &'static str) -> Self {
        Self { row, point, merit, app: Vec::new(), by_hand: Vec::new() }
    }

    pub(crate) fn add(&mut self, app: Figures, by_hand: Figures) {
        self.app.push(app);
        self.by_hand.push(by_hand);
    }

    /// What sets this point apart.
    pub(crate) fn point(&self) -> &str {
        &self.point
    }

    /// The median of a figure of the app.
    pub(crate) fn app(&self, name: &str) -> Option<f64> {
        median_of(&self.app, name)
    }

    fn by_hand(&self, name: &str) -> Option<f64> {
        median_of(&self.by_hand, name)
    }

    /// The figure that counts, as a part of that of the loop by hand.
    fn ratio(&self) -> Option<f64> {
        Some(self.app(self.merit)? / self.by_hand(self.merit)?)
    }

    /// The names that either side has, those of the app first.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let first = self.app.first().into_iter().chain(self.by_hand.first());
        for (name, _) in first.flat_map(|figures| &figures.values) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    fn to_json(&self) -> Value {
        let side = |of: &dyn Fn(&str) -> Option<f64>| -> Map<String, Value> {
            self.names().iter().filter_map(|name| Some(((*name).to_owned(), json!(of(name)?)))).collect()
        };
        let (app, by_hand) = (side(&|name| self.app(name)), side(&|name| self.by_hand(name)));
        json!({"point": self.point, "app": app, "by_hand": by_hand, "merit": self.merit, "ratio": self.ratio()})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = format!("{} {}", self.row, self.point);
        writeln!(f, "{:<34}{:>16}{:>16}", title.trim(), "app", "by hand")?;
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), digits);
        for name in self.names() {
            writeln!(f, "{name:<34}{:>16}{:>16}", shown(self.app(name)), shown(self.by_hand(name)))?;
        }
        writeln!(f, "{:<34}{:>16}", format!("ratio, {}", self.merit), shown(self.ratio()))
    }
}

/// A figure with about four digits that count.
pub(crate) fn digits(value: f64) -> String {
    let behind_the_point = match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.behind_the_point$}")
}

fn median_of(runs: &[Figures], name: &str) -> Option<f64> {
    median(runs.iter().filter_map(|run| run.get(name)).collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length.is_multiple_of(2) => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}

/// Prints text for a person.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints a figure that no side alone has.
pub(crate) fn print_one(name: &str, value: f64) -> Result<(), Failure> {
    print(&format!("{name:<34}{:>16}", digits(value)))
}

/// Prints everything for a program.
pub(crate) fn print_json(row: &str, reports: &[Report], conclusions: &[(String, f64)]) -> Result<(), Failure> {
    let points: Vec<Value> = reports.iter().map(Report::to_json).collect();
    let conclusions: Map<String, Value> =
        conclusions.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    print(&serde_json::to_string_pretty(&json!({"row": row, "points": points, "conclusions": conclusions}))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_medians() {
        let mut report = Report::new("row", String::new(), "events/s");
        for (app, by_hand) in [(1.0, 30.0), (5.0, 10.0), (4.0, 20.0)] {
            let of = |value| Figures::new(Audit::default()).with("events/s", value);
            report.add(of(app), of(by_hand));
        }
        assert_eq!(report.ratio(), Some(0.2));
        let text = report.to_string();
        assert!(text.lines().any(|line| line.split_whitespace().eq(["events/s", "4.00", "20.0"])), "{text}");
    }

    #[test]
    fn a_run_that_did_something_else_gives_no_figure() {
        let of = |calls| Figures::new(Audit { calls, ..Audit::default() });
        assert!(of(3).check(&of(3)).is_ok());
        let error = of(2).check(&of(3)).expect_err("one call is missing").to_string();
        assert!(error.contains("calls: 2") && error.contains("calls: 3"), "{error}");
    }
}
