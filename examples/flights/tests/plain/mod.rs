//! What the app has to give, counted over the file in ordinary code, and what it gave.
//!
//! Invariant: nothing here shares code with the app but the types of its outputs.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use flights::{AirportDay, CarrierDay, KnockOn, Unseen};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;

/// The file that comes with the example.
pub(crate) fn flights_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights.csv.gz")
}

/// The four outputs, in the order in which they stand in their files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) unseen: Vec<Unseen>,
    pub(crate) knock_on: Vec<KnockOn>,
    pub(crate) carriers: Vec<CarrierDay>,
    pub(crate) airports: Vec<AirportDay>,
}

impl Outputs {
    /// Reads what a run has written.
    pub(crate) fn read(data: &Path) -> Self {
        Self {
            unseen: lines(&data.join("unseen.jsonl")),
            knock_on: lines(&data.join("knock_on.jsonl")),
            carriers: lines(&data.join("carriers.jsonl")),
            airports: lines(&data.join("airports.jsonl")),
        }
    }

    /// Counts over a file of flights, plain or gzip.
    pub(crate) fn counted(file: &Path) -> Self {
        let flights = flights(file);
        let (unseen, knock_on) = count_aircraft(&flights);
        Self { unseen, knock_on, carriers: count_carriers(&flights), airports: count_airports(&flights) }
    }

    /// The outputs as multisets.
    pub(crate) fn sorted(mut self) -> Self {
        self.unseen.sort();
        self.knock_on.sort();
        self.carriers.sort();
        self.airports.sort();
        self
    }

    /// Asserts that the lines of each key rise by time, and that none stands twice.
    pub(crate) fn assert_order_of_keys(&self) {
        assert_rising(&self.unseen, |line| (&line.tail_number, &line.last_seen));
        assert_rising(&self.knock_on, |line| (&line.tail_number, &line.day));
        assert_rising(&self.carriers, |line| (&line.carrier, &line.day));
        assert_rising(&self.airports, |line| (&line.airport, &line.day));
    }
}

/// Compares two outputs as multisets, and shows no more than the first difference of each.
pub(crate) fn assert_same(found: Outputs, expected: Outputs) {
    let (found, expected) = (found.sorted(), expected.sorted());
    assert_same_lines("unseen", &found.unseen, &expected.unseen);
    assert_same_lines("knock_on", &found.knock_on, &expected.knock_on);
    assert_same_lines("carriers", &found.carriers, &expected.carriers);
    assert_same_lines("airports", &found.airports, &expected.airports);
}

fn assert_same_lines<T: PartialEq + Debug>(output: &str, found: &[T], expected: &[T]) {
    let differs = found.iter().zip(expected).find(|(found, expected)| found != expected);
    assert_eq!((found.len(), differs), (expected.len(), None), "the output `{output}`: (lines, found and expected)");
}

/// Times are written so that their texts are in their order.
fn assert_rising<T>(lines: &[T], key_and_time: impl Fn(&T) -> (&String, &String)) {
    let mut last: BTreeMap<&String, &String> = BTreeMap::new();
    for (key, time) in lines.iter().map(key_and_time) {
        if let Some(before) = last.insert(key, time) {
            assert!(before < time, "{key}: {time} comes after {before}");
        }
    }
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    BufReader::new(file).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

struct Row {
    scheduled: Timestamp,
    carrier: String,
    tail_number: Option<String>,
    destination: String,
    is_cancelled: bool,
    departure_delay: Option<i64>,
    arrival_delay: Option<i64>,
}

impl Row {
    fn day(&self) -> String {
        self.scheduled.to_string()[..10].to_owned()
    }
}

fn flights(file: &Path) -> Vec<Row> {
    let opened = File::open(file).unwrap();
    let is_packed = file.extension().is_some_and(|extension| extension == "gz");
    let unpacked: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(opened)) } else { Box::new(opened) };
    let mut reader = csv::Reader::from_reader(BufReader::new(unpacked));
    let columns = reader.headers().unwrap().clone();
    let place = |name: &str| columns.iter().position(|column| column == name).unwrap();
    let places = ["dep_time", "dep_delay", "arr_delay", "carrier", "tailnum", "dest", "minute", "time_hour"].map(place);
    reader.records().map(|record| row(&record.unwrap(), places)).collect()
}

fn row(record: &csv::StringRecord, places: [usize; 8]) -> Row {
    let [dep_time, dep_delay, arr_delay, carrier, tailnum, dest, minute, time_hour] = places.map(|at| &record[at]);
    let known = |text: &str| (!matches!(text, "" | "NA")).then(|| text.to_owned());
    let number = |text: &str| known(text).map(|text| text.parse().unwrap());
    let hour: Timestamp = time_hour.parse().unwrap();
    Row {
        scheduled: hour + SignedDuration::from_mins(minute.parse().unwrap()),
        carrier: carrier.to_owned(),
        tail_number: known(tailnum),
        destination: dest.to_owned(),
        is_cancelled: known(dep_time).is_none(),
        departure_delay: number(dep_delay),
        arrival_delay: number(arr_delay),
    }
}

fn count_aircraft(flights: &[Row]) -> (Vec<Unseen>, Vec<KnockOn>) {
    let mut aircraft: BTreeMap<&String, Vec<&Row>> = BTreeMap::new();
    for flight in flights {
        if let Some(tail_number) = &flight.tail_number {
            aircraft.entry(tail_number).or_default().push(flight);
        }
    }
    let (mut unseen, mut knock_on) = (Vec::new(), Vec::new());
    for (tail_number, mut flights) in aircraft {
        // Stable: equal times stay in the order of the file.
        flights.sort_by_key(|flight| flight.scheduled);
        unseen.extend(gaps(tail_number, &flights));
        knock_on.extend(delays_passed_on(tail_number, &flights));
    }
    (unseen, knock_on)
}

fn gaps(tail_number: &str, flights: &[&Row]) -> Vec<Unseen> {
    let day = SignedDuration::from_hours(24);
    let next = flights.iter().skip(1).map(|flight| Some(flight.scheduled)).chain([None]);
    let gaps = flights.iter().map(|flight| flight.scheduled).zip(next);
    let gaps = gaps.filter(|(seen, next)| next.is_none_or(|next| next.duration_since(*seen) > day));
    gaps.map(|(seen, _)| Unseen {
        tail_number: tail_number.to_owned(),
        last_seen: seen.to_string(),
        reported_at: (seen + day).to_string(),
    })
    .collect()
}

fn delays_passed_on(tail_number: &str, flights: &[&Row]) -> Vec<KnockOn> {
    let is_late = |delay: Option<i64>| delay.is_some_and(|minutes| minutes > 15);
    let mut days: BTreeMap<String, u64> = BTreeMap::new();
    for pair in flights.windows(2) {
        let (before, flight) = (pair[0], pair[1]);
        if before.day() == flight.day() && is_late(before.arrival_delay) && is_late(flight.departure_delay) {
            *days.entry(flight.day()).or_default() += 1;
        }
    }
    let tail_number = tail_number.to_owned();
    days.into_iter().map(|(day, knock_on)| KnockOn { tail_number: tail_number.clone(), day, knock_on }).collect()
}

fn count_carriers(flights: &[Row]) -> Vec<CarrierDay> {
    let mut days = BTreeMap::new();
    for flight in flights {
        let (carrier, day) = (flight.carrier.clone(), flight.day());
        let empty = CarrierDay { carrier, day, flights: 0, cancelled: 0, departure_delay_minutes: 0 };
        let counts = days.entry((flight.carrier.clone(), flight.day())).or_insert(empty);
        counts.flights += 1;
        counts.cancelled += u64::from(flight.is_cancelled);
        counts.departure_delay_minutes += flight.departure_delay.unwrap_or_default();
    }
    days.into_values().collect()
}

fn count_airports(flights: &[Row]) -> Vec<AirportDay> {
    let mut days = BTreeMap::new();
    for flight in flights {
        let (airport, day) = (flight.destination.clone(), flight.day());
        let empty = AirportDay { airport, day, flights: 0, cancelled: 0, arrival_delay_minutes: 0 };
        let counts = days.entry((flight.destination.clone(), flight.day())).or_insert(empty);
        counts.flights += 1;
        counts.cancelled += u64::from(flight.is_cancelled);
        counts.arrival_delay_minutes += flight.arrival_delay.unwrap_or_default();
    }
    days.into_values().collect()
}
