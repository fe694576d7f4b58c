//! The tables at the end.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::de::DeserializeOwned;
use statefn::prelude::*;

use crate::{CarrierDay, KnockOn};

/// How many aircraft the second table has.
const AIRCRAFT: usize = 5;

/// Prints what the outputs hold and what the run did.
pub(crate) fn print(summary: &Summary) {
    let data = summary.settings.data.clone().unwrap_or_default();
    let printed = carriers(&data).and_then(|carriers| {
        let aircraft = aircraft(&data)?;
        write!(io::stdout().lock(), "{carriers}\n{aircraft}\n{}\n", run(summary, &data))
    });
    if let Err(error) = printed {
        let _ = writeln!(io::stderr(), "the tables cannot be printed from `{}`: {error}", data.display());
    }
}

fn carriers(data: &Path) -> io::Result<Table> {
    let mut carriers: BTreeMap<String, CarrierDay> = BTreeMap::new();
    for day in lines::<CarrierDay>(&data.join("carriers.jsonl"))? {
        match carriers.get_mut(&day.carrier) {
            Some(known) => {
                known.flights += day.flights;
                known.cancelled += day.cancelled;
                known.departure_delay_minutes += day.departure_delay_minutes;
            }
            None => _ = carriers.insert(day.carrier.clone(), day),
        }
    }
    let mut carriers: Vec<CarrierDay> = carriers.into_values().collect();
    carriers.sort_by_key(|carrier| std::cmp::Reverse(carrier.flights));
    let mut table = table(&["carrier", "flights", "cancelled", "mean departure delay"]);
    for carrier in carriers {
        let left = carrier.flights - carrier.cancelled;
        let mean = carrier.departure_delay_minutes as f64 / left.max(1) as f64;
        let (flights, cancelled) = (grouped(carrier.flights), grouped(carrier.cancelled));
        table.add_row([carrier.carrier, flights, cancelled, format!("{mean:.1} min")]);
    }
    Ok(table)
}

fn aircraft(data: &Path) -> io::Result<Table> {
    let mut aircraft: BTreeMap<String, u64> = BTreeMap::new();
    for day in lines::<KnockOn>(&data.join("knock_on.jsonl"))? {
        *aircraft.entry(day.tail_number).or_default() += day.knock_on;
    }
    let mut aircraft: Vec<(String, u64)> = aircraft.into_iter().collect();
    aircraft.sort_by_key(|(_, knock_on)| std::cmp::Reverse(*knock_on));
    let mut table = table(&["aircraft", "delays passed on"]);
    for (tail_number, knock_on) in aircraft.into_iter().take(AIRCRAFT) {
        table.add_row([tail_number, grouped(knock_on)]);
    }
    Ok(table)
}

fn run(summary: &Summary, data: &Path) -> String {
    let totals = summary.totals;
    if totals.records == 0 {
        return format!("nothing new: all flights were read before; remove `{}` to read them again", data.display());
    }
    format!(
        "{} events, {} messages, {} timers, {} epochs in {:.1} s; the outputs are in `{}`",
        grouped(totals.records),
        grouped(totals.shards.calls - totals.shards.timers),
        grouped(totals.shards.timers),
        grouped(totals.shards.epochs),
        summary.elapsed.as_secs_f64(),
        data.display()
    )
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(columns.to_vec());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn lines<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let file = File::open(path).map_err(|error| io::Error::other(format!("`{}`: {error}", path.display())))?;
    BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}
