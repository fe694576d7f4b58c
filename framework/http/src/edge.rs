//! The edge: from a request over HTTP to a demand, and from its reply to a response.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
    web,
};
use serde_json::{Value, json};
use statefn_core::{
    Encoding,
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, ONCE_BYTES_MAX},
    ports::requests::{Condition, Demand, Unanswered},
    program::{FunctionId, LinkedFunction, MessageHandler},
    shard::{Reply, Wants},
    state::to_value,
    time::EventTime,
    view::{self, content},
};
use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::{Instant, error::Elapsed, timeout_at},
};

use crate::{
    admin::Subject,
    batch::{self, Item},
    body, event_time,
    path::Place,
    problem::{CODES, Problem},
    query::Query,
    server::Options,
    trace,
};

/// The header with the key that a request keeps when it is repeated.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What all workers of a server share.
pub(crate) struct Edge {
    pub(crate) subject: Subject,
    pub(crate) options: Options,
}

/// Answers one request.
pub(crate) async fn handle(request: HttpRequest, payload: web::Payload, edge: web::Data<Edge>) -> HttpResponse {
    if edge.subject.others.is_meant(request.uri().path()) {
        return edge.subject.others.answer(&request, payload).await;
    }
    let begun = Instant::now();
    let answered = edge.answer(&request, payload).await;
    let mut response = answered.unwrap_or_else(|problem| problem.response());
    edge.subject.meter.count(response.status().as_u16(), begun.elapsed());
    let is_stopping = edge.subject.requests.condition() == Condition::Stopping;
    let has_body = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_stopping || has_body && !body::was_read(&request) {
        // The client finds another process, or this one when it runs again; and what stands behind a
        // body that nobody has read is not looked for.
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    response
}

impl Edge {
    async fn answer(&self, request: &HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
        let place = Place::of(request.uri().path())?;
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_post = *request.method() == Method::POST;
        match place {
            Place::Key { function, key, last } if last == "state" && is_get => self.state(&function, &key).await,
            Place::Key { function, key, last } if is_post => {
                let query = Query::of(request.query_string())?;
                self.message(request, payload, [&function, &last], &key, query).await
            }
            Place::Batch(function) if is_post => self.batch(request, payload, &function).await,
            Place::Key { last, .. } if last == "state" => Err(Problem::method("GET, POST")),
            Place::Batch(_) | Place::Key { .. } => Err(Problem::method("POST")),
            _ if !is_get => Err(Problem::method("GET")),
            Place::Functions => Ok(json(&self.functions())),
            Place::Health => Ok(json(&json!({ "status": "alive" }))),
            Place::Ready => self.ready(),
            Place::Error(code) => page(&code),
        }
    }

    fn function(&self, name: &str) -> Result<(FunctionId, &LinkedFunction), Problem> {
        let function = self.subject.program.function(name);
        let function = function.ok_or_else(|| {
            Problem::new("unknown-function", format!("there is no function {name:?}; `GET /functions` lists them"))
        })?;
        Ok((function, &self.subject.program.functions[usize::from(function)]))
    }

    async fn state(&self, function: &str, key: &[u8]) -> Result<HttpResponse, Problem> {
        let (function, linked) = self.function(function)?;
        let key = key_of(linked, key)?;
        let reply = self.demand(Demand { handler: 0, ..self.of(function, key, Wants::State) }).await?;
        let Reply::State(Some(state)) = reply else {
            return Err(Problem::new("no-state", "no message has changed this key yet, or its state was cleared"));
        };
        Ok(json(&to_value(&state).map_err(|error| Problem::new("handler-fault", error.to_string()))?))
    }

    async fn message(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        [function, message]: [&str; 2],
        key: &[u8],
        query: Query,
    ) -> Result<HttpResponse, Problem> {
        let (function, linked) = self.function(function)?;
        let (handler, known) = handler_of(linked, message)?;
        let key = key_of(linked, key)?;
        body::check_type(request.headers(), content(known.encoding))?;
        let payload = body::read(request, payload, &self.options).await?.to_vec();
        let wants = if query.is_sent { Wants::Commit } else { Wants::Answer };
        if query.is_sent {
            // Nobody would be told later that it cannot be read.
            (known.check)(&payload).map_err(|error| Problem::new("bad-message", error.to_string()))?;
        }
        let once = once(request.headers())?;
        let field = self.options.event_time_field.as_deref();
        let time = event_time::of_request(request.headers(), field, known.encoding == Encoding::Json, &payload)?;
        let time = time.unwrap_or(EventTime::MIN);
        let trace = trace::of(request.headers(), self.options.trace_share);
        let demand =
            Demand { handler, once, payload, time, trace, delay: query.delay, ..self.of(function, key, wants) };
        match self.demand(demand).await? {
            Reply::Answered(answer) => Ok(answered(known, answer)),
            Reply::Rejected(rejection) => Err(Problem::rejected(&rejection)),
            Reply::Failed(trouble) => {
                tracing::warn!(function = linked.spec.name, message, "a request could not be handled: {trouble}");
                Err(trouble.into())
            }
            Reply::Taken | Reply::State(_) | Reply::Resumed { .. } | Reply::Deferred => {
                Ok(HttpResponse::Accepted().finish())
            }
        }
    }

    /// Sends many messages; all lines are read before the first is sent.
    async fn batch(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        function: &str,
    ) -> Result<HttpResponse, Problem> {
        let (function, linked) = self.function(function)?;
        body::check_type(request.headers(), body::LINES)?;
        let body = body::read(request, payload, &self.options).await?;
        let items = batch::read(linked, &body, self.options.event_time_field.as_deref())?.into_iter();
        let told: Vec<_> = items
            .map(|Item { handler, key, once, payload, time }| {
                let time = time.unwrap_or(EventTime::MIN);
                let trace = trace::of(request.headers(), self.options.trace_share);
                self.ask(Demand { handler, once, payload, time, trace, ..self.of(function, key, Wants::Commit) })
            })
            .collect();
        let until = Instant::now() + self.options.answer_time_max;
        let mut lines = String::new();
        for told in told {
            let line = match outcome(timeout_at(until, told).await) {
                Ok(Reply::Failed(trouble)) => line_of(&trouble.into()),
                Ok(_) => json!({ "status": 202 }),
                Err(problem) => line_of(&problem),
            };
            lines += &format!("{line}\n");
        }
        Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, body::LINES)).body(lines))
    }

    fn of(&self, function: FunctionId, key: Vec<u8>, wants: Wants) -> Demand {
        // It is dropped well before the client is told that nobody knows.
        let patience = self.options.answer_time_max / 2;
        let deferral_max = self.options.answer_time_max;
        Demand { deferral_max, ..Demand::new(function, wants, key, patience) }
    }

    async fn demand(&self, demand: Demand) -> Result<Reply, Problem> {
        let until = Instant::now() + self.options.answer_time_max;
        outcome(timeout_at(until, self.ask(demand)).await)
    }

    fn ask(&self, demand: Demand) -> oneshot::Receiver<Told> {
        let (teller, told) = oneshot::channel();
        // The client may be gone by then.
        self.subject.requests.demand(demand, Box::new(|outcome| _ = teller.send(outcome)));
        told
    }

    fn functions(&self) -> Value {
        let functions = self.subject.program.functions.iter().map(|function| {
            json!({
                "function": function.spec.name,
                "key": function.spec.key.to_string(),
                "messages": function.spec.messages.iter().map(view::handler).collect::<Vec<_>>(),
            })
        });
        functions.collect()
    }

    fn ready(&self) -> Result<HttpResponse, Problem> {
        match self.subject.requests.condition() {
            Condition::Ready => Ok(json(&json!({ "status": "ready" }))),
            condition => Err(Problem::new("not-ready", format!("the app is {condition}"))),
        }
    }
}

/// What a demand is told.
pub(crate) type Told = Result<Reply, Unanswered>;

/// What came of a demand, as far as anybody knows by now.
pub(crate) fn outcome(told: Result<Result<Told, RecvError>, Elapsed>) -> Result<Reply, Problem> {
    match told {
        Ok(Ok(told)) => Ok(told?),
        Ok(Err(_)) | Err(_) => Err(Unanswered::Unknown.into()),
    }
}

/// What a line of a batch is told.
fn line_of(problem: &Problem) -> Value {
    json!({ "status": problem.status(), "code": problem.kind(), "detail": problem.detail() })
}

pub(crate) fn handler_of<'a>(
    function: &'a LinkedFunction,
    message: &str,
) -> Result<(u16, &'a MessageHandler), Problem> {
    let mut handlers = (0..).zip(&function.spec.messages);
    handlers.find(|(_, handler)| handler.message == message).ok_or_else(|| {
        let text = format!("`{}` takes no message {message:?}; `GET /functions` lists them", function.spec.name);
        Problem::new("unknown-message", text)
    })
}

pub(crate) fn key_of(function: &LinkedFunction, text: &[u8]) -> Result<Vec<u8>, Problem> {
    if text.len() > KEY_BYTES_MAX {
        return Err(Problem::new("bad-key", format!("the key has {} bytes; the limit is {KEY_BYTES_MAX}", text.len())));
    }
    (function.spec.key_from_text)(text).map_err(|error| {
        Problem::new("bad-key", format!("`{}` has keys of the kind {}: {error}", function.spec.name, function.spec.key))
    })
}

/// The idempotency key of a request, if it has one.
fn once(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY);
    let Some(once) = given.next().map(HeaderValue::as_bytes) else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::new("bad-idempotency-key", "the request has two idempotency keys"));
    }
    check_once(once).map(|()| Some(once.to_vec()))
}

/// Checks that these bytes can be an idempotency key.
pub(crate) fn check_once(once: &[u8]) -> Result<(), Problem> {
    if (1..=ONCE_BYTES_MAX).contains(&once.len()) && once.iter().all(u8::is_ascii_graphic) {
        return Ok(());
    }
    let text = format!("an idempotency key has 1 to {ONCE_BYTES_MAX} letters, digits and signs");
    Err(Problem::new("bad-idempotency-key", text))
}

fn answered(handler: &MessageHandler, answer: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, content(handler.answer_encoding))).body(answer)
}

pub(crate) fn json(value: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, content(Encoding::Json))).body(value.to_string())
}

pub(crate) fn page(code: &str) -> Result<HttpResponse, Problem> {
    let known = CODES.iter().find(|known| known.name == code);
    let known = known.ok_or_else(|| Problem::new("not-found", "there is no such error code"))?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/markdown; charset=utf-8")).body(known.page))
}

/// A body that is read whole must be one that a handler may be given.
pub(crate) const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
