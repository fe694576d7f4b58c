//! Payments: the activities, and the small unreliable server that they call.
//!
//! The server charges each idempotency key once and keeps what it did in a ledger, a line each, synced
//! before it answers. Every so often it fails: before it has done anything, or after, without an answer.
//! So it is what a payment service is like on a bad day, and the shop has to come through.
//!
//! Invariant: the ledger has each key at most once.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use statefn::{ActivityContext, Message, NotDone, Policy, Reject, TryAgain, activity};

/// The header that makes a request the same as another one.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// What the last digits of a card are that does not pay.
const DECLINED: &str = "0000";
/// One request of so many fails before anything is done, and one without an answer to what is done.
const FAILURES: u32 = 5;

/// The server is near.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);
/// Short waits: the server is near, and fails often.
const POLICY: Policy = Policy::new()
    .attempt_time_max(ATTEMPT_TIME_MAX)
    .back_off(Duration::from_millis(20), Duration::from_secs(2))
    .give_up_after(Duration::from_secs(60 * 60));

/// What is to be charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "charge")]
pub struct Charge {
    /// The order.
    pub order: String,
    /// The card that pays.
    pub card: String,
    /// How much, in cents.
    pub cents: u64,
}

/// What is to be paid back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "refund")]
pub struct Refund {
    /// The number of the payment.
    pub receipt: String,
    /// How much, in cents.
    pub cents: u64,
}

/// The card does not pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Reject)]
#[reject(code = "declined", status = 402)]
pub struct Declined {}

/// Charges a card; answers the number of the payment.
///
/// # Errors
/// If the card does not pay, or if the server has failed, which may pass.
#[activity(name = "shop/charge", policy = POLICY)]
pub async fn charge(charge: Charge, ctx: ActivityContext) -> Result<String, NotDone<Declined>> {
    match ctx.resource::<Client>().post("charge", &charge, ctx.id()).await? {
        (200, receipt) => Ok(receipt),
        (402, _) => Err(Declined {}.into()),
        (status, _) => Err(TryAgain::new(format_args!("the server answered {status}")).into()),
    }
}

/// Pays back; answers how much.
///
/// # Errors
/// If the server has failed, which may pass.
#[activity(name = "shop/refund", policy = POLICY)]
pub async fn refund(refund: Refund, ctx: ActivityContext) -> Result<u64, TryAgain> {
    match ctx.resource::<Client>().post("refund", &refund, ctx.id()).await? {
        (200, _) => Ok(refund.cents),
        (status, _) => Err(TryAgain::new(format_args!("the server answered {status}"))),
    }
}

/// How the activities reach the server.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    agent: ureq::Agent,
}

impl Client {
    /// A client of the server at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ATTEMPT_TIME_MAX));
        Self { url: format!("http://{address}"), agent: config.build().into() }
    }

    /// Posts a body; returns the status and what the server says. The client waits on a thread that is
    /// there for that; one that is async itself would not need it.
    async fn post(&self, what: &str, body: &impl Serialize, once: &str) -> Result<(u16, String), TryAgain> {
        let body = serde_json::to_vec(body)?;
        let request = self.agent.post(format!("{}/{what}", self.url)).header(IDEMPOTENCY_KEY, once);
        let exchange = tokio::task::spawn_blocking(move || {
            let mut response = request.send(&body)?;
            Ok::<_, ureq::Error>((response.status().as_u16(), response.body_mut().read_to_string()?))
        });
        Ok(exchange.await??)
    }
}

/// A line of the ledger: what was done for an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub once: String,
    /// What was charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
    /// What was paid back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
}

/// What the server has done.
struct Ledger {
    file: File,
    known: BTreeMap<String, Entry>,
    failures: u32,
}

impl Ledger {
    fn open(path: &Path, failures: u32) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let lines = BufReader::new(file.try_clone()?).lines();
        let mut known = BTreeMap::new();
        for line in lines {
            // A line that a kill has cut off was never answered.
            if let Ok(entry) = serde_json::from_str::<Entry>(&line?) {
                known.insert(entry.once.clone(), entry);
            }
        }
        Ok(Self { file, known, failures })
    }

    /// Does something once; returns whether it was done now.
    fn book(&mut self, entry: Entry) -> std::io::Result<()> {
        if self.known.contains_key(&entry.once) {
            return Ok(());
        }
        // A line of its own, whatever stands before it.
        self.file.write_all(format!("\n{}\n", serde_json::to_string(&entry)?).as_bytes())?;
        self.file.sync_data()?;
        self.known.insert(entry.once.clone(), entry);
        Ok(())
    }

    fn fails(&self) -> bool {
        self.failures > 0 && fastrand::u32(0..self.failures) == 0
    }
}

/// Reads a ledger: every entry, in order.
///
/// # Errors
/// If it cannot be read.
pub fn entries(path: &Path) -> std::io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

type Shared = web::Data<Mutex<Ledger>>;

/// Nothing is half-changed when a request panics.
fn lock(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn once(request: &HttpRequest) -> Option<String> {
    Some(request.headers().get(IDEMPOTENCY_KEY)?.to_str().ok()?.to_owned())
}

async fn charge_card(request: HttpRequest, body: web::Bytes, ledger: Shared) -> HttpResponse {
    let (Some(once), Ok(charge)) = (once(&request), serde_json::from_slice::<Charge>(&body)) else {
        return HttpResponse::BadRequest().finish();
    };
    if charge.card.ends_with(DECLINED) {
        return HttpResponse::PaymentRequired().finish();
    }
    let receipt = format!("receipt-{}", once.replace('/', "-"));
    book(&ledger, Entry { once, charge: Some(charge), refund: None }, receipt)
}

async fn pay_back(request: HttpRequest, body: web::Bytes, ledger: Shared) -> HttpResponse {
    let (Some(once), Ok(refund)) = (once(&request), serde_json::from_slice::<Refund>(&body)) else {
        return HttpResponse::BadRequest().finish();
    };
    book(&ledger, Entry { once, charge: None, refund: Some(refund) }, String::new())
}

fn book(ledger: &Shared, entry: Entry, answer: String) -> HttpResponse {
    let mut ledger = lock(ledger);
    if ledger.fails() {
        return HttpResponse::ServiceUnavailable().finish();
    }
    let booked = ledger.book(entry);
    if booked.is_err() || ledger.fails() {
        // It may be done all the same.
        return HttpResponse::InternalServerError().finish();
    }
    HttpResponse::Ok().body(answer)
}

/// Runs the server at an address until the process ends; `told` is called with the address it has.
///
/// It fails for one request of five before anything is done, and for one of five after; it never fails
/// if `is_reliable`.
///
/// # Errors
/// If it cannot listen there, or cannot open the ledger.
pub fn serve(
    listen: SocketAddr,
    ledger: &Path,
    is_reliable: bool,
    told: impl FnOnce(SocketAddr),
) -> std::io::Result<()> {
    let ledger = Ledger::open(ledger, if is_reliable { 0 } else { FAILURES })?;
    let ledger = web::Data::new(Mutex::new(ledger));
    actix_web::rt::System::new().block_on(async move {
        let app = move || {
            let app = App::new().app_data(ledger.clone());
            app.route("/charge", web::post().to(charge_card)).route("/refund", web::post().to(pay_back))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().bind(listen)?;
        let address = server.addrs().first().copied();
        told(address.unwrap_or(listen));
        server.run().await
    })
}
