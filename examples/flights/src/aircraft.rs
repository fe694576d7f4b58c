//! An aircraft: takes its flights in event-time order, and is missed when it does not come back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::{
    Airport, Flight,
    day::{Day, DayEnd, text},
};

/// From how many minutes on a delay counts.
const LATE_MINUTES: i64 = 15;
/// How long an aircraft without a flight is not missed.
const UNSEEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// An aircraft was without a scheduled flight for more than a day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Message)]
#[message(name = "unseen")]
pub struct Unseen {
    /// The aircraft.
    pub tail_number: String,
    /// Its last scheduled departure.
    pub last_seen: String,
    /// A day later.
    pub reported_at: String,
}

/// How often on a day a late arrival was followed by a late departure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Message)]
#[message(name = "knock-on")]
pub struct KnockOn {
    /// The aircraft.
    pub tail_number: String,
    /// The day, UTC.
    pub day: String,
    /// How often; at least once.
    pub knock_on: u64,
}

/// Aircraft that vanished.
pub static UNSEEN: Egress<Unseen> = Egress::new("unseen");
/// Delays that were passed on.
pub static KNOCK_ON: Egress<KnockOn> = Egress::new("knock_on");

/// The aircraft has not been seen for a day.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "vanished")]
pub(crate) struct Vanished {
    last_seen: EventTime,
}

/// One aircraft, by tail number.
#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
pub struct Aircraft {
    day: Option<Day>,
    knock_on: u64,
    /// Whether the last flight of the day arrived late.
    arrived_late: bool,
}

#[function(name = "flights/aircraft", sends(Airport), emits(UNSEEN, KNOCK_ON))]
impl Aircraft {
    #[on(in_event_time_order)]
    fn flight(&mut self, flight: &Flight, ctx: &mut Context<Self>) {
        let scheduled = ctx.event_time();
        self.begin(Day::of(scheduled), ctx);
        if self.arrived_late && is_late(flight.departure_delay) {
            self.knock_on += 1;
        }
        self.arrived_late = is_late(flight.arrival_delay);
        ctx.set_timer_as("vanished", scheduled + UNSEEN_AFTER, Vanished { last_seen: scheduled });
        ctx.send(Airport::at(&flight.destination), flight.clone());
    }

    #[on_timer]
    fn day_end(&mut self, timer: &DayEnd, ctx: &mut Context<Self>) {
        if self.knock_on > 0 {
            let (tail_number, day) = (ctx.key().clone(), timer.day.to_string());
            ctx.emit(&KNOCK_ON, &KnockOn { tail_number, day, knock_on: self.knock_on });
        }
        *self = Self::default();
    }

    #[on_timer]
    fn vanished(&mut self, timer: &Vanished, ctx: &mut Context<Self>) {
        let (last_seen, reported_at) = (text(timer.last_seen), text(ctx.event_time()));
        ctx.emit(&UNSEEN, &Unseen { tail_number: ctx.key().clone(), last_seen, reported_at });
    }

    fn begin(&mut self, day: Day, ctx: &mut Context<Self>) {
        if self.day.is_none() {
            self.day = Some(day);
            ctx.set_timer(day.end(), DayEnd { day });
        }
    }
}

fn is_late(delay_minutes: Option<i64>) -> bool {
    delay_minutes.is_some_and(|minutes| minutes > LATE_MINUTES)
}

#[cfg(test)]
mod tests {
    use statefn::testing::Harness;

    use super::*;

    fn flight(departure_delay: i64, arrival_delay: i64) -> Flight {
        let (departure_delay, arrival_delay) = (Some(departure_delay), Some(arrival_delay));
        Flight { destination: "BOS".into(), is_cancelled: false, departure_delay, arrival_delay }
    }

    #[test]
    fn a_late_arrival_and_a_late_departure_are_a_knock_on_whatever_order_they_come_in() {
        let mut aircraft = Harness::<Aircraft>::at("N1");
        aircraft.deliver_at(EventTime(7_200_000), flight(16, 0)).unwrap();
        aircraft.deliver_at(EventTime(3_600_000), flight(0, 16)).unwrap();
        aircraft.advance_to(EventTime(86_399_999)).unwrap();
        let (tail_number, day) = ("N1".into(), "1970-01-01".into());
        assert_eq!(aircraft.emitted(&KNOCK_ON), [KnockOn { tail_number, day, knock_on: 1 }]);
        assert_eq!(aircraft.sent::<Airport, Flight>().len(), 2);
    }

    #[test]
    fn a_gap_of_exactly_a_day_is_not_reported() {
        let mut aircraft = Harness::<Aircraft>::at("N1");
        aircraft.deliver_at(EventTime(60_000), flight(0, 0)).unwrap();
        aircraft.deliver_at(EventTime(86_460_000), flight(0, 0)).unwrap();
        aircraft.advance_to(EventTime(86_460_000)).unwrap();
        assert!(aircraft.emitted(&UNSEEN).is_empty());
        aircraft.advance_to(EventTime(2 * 86_400_000 + 60_000)).unwrap();
        assert_eq!(aircraft.emitted(&UNSEEN)[0].last_seen, "1970-01-02T00:01:00Z");
    }
}
