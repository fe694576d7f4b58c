//! One order is one trace: over HTTP, through functions, timers, delays and an activity, over a crash, as a
//! receiver of OpenTelemetry sees it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix_web::{App as WebApp, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, rt::System, web};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use statefn::{
    Policy,
    prelude::*,
    run::Running,
    settings::{HttpSettings, TraceSettings},
};

use crate::client::{Client, post};

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// The trace that the client begins, and its span.
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "place")]
struct Place {}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "reserve")]
struct Reserve {}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "ship")]
struct Ship {}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "look-back")]
struct LookBack {}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "overdue")]
struct Overdue {}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "charge")]
struct Charge {}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "sold-out", status = 409)]
struct SoldOut {}

/// What stands for the payment server: whether it answers, and what it was told of the trace.
#[derive(Debug, Default)]
struct Payments {
    is_open: AtomicBool,
    attempts: AtomicU32,
    told: Mutex<Vec<String>>,
}

#[activity(name = "shop/charge", policy = Policy::new())]
async fn charge(_: Charge, ctx: ActivityContext) -> Result<u64, NotDone<SoldOut>> {
    let payments: &Arc<Payments> = ctx.resource();
    payments.told.lock().expect("no test broke").extend(ctx.traceparent().map(str::to_owned));
    let attempt = payments.attempts.fetch_add(1, Ordering::SeqCst);
    if attempt == 0 {
        return Err(TryAgain::new("the line is busy"))?;
    }
    while !payments.is_open.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(7)
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Stock {
    reserved: u32,
}

#[function(name = "shop/stock")]
impl Stock {
    #[on]
    fn reserve(&mut self, _: &Reserve) -> u32 {
        self.reserved += 1;
        self.reserved
    }
    #[on]
    fn ship(&mut self, _: &Ship) -> Result<(), SoldOut> {
        Err(SoldOut {})
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Order {
    is_overdue: bool,
}

#[function(name = "shop/order", key = i32, sends(Stock, Self))]
impl Order {
    #[on]
    fn place(&mut self, _: &Place, ctx: &mut Context<Self>) {
        ctx.set_timer(ctx.event_time() + Duration::from_millis(5), Overdue {});
        ctx.ask(Stock::at("pen"), Reserve {}, 1);
    }
    #[on_timer]
    fn overdue(&mut self, _: &Overdue) {
        self.is_overdue = true;
    }
    #[on_reply]
    fn reserved(&mut self, _: Reply<Stock, Reserve>, ctx: &mut Context<Self>) {
        ctx.call::<charge>(Charge {}, 2);
    }
    #[on_reply]
    fn charged(&mut self, _: &Done<charge>, ctx: &mut Context<Self>) {
        ctx.send(Stock::at("ink"), Ship {});
        ctx.send_after(Duration::from_millis(20), Order::at(-4), LookBack {});
    }
    #[on]
    fn look_back(&mut self, _: &LookBack) {
        self.is_overdue = false;
    }
}

/// Settings of traces to a receiver, and more of them.
fn settings(receiver: SocketAddr, more: &str) -> TraceSettings {
    let text = format!("[trace]\nendpoint = \"http://{receiver}/v1/traces\"\n{more}");
    Settings::from_toml(&text).expect("is right").trace
}

/// The app in a directory, whose spans go to a receiver.
fn start(data: &Path, payments: &Arc<Payments>, trace: TraceSettings) -> Running {
    let http = HttpSettings { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..HttpSettings::default() };
    let settings =
        Settings { data: Some(data.into()), shards: Some(8), threads: Some(2), http, trace, ..Settings::default() };
    let app = App::new("shop").function::<Stock>().function::<Order>().activity::<charge>();
    let app = app.resource(Arc::clone(payments)).settings(settings);
    let running = app.start().expect("the app starts");
    let mut client = Client::connect(running.http_address().expect("it listens"));
    wait_for("the app is ready", || client.get("/ready").status == 200);
    running
}

fn stop(running: Running) {
    running.stopper().stop();
    running.wait().expect("runs");
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A receiver of OTLP over HTTP; it cannot be reached well at first.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU32,
    /// Spans, each with the name of its service.
    spans: Mutex<Vec<(String, Span)>>,
}

impl Receiver {
    fn start() -> Self {
        let seen = Arc::new(Seen::default());
        let (told, address) = mpsc::channel();
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            System::new().block_on(async move {
                let data = web::Data::from(shared);
                let app = move || WebApp::new().app_data(data.clone()).route("/v1/traces", web::post().to(receive));
                let server = HttpServer::new(app).workers(1).disable_signals();
                let server = server.bind(("127.0.0.1", 0)).expect("a port is free");
                let address = server.addrs()[0];
                let server = server.run();
                told.send((address, server.handle())).expect("the test waits");
                server.await.expect("the server runs");
            });
        });
        let (address, handle) = address.recv().expect("the server starts");
        Self { address, seen, handle, thread }
    }

    fn settings(&self) -> TraceSettings {
        settings(self.address, "headers = \"x-api-key=abc\"")
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.seen.spans.lock().expect("no test broke").clone()
    }

    fn stop(self) {
        drop(self.handle.stop(false));
        self.thread.join().expect("the server ends");
    }
}

async fn receive(request: HttpRequest, body: web::Bytes, seen: web::Data<Seen>) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    assert_eq!(header("content-type").as_deref(), Some("application/x-protobuf"));
    assert_eq!(header("x-api-key").as_deref(), Some("abc"));
    if seen.requests.fetch_add(1, Ordering::SeqCst) == 0 {
        return HttpResponse::ServiceUnavailable().finish();
    }
    let request = ExportTraceServiceRequest::decode(body).expect("a request of OTLP");
    let mut spans = seen.spans.lock().expect("no test broke");
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.expect("spans are of a resource");
        let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
        let service = service.and_then(|service| text_of(service.value.as_ref()?.value.as_ref()?)).expect("a name");
        let of_scopes = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        spans.extend(of_scopes.map(|span| (service.clone(), span)));
    }
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    HttpResponse::Ok().content_type("application/x-protobuf").body(answer)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let attributes = span.attributes.iter();
    attributes
        .filter_map(|attribute| Some((attribute.key.clone(), text_of(attribute.value.as_ref()?.value.as_ref()?)?)))
        .collect()
}

/// Copies what a process that is killed now would leave.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir_all(&to).expect("a directory");
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("a file");
        }
    }
}

fn place(running: &Running, traceparent: &str) {
    let mut client = Client::connect(running.http_address().expect("it listens"));
    let headers = format!("content-type: application/json\r\n{traceparent}");
    client.send(&post("/functions/shop/order/-3/place", &headers, b"{}"));
    assert_eq!(client.response().map(|response| response.status), Some(200));
}

#[test]
fn an_order_is_one_trace_over_functions_timers_activities_and_a_crash() {
    let (first, second) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let receiver = Receiver::start();
    let payments = Arc::new(Payments::default());
    let began = SystemTime::now();
    let running = start(first.path(), &payments, receiver.settings());
    place(&running, &format!("traceparent: 00-{TRACE:032x}-{PARENT:016x}-01\r\n"));
    // The first attempt has failed, the second one waits for an answer that will not come.
    wait_for("the call is made again", || payments.attempts.load(Ordering::SeqCst) == 2);
    wait_for("all but the attempt under way is told", || receiver.spans().len() == 5);
    copy(first.path(), second.path());
    stop(running);

    payments.is_open.store(true, Ordering::SeqCst);
    let running = start(second.path(), &payments, receiver.settings());
    wait_for("the rest is told", || receiver.spans().len() >= 9);
    stop(running);
    let ended = SystemTime::now();
    let spans = receiver.spans();
    receiver.stop();

    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|(_, span)| (&span.span_id[..], span)).collect();
    assert_eq!((spans.len(), by_id.len()), (9, 9), "each is told once: {spans:#?}");
    let mut tree = Vec::new();
    for (service, span) in &spans {
        assert_eq!((service.as_str(), &span.trace_id[..]), ("shop", &TRACE.to_be_bytes()[..]));
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("is later").as_nanos() as u64;
        // Epochs have a clock of milliseconds.
        assert!(since(began) <= span.start_time_unix_nano + 1_000_000, "{span:?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        assert!(span.end_time_unix_nano <= since(ended), "{span:?}");
        let parent = if span.parent_span_id == PARENT.to_be_bytes() {
            "the client"
        } else {
            &by_id.get(&span.parent_span_id[..]).unwrap_or_else(|| panic!("no parent: {span:?}")).name
        };
        let is_error = span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
        tree.push((parent, span.name.as_str(), span.kind(), is_error));
    }
    tree.sort_by_key(|(parent, name, _, is_error)| (*parent, *name, !is_error));
    let mut expected = [
        ("the client", "shop/order place", SpanKind::Server, false),
        ("shop/order place", "shop/order overdue", SpanKind::Consumer, false),
        ("shop/order place", "shop/stock reserve", SpanKind::Consumer, false),
        ("shop/stock reserve", "shop/order reply of shop/stock/reserve", SpanKind::Internal, false),
        ("shop/order reply of shop/stock/reserve", "shop/charge", SpanKind::Client, true),
        ("shop/order reply of shop/stock/reserve", "shop/charge", SpanKind::Client, false),
        ("shop/order reply of shop/stock/reserve", "shop/order reply of shop/charge", SpanKind::Internal, false),
        ("shop/order reply of shop/charge", "shop/stock ship", SpanKind::Consumer, true),
        ("shop/order reply of shop/charge", "shop/order look-back", SpanKind::Consumer, false),
    ];
    expected.sort_by_key(|(parent, name, _, is_error)| (*parent, *name, !is_error));
    assert_eq!(tree, expected);

    let named = |name: &'static str| spans.iter().map(|(_, span)| span).filter(move |span| span.name == name);
    let placed = attributes(named("shop/order place").next().expect("is there"));
    let event_time: u128 = placed["statefn.event_time_ms"].parse().expect("a number");
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("is later").as_millis();
    assert!((since(began)..=since(ended)).contains(&event_time), "{event_time}");
    assert_eq!(
        [&placed["statefn.function"], &placed["statefn.key"], &placed["statefn.message"]],
        ["shop/order", "-3", "place"]
    );
    let shipped = named("shop/stock ship").next().and_then(|span| span.status.as_ref()).expect("has failed");
    assert!(shipped.message.contains("sold-out"), "{shipped:?}");
    let attempts: Vec<_> = named("shop/charge").map(attributes).collect();
    assert_eq!(attempts[0]["statefn.call"], attempts[1]["statefn.call"]);
    assert!(attempts[0]["statefn.call"].starts_with("shop/"), "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt["statefn.attempt"] == "1"), "the first ones of their processes");
    // The outside was told the span of each attempt, also of the one that the crash has cut off.
    let told = payments.told.lock().expect("no test broke").clone();
    let header = |span: &Span| {
        let id = u64::from_be_bytes(span.span_id[..].try_into().expect("8 bytes"));
        format!("00-{TRACE:032x}-{id:016x}-01")
    };
    let headers: Vec<_> = named("shop/charge").map(header).collect();
    assert_eq!((told.len(), &told[0], &told[2]), (3, &headers[0], &headers[1]));
    assert!(!headers.contains(&told[1]));
}

#[test]
fn a_share_of_requests_begins_a_trace_and_what_another_sampler_left_out_stays_out() {
    let data = tempfile::tempdir().expect("a directory");
    let receiver = Receiver::start();
    let payments = Arc::new(Payments { is_open: AtomicBool::new(true), ..Payments::default() });
    let running = start(data.path(), &payments, TraceSettings { sample: Some(1.0), ..receiver.settings() });
    place(&running, &format!("traceparent: 00-{TRACE:032x}-{PARENT:016x}-00\r\n"));
    let mut client = Client::connect(running.http_address().expect("it listens"));
    let lines = "{\"message\":\"reserve\",\"key\":\"a\",\"body\":{}}\n";
    client.send(&post("/batch/shop/stock", "content-type: application/x-ndjson\r\n", lines.as_bytes()));
    let answer = client.response().expect("an answer");
    assert_eq!(answer.text(), "{\"status\":202}\n", "{answer:?}");
    wait_for("the span comes", || !receiver.spans().is_empty());
    stop(running);
    let spans = receiver.spans();
    receiver.stop();
    let names: Vec<_> = spans.iter().map(|(_, span)| (span.name.as_str(), span.parent_span_id.len())).collect();
    assert_eq!(names, [("shop/stock reserve", 0)]);
    assert_ne!(spans[0].1.trace_id, TRACE.to_be_bytes());
}

#[test]
fn a_receiver_that_is_not_there_stops_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    // Nobody listens there: the port was free, and is again.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let payments = Arc::new(Payments { is_open: AtomicBool::new(true), ..Payments::default() });
    let trace = settings(free.expect("an address"), "sample = 1.0");
    let running = start(data.path(), &payments, trace);
    for _ in 0..50 {
        place(&running, "");
    }
    stop(running);
}

#[test]
fn settings_of_traces_that_cannot_be_are_refused() {
    for (given, expected) in [
        ("sample = 1.5", "`trace.sample` is `1.5`, from the program: it must be a share, 0 to 1"),
        ("endpoint = \"https://localhost/v1/traces\"", "feature `otel-tls`"),
        ("endpoint = \"http://localhost/v1/traces\"\nheaders = \"hunter2\"", "`trace.headers` must be headers"),
    ] {
        let settings = Settings::from_toml(&format!("[trace]\n{given}")).expect("can be read");
        let error = App::new("shop").function::<Stock>().settings(settings).start().expect_err("refused").to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}
