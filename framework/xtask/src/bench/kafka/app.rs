//! The app that workers run, and the records that go in and come out.
//!
//! It counts and adds up for each key, as the row `keyed-sum` does. What comes out bears the number of
//! the process that made it, so a reader sees which worker had a shard.

use std::{
    io::{self, Read},
    process,
    sync::LazyLock,
    thread,
};

use clap::Args;
use serde::{Deserialize, Serialize};
use statefn::{
    __private::{Wire, murmur2, shard_of},
    prelude::*,
    run::End,
};

use crate::bench::{Failure, numbers::mixed};

/// The name of the app, with which its topics begin.
pub(super) const NAME: &str = "bench-fleet";
/// The ingress, and its topic.
pub(super) const ADDS: &str = "adds";
/// The egress, and its topic.
pub(super) const SUMS: &str = "sums";
/// The length of a record in, in bytes.
const RECORD_BYTES: usize = 100;

/// A record in.
#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "add", prost)]
pub(super) struct Add {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(uint64, tag = "2")]
    amount: u64,
    #[prost(string, tag = "3")]
    note: String,
    /// Whether the note becomes part of the state.
    #[prost(bool, tag = "4")]
    is_kept: bool,
}

/// A record out.
#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "sum", prost)]
pub(super) struct Sum {
    #[prost(string, tag = "1")]
    pub(super) user: String,
    #[prost(fixed64, tag = "2")]
    pub(super) count: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) sum: u64,
    /// The process that made it.
    #[prost(fixed32, tag = "4")]
    pub(super) worker: u32,
}

static OUT: Egress<Sum> = Egress::new(SUMS);
static WORKER: LazyLock<u32> = LazyLock::new(process::id);

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Total {
    count: u64,
    sum: u64,
    kept: String,
}

#[function(name = "bench/total", emits(OUT))]
impl Total {
    #[on]
    fn add(&mut self, msg: &Add, ctx: &mut Context<Self>) {
        self.count += 1;
        self.sum += msg.amount;
        if msg.is_kept {
            self.kept.clone_from(&msg.note);
        }
        let key = ctx.key();
        ctx.emit_with(&OUT, |sum| {
            sum.user.clone_from(key);
            (sum.count, sum.sum, sum.worker) = (self.count, self.sum, *WORKER);
        });
    }
}

/// What nobody sends.
#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "poke", prost)]
struct Poke {}

/// A function that sends, so that workers follow mailboxes and progress; it is never called.
#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Sender {}

#[function(name = "bench/sender", sends(Total))]
impl Sender {
    #[on]
    fn poke(&mut self, _msg: &Poke, ctx: &mut Context<Self>) {
        ctx.send(Total::at(ctx.key()), Add::of(0, 1));
    }
}

impl Add {
    /// Record `number` of a fixed sequence over so many keys; also the number of its key.
    pub(super) fn numbered(number: u64, keys: u64) -> (u64, Self) {
        let random = mixed(number);
        let key = random % keys;
        (key, Self::of(key, random >> 54))
    }

    /// A record of [`RECORD_BYTES`] bytes.
    pub(super) fn of(key: u64, amount: u64) -> Self {
        let mut add = Self { user: user(key), amount, note: "x".to_owned(), is_kept: false };
        let missing = RECORD_BYTES.saturating_sub(add.bytes().len());
        add.note = "x".repeat(1 + missing);
        add
    }

    /// A record that makes the state of a key so large.
    pub(super) fn keeping(key: u64, bytes: usize) -> Self {
        let letter = char::from(b'a' + (key % 26) as u8);
        Self { user: user(key), amount: 1, note: std::iter::repeat_n(letter, bytes).collect(), is_kept: true }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn amount(&self) -> u64 {
        self.amount
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Failure> {
        Ok(Self::decode(bytes)?)
    }
}

impl Sum {
    /// What a process that has no shards writes.
    pub(super) fn of(user: &str, count: u64, sum: u64) -> Self {
        Self { user: user.to_owned(), count, sum, worker: *WORKER }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Failure> {
        Ok(Self::decode(bytes)?)
    }

    /// The number of its key.
    pub(super) fn key(&self) -> Result<u64, Failure> {
        let number = self.user.strip_prefix("user-").and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("the output has the key `{}`, which nobody wrote", self.user).into())
    }
}

fn user(key: u64) -> String {
    format!("user-{key:012}")
}

/// The first `each` keys of every shard, by shard.
fn keys_of_shards(shards: u32, each: usize) -> Vec<Vec<u64>> {
    let mut keys = vec![Vec::new(); shards as usize];
    let mut left = shards as usize * each;
    for key in 0.. {
        if left == 0 {
            break;
        }
        let of_shard = &mut keys[shard_of(murmur2(user(key).as_bytes()), shards) as usize];
        if of_shard.len() < each {
            of_shard.push(key);
            left -= 1;
        }
    }
    keys
}

/// The first `each` keys of every shard, one of each shard in turn.
pub(super) fn keys_in_turn(shards: u32, each: usize) -> Vec<u64> {
    let keys = keys_of_shards(shards, each);
    (0..each).flat_map(|place| keys.iter().map(move |keys| keys[place])).collect()
}

/// What a worker process is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Worker {
    /// A setting, `name=value`.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// The app has a function that sends.
    #[arg(long)]
    sends: bool,
}

impl Worker {
    /// Works until standard input ends, which it also does when the process that started this one has ended.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).init();
        let settings = self.settings.iter().try_fold(Settings::new(), |settings, setting| settings.with(setting))?;
        let adds = Ingress::<Add>::new(ADDS).to::<Total>();
        let app = App::new(NAME).function::<Total>().egress(&OUT).settings(settings);
        let app = if self.sends { app.function::<Sender>() } else { app };
        let app = app.ingress(adds, |add, out| out.forward_unchanged(Total::at(&add.user), add));
        let running = app.start()?;
        let stopper = running.stopper();
        thread::spawn(move || {
            // What comes does not matter, and an error is an end too.
            let _ = io::stdin().lock().read_to_end(&mut Vec::new());
            stopper.stop();
        });
        let summary = running.wait()?;
        if summary.end == End::Stopped { Ok(()) } else { Err(format!("the worker ended: {:?}", summary.end).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_their_length_and_keys_their_shards() {
        for number in 0..100 {
            let (key, add) = Add::numbered(number, 100_000);
            assert_eq!(add.bytes().len(), RECORD_BYTES, "{add:?}");
            assert_eq!(Sum::of(add.user(), 1, 1).key().expect("a key"), key);
        }
        let keys = keys_of_shards(7, 3);
        for (shard, keys) in (0..).zip(keys) {
            assert_eq!(keys.len(), 3);
            for key in keys {
                assert_eq!(shard_of(murmur2(Total::at(user(key)).key()), 7), shard);
            }
        }
    }
}
