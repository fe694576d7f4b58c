//! A destination: counts the flights to it that aircraft tell of, and those without an aircraft.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::{
    Flight,
    day::{Day, DayEnd},
};

/// The flights to an airport on a day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Message)]
#[message(name = "airport-day")]
pub struct AirportDay {
    /// The airport's code.
    pub airport: String,
    /// The day of the scheduled departure, UTC.
    pub day: String,
    /// Scheduled flights.
    pub flights: u64,
    /// Those that never left.
    pub cancelled: u64,
    /// The sum of the known ones.
    pub arrival_delay_minutes: i64,
}

/// The reports of airports.
pub static AIRPORTS: Egress<AirportDay> = Egress::new("airports");

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Counts {
    flights: u64,
    cancelled: u64,
    arrival_delay_minutes: i64,
}

/// One airport, by code.
#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
pub struct Airport {
    days: BTreeMap<Day, Counts>,
}

#[function(name = "flights/airport", emits(AIRPORTS))]
impl Airport {
    #[on]
    fn flight(&mut self, flight: &Flight, ctx: &mut Context<Self>) {
        let day = Day::of(ctx.event_time());
        let counts = self.days.entry(day).or_insert_with(|| {
            ctx.set_timer(day.end(), DayEnd { day });
            Counts::default()
        });
        counts.flights += 1;
        counts.cancelled += u64::from(flight.is_cancelled);
        counts.arrival_delay_minutes += flight.arrival_delay.unwrap_or_default();
    }

    #[on_timer]
    fn day_end(&mut self, timer: &DayEnd, ctx: &mut Context<Self>) {
        let Counts { flights, cancelled, arrival_delay_minutes } = self.days.remove(&timer.day).unwrap_or_default();
        let (airport, day) = (ctx.key().clone(), timer.day.to_string());
        ctx.emit(&AIRPORTS, &AirportDay { airport, day, flights, cancelled, arrival_delay_minutes });
    }
}
