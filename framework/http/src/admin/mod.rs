//! The admin interface: what a person, a dashboard, a command or a monitor asks of a running app.
//!
//! It listens on an address of its own. All routes but those at the end are below `/admin/v1`:
//!
//! | request | answer |
//! |---|---|
//! | `GET status` | condition, rates, ingresses, stages and what holds each back, shards |
//! | `GET functions` | the functions, what they take, send and emit, and how much they hold |
//! | `GET graph?format=text`, `dot`, `mermaid` | ingresses, functions and egresses, and what flows between them |
//! | `GET keys/{namespace}/{name}?prefix=&after=&limit=` | the keys that have a state, by page |
//! | `GET state/{namespace}/{name}/{key}` | the committed state of a key |
//! | `GET timers/{namespace}/{name}/{key}?limit=` | its timers, and messages that wait for their time |
//! | `GET parked?after=&limit=`, `GET parked/{namespace}/{name}/{key}` | the keys that are parked, and why |
//! | `POST parked/{namespace}/{name}/{key}/retry`, `.../skip` | its calls are made again, with or without the first |
//! | `PUT parked/{namespace}/{name}/{key}/message`, `.../state` | the same with another first message, or state |
//! | `POST dead-letters/{at}/replay` | the letter that `at` names is handed in once more, once |
//! | `GET dead-letters?after=&limit=` | the dead letters, by page |
//! | `POST ingresses/{name}/pause`, `POST ingresses/{name}/resume` | the ingress is not read, or is again |
//! | `POST functions/{namespace}/{name}/pause`, `.../resume` | nothing new that leads to it is taken, or is again |
//! | `GET /metrics` | the metrics, as Prometheus reads them |
//! | `GET /health` | 200 while the process lives; needs no token |
//! | `GET /errors/{code}` | the page of an error code |
//!
//! Errors are problems as those of the edge are. A page says by `next` what `after` the next one needs.
//!
//! Invariants: who may ask is decided before anything else (`guard.rs`); each change stands in the audit
//! log (`audit.rs`) before it is begun; a page is bounded.
//!
//! Deliberately absent: TLS, and users of several kinds, which are a proxy's.

mod ask;
mod audit;
mod dead_letters;
pub(crate) mod guard;
mod metrics;
mod query;
mod view;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use serde_json::{Value, json};
use statefn_core::{
    dead_letter::DeadLetter,
    graph::{Graph, Notation},
    limits::KEY_BYTES_MAX,
    ports::{
        inspect::{Inspect, KeysWanted, Pausable},
        requests::{Condition, Demand, Requests},
    },
    program::{FunctionId, LinkedFunction, Program},
    shard::{Reply, Wants},
    state::{from_value, to_value},
    time::EventTime,
    view as views,
};
use tokio::{
    sync::oneshot,
    time::{Instant as Until, timeout_at},
};

pub use self::audit::FILE_NAME as AUDIT_FILE_NAME;
use self::{ask::Asker, audit::Audit, query::Query, view::Rates};
use crate::{
    body,
    edge::{json as answer_json, key_of, outcome, page},
    meter::Meter,
    others::Others,
    path::{decode, text},
    problem::Problem,
    server::{Options, Server, serve},
};

/// The most that one page has.
const PAGE_MAX: u64 = 1_000;
/// What a page has if nobody says it.
const PAGE: u64 = 100;

/// What an admin server needs to know.
#[derive(Debug, Clone)]
pub struct AdminOptions {
    /// The token that every request has to show.
    pub token: Option<String>,
    /// How long it waits for the shards.
    pub answer_time_max: Duration,
    /// Where the audit log is; without it changes are told to the logs of the process only.
    pub directory: Option<PathBuf>,
    /// The file of the egress of dead letters, if it is one.
    pub dead_letters: Option<PathBuf>,
    /// The version that is told.
    pub version: String,
}

/// The app that an admin server is for.
#[derive(Clone)]
pub struct Subject {
    /// Its program.
    pub program: Arc<Program>,
    /// Where demands go.
    pub requests: Arc<dyn Requests>,
    /// Where questions go.
    pub inspect: Arc<dyn Inspect>,
    /// What its edge counts.
    pub meter: Arc<Meter>,
    /// What it does for other workers, if it is one of a fleet.
    pub others: Others,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subject({})", self.program.app)
    }
}

impl Server {
    /// Starts an admin server at an address; port 0 is one that is free.
    ///
    /// # Errors
    /// If nobody can listen there, or the address is not a loopback one and there is no token.
    pub fn start_admin(listen: SocketAddr, options: AdminOptions, subject: Subject) -> io::Result<Self> {
        guard::check(listen, options.token.as_deref())
            .map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
        let limits = Options {
            body_bytes_max: crate::edge::BODY_BYTES_MAX,
            connections_max: 1_000,
            answer_time_max: options.answer_time_max,
            ..Options::default()
        };
        let admin = web::Data::new(Admin::new(options, limits.clone(), subject));
        Self::run("statefn-admin", listen, move |listener| serve(listener, &limits, admin, handle))
    }
}

struct Admin {
    options: AdminOptions,
    limits: Options,
    subject: Subject,
    asker: Asker,
    audit: Arc<Audit>,
    rates: Mutex<Rates>,
    started_at: Instant,
}

/// Answers one request.
async fn handle(request: HttpRequest, payload: web::Payload, admin: web::Data<Admin>) -> HttpResponse {
    if admin.subject.others.is_meant(request.uri().path()) {
        return admin.subject.others.answer(&request, payload).await;
    }
    let answered = admin.answer(&request, payload).await;
    let mut response = answered.unwrap_or_else(|problem| problem.response());
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !body::was_read(&request) {
        // What stands behind a body that nobody has read is not looked for.
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    response
}

/// What came of a route: a document, or another response.
type Answered = Result<HttpResponse, Problem>;

impl Admin {
    fn new(options: AdminOptions, limits: Options, subject: Subject) -> Self {
        Self {
            asker: Asker { inspect: Arc::clone(&subject.inspect), time_max: options.answer_time_max },
            audit: Arc::new(Audit::new(options.directory.as_deref())),
            rates: Mutex::default(),
            started_at: Instant::now(),
            options,
            limits,
            subject,
        }
    }

    async fn answer(&self, request: &HttpRequest, payload: web::Payload) -> Answered {
        let path = request.uri().path();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        if path == "/health" && is_get {
            return Ok(answer_json(&json!({ "status": "alive" })));
        }
        guard::admit(request, self.options.token.as_deref())?;
        let parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let parts: Vec<Vec<u8>> = parts.map(decode).collect::<Result<_, _>>()?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        match parts[..] {
            [b"metrics"] if is_get => self.metrics(request).await,
            [b"errors", code] if is_get => page(text(code)?),
            [b"admin", b"v1", ref rest @ ..] => match *request.method() {
                Method::GET | Method::HEAD => self.read(request, rest).await,
                _ => self.change(request, payload, rest).await,
            },
            [b"health" | b"metrics"] | [b"errors", _] => Err(Problem::method("GET")),
            _ => Err(nothing_there()),
        }
    }

    async fn read(&self, request: &HttpRequest, parts: &[&[u8]]) -> Answered {
        let query = |known: &[&str]| Query::of(request.query_string(), known);
        match parts {
            [b"status"] => query(&[]).map(drop).and(Ok(self.status().await)),
            [b"functions"] => query(&[]).map(drop).and(Ok(self.functions().await)),
            [b"graph"] => self.graph(&query(&["format"])?),
            [b"keys", namespace, name] => {
                self.keys(self.function(namespace, name)?, &query(&["prefix", "after", "limit"])?).await
            }
            [b"state", namespace, name, key] => {
                query(&[])?;
                self.state(self.function(namespace, name)?, key).await
            }
            [b"timers", namespace, name, key] => {
                self.timers(self.function(namespace, name)?, key, &query(&["limit"])?).await
            }
            [b"parked"] => self.parked(&query(&["after", "limit"])?).await,
            [b"parked", namespace, name, key] => {
                query(&[])?;
                self.parked_key(self.function(namespace, name)?, key).await
            }
            [b"dead-letters"] => self.dead_letters(&query(&["after", "limit"])?).await,
            [b"ingresses" | b"dead-letters", _, b"pause" | b"resume" | b"replay"]
            | [b"functions", _, _, b"pause" | b"resume"]
            | [b"parked", _, _, _, b"retry" | b"skip"] => Err(Problem::method("POST")),
            [b"parked", _, _, _, b"message" | b"state"] => Err(Problem::method("PUT")),
            _ => Err(nothing_there()),
        }
    }

    async fn change(&self, request: &HttpRequest, payload: web::Payload, parts: &[&[u8]]) -> Answered {
        let is_post = *request.method() == Method::POST;
        match parts {
            [b"ingresses", name, what @ (b"pause" | b"resume")] if is_post => {
                let ingress = self.ingress(name)?;
                let name = self.subject.program.ingresses[ingress].name;
                self.no_body(request, payload).await?;
                self.pause(request, Pausable::Ingress(ingress), *what == b"pause", &format!("ingress {name}")).await
            }
            [b"functions", namespace, name, what @ (b"pause" | b"resume")] if is_post => {
                let (function, linked) = self.function(namespace, name)?;
                self.no_body(request, payload).await?;
                let what = *what == b"pause";
                self.pause(request, Pausable::Function(function), what, &format!("function {}", linked.spec.name)).await
            }
            [b"parked", namespace, name, key, what @ (b"retry" | b"skip")] if is_post => {
                let function = self.function(namespace, name)?;
                self.no_body(request, payload).await?;
                let wants = if *what == b"skip" { Wants::Skip } else { Wants::Retry };
                self.mend(request, function, key, (wants, Vec::new())).await
            }
            [b"parked", namespace, name, key, what @ (b"message" | b"state")] if *request.method() == Method::PUT => {
                Query::of(request.query_string(), &[])?;
                let function = self.function(namespace, name)?;
                let body = body::read(request, payload, &self.limits).await?;
                let edit = match *what == b"state" {
                    true => (Wants::EditState, Self::state_of(function.1, &body)?),
                    false => (Wants::EditMessage, body.to_vec()),
                };
                self.mend(request, function, key, edit).await
            }
            [b"dead-letters", at, b"replay"] if is_post => {
                self.no_body(request, payload).await?;
                self.replay(request, at).await
            }
            [b"parked", _, _, _, b"message" | b"state"] => Err(Problem::method("PUT")),
            [b"ingresses" | b"dead-letters", _, b"pause" | b"resume" | b"replay"]
            | [b"functions", _, _, b"pause" | b"resume"]
            | [b"parked", _, _, _, b"retry" | b"skip"] => Err(Problem::method("POST")),
            [b"status" | b"functions" | b"graph" | b"dead-letters" | b"parked"]
            | [b"keys", _, _]
            | [b"state" | b"timers" | b"parked", _, _, _] => Err(Problem::method("GET")),
            _ => Err(nothing_there()),
        }
    }

    /// A change that says everything by its path.
    async fn no_body(&self, request: &HttpRequest, payload: web::Payload) -> Result<(), Problem> {
        Query::of(request.query_string(), &[])?;
        let body = body::read(request, payload, &self.limits).await?;
        if body.is_empty() { Ok(()) } else { Err(Problem::new("bad-body", "this request takes no body")) }
    }

    fn ingress(&self, name: &[u8]) -> Result<usize, Problem> {
        let known = self.subject.program.ingresses.iter().position(|ingress| ingress.name.as_bytes() == name);
        known.ok_or_else(|| {
            let text =
                format!("there is no ingress {:?}; `GET /admin/v1/status` lists them", String::from_utf8_lossy(name));
            Problem::new("unknown-ingress", text)
        })
    }

    fn function(&self, namespace: &[u8], name: &[u8]) -> Result<(FunctionId, &LinkedFunction), Problem> {
        let name = format!("{}/{}", text(namespace)?, text(name)?);
        let function = self.subject.program.function(&name).ok_or_else(|| {
            let text = format!("there is no function {name:?}; `GET /admin/v1/functions` lists them");
            Problem::new("unknown-function", text)
        })?;
        Ok((function, &self.subject.program.functions[usize::from(function)]))
    }

    async fn status(&self) -> HttpResponse {
        let Subject { program, inspect, requests, .. } = &self.subject;
        let shards = self.asker.statuses().await;
        let (counters, numbers) = (view::counted(&shards), inspect.numbers());
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner).at(Instant::now(), counters);
        let lags = view::lags(&**inspect, &shards);
        let workers = self.subject.others.workers();
        answer_json(&json!({
            "app": program.app,
            "version": self.options.version,
            "uptime_seconds": self.started_at.elapsed().as_secs(),
            "condition": requests.condition().to_string(),
            "workers": view::workers(&workers),
            "rates_per_second": rates,
            "totals": {
                "records": numbers.records,
                "unreadable": numbers.unreadable,
                "events": counters.calls,
                "messages": counters.messages,
                "timers_fired": counters.timers,
                "epochs": counters.epochs,
                "rejections": counters.rejections,
                "faults": counters.faults,
                "late": counters.late,
                "dead_letters": counters.dead_letters,
            },
            "egress_backlog_bytes": numbers.egress_backlog_bytes,
            "requests_pending": numbers.requests_pending,
            "parked_keys": shards.iter().map(|shard| shard.parked_keys).sum::<usize>(),
            "ingresses": view::ingresses(program, &**inspect, &lags),
            "stages": view::stages(program, &shards),
            "shards_of_app": inspect.shards(),
            "shards": shards.iter().map(|shard| view::shard(program, &**inspect, &workers, shard)).collect::<Vec<_>>(),
        }))
    }

    async fn functions(&self) -> HttpResponse {
        let Subject { program, inspect, .. } = &self.subject;
        let shards = self.asker.statuses().await;
        let mut functions = views::program(program);
        functions["functions"] = view::functions(program, &**inspect, &shards);
        answer_json(&functions)
    }

    fn graph(&self, query: &Query) -> Answered {
        let format = query.text("format")?.unwrap_or("text");
        let notation = Notation::of(format)
            .ok_or_else(|| query::wrong("`format` in the query must be `text`, `dot` or `mermaid`".into()))?;
        let graph = Graph::of(&self.subject.program).written(notation);
        Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(graph))
    }

    async fn keys(&self, (function, linked): (FunctionId, &LinkedFunction), query: &Query) -> Answered {
        let kind = linked.spec.key;
        let prefix = query.bytes("prefix").unwrap_or_default();
        if !prefix.is_empty() && kind.bytes(b"0").is_ok_and(|bytes| bytes != b"0") {
            return Err(query::wrong(format!("keys of the kind {kind} have no `prefix`")));
        }
        let after = query.bytes("after").map(|after| key_of(linked, after)).transpose()?;
        let limit = query.number("limit", PAGE, PAGE_MAX)? as usize;
        let wanted = KeysWanted { function, prefix: prefix.to_vec(), after, limit };
        let (keys, is_more) = self.asker.keys(wanted).await?;
        let keys: Vec<Value> = keys.iter().map(|key| views::key(Some(kind), key)).collect();
        let next = keys.last().filter(|_| is_more).map(|last| last["path"].clone());
        Ok(answer_json(&json!({ "function": linked.spec.name, "keys": keys, "next": next })))
    }

    async fn state(&self, (function, linked): (FunctionId, &LinkedFunction), key: &[u8]) -> Answered {
        let key = known_key(linked, key)?;
        let mut told = views::key(Some(linked.spec.key), &key);
        let Reply::State(Some(state)) = self.ask(self.of(function, key, Wants::State)).await? else {
            return Err(Problem::new("no-state", "no message has changed this key yet, or its state was cleared"));
        };
        told["function"] = linked.spec.name.into();
        told["state"] = to_value(&state).map_err(|error| Problem::new("handler-fault", error.to_string()))?;
        Ok(answer_json(&told))
    }

    async fn timers(&self, (function, linked): (FunctionId, &LinkedFunction), key: &[u8], query: &Query) -> Answered {
        let key = known_key(linked, key)?;
        let limit = query.number("limit", PAGE, PAGE_MAX)? as usize;
        let (timers, is_more) = self.asker.timers(function, &key, limit).await?;
        let mut told = views::key(Some(linked.spec.key), &key);
        told["function"] = linked.spec.name.into();
        told["timers"] = timers.iter().map(views::timer).collect();
        told["is_more"] = is_more.into();
        Ok(answer_json(&told))
    }

    async fn parked(&self, query: &Query) -> Answered {
        let after = query.text("after")?.map(|after| self.parked_place(after)).transpose()?;
        let limit = query.number("limit", PAGE, PAGE_MAX)? as usize;
        let (parked, is_more) = self.asker.parked(after, limit).await?;
        let functions = &self.subject.program.functions;
        let view = |parked: &statefn_core::ports::inspect::ParkedFound| {
            let spec = &functions[usize::from(parked.function)].spec;
            views::parked(spec.name, Some(spec.key), parked)
        };
        let parked: Vec<Value> = parked.iter().map(view).collect();
        let place = |last: &Value| format!("{}/{}", text_of(&last["function"]), text_of(&last["path"]));
        let next = parked.last().filter(|_| is_more).map(|last| views::escape(place(last).as_bytes()));
        Ok(answer_json(&json!({ "parked": parked, "next": next })))
    }

    /// A parked key, as `next` names it: function and path, with a slash between.
    fn parked_place(&self, after: &str) -> Result<(FunctionId, Vec<u8>), Problem> {
        let parts: Vec<&str> = after.split('/').collect();
        let [namespace, name, key] = parts[..] else {
            return Err(query::wrong("`after` in the query must be the `next` of another page".into()));
        };
        let (function, linked) = self.function(namespace.as_bytes(), name.as_bytes())?;
        Ok((function, known_key(linked, &crate::path::unescape(key)?)?))
    }

    async fn parked_key(&self, (function, linked): (FunctionId, &LinkedFunction), key: &[u8]) -> Answered {
        let key = known_key(linked, key)?;
        let parked = self.asker.parked_key(function, &key).await?;
        let parked = parked.ok_or_else(|| Problem::new("key-not-parked", "the key is not parked"))?;
        Ok(answer_json(&views::parked(linked.spec.name, Some(linked.spec.key), &parked)))
    }

    async fn dead_letters(&self, query: &Query) -> Answered {
        let after = query.text("after")?.map_or(Ok(0), str::parse);
        let after =
            after.map_err(|_| query::wrong("`after` in the query must be the `next` of another page".into()))?;
        let limit = query.number("limit", PAGE, PAGE_MAX)? as usize;
        let Some(path) = self.options.dead_letters.clone() else {
            let text = "the dead letters of this app are in no file: set `egress.dead-letters.to` to `file`";
            return Err(Problem::new("not-found", text));
        };
        let read = web::block(move || dead_letters::page(&path, after, limit)).await;
        let read = read.map_err(io::Error::other).and_then(|read| read);
        let (letters, is_more) = read.map_err(|error| Problem::new("not-ready", error.to_string()))?;
        let next = letters.last().filter(|_| is_more).map(|last| last["at"].clone());
        Ok(answer_json(&json!({ "dead_letters": letters, "next": next })))
    }

    async fn metrics(&self, request: &HttpRequest) -> Answered {
        Query::of(request.query_string(), &[])?;
        let Subject { program, inspect, requests, meter, .. } = &self.subject;
        let shards = self.asker.statuses().await;
        let written = metrics::written(&metrics::Sources {
            program,
            inspect: &**inspect,
            shards: &shards,
            meter,
            version: &self.options.version,
            uptime: self.started_at.elapsed(),
            is_ready: requests.condition() == Condition::Ready,
        });
        Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, metrics::CONTENT)).body(written))
    }

    async fn pause(&self, request: &HttpRequest, what: Pausable, is_paused: bool, name: &str) -> Answered {
        let verb = if is_paused { "pause" } else { "resume" };
        let inspect = Arc::clone(&self.subject.inspect);
        let set = async move {
            let set = web::block(move || inspect.set_pause(what, is_paused)).await;
            let set = set.map_err(|error| error.to_string()).and_then(|set| set.map_err(|error| error.to_string()));
            set.map_err(|error| Problem::new("not-stored", error))
        };
        self.audited(request, format!("{verb} {name}"), set).await?;
        let pause = self.subject.inspect.pause(what);
        Ok(answer_json(&json!({ "is_paused": pause.is_paused, "is_held": pause.is_held })))
    }

    /// Makes a change between the two lines of it in the audit log.
    async fn audited<T>(
        &self,
        request: &HttpRequest,
        what: String,
        change: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let change_asked = self.audit.begin(request.peer_addr(), self.options.token.is_some(), what).await?;
        let made = change.await;
        self.audit.end(&change_asked, made.as_ref().map_or_else(Problem::kind, |_| "done")).await;
        made
    }

    /// Lets a parked key go on.
    async fn mend(
        &self,
        request: &HttpRequest,
        (function, linked): (FunctionId, &LinkedFunction),
        key: &[u8],
        (wants, edit): (Wants, Vec<u8>),
    ) -> Answered {
        let key = known_key(linked, key)?;
        let verb = match wants {
            Wants::Skip => "skip",
            Wants::EditMessage => "edit the message of",
            Wants::EditState => "edit the state of",
            _ => "retry",
        };
        let mut told = views::key(Some(linked.spec.key), &key);
        let what = format!("{verb} parked {} {}", linked.spec.name, text_of(&told["path"]));
        let made = self.audited(request, what, async {
            match self.ask(Demand { payload: edit, ..self.of(function, key, wants) }).await? {
                Reply::Resumed { waiting, reason } => Ok((waiting, reason)),
                Reply::Failed(trouble) => Err(trouble.into()),
                _ => Err(Problem::new("outcome-unknown", "the shard answered something else")),
            }
        });
        let (waiting, reason) = made.await?;
        told["function"] = linked.spec.name.into();
        told["waiting"] = waiting.into();
        told["reason"] = if waiting == 0 { Value::Null } else { reason.into() };
        Ok(answer_json(&told))
    }

    /// The encoding of a state that is given as JSON.
    fn state_of(linked: &LinkedFunction, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let wrong = |error: String| Problem::new("bad-message", format!("the body is no state: {error}"));
        let value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
        from_value(&value, linked.spec.version).map_err(|error| wrong(error.to_string()))
    }

    /// Hands the dead letter that stands before an offset of its file in once more.
    async fn replay(&self, request: &HttpRequest, at: &[u8]) -> Answered {
        let wrong =
            || Problem::new("not-found", "there is no dead letter there; `GET /admin/v1/dead-letters` lists them");
        let at: u64 = text(at)?.parse().map_err(|_| wrong())?;
        let path = self.options.dead_letters.clone().ok_or_else(wrong)?;
        let read = web::block(move || dead_letters::before(&path, at)).await.map_err(io::Error::other);
        let read = read.and_then(|read| read).map_err(|error| Problem::new("not-ready", error.to_string()))?;
        let letter: DeadLetter = serde_json::from_slice(&read.ok_or_else(wrong)?).map_err(|_| wrong())?;
        let demand = self.demand_of(&letter)?;
        let what = format!("replay dead letter {}", letter.id.as_deref().unwrap_or_default());
        self.audited(request, what, async {
            match self.ask(demand).await? {
                Reply::Failed(trouble) => Err(Problem::from(trouble)),
                _ => Ok(()),
            }
        })
        .await?;
        Ok(answer_json(&json!({ "id": letter.id, "outcome": "replayed" })))
    }

    /// What a letter stands for; its identity sees to it that it is taken once.
    fn demand_of(&self, letter: &DeadLetter) -> Result<Demand, Problem> {
        let left = |text: &str| Problem::new("not-replayed", text.to_owned());
        let id = letter.id.as_ref().ok_or_else(|| left("it has no identity: an older version wrote it"))?;
        if letter.bytes_total.is_some() {
            return Err(left("only its first bytes are here"));
        }
        let name = letter.function.as_deref();
        let name = name.ok_or_else(|| left("it is a record of an ingress: stop the app, and replay it in its data"))?;
        let function = self.subject.program.function(name).ok_or_else(|| left("its function is not there any more"))?;
        let spec = &self.subject.program.functions[usize::from(function)].spec;
        let message = letter.message.as_deref().unwrap_or_default();
        let handler = match letter.is_timer {
            true => spec.timers.iter().position(|timer| *timer == message),
            false => spec.messages.iter().position(|handler| handler.message == message),
        };
        let handler = handler.ok_or_else(|| left("its function does not handle it any more"))?;
        let key = letter.key_bytes().ok_or_else(|| left("its key cannot be read"))?;
        Ok(Demand {
            handler: handler as u16,
            once: Some(format!("dead-letter/{id}/0").into_bytes()),
            payload: letter.bytes(),
            time: letter.time.map_or(EventTime::MIN, EventTime),
            is_timer: letter.is_timer,
            ..self.of(function, key, Wants::Replay)
        })
    }

    fn of(&self, function: FunctionId, key: Vec<u8>, wants: Wants) -> Demand {
        Demand::new(function, wants, key, self.options.answer_time_max / 2)
    }

    async fn ask(&self, demand: Demand) -> Result<Reply, Problem> {
        let until = Until::now() + self.options.answer_time_max;
        let (teller, told) = oneshot::channel();
        // Who asked may be gone by then.
        self.subject.requests.demand(demand, Box::new(|outcome| _ = teller.send(outcome)));
        outcome(timeout_at(until, told).await)
    }
}

fn known_key(linked: &LinkedFunction, key: &[u8]) -> Result<Vec<u8>, Problem> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::new("bad-key", format!("a key has 1 to {KEY_BYTES_MAX} bytes")));
    }
    key_of(linked, key)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn nothing_there() -> Problem {
    Problem::new("not-found", "there is nothing at this path; `docs/OPERATING.md` lists what there is")
}
