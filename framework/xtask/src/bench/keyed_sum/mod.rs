//! A count and a sum for each key, and a record out for each record in.
//!
//! With a log in memory frames are made and sealed and not written; with one on disk the app is
//! exactly once from file to file.

mod app;
mod by_hand;
mod case;
mod input;
mod options;

use std::path::Path;

use statefn::{__private::Wire, Settings};

pub(crate) use self::options::Options;
use self::{
    case::{Case, number_json, number_protobuf, text_json, text_protobuf},
    options::{KeyKind, Log, Messages, Output, name},
};
use super::{
    Failure,
    counted::Counted,
    figures::{Figures, Report},
    numbers::mixed,
    row::{Measuring, Row, Side},
};

impl Row for Options {
    const NAME: &'static str = "keyed-sum";
    const MERIT: &'static str = "events/CPU-second";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        let mut points = Vec::new();
        for commit_interval in &self.commit_interval {
            for threads in &self.threads {
                let interval = humantime::format_duration(*commit_interval);
                let log = if self.log == Log::Memory { "in memory" } else { "on disk" };
                let name = format!("{log}, {threads} threads, {interval}");
                let point = Self { threads: vec![*threads], commit_interval: vec![*commit_interval], ..self.clone() };
                points.push((name, point));
            }
        }
        points
    }

    fn times(&self, factor: u64) -> Self {
        Self { events: Some(self.events() * factor), ..self.clone() }
    }

    fn events(&self) -> u64 {
        Options::events(self)
    }

    fn prepare(&self) -> Result<(), Failure> {
        match (self.key_kind, self.messages) {
            (KeyKind::Text, Messages::Protobuf) => input::prepare::<text_protobuf::Here>(self),
            (KeyKind::Text, Messages::Json) => input::prepare::<text_json::Here>(self),
            (KeyKind::U64, Messages::Protobuf) => input::prepare::<number_protobuf::Here>(self),
            (KeyKind::U64, Messages::Json) => input::prepare::<number_json::Here>(self),
        }
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        match (self.key_kind, self.messages) {
            (KeyKind::Text, Messages::Protobuf) => run::<text_protobuf::Here>(self, side, data),
            (KeyKind::Text, Messages::Json) => run::<text_json::Here>(self, side, data),
            (KeyKind::U64, Messages::Protobuf) => run::<number_protobuf::Here>(self, side, data),
            (KeyKind::U64, Messages::Json) => run::<number_json::Here>(self, side, data),
        }
    }

    /// What more threads bring, against the first number of them.
    fn conclusions(&self, reports: &[Report]) -> Result<Vec<(String, f64)>, Failure> {
        let mut conclusions = Vec::new();
        for reports in reports.chunks(self.threads.len()) {
            for report in &reports[1..] {
                let rates = (report.app("events/s"), reports[0].app("events/s"));
                let (Some(rate), Some(of_first)) = rates else { continue };
                conclusions.push((format!("speed-up {}", report.point()), rate / of_first));
            }
        }
        Ok(conclusions)
    }
}

fn run<C: Case>(options: &Options, side: Side, data: &Path) -> Result<Figures, Failure> {
    let input = input::path(options)?;
    match side {
        Side::App => app::run::<C>(options, &input, data),
        Side::ByHand => by_hand::run::<C>(options, &input, data),
    }
}

/// The app and its records, to count instructions.
pub(super) fn counted() -> Counted {
    const KEYS: u64 = 10_000;
    type Here = text_protobuf::Here;
    let record = |number| {
        let (random, mut bytes) = (mixed(number), Vec::new());
        Here::add(random % KEYS, random >> 54).encode(&mut bytes);
        bytes
    };
    Counted { name: "keyed-sum", ingress: "adds", app: Here::app(Settings::new(), true), record: Box::new(record) }
}
