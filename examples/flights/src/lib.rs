//! A year of real flights as an event stream: three functions, four outputs.
//!
//! ```text
//! flights.csv.gz ──► router ──► flights/carrier (by carrier) ──► carriers.jsonl
//!                      │ ├────► flights/aircraft (by tail number) ──► knock_on.jsonl, unseen.jsonl
//!                      │ │          └────► flights/airport (by destination) ──► airports.jsonl
//!                      └─┴──(no tail number)──┘
//! ```
//! Event time is the scheduled departure. The rows are out of order by up to 22.9 hours, so an
//! aircraft takes its flights in event-time order, and a day is reported when its last millisecond
//! is behind the watermark.

mod aircraft;
mod airport;
mod carrier;
mod day;
mod flight;
mod report;

use std::{path::Path, time::Duration};

use statefn::prelude::*;

pub use self::{
    aircraft::{Aircraft, KNOCK_ON, KnockOn, UNSEEN, Unseen},
    airport::{AIRPORTS, Airport, AirportDay},
    carrier::{CARRIERS, Carrier, CarrierDay},
    flight::{Flight, FlightRow},
};

/// How far a row may be behind the newest one.
const LATENESS: Duration = Duration::from_secs(23 * 60 * 60);

/// The app, reading the flights that come with it.
#[must_use]
pub fn app() -> App {
    let flights = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights.csv.gz");
    App::new("flights")
        .function::<Aircraft>()
        .function::<Carrier>()
        .function::<Airport>()
        .ingress(
            Ingress::<FlightRow>::new("flights")
                .event_time(FlightRow::scheduled)
                .lateness(LATENESS)
                .to::<Aircraft>()
                .to::<Carrier>()
                .to::<Airport>(),
            |row, out| {
                let flight = Flight::from(&row);
                out.send(Carrier::at(&row.carrier), flight.clone());
                match &row.tailnum {
                    Some(tail_number) => out.send(Aircraft::at(tail_number), flight),
                    None => out.send(Airport::at(&row.dest), flight),
                }
            },
        )
        .egress(&KNOCK_ON)
        .egress(&UNSEEN)
        .egress(&CARRIERS)
        .egress(&AIRPORTS)
        .settings(Settings::new().data("data/flights").input("flights", flights))
        .at_end(report::print)
}
