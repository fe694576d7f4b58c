//! The auditor: adds up all bookings of a day, which must come to zero when the day is over.
//!
//! A transfer is two bookings, or four if it is given back, and all carry the event time of its
//! order, so they are of one day. The timer at the end of the day fires once every message before
//! it was handled, wherever it was on its way: event time is what makes the report right.

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The bookings of one day.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, State)]
pub struct Auditor {
    /// How many bookings there were.
    pub bookings: u64,
    /// Their sum.
    pub cents: i64,
}

/// An account has this much more, or less.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "booked")]
pub struct Booked {
    /// How much more.
    pub cents: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "day-over")]
struct DayOver {}

/// What the auditor says of a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "audit")]
pub struct Audit {
    /// The day, counted from 1970-01-01.
    pub day: i64,
    /// How many bookings there were.
    pub bookings: u64,
    /// How many cents too many there are; 0 in a bank that works.
    pub cents_off: i64,
}

/// Where the auditor reports to.
pub static AUDITS: Egress<Audit> = Egress::new("audits");

#[function(name = "bank/auditor", key = i64, emits(AUDITS))]
impl Auditor {
    #[on]
    fn booked(&mut self, booked: &Booked, ctx: &mut Context<Self>) {
        self.bookings += 1;
        self.cents += booked.cents;
        let last = EventTime((*ctx.key() + 1) * DAY_MS - 1);
        ctx.set_timer_as("day", last, DayOver {});
    }

    #[on_timer]
    fn day_over(&mut self, _: &DayOver, ctx: &mut Context<Self>) {
        let audit = Audit { day: *ctx.key(), bookings: self.bookings, cents_off: self.cents };
        ctx.emit(&AUDITS, &audit);
    }
}

/// The day of an event time, counted from 1970-01-01.
#[must_use]
pub fn day_of(time: EventTime) -> i64 {
    time.0.div_euclid(DAY_MS)
}
