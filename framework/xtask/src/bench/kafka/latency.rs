//! How soon a committed record out follows a record in, at a low rate.
//!
//! One process writes and reads, so one clock measures both. Beside it stands how long a record takes that
//! the broker is given and gives back, with nothing in between.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::consumer::BaseConsumer;

use super::{
    Kafka,
    app::{ADDS, Add, SUMS, Sum, keys_in_turn},
    audit::Tally,
    load::{Output, SILENCE_LIMIT},
    processes::Office,
    results::Results,
    servers::{self, Producer, Servers},
};
use crate::bench::{Failure, disk::quantile_ms};

/// The topic of records that nobody touches.
const ECHO: &str = "echo";
/// Records of the first second do not count: clients connect.
const WARM_UP: Duration = Duration::from_secs(1);
/// Keys of each shard.
const KEYS_EACH: usize = 2;

pub(super) fn measure(options: &Kafka, results: &mut Results) -> Result<(), Failure> {
    let round_trips = round_trips(options)?;
    tell(results, "round trip of the broker", &round_trips, "")?;
    for (name, delivery, target) in [
        ("at least once", "at-least-once", "4 round trips or less"),
        ("exactly once", "exactly-once", "15 or less (Kafka Streams: 19, p99 54)"),
    ] {
        let latencies = through_worker(options, delivery)?;
        tell(results, name, &latencies, target)?;
    }
    Ok(())
}

fn tell(results: &mut Results, name: &str, times: &[Duration], target: &str) -> Result<(), Failure> {
    results.add(&format!("{name}, p50 ms"), quantile_ms(times, 50), target)?;
    results.add(&format!("{name}, p99 ms"), quantile_ms(times, 99), "")
}

/// How many records are written, and how many of them do not count.
fn counts(options: &Kafka) -> (usize, usize) {
    let of = |time: Duration| (options.rate as f64 * time.as_secs_f64()) as usize;
    (of(WARM_UP + options.time), of(WARM_UP))
}

/// Calls `write` at the rate of the options; returns when each call began.
fn write_steadily(
    options: &Kafka,
    mut write: impl FnMut(usize) -> Result<(), Failure>,
) -> Result<Vec<Instant>, Failure> {
    let begun = Instant::now();
    let step = Duration::from_secs(1) / options.rate as u32;
    let mut written_at = Vec::new();
    for number in 0..counts(options).0 {
        thread::sleep((begun + step * number as u32).saturating_duration_since(Instant::now()));
        written_at.push(Instant::now());
        write(number)?;
    }
    Ok(written_at)
}

fn round_trips(options: &Kafka) -> Result<Vec<Duration>, Failure> {
    let servers = Servers::start()?;
    servers.create(&[(ECHO, 1)])?;
    let consumer = servers.consumer(ECHO, 1)?;
    let producer = servers.producer(0)?;
    let (records, warm_up) = counts(options);
    let reader = thread::spawn(move || read_all(&consumer, records).map_err(|error| error.to_string()));
    let written_at = write_steadily(options, |number| {
        let mut value = Vec::new();
        Sum::of("user-0", number as u64, 0).write(&mut value);
        producer.send(ECHO, "user-0", &value)
    })?;
    producer.flush()?;
    let read_at = reader.join().map_err(|_| "the thread that reads panicked")??;
    let times = written_at.iter().zip(read_at).map(|(written_at, read_at)| read_at - *written_at);
    Ok(times.skip(warm_up).collect())
}

/// When each record came, of so many in one partition.
fn read_all(consumer: &BaseConsumer, records: usize) -> Result<Vec<Instant>, Failure> {
    let mut read_at = Vec::new();
    while read_at.len() < records {
        let seen = servers::read(consumer, SILENCE_LIMIT)?.ok_or("the broker does not give records back")?;
        read_at.push(seen.at);
    }
    Ok(read_at)
}

fn through_worker(options: &Kafka, delivery: &str) -> Result<Vec<Duration>, Failure> {
    let servers = Servers::start()?;
    servers.create(&[(ADDS, options.partitions()), (SUMS, options.partitions())])?;
    let settings = [
        format!("shards={}", options.shards),
        format!("threads={}", options.threads),
        "commit_interval=0s".to_owned(),
        format!("kafka.delivery={delivery}"),
    ];
    let keys = keys_in_turn(options.shards, KEYS_EACH);
    let keys_max = keys.iter().max().map_or(0, |key| key + 1);
    let (producer, mut written) = (servers.producer(0)?, Tally::new(keys_max));
    let mut output = Output::start(servers.consumer(SUMS, options.partitions())?, keys_max);
    let mut office = Office::new(&servers, &options.common, &settings)?;
    let mut worker = office.worker()?;

    // Once each key has come out, all shards are here.
    write_once(&producer, &mut written, &keys)?;
    output.read_while(&mut [&mut worker], |output| output.records() < keys.len() as u64)?;
    let before = output.records() as usize;
    // Of each key, where its records stand among those that are written now.
    let mut places = vec![Vec::new(); keys_max as usize];
    let written_at = write_steadily(options, |number| {
        let key = keys[number * 7 % keys.len()];
        let add = Add::of(key, 1);
        written.add(key, &add);
        places[key as usize].push(number);
        producer.add(&add)
    })?;
    producer.flush()?;
    output.check(&written, &mut [&mut worker])?;
    worker.stop()?;

    let (_, warm_up) = counts(options);
    let mut times = Vec::new();
    for seen in &output.log()[before..] {
        // The first record of each key came before.
        let number = places[seen.sum.key()? as usize][seen.sum.count as usize - 2];
        if number >= warm_up {
            times.push(seen.at - written_at[number]);
        }
    }
    Ok(times)
}

/// Writes a record to each of these keys.
pub(super) fn write_once(producer: &Producer, written: &mut Tally, keys: &[u64]) -> Result<(), Failure> {
    for key in keys {
        let add = Add::of(*key, 1);
        written.add(*key, &add);
        producer.add(&add)?;
    }
    producer.flush()
}
