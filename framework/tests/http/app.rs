//! The app under test: a function for each kind of key, and handlers that do all that handlers do.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use statefn::{
    prelude::*,
    run::{End, Running, Summary},
    settings::{AdminSettings, HttpSettings},
};
use uuid::Uuid;

use crate::client::Client;

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
pub(crate) struct Counter {
    sum: u64,
    notes: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "add")]
struct Add {
    amount: u64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "take")]
struct Take {
    amount: u64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "get")]
struct Get {}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "note")]
struct Note {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "tree")]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "break")]
struct Break {}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "pass-on")]
struct PassOn {
    to: String,
    amount: u64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "later")]
struct Later {
    milliseconds: u64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "now")]
struct Now {}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "in-order")]
struct InOrder {}

/// Asks for its own event time.
#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "when")]
struct When {
    at_ms: Option<i64>,
    #[serde(default)]
    also: Vec<Also>,
}

#[derive(Debug, Serialize, Deserialize, Schema)]
#[serde(rename_all = "snake_case")]
enum Also {
    Nothing,
    Something(u8),
}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "too-little", status = 409)]
struct TooLittle {
    missing: u64,
}

#[function(name = "test/counter", sends(Self))]
impl Counter {
    #[on]
    fn add(&mut self, add: &Add) -> u64 {
        self.sum += add.amount;
        self.sum
    }
    #[on]
    fn take(&mut self, take: &Take) -> Result<u64, TooLittle> {
        self.sum = self.sum.checked_sub(take.amount).ok_or_else(|| TooLittle { missing: take.amount - self.sum })?;
        Ok(self.sum)
    }
    #[on]
    fn get(&self, _: &Get) -> u64 {
        self.sum
    }
    #[on]
    fn note(&mut self, note: &Note) {
        self.notes.push(note.text.clone());
    }
    #[on]
    fn tree(&self, tree: &Tree) -> u64 {
        tree.children.len() as u64
    }
    #[on]
    fn break_(&mut self, _: &Break) {
        self.sum += 1;
        panic!("a secret of the program");
    }
    #[on]
    fn pass_on(&mut self, on: &PassOn, ctx: &mut Context<Self>) {
        ctx.send(Counter::at(&on.to), Add { amount: on.amount });
    }
    #[on]
    fn later(&mut self, later: &Later, ctx: &mut Context<Self>) {
        ctx.set_timer(ctx.event_time() + Duration::from_millis(later.milliseconds), Now {});
    }
    #[on_timer]
    fn now(&mut self, _: &Now) {
        self.sum += 100;
    }
    #[on(in_event_time_order)]
    fn in_order(&mut self, _: &InOrder) {
        self.sum += 1;
    }
    #[on]
    fn when(&mut self, _: &When, ctx: &mut Context<Self>) -> i64 {
        ctx.event_time().0
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct ByNumber {
    sum: i64,
}

/// A message of protobuf; its answer is one too.
#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "sum", prost)]
pub(crate) struct Sum {
    #[prost(int64, tag = "1")]
    pub(crate) amount: i64,
}

#[function(name = "test/by-number", key = i32)]
impl ByNumber {
    #[on]
    fn sum(&mut self, sum: &Sum) -> Sum {
        self.sum += sum.amount;
        Sum { amount: self.sum }
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct ByUuid {
    count: u64,
}

#[function(name = "test/by-uuid", key = Uuid)]
impl ByUuid {
    #[on]
    fn get(&mut self, _: &Get) -> u64 {
        self.count += 1;
        self.count
    }
}

pub(crate) fn app() -> App {
    App::new("http-test").function::<Counter>().function::<ByNumber>().function::<ByUuid>()
}

/// The app as it runs in a directory.
pub(crate) struct Service {
    running: Running,
    pub(crate) address: SocketAddr,
}

impl Service {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, HttpSettings::default())
    }

    pub(crate) fn start_with(data: &Path, http: HttpSettings) -> Self {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self::start_as(data, http, AdminSettings { listen, token: None })
    }

    pub(crate) fn start_as(data: &Path, http: HttpSettings, admin: AdminSettings) -> Self {
        let http = HttpSettings { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..http };
        let (shards, threads) = (Some(8), Some(2));
        let settings = Settings { data: Some(data.into()), shards, threads, http, admin, ..Settings::default() };
        let running = app().settings(settings).start().expect("the app starts");
        let address = running.http_address().expect("it listens");
        let service = Self { running, address };
        let mut client = service.client();
        while client.get("/ready").status != 200 {
            assert!(!service.running.is_finished(), "the app ends before it is ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        service
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A client of the admin interface.
    pub(crate) fn admin(&self) -> Client {
        Client::connect(self.running.admin_address().expect("it listens"))
    }

    /// Stops it as SIGTERM does.
    pub(crate) fn stop(self) -> Summary {
        self.running.stopper().stop();
        let summary = self.running.wait().expect("runs");
        assert_eq!(summary.end, End::Stopped);
        summary
    }
}
