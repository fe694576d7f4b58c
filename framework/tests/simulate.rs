//! What checks of a simulated world see, and what a failing one tells.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statefn::{
    prelude::*,
    testing::{Committed, simulate},
};

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Meter {
    readings: Vec<i64>,
    is_checked: bool,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "reading")]
struct Reading {
    meter: String,
    at_ms: i64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "check")]
struct Check {}

static READINGS: Egress<Reading> = Egress::new("readings");

#[function(name = "meters/meter", emits(READINGS))]
impl Meter {
    #[on(in_event_time_order)]
    fn reading(&mut self, reading: &Reading, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if reading.meter == "broken" {
            return Err(Fault::new("it is broken"));
        }
        self.readings.push(reading.at_ms);
        ctx.emit(&READINGS, reading);
        ctx.set_timer_as("check", ctx.now() + Duration::from_secs(3_600), Check {});
        Ok(())
    }

    #[on_timer]
    fn check(&mut self, _: &Check) {
        self.is_checked = true;
    }
}

fn app() -> App {
    let readings = Ingress::<Reading>::new("in")
        .event_time(|reading| EventTime(reading.at_ms))
        .lateness(Duration::from_secs(1))
        .to::<Meter>();
    App::new("meters")
        .function::<Meter>()
        .ingress(readings, |reading, out| out.send(Meter::at(&reading.meter), reading))
        .egress(&READINGS)
}

/// Readings of three meters, each out of order by at most a second.
fn readings() -> Vec<Reading> {
    let meters = ["kitchen", "cellar", "broken"];
    let reading = |at: i64| Reading { meter: meters[at as usize % 3].into(), at_ms: at * 100 + (at * 7 % 5) * 150 };
    (0..60).map(reading).collect()
}

#[test]
fn checks_see_all_that_is_committed() {
    let report = simulate(app)
        .seeds(30)
        .input("in", readings())
        .input_bytes("in", vec![b"no reading".to_vec()])
        .linger(Duration::from_secs(3_700))
        .check(|world| {
            for (name, meter) in world.states::<Meter>() {
                assert!(meter.readings.is_sorted(), "{name}");
                let timers = world.timers::<Meter, Check>();
                assert_eq!(timers.iter().filter(|(key, _)| *key == name).count(), usize::from(!meter.is_checked));
            }
            let handled: usize = world.states::<Meter>().iter().map(|(_, meter)| meter.readings.len()).sum();
            assert_eq!(world.emitted(&READINGS).len(), handled);
            assert!(world.on_their_way::<Meter, Reading>().len() + handled <= 60);
        })
        .at_end(|world| {
            let kitchen = world.state(&Meter::at("kitchen")).unwrap();
            assert!(kitchen.is_checked && kitchen.readings.len() == 20);
            assert!(world.state(&Meter::at("broken")).is_none());
            let parked = world.parked();
            assert_eq!((parked.len(), parked[0].1.as_slice()), (1, &b"broken"[..]));
            assert_eq!(world.on_their_way::<Meter, Reading>().len(), 20, "they wait behind the parked key");
            assert_eq!(world.dead_letters().len(), 1);
            assert!(world.epochs() > 0);
        })
        .run();
    assert_eq!((report.seeds, report.parked), (30, 30));
    assert!(report.crashes > 0 && report.moves > 0 && report.appends_unknown > 0, "{report}");
}

#[test]
fn a_failure_tells_the_seed_and_what_is_needed() {
    let has_no_cellar = |world: &Committed<'_>| assert!(world.state(&Meter::at("cellar")).is_none(), "a cellar");
    let failure = simulate(app).seed(7).input("in", readings()).at_end(has_no_cellar).try_run().unwrap_err();
    assert_eq!((failure.seed, failure.records, failure.is_repeatable), (7, 60, true));
    assert_eq!((failure.shrunk.records.len(), failure.shrunk.workers, failure.shrunk.shards), (1, 1, 1));
    assert!(failure.shrunk.faults.is_empty());
    let text = failure.to_string();
    for part in [
        "the simulation of `meters` fails with seed 7: after ",
        "/simulate.rs:",
        ": a cellar\n",
        "shrunk to 1 worker, 1 shard, no faults, and 1 record, of 60:\n    in: {\"meter\":\"cellar\"",
        "replay it by: STATEFN_SEED=7 cargo test",
        " a_failure_tells_the_seed_and_what_is_needed",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
#[should_panic(expected = "fails with seed 3")]
fn a_failure_fails_the_test() {
    simulate(app).seed(3).input("in", readings()).check(|world| assert_eq!(world.epochs(), 0)).run();
}

#[test]
#[should_panic(expected = "the app has no ingress `out`")]
fn an_unknown_ingress_is_said_at_once() {
    simulate(app).input("out", readings()).run();
}
