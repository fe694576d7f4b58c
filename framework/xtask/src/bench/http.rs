//! Requests over HTTP: clients that each wait for the answer, which comes once it is durable.
//!
//! The limit is a bare actix server that adds up in a map, gives as many bytes as a frame has to one
//! thread, which writes what waits in one go and syncs it, and then answers. Clients run in the same
//! process on both sides, so figures are those of server and clients together.
//!
//! Invariant: every client has keys of its own, so each answer is known: both sides must give the same.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use actix_web::{App as Server, HttpResponse, HttpServer, rt::System, web};
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use statefn::{prelude::*, run::End, settings::HttpSettings};
use tokio::sync::oneshot;

use super::{
    Failure,
    audit::{self, Audit},
    figures::Figures,
    row::{Measuring, Row, Side},
};
use crate::http_client::Client;

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many requests all clients make together.
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
    /// How many clients ask at a time, each on a connection of its own; a list gives several points.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    clients: Vec<u64>,
    /// How many keys each client has.
    #[arg(long, default_value_t = 10)]
    keys: u64,
    /// How many bytes the bare server writes for a request: what a frame has that holds one.
    #[arg(long, default_value_t = 100)]
    frame_bytes: usize,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "add")]
struct Add {
    amount: u64,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Sum {
    sum: u64,
}

#[function(name = "bench/sum")]
impl Sum {
    #[on]
    fn add(&mut self, add: &Add) -> u64 {
        self.sum += add.amount;
        self.sum
    }
}

impl Row for Options {
    const NAME: &'static str = "http";
    const MERIT: &'static str = "requests a second";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        let point = |clients: &u64| (format!("{clients} clients"), Self { clients: vec![*clients], ..self.clone() });
        self.clients.iter().map(point).collect()
    }

    fn times(&self, factor: u64) -> Self {
        Self { requests: self.requests * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.requests
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        match side {
            Side::App => self.run_app(data),
            Side::ByHand => self.run_by_hand(data),
        }
    }
}

impl Options {
    fn run_app(&self, data: &Path) -> Result<Figures, Failure> {
        let http = HttpSettings { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..HttpSettings::default() };
        let settings = Settings { data: Some(data.into()), threads: Some(1), http, ..Settings::default() };
        let running = App::new("bench-http").function::<Sum>().settings(settings).start()?;
        let address = running.http_address().ok_or("the app listens")?;
        let started_at = Instant::now();
        while Client::connect(address)?.get("/ready")?.status != 200 {
            if started_at.elapsed() > PATIENCE {
                return Err("the app is not ready".into());
            }
        }
        let figures = self.ask(address)?;
        running.stopper().stop();
        let summary = running.wait()?;
        if summary.end != End::Stopped || summary.totals.shards.calls != self.made() {
            return Err(format!("the run of the app is not whole: {:?}", summary.totals).into());
        }
        Ok(figures.with("bytes of frames per request", summary.totals.shards.bytes as f64 / self.made() as f64))
    }

    fn run_by_hand(&self, data: &Path) -> Result<Figures, Failure> {
        let file = File::create(data.join("log"))?;
        let (writes, waiting) = channel();
        let frame_bytes = self.frame_bytes;
        let writer = thread::spawn(move || write(file, frame_bytes, &waiting));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (handles, handle) = channel();
        let server = thread::spawn(move || {
            let state = web::Data::new(Bare { sums: Mutex::default(), writes: Mutex::new(writes) });
            System::new().block_on(async move {
                let app = move || Server::new().app_data(state.clone()).default_service(web::to(add));
                let server = HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run();
                // The one who measures waits for it.
                let _ = handles.send(server.handle());
                server.await
            })
        });
        let handle = handle.recv()?;
        let figures = self.ask(address)?;
        drop(handle.stop(false));
        server.join().map_err(|_| "the server panicked")??;
        writer.join().map_err(|_| "the writer panicked")??;
        Ok(figures.with("bytes of frames per request", self.frame_bytes as f64))
    }

    /// How many requests are made: each client makes as many.
    fn made(&self) -> u64 {
        self.requests / self.clients[0] * self.clients[0]
    }

    fn ask(&self, address: SocketAddr) -> Result<Figures, Failure> {
        let started_at = Instant::now();
        let clients = self.clients[0];
        let (requests, keys) = (self.requests / clients, self.keys);
        let ask = |client: u64| {
            move || ask(address, client * keys..(client + 1) * keys, requests).map_err(|error| error.to_string())
        };
        let clients: Vec<_> = (0..clients).map(|client| thread::spawn(ask(client))).collect();
        let mut all = Histogram::<u64>::new(3)?;
        for client in clients {
            all.add(client.join().map_err(|_| "a client panicked")??)?;
        }
        let rate = self.made() as f64 / started_at.elapsed().as_secs_f64();
        Ok(Figures::new(Audit::taken())
            .with(Self::MERIT, rate)
            .with("p50 us", all.value_at_quantile(0.5) as f64)
            .with("p99 us", all.value_at_quantile(0.99) as f64))
    }
}

/// Makes requests one after the other; returns how long each took, in microseconds.
fn ask(address: SocketAddr, keys: std::ops::Range<u64>, requests: u64) -> Result<Histogram<u64>, Failure> {
    let mut client = Client::connect(address)?;
    let mut took = Histogram::new(3)?;
    for (number, key) in (1..=requests).zip(keys.cycle()) {
        let body = format!("{{\"amount\":{number}}}");
        let begun = Instant::now();
        let answer = client.post(&format!("/functions/bench/sum/key-{key}/add"), None, &body)?;
        took.record(begun.elapsed().as_micros() as u64)?;
        if answer.status != 200 {
            return Err(format!("a request was answered by {answer:?}").into());
        }
        audit::note(key, answer.body.parse()?);
    }
    Ok(took)
}

/// What the bare server has.
struct Bare {
    sums: Mutex<HashMap<String, u64>>,
    writes: Mutex<Sender<oneshot::Sender<()>>>,
}

async fn add(request: actix_web::HttpRequest, body: web::Bytes, bare: web::Data<Bare>) -> HttpResponse {
    let Ok(Add { amount }) = serde_json::from_slice(&body) else { return HttpResponse::BadRequest().finish() };
    let sum = {
        let mut sums = bare.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sums.entry(request.path().to_owned()).or_default();
        *sum += amount;
        *sum
    };
    let (done, is_durable) = oneshot::channel();
    let is_sent = bare.writes.lock().unwrap_or_else(PoisonError::into_inner).send(done).is_ok();
    if !is_sent || is_durable.await.is_err() {
        return HttpResponse::InternalServerError().finish();
    }
    HttpResponse::Ok().content_type("application/json").body(sum.to_string())
}

/// Writes what waits in one go, and says that it is durable.
fn write(mut file: File, frame_bytes: usize, waiting: &Receiver<oneshot::Sender<()>>) -> std::io::Result<()> {
    while let Ok(first) = waiting.recv() {
        let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        file.write_all(&vec![1; group.len() * frame_bytes])?;
        file.sync_data()?;
        // A client that has gone away waits no more.
        group.into_iter().for_each(|done| _ = done.send(()));
    }
    Ok(())
}
