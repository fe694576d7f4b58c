//! What checks of a simulated world see, and what a failing one tells.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn::{
    prelude::*,
    testing::{Committed, Random, WorldFault, simulate},
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
        "the simulation of `meters` fails with seed 7: step ",
        "/simulate.rs:",
        " at the end: after ",
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

/// A jar: who puts something in gets the sum, and a note is emitted for each time.
#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Jar {
    coins: u64,
    puts: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "put")]
struct Put {
    coins: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "look")]
struct Look {}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "no-coin")]
struct NoCoin {}

static NOTES: Egress<Put> = Egress::new("notes");

/// How often this process has put something in; it dies with the process.
#[derive(Default)]
struct SinceStart(AtomicU64);

#[function(name = "jars/jar", emits(NOTES))]
impl Jar {
    #[on]
    fn put(&mut self, put: &Put, ctx: &mut Context<Self>) -> Result<u64, NoCoin> {
        if put.coins == 0 {
            return Err(NoCoin {});
        }
        self.coins += put.coins;
        self.puts += 1;
        ctx.resource::<SinceStart>().0.fetch_add(1, Ordering::Relaxed);
        ctx.emit(&NOTES, put);
        Ok(self.coins)
    }

    #[on]
    fn look(&self, _: &Look, ctx: &Context<Self>) -> u64 {
        ctx.resource::<SinceStart>().0.load(Ordering::Relaxed)
    }
}

/// Jars of which one gets a coin from a generator, 30 times.
fn jars() -> App {
    let coins = Ingress::<Put>::new("coins").generate(|number| (number < 30).then(|| Put { coins: 1 + number }));
    App::new("jars")
        .function::<Jar>()
        .resource(SinceStart::default())
        .ingress(coins.to::<Jar>(), |put, out| out.send(Jar::at("generated"), put))
        .egress(&NOTES)
}

fn puts(random: &mut Random) -> Vec<(Address<Jar>, Put)> {
    let mut put = || (Jar::at(random.one_of(&["red", "blue"])), Put { coins: random.below(4) });
    (0..20).map(|_| put()).collect()
}

fn looks(_: &mut Random) -> Vec<(Address<Jar>, Look)> {
    (0..5).map(|_| (Jar::at("red"), Look {})).collect()
}

/// What is answered is committed; what is not may be, but as a whole: coins, count and note.
fn answers_are_committed(world: &Committed<'_>) {
    let mut noted = world.emitted(&NOTES).iter().map(|note| note.coins).sum::<u64>();
    for name in ["red", "blue"] {
        let jar = world.state(&Jar::at(name)).unwrap_or_default();
        let requests = world.requests::<Jar, Put>();
        let (mut answered, mut rejected, mut open, mut highest) = (0, 0, 0, 0);
        for (_, put, answer) in requests.iter().filter(|(key, ..)| key == name) {
            match answer {
                Some(Ok(sum)) => (answered, highest) = (answered + put.coins, highest.max(*sum)),
                Some(Err(Failed::Rejected(NoCoin {}))) => rejected += put.coins,
                Some(Err(Failed::Fault(fault))) => panic!("nothing is broken: {fault:?}"),
                None => open += put.coins,
            }
        }
        assert!(answered <= jar.coins && highest <= jar.coins, "an answer is committed");
        assert!(jar.coins <= answered + open && rejected == 0, "nothing else is");
        noted -= jar.coins;
    }
    let generated = world.state(&Jar::at("generated")).unwrap_or_default();
    assert_eq!(noted, generated.coins, "coins and notes are committed together");
}

#[test]
fn requests_and_generators_take_part() {
    let report = simulate(jars)
        .seeds(40)
        .requests(puts)
        .requests(looks)
        .check(answers_are_committed)
        .at_end(|world| {
            let generated = world.state(&Jar::at("generated")).unwrap();
            assert_eq!((generated.puts, generated.coins), (30, 465), "each record once");
        })
        .run();
    assert!(report.answers > 100 && report.crashes > 0, "{report}");
}

#[test]
fn a_generator_makes_as_many_records_as_asked_for() {
    let all = |count: u64| {
        move |world: &Committed<'_>| {
            assert_eq!(world.state(&Jar::at("generated")).unwrap_or_default().puts, count);
        }
    };
    simulate(jars).seeds(3).generate("coins", 7).at_end(all(7)).run();
    simulate(jars).seeds(3).input("coins", [Put { coins: 5 }]).at_end(all(1)).run();
}

#[test]
fn a_resource_dies_with_its_process() {
    let dies = |world: &Committed<'_>| {
        let seen = world.requests::<Jar, Look>().into_iter().filter_map(|(.., answer)| answer?.ok());
        let seen: Vec<u64> = seen.collect();
        assert!(seen.is_sorted(), "{seen:?}");
    };
    let without_death = || simulate(jars).seeds(40).requests(puts).requests(looks).check(dies);
    without_death().only_faults([WorldFault::DoubledMail]).run();
    let failure = without_death().only_faults([WorldFault::Crash]).try_run().unwrap_err();
    assert_eq!(failure.shrunk.faults, [WorldFault::Crash], "{failure}");
    // How many deaths a smaller world still needs depends on what else happens in it.
    let deaths = failure.shrunk.steps.iter().filter(|step| step.ends_with(" dies")).count();
    assert!((1..=2).contains(&deaths), "{failure}");
}

#[test]
fn a_failure_shows_requests_generated_records_and_steps() {
    let few = |world: &Committed<'_>| {
        let coins = |name: &str| world.state(&Jar::at(name)).unwrap_or_default().coins;
        assert!(coins("red") < 3 || coins("generated") < 20);
    };
    let failure = simulate(jars).requests(puts).check(few).try_run().unwrap_err();
    let text = failure.to_string();
    assert!(failure.shrunk.requests.len() <= 3 && failure.shrunk.records.len() == 1, "{text}");
    assert!(failure.shrunk.faults.is_empty() && failure.requests == 20, "{text}");
    for part in [
        "    coins: record ",
        "    request to jars/jar red, put: {\"coins\":",
        " is answered\n",
        ": shard ",
        "replay it by",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn only_those_faults_happen_that_are_wanted() {
    let crashes = simulate(jars).seeds(60).only_faults([WorldFault::Crash]).run();
    let faults: Vec<_> = crashes.faults().into_iter().filter(|(_, happened, _)| *happened > 0).collect();
    assert!(crashes.crashes > 0 && crashes.pauses + crashes.moves + crashes.appends_unknown == 0, "{faults:?}");
    let without = simulate(jars).seeds(60).without_faults([WorldFault::LostMail, WorldFault::Crash]).run();
    assert!(without.crashes == 0 && without.moves > 0, "{without}");
}

#[test]
#[should_panic(expected = "the app has no function `jars/jar`")]
fn an_unknown_function_is_said_at_once() {
    simulate(app).requests(looks).run();
}
