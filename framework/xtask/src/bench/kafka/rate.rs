//! How much a worker does, from topic to committed topic, beside a loop by hand.
//!
//! The first tenth of the records is not counted: in it a worker takes its shards over, and clients
//! connect. What is committed is asked of the broker a few times a second, by the offset behind the last
//! transaction that is not open any more.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::consumer::BaseConsumer;

use super::{
    Kafka,
    app::{ADDS, Add, SUMS},
    audit::Tally,
    by_hand::{self, ByHand},
    processes::{Office, Process},
    results::Results,
    servers::{self, Servers},
};
use crate::bench::{Failure, meter::cpu_of};

/// How long the producer of the input gathers records.
const LINGER_MS: u32 = 5;
/// How often it is asked what is committed.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long nothing must be committed any more before it is the end.
const QUIET: Duration = Duration::from_secs(2);
/// How long nothing may be committed before the end.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long it is waited for a record that is committed, or for one that should not be there.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// How far a process was at some time.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    committed: u64,
    cpu: Duration,
    broker_cpu: Duration,
}

/// What a process did in a second, and what a million events took.
struct Pace {
    events_per_second: f64,
    cpu_s: f64,
    broker_cpu_s: f64,
    /// Offsets that are no records.
    marks: u64,
}

pub(super) fn measure(options: &Kafka, results: &mut Results) -> Result<(), Failure> {
    let servers = Servers::start()?;
    let partitions = options.partitions();
    servers.create(&[(ADDS, partitions), (SUMS, partitions), (by_hand::TOPIC, partitions)])?;
    let written = write_input(&servers, options)?;
    let settings = [
        format!("shards={}", options.shards),
        format!("threads={}", options.threads),
        format!("commit_interval={}", humantime::format_duration(options.commit_interval)),
    ];
    let mut office = Office::new(&servers, &options.common, &settings)?;

    let arguments = ByHand::arguments(servers.broker.bootstrap(), options.records, partitions);
    let process = office.process(&arguments)?;
    let of_loop = run(&servers, options, process, by_hand::TOPIC, &written)?;
    let process = office.worker()?;
    let of_app = run(&servers, options, process, SUMS, &written)?;

    results.add("events/s, app, exactly once", of_app.events_per_second, "")?;
    results.add("events/s, loop by hand", of_loop.events_per_second, "")?;
    results.add("ratio", of_app.events_per_second / of_loop.events_per_second, "0.6 or more")?;
    results.add("CPU s per million events, app", of_app.cpu_s, "")?;
    results.add("CPU s per million events, loop", of_loop.cpu_s, "")?;
    results.add("the broker's beside the app", of_app.broker_cpu_s, "")?;
    results.add("the broker's beside the loop", of_loop.broker_cpu_s, "")?;
    results.add("ends of transactions in the output", of_app.marks as f64, "")
}

fn write_input(servers: &Servers, options: &Kafka) -> Result<Tally, Failure> {
    let producer = servers.producer(LINGER_MS)?;
    let mut written = Tally::new(options.keys);
    for number in 0..options.records {
        let (key, add) = Add::numbered(number, options.keys);
        written.add(key, &add);
        producer.add(&add)?;
    }
    producer.flush()?;
    Ok(written)
}

/// Watches a process until it has done everything, ends it, and looks at what it has written.
fn run(
    servers: &Servers,
    options: &Kafka,
    mut process: Process,
    topic: &str,
    written: &Tally,
) -> Result<Pace, Failure> {
    let samples = watch(servers, options, &mut process, topic)?;
    let log = process.told();
    process.stop()?;
    if let Err(error) = audit(&servers.consumer(topic, options.partitions())?, options, written) {
        // Once more, to tell what is not there from what a client did not get.
        let again = audit(&servers.consumer(topic, options.partitions())?, options, written);
        return Err(format!("{error}; another reader says: {again:?}; {log}").into());
    }
    pace(&samples, options.records)
}

fn watch(servers: &Servers, options: &Kafka, process: &mut Process, topic: &str) -> Result<Vec<Sample>, Failure> {
    let asker = servers.consumer(topic, options.partitions())?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut changed_at = Instant::now();
    loop {
        process.check()?;
        let committed = servers.committed(&asker, topic, options.partitions())?;
        if samples.last().is_none_or(|last| last.committed < committed) {
            changed_at = Instant::now();
            let (cpu, broker_cpu) = (cpu_of(process.id())?, cpu_of(servers.broker_id()?)?);
            samples.push(Sample { at: changed_at, committed, cpu, broker_cpu });
        }
        if committed >= options.records && changed_at.elapsed() >= QUIET {
            return Ok(samples);
        }
        if changed_at.elapsed() > SILENCE_LIMIT {
            let records = options.records;
            return Err(process.broken(&format!("has committed {committed} of {records} records, and no more")));
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

fn pace(samples: &[Sample], records: u64) -> Result<Pace, Failure> {
    let last = samples.last().ok_or("nothing was committed")?;
    let first = samples.iter().find(|sample| sample.committed >= last.committed / 10).unwrap_or(last);
    // The ends of transactions have offsets too, and stand evenly among the records.
    let part = (last.committed - first.committed) as f64 / last.committed as f64;
    let events = part * records as f64;
    if events <= 0.0 {
        return Err(format!("{records} records are too few: all were committed at once").into());
    }
    let of_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events;
    Ok(Pace {
        events_per_second: events / (last.at - first.at).as_secs_f64(),
        cpu_s: of_million(last.cpu.saturating_sub(first.cpu)),
        broker_cpu_s: of_million(last.broker_cpu.saturating_sub(first.broker_cpu)),
        marks: last.committed - records,
    })
}

/// Fails unless a topic has one record for each that was written, and each key the count that it should.
fn audit(consumer: &BaseConsumer, options: &Kafka, written: &Tally) -> Result<(), Failure> {
    let mut found = Tally::new(options.keys);
    let mut heard_at = Instant::now();
    while heard_at.elapsed() < READ_LIMIT || found.records() < options.records && heard_at.elapsed() < SILENCE_LIMIT {
        if let Some(seen) = servers::read(consumer, READ_LIMIT)? {
            if let Err(error) = found.take(&seen.sum) {
                let (partition, offset, id) = seen.place;
                let rest = count_rest(consumer)?;
                let before = found.records();
                return Err(format!(
                    "{error}: `{id}` at offset {offset} of partition {partition}, behind {before} records and before {rest}"
                )
                .into());
            }
            heard_at = Instant::now();
        }
    }
    written.check(&found)
}

fn count_rest(consumer: &BaseConsumer) -> Result<u64, Failure> {
    let mut rest = 0;
    while servers::read(consumer, READ_LIMIT)?.is_some() {
        rest += 1;
    }
    Ok(rest)
}
