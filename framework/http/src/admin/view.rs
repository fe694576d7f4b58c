//! What is told of a whole app: its status, from what its shards, its inputs and its counters say.

use std::time::Instant;

use serde_json::{Value, json};
use statefn_core::{
    ports::{
        inspect::{Hold, Inspect, Partition, Pausable, ShardStatus},
        peers::Worker,
    },
    program::{FunctionId, Program},
    shard::{Counters, frame::Position},
    time::EventTime,
    view::time,
};

/// How many steps are made from a stage to what holds it in the end.
const STEPS_MAX: usize = 64;
/// Rates are of at least this time.
const RATE_SECONDS_MIN: f64 = 0.2;

/// What the shards of an app have counted together.
pub(super) fn counted(shards: &[ShardStatus]) -> Counters {
    let mut all = Counters::default();
    shards.iter().for_each(|shard| all += shard.counters);
    all
}

/// How much was done each second between two looks.
#[derive(Debug, Default)]
pub(super) struct Rates {
    last: Option<(Instant, Counters)>,
    told: Value,
}

impl Rates {
    /// The rates since the last look; those of the look before where that was a moment ago.
    pub(super) fn at(&mut self, now: Instant, counters: Counters) -> Value {
        let Some((then, before)) = &self.last else {
            self.last = Some((now, counters));
            return Value::Null;
        };
        let seconds = now.duration_since(*then).as_secs_f64();
        if seconds < RATE_SECONDS_MIN {
            return self.told.clone();
        }
        // What a new start counts again begins at zero.
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0;
        self.told = json!({
            "events": rate(counters.calls, before.calls),
            "messages": rate(counters.messages, before.messages),
            "epochs": rate(counters.epochs, before.epochs),
            "over_seconds": (seconds * 10.0).round() / 10.0,
        });
        self.last = Some((now, counters));
        self.told.clone()
    }
}

/// A partition of an ingress, as far as every shard has taken it that takes it in: all, or in a fleet one.
pub(super) struct Lag {
    pub(super) ingress: usize,
    pub(super) partition: u32,
    pub(super) place: Partition,
    /// The position of the shard that has taken least.
    pub(super) least: Position,
    /// How many records the shard that has taken most has taken.
    pub(super) records_max: u64,
    /// How many bytes of it are not taken yet; none where nobody knows.
    pub(super) bytes: Option<u64>,
    /// How many offsets of it are not taken yet, if it is one of a log.
    pub(super) offsets: Option<u64>,
}

/// Every partition of every ingress.
pub(super) fn lags(inspect: &dyn Inspect, shards: &[ShardStatus]) -> Vec<Lag> {
    let mut lags = Vec::new();
    for (ingress, partitions) in inspect.inputs().into_iter().enumerate() {
        for (partition, place) in (0..).zip(partitions) {
            let position =
                |shard: &ShardStatus| shard.positions.get(ingress)?.get(partition as usize).copied().flatten();
            let positions: Vec<Position> = shards.iter().filter_map(position).collect();
            let least = positions.iter().min_by_key(|position| (position.is_ended, position.offset));
            let least = least.copied().unwrap_or_default();
            let records_max = positions.iter().map(|position| position.records).max().unwrap_or_default();
            let left = |bytes: u64| if least.is_ended { 0 } else { bytes.saturating_sub(least.offset) };
            let behind = |end: Option<u64>| end.filter(|_| !positions.is_empty()).map(left);
            let (bytes, offsets) = (behind(place.bytes), behind(place.end));
            lags.push(Lag { ingress, partition, place, least, records_max, bytes, offsets });
        }
    }
    lags
}

/// How far a stage is: where it is least far, and what holds it there in the end.
pub(super) struct StageView {
    pub(super) watermark: EventTime,
    pub(super) shard: u32,
    pub(super) held_by: Hold,
}

/// How far a stage is in the app; none where no shard says it.
pub(super) fn stage(shards: &[ShardStatus], stage: usize) -> Option<StageView> {
    let of_shard = |shard: &ShardStatus| (shard.stages[stage].watermark, shard.shard);
    let (watermark, shard) = shards.iter().map(of_shard).min()?;
    let (shard, held_by) = root(shards, stage, shard);
    Some(StageView { watermark, shard, held_by })
}

/// Follows what holds a stage on a shard to where it begins.
fn root(shards: &[ShardStatus], mut stage: usize, mut shard: u32) -> (u32, Hold) {
    let status = |stage: usize, shard: u32| {
        let status = shards.iter().find(|status| status.shard == shard)?;
        status.stages.get(stage).copied()
    };
    let mut hold = status(stage, shard).map_or(Hold::NoSource, |status| status.held_by);
    for _ in 0..STEPS_MAX {
        let next = match hold {
            Hold::Sender { stage, shard } => (usize::from(stage), shard),
            Hold::Cycle { shard } => (stage, shard),
            _ => break,
        };
        let Some(status) = status(next.0, next.1) else { break };
        let cause = status.out_held_by.unwrap_or(status.held_by);
        if next == (stage, shard) && cause == hold {
            break;
        }
        ((stage, shard), hold) = (next, cause);
    }
    partition_of(shards, hold).unwrap_or((shard, hold))
}

/// The partition that holds event time back, where it is known which shard has it.
fn partition_of(shards: &[ShardStatus], hold: Hold) -> Option<(u32, Hold)> {
    let Hold::IngressOf { ingress, shard } = hold else { return None };
    let positions = &shards.iter().find(|status| status.shard == shard)?.positions;
    let known = (0..).zip(positions.get(ingress)?).filter_map(|(partition, position)| Some((partition, (*position)?)));
    let least = known.min_by_key(|(_, position)| (position.is_ended, position.event_time_max));
    least.map(|(partition, _)| (shard, Hold::Ingress { ingress, partition }))
}

/// What holds event time back, in words and for programs.
pub(super) fn hold(program: &Program, hold: Hold) -> Value {
    let names = |stage: u16| names_of(program, usize::from(stage)).join(", ");
    match hold {
        Hold::Ended => json!({ "kind": "ended", "text": "nothing: every input has ended" }),
        Hold::NoSource => json!({ "kind": "no-source", "text": "nothing that has a time leads to it" }),
        Hold::Clock => json!({ "kind": "clock", "text": "the clock" }),
        Hold::Ingress { ingress, partition } => {
            let name = program.ingresses[ingress].name;
            let text = format!("ingress {name}, partition {partition}");
            json!({ "kind": "ingress", "ingress": name, "partition": partition, "text": text })
        }
        Hold::IngressOf { ingress, shard } => {
            let name = program.ingresses[ingress].name;
            let text = format!("ingress {name}, the partitions of shard {shard}");
            json!({ "kind": "ingress", "ingress": name, "shard": shard, "text": text })
        }
        Hold::Sender { stage, shard } => {
            let text = format!("what {} sends on shard {shard}", names(stage));
            json!({ "kind": "sender", "stage": stage, "shard": shard, "text": text })
        }
        Hold::Cycle { shard } => {
            let text = format!("messages within the cycle that shard {shard} has sent");
            json!({ "kind": "cycle", "shard": shard, "text": text })
        }
        Hold::Timer(due) => {
            json!({ "kind": "timer", "due_ms": time(due), "text": "a timer or message that is due and is being called" })
        }
        Hold::Carried(at) => {
            json!({ "kind": "carried", "event_time_ms": time(at), "text": "a message of an epoch that was full" })
        }
    }
}

/// The names of the functions of a stage.
pub(super) fn names_of(program: &Program, stage: usize) -> Vec<&'static str> {
    let functions = program.stages[stage].functions.iter();
    functions.map(|function| program.functions[usize::from(*function)].spec.name).collect()
}

/// The ingresses, with how far they are.
pub(super) fn ingresses(program: &Program, inspect: &dyn Inspect, lags: &[Lag]) -> Value {
    let partition = |lag: &Lag| {
        let lateness_ms = program.ingresses[lag.ingress].lateness_ms;
        json!({
            "partition": lag.partition,
            "path": lag.place.path.as_ref().map(|path| path.display().to_string()),
            "offset": lag.least.offset,
            "records": lag.least.records,
            "records_max": lag.records_max,
            "bytes": lag.place.bytes,
            "lag_bytes": lag.bytes,
            "topic": lag.place.topic.as_ref().map(|(topic, _)| topic),
            "topic_partition": lag.place.topic.as_ref().map(|(_, partition)| partition),
            "lag_offsets": lag.offsets,
            "watermark_ms": time(lag.least.watermark(lateness_ms)),
            "is_ended": lag.least.is_ended,
        })
    };
    let ingress = |(place, spec): (usize, &statefn_core::program::IngressSpec)| {
        let pause = inspect.pause(Pausable::Ingress(place));
        json!({
            "ingress": spec.name,
            "is_paused": pause.is_paused,
            "is_held": pause.is_held,
            "partitions": lags.iter().filter(|lag| lag.ingress == place).map(partition).collect::<Vec<_>>(),
        })
    };
    program.ingresses.iter().enumerate().map(ingress).collect()
}

/// The stages, with what holds each one back.
pub(super) fn stages(program: &Program, shards: &[ShardStatus]) -> Value {
    let told = |number: usize| {
        let view = stage(shards, number)?;
        Some(json!({
            "stage": number,
            "functions": names_of(program, number),
            "watermark_ms": time(view.watermark),
            "is_ended": view.watermark == EventTime::MAX,
            "shard": view.shard,
            "held_by": hold(program, view.held_by),
        }))
    };
    (0..program.stages.len()).filter_map(told).collect()
}

/// The functions, with what they hold.
pub(super) fn functions(program: &Program, inspect: &dyn Inspect, shards: &[ShardStatus]) -> Value {
    let told = |(id, function): (usize, &statefn_core::program::LinkedFunction)| {
        let (keys, bytes) = keys(shards, id);
        let pause = inspect.pause(Pausable::Function(id as FunctionId));
        let mut told = statefn_core::view::function(function);
        told["keys"] = keys.into();
        told["state_bytes"] = bytes.into();
        told["is_paused"] = pause.is_paused.into();
        told["is_held"] = pause.is_held.into();
        told
    };
    program.functions.iter().enumerate().map(told).collect()
}

/// How many keys of a function have a state, and about how many bytes these take.
pub(super) fn keys(shards: &[ShardStatus], function: usize) -> (usize, usize) {
    let keys = shards.iter().filter_map(|shard| shard.functions.get(function));
    keys.fold((0, 0), |sum, keys| (sum.0 + keys.count, sum.1 + keys.bytes))
}

/// The workers of a fleet; none of an app that is alone.
pub(super) fn workers(workers: &[Worker]) -> Value {
    let worker = |worker: &Worker| {
        json!({
            "worker": worker.peer.worker,
            "url": worker.peer.url,
            "is_here": worker.is_here,
            "shards": worker.shards,
        })
    };
    workers.iter().map(worker).collect()
}

/// One shard.
pub(super) fn shard(program: &Program, inspect: &dyn Inspect, workers: &[Worker], shard: &ShardStatus) -> Value {
    let worker = workers.iter().find(|worker| worker.shards.binary_search(&shard.shard).is_ok());
    let stages = shard.stages.iter().map(|stage| {
        json!({
            "watermark_ms": time(stage.watermark),
            "is_ended": stage.watermark == EventTime::MAX,
            "out_ms": time(stage.out),
            "held_by": hold(program, stage.held_by),
            "out_held_by": stage.out_held_by.map(|by| hold(program, by)),
        })
    });
    json!({
        "shard": shard.shard,
        "worker": worker.map(|worker| &worker.peer.worker),
        "host": inspect.host_of(shard.shard),
        "term": shard.term,
        "epoch": shard.epoch,
        "journal_offset": shard.journal_offset,
        "keys": shard.functions.iter().map(|keys| keys.count).sum::<usize>(),
        "state_bytes": shard.functions.iter().map(|keys| keys.bytes).sum::<usize>(),
        "pending": shard.pending,
        "pending_bytes": shard.pending_bytes,
        "parked_keys": shard.parked_keys,
        "parked_bytes": shard.parked_bytes,
        "is_stopped_by_parked": shard.is_stopped_by_parked,
        "unacknowledged_bytes": shard.unacknowledged_bytes,
        "stages": stages.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use statefn_core::ports::inspect::StageStatus;

    use super::*;

    fn status(shard: u32, stages: Vec<StageStatus>) -> ShardStatus {
        ShardStatus {
            shard,
            term: 1,
            epoch: 1,
            journal_offset: 1,
            functions: Vec::new(),
            pending: 0,
            pending_bytes: 0,
            parked_keys: 0,
            parked_bytes: 0,
            is_stopped_by_parked: false,
            unacknowledged_bytes: 0,
            counters: Counters::default(),
            positions: Vec::new(),
            stages,
        }
    }

    fn at(watermark: i64, held_by: Hold, out_held_by: Option<Hold>) -> StageStatus {
        StageStatus { watermark: EventTime(watermark), out: EventTime(watermark), held_by, out_held_by }
    }

    #[test]
    fn what_holds_a_stage_is_followed_to_where_it_begins() {
        let (ingress, timer) = (Hold::Ingress { ingress: 0, partition: 1 }, Hold::Timer(EventTime(4)));
        let by = |stage, shard| Hold::Sender { stage, shard };
        let shards = [
            status(0, vec![at(9, ingress, Some(timer)), at(3, by(0, 1), None)]),
            status(1, vec![at(4, ingress, None), at(5, by(0, 0), None)]),
        ];
        let first = stage(&shards, 1).expect("there are shards");
        assert_eq!((first.watermark, first.shard, first.held_by), (EventTime(3), 1, ingress));
        assert_eq!(root(&shards, 1, 1), (0, timer));
        assert!(stage(&[], 0).is_none());
        // What another shard reads is looked for there.
        let elsewhere = Hold::IngressOf { ingress: 0, shard: 1 };
        let position = |time| Some(Position { event_time_max: Some(EventTime(time)), ..Position::default() });
        let positions = vec![vec![None, position(7), None, position(5)]];
        let shards = [status(0, vec![at(1, elsewhere, None)]), ShardStatus { positions, ..status(1, Vec::new()) }];
        assert_eq!(root(&shards, 0, 0), (1, Hold::Ingress { ingress: 0, partition: 3 }));
        assert_eq!(root(&shards[..1], 0, 0), (0, elsewhere));
        // A cycle that waits for itself ends.
        let cycle = [
            status(0, vec![at(1, Hold::Cycle { shard: 1 }, None)]),
            status(1, vec![at(1, Hold::Cycle { shard: 0 }, None)]),
        ];
        assert!(matches!(root(&cycle, 0, 0).1, Hold::Cycle { .. }));
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        let counters = |calls| Counters { calls, ..Counters::default() };
        assert_eq!(rates.at(begun, counters(5)), Value::Null);
        assert_eq!(rates.at(begun + Duration::from_millis(1), counters(6)), Value::Null);
        assert_eq!(rates.at(begun + Duration::from_secs(2), counters(25))["events"], 10.0);
        assert_eq!(rates.at(begun + Duration::from_secs(4), counters(3))["events"], 0.0, "a new start");
    }
}
