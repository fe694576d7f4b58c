//! A carrier: counts its flights of a day and reports them when the day is over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::{
    Flight,
    day::{Day, DayEnd},
};

/// The flights of a carrier on a day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Message)]
#[message(name = "carrier-day")]
pub struct CarrierDay {
    /// The carrier's code.
    pub carrier: String,
    /// The day, UTC.
    pub day: String,
    /// Scheduled flights.
    pub flights: u64,
    /// Those that never left.
    pub cancelled: u64,
    /// The sum of the known ones.
    pub departure_delay_minutes: i64,
}

/// The reports of carriers.
pub static CARRIERS: Egress<CarrierDay> = Egress::new("carriers");

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Counts {
    flights: u64,
    cancelled: u64,
    departure_delay_minutes: i64,
}

/// One carrier, by code; flights of several days come at a time.
#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
pub struct Carrier {
    days: BTreeMap<Day, Counts>,
}

#[function(name = "flights/carrier", emits(CARRIERS))]
impl Carrier {
    #[on]
    fn flight(&mut self, flight: &Flight, ctx: &mut Context<Self>) {
        let day = Day::of(ctx.event_time());
        let counts = self.days.entry(day).or_insert_with(|| {
            ctx.set_timer(day.end(), DayEnd { day });
            Counts::default()
        });
        counts.flights += 1;
        counts.cancelled += u64::from(flight.is_cancelled);
        counts.departure_delay_minutes += flight.departure_delay.unwrap_or_default();
    }

    #[on_timer]
    fn day_end(&mut self, timer: &DayEnd, ctx: &mut Context<Self>) {
        let Counts { flights, cancelled, departure_delay_minutes } = self.days.remove(&timer.day).unwrap_or_default();
        let (carrier, day) = (ctx.key().clone(), timer.day.to_string());
        ctx.emit(&CARRIERS, &CarrierDay { carrier, day, flights, cancelled, departure_delay_minutes });
    }
}
