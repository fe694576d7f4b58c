//! How long shards pause whose worker is killed, with states of some size.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;

use super::{
    Common, FleetRow,
    app::{ADDS, Add, SUMS, keys_in_turn},
    audit::Tally,
    load::{Load, Output},
    processes::Office,
    results::Results,
    servers::Servers,
};
use crate::bench::{
    Failure,
    disk::quantile_ms,
    meter::{mebibytes, memory_of},
};

/// How large the state of a key is, without its key.
const STATE_BYTES: u64 = 1_000;
/// Keys of each shard to which records come meanwhile.
const KEYS_EACH: usize = 4;
/// How long the producer of the states gathers records.
const LINGER_MS: u32 = 5;
/// How long both workers are left alone before one is killed.
const SETTLING: Duration = Duration::from_secs(5);
/// What a take-over may take besides the session's time-out, and how much it must load in a second.
const EXTRA: Duration = Duration::from_secs(3);
const BYTES_PER_SECOND: f64 = 0.3e9;

/// What to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct TakeOver {
    /// How large the states of all shards are, without keys.
    #[arg(long, default_value_t = 200_000_000)]
    bytes: u64,
    /// How many records a second come meanwhile.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// How many partitions the topics have; as many as there are shards if not given.
    #[arg(long)]
    partitions: Option<u32>,
    /// After how long without a sign of life others get the shards of a worker.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    session_timeout: Duration,
    #[command(flatten)]
    common: Common,
}

impl FleetRow for TakeOver {
    const NAME: &'static str = "take-over";

    fn common(&self) -> &Common {
        &self.common
    }

    fn measure(&self, results: &mut Results) -> Result<(), Failure> {
        let servers = Servers::start()?;
        let partitions = self.partitions.unwrap_or(self.shards);
        servers.create(&[(ADDS, partitions), (SUMS, partitions)])?;
        let settings = [
            format!("shards={}", self.shards),
            "threads=1".to_owned(),
            "commit_interval=20ms".to_owned(),
            format!("kafka.session_timeout={}", humantime::format_duration(self.session_timeout)),
            format!("kafka.heartbeat_interval={}ms", self.session_timeout.as_millis() / 4),
        ];
        let mut office = Office::new(&servers, &self.common, &settings)?;
        let in_turn = keys_in_turn(self.shards, KEYS_EACH);
        let keys = (self.bytes / STATE_BYTES).max(in_turn.iter().max().map_or(0, |key| key + 1));
        let mut output = Output::start(servers.consumer(SUMS, partitions)?, keys);
        let (mut survivor, mut victim) = (office.worker()?, office.worker()?);
        let written = self.fill(&servers, keys)?;
        output.read_while(&mut [&mut survivor, &mut victim], |output| output.records() < written.records())?;
        let load = Load::start(servers.producer(0)?, written, in_turn, self.rate);
        output.read_until(Instant::now() + SETTLING)?;
        let (survivor_id, victim_id) = (survivor.id(), victim.id());
        output.read_while(&mut [&mut survivor, &mut victim], |output| {
            output.owners().len() < self.shards as usize || !output.owners().values().any(|owner| *owner == victim_id)
        })?;

        let its: BTreeSet<u32> =
            output.owners().iter().filter(|(_, owner)| **owner == victim_id).map(|of| *of.0).collect();
        let bytes = snapshot_bytes(&servers.server.directory(), &its)?;
        let killed_at = Instant::now();
        victim.kill()?;
        output
            .read_while(&mut [&mut survivor], |output| output.owners().values().any(|owner| *owner != survivor_id))?;
        let memory = memory_of(survivor_id, "VmRSS")?;
        let written = load.stop()?;
        output.check(&written, &mut [&mut survivor])?;
        survivor.stop()?;

        let mut first = BTreeMap::new();
        for seen in output.log().iter().filter(|seen| seen.sum.worker == survivor_id && seen.at > killed_at) {
            if let Some(shard) = seen.shard.filter(|shard| its.contains(shard)) {
                first.entry(shard).or_insert(seen.at - killed_at);
            }
        }
        let times: Vec<Duration> = first.into_values().collect();
        let limit = (self.session_timeout + EXTRA).as_secs_f64() + bytes as f64 / BYTES_PER_SECOND;
        results.add("shards of the worker that was killed", its.len() as f64, "")?;
        results.add("their snapshots, MiB", mebibytes(bytes), "")?;
        results.add("kill until first output, median s", quantile_ms(&times, 50) / 1e3, "")?;
        results.add(
            "kill until first output, worst s",
            quantile_ms(&times, 100) / 1e3,
            &format!("{limit:.2} or less"),
        )?;
        results.add("limit s", limit, "")?;
        results.add("RSS of the other worker behind it, MiB", mebibytes(memory), "")
    }
}

impl TakeOver {
    /// Gives each key its state.
    fn fill(&self, servers: &Servers, keys: u64) -> Result<Tally, Failure> {
        let producer = servers.producer(LINGER_MS)?;
        let mut written = Tally::new(keys);
        for key in 0..keys {
            let add = Add::keeping(key, (self.bytes / keys) as usize);
            written.add(key, &add);
            producer.add(&add)?;
        }
        producer.flush()?;
        Ok(written)
    }
}

/// How large the newest snapshots of these shards are; their objects are files `..shard-N/..`.
fn snapshot_bytes(buckets: &Path, shards: &BTreeSet<u32>) -> Result<u64, Failure> {
    let mut newest: BTreeMap<u32, (SystemTime, u64)> = BTreeMap::new();
    let mut directories = vec![buckets.to_owned()];
    while let Some(directory) = directories.pop() {
        let shard = directory.file_name().and_then(|name| name.to_str()?.strip_prefix("shard-")?.parse::<u32>().ok());
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // One that is older may be removed by now.
            let Ok(file) = entry.metadata() else { continue };
            if file.is_dir() {
                directories.push(entry.path());
            } else if let Some(shard) = shard.filter(|shard| shards.contains(shard)) {
                let known = newest.entry(shard).or_insert((SystemTime::UNIX_EPOCH, 0));
                *known = (*known).max((file.modified()?, file.len()));
            }
        }
    }
    Ok(newest.into_values().map(|(_, bytes)| bytes).sum())
}
