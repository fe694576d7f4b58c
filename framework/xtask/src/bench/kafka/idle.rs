//! The start of a worker with many shards, and what it takes while nothing comes.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    Common, FleetRow,
    app::{ADDS, SUMS, keys_in_turn},
    audit::Tally,
    latency::write_once,
    load::Output,
    processes::{Office, Process},
    results::Results,
    servers::Servers,
};
use crate::bench::{
    Failure,
    meter::{cpu_of, mebibytes, memory_of},
};

/// How long a worker is left alone before its idle time begins.
const SETTLING: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Idle {
    /// How many shards there are.
    #[arg(long, default_value_t = 256)]
    shards: u32,
    /// How many partitions the topics have; as many as there are shards if not given.
    #[arg(long)]
    partitions: Option<u32>,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How long nothing comes.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    time: Duration,
    #[command(flatten)]
    common: Common,
}

impl FleetRow for Idle {
    const NAME: &'static str = "idle-fleet";

    fn common(&self) -> &Common {
        &self.common
    }

    fn measure(&self, results: &mut Results) -> Result<(), Failure> {
        let servers = Servers::start()?;
        let partitions = self.partitions.unwrap_or(self.shards);
        servers.create(&[(ADDS, partitions), (SUMS, partitions)])?;
        let settings = [format!("shards={}", self.shards), format!("threads={}", self.threads)];
        let mut office = Office::new(&servers, &self.common, &settings)?;
        let keys = keys_in_turn(self.shards, 1);
        let keys_max = keys.iter().max().map_or(0, |key| key + 1);
        let (producer, mut written) = (servers.producer(0)?, Tally::new(keys_max));
        let mut output = Output::start(servers.consumer(SUMS, partitions)?, keys_max);

        // A shard is here when its record has come out. The first start makes the topics.
        let mut start = |name, target| -> Result<Process, Failure> {
            write_once(&producer, &mut written, &keys)?;
            let begun = Instant::now();
            let mut worker = office.worker()?;
            output.read_while(&mut [&mut worker], |output| output.records() < written.records())?;
            let last = output.log().last().ok_or("there is no shard")?;
            results.add(name, (last.at - begun).as_secs_f64(), target)?;
            Ok(worker)
        };
        start("first start, which makes the topics, s", "")?.stop()?;
        let mut worker = start("start until all shards are here, s", "less than 10")?;
        thread::sleep(SETTLING);
        let (begun, before) = (Instant::now(), cpu_of(worker.id())?);
        let broker_before = cpu_of(servers.broker_id()?)?;
        thread::sleep(self.time);
        let percent = |cpu: Duration| 100.0 * cpu.as_secs_f64() / begun.elapsed().as_secs_f64();
        results.add("CPU % while nothing comes", percent(cpu_of(worker.id())? - before), "less than 2")?;
        results.add("the broker's meanwhile", percent(cpu_of(servers.broker_id()?)? - broker_before), "")?;
        results.add("RSS MiB", mebibytes(memory_of(worker.id(), "VmRSS")?), "")?;
        output.check(&written, &mut [&mut worker])?;
        worker.stop()
    }
}
