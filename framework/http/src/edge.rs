//! The edge: from a request over HTTP to a demand, and from its reply to a response.

use std::sync::Arc;

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
    function::Access,
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, ONCE_BYTES_MAX},
    ports::requests::{Condition, Demand, Requests, Unanswered},
    program::{FunctionId, LinkedFunction, MessageHandler, Program},
    shard::{Reply, Wants},
    state::to_value,
};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    body,
    path::Place,
    problem::{CODES, Problem},
    query::Query,
    server::Options,
};

/// The header with the key that a request keeps when it is repeated.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What all workers of a server share.
pub(crate) struct Edge {
    pub(crate) program: Arc<Program>,
    pub(crate) requests: Arc<dyn Requests>,
    pub(crate) options: Options,
}

/// Answers one request.
pub(crate) async fn handle(request: HttpRequest, payload: web::Payload, edge: web::Data<Edge>) -> HttpResponse {
    let answered = edge.answer(&request, payload).await;
    let mut response = answered.unwrap_or_else(|problem| problem.response());
    if edge.requests.condition() == Condition::Stopping {
        // The client finds another process, or this one when it runs again.
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
            Place::Key { last, .. } if last == "state" => Err(Problem::method("GET, POST")),
            Place::Key { .. } => Err(Problem::method("POST")),
            _ if !is_get => Err(Problem::method("GET")),
            Place::Functions => Ok(json(&self.functions())),
            Place::Health => Ok(json(&json!({ "status": "alive" }))),
            Place::Ready => self.ready(),
            Place::Error(code) => page(&code),
        }
    }

    fn function(&self, name: &str) -> Result<(FunctionId, &LinkedFunction), Problem> {
        let function = self.program.function(name);
        let function = function.ok_or_else(|| {
            Problem::new("unknown-function", format!("there is no function {name:?}; `GET /functions` lists them"))
        })?;
        Ok((function, &self.program.functions[usize::from(function)]))
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
        let messages = &linked.spec.messages;
        let handler = messages.iter().position(|handler| handler.message == message).ok_or_else(|| {
            let text = format!("`{}` takes no message {message:?}; `GET /functions` lists them", linked.spec.name);
            Problem::new("unknown-message", text)
        })?;
        let key = key_of(linked, key)?;
        body::check_type(request.headers(), messages[handler].encoding)?;
        let payload = body::read(request, payload, &self.options).await?.to_vec();
        let wants = if query.is_sent { Wants::Commit } else { Wants::Answer };
        if query.is_sent {
            // Nobody would be told later that it cannot be read.
            (messages[handler].check)(&payload).map_err(|error| Problem::new("bad-message", error.to_string()))?;
        }
        let once = once(request.headers())?;
        let demand = Demand { handler: handler as u16, once, payload, ..self.of(function, key, wants) };
        match self.demand(demand).await? {
            Reply::Answered(answer) => Ok(answered(&messages[handler], answer)),
            Reply::Rejected(rejection) => Err(Problem::rejected(&rejection)),
            Reply::Failed(trouble) => {
                tracing::warn!(function = linked.spec.name, message, "a request could not be handled: {trouble}");
                Err(trouble.into())
            }
            Reply::Taken | Reply::State(_) => Ok(HttpResponse::Accepted().finish()),
        }
    }

    fn of(&self, function: FunctionId, key: Vec<u8>, wants: Wants) -> Demand {
        // It is dropped well before the client is told that nobody knows.
        let patience = self.options.answer_time_max / 2;
        Demand { function, handler: 0, wants, once: None, key, payload: Vec::new(), patience }
    }

    async fn demand(&self, demand: Demand) -> Result<Reply, Problem> {
        let (teller, told) = oneshot::channel();
        // The client may be gone by then.
        self.requests.demand(demand, Box::new(|outcome| _ = teller.send(outcome)));
        match timeout(self.options.answer_time_max, told).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) | Err(_) => Err(Unanswered::Unknown.into()),
        }
    }

    fn functions(&self) -> Value {
        let functions = self.program.functions.iter().map(|function| {
            json!({
                "function": function.spec.name,
                "key": function.spec.key.to_string(),
                "messages": function.spec.messages.iter().map(described).collect::<Vec<_>>(),
            })
        });
        functions.collect()
    }

    fn ready(&self) -> Result<HttpResponse, Problem> {
        match self.requests.condition() {
            Condition::Ready => Ok(json(&json!({ "status": "ready" }))),
            condition => Err(Problem::new("not-ready", format!("the app is {condition}"))),
        }
    }
}

fn key_of(function: &LinkedFunction, text: &[u8]) -> Result<Vec<u8>, Problem> {
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
    let is_text = once.iter().all(u8::is_ascii_graphic);
    if once.is_empty() || once.len() > ONCE_BYTES_MAX || !is_text || given.next().is_some() {
        let text = format!("a request has one idempotency key, of 1 to {ONCE_BYTES_MAX} letters, digits and signs");
        return Err(Problem::new("bad-idempotency-key", text));
    }
    Ok(Some(once.to_vec()))
}

fn described(handler: &MessageHandler) -> Value {
    let access = match handler.access {
        Access::Read => "read",
        Access::Write => "write",
    };
    json!({
        "message": handler.message,
        "access": access,
        "content": content(handler.encoding),
        "answer": content(handler.answer_encoding),
        "waits_for_event_time": handler.in_event_time_order,
    })
}

fn content(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "application/json",
        Encoding::Protobuf => "application/x-protobuf",
    }
}

fn answered(handler: &MessageHandler, answer: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, content(handler.answer_encoding))).body(answer)
}

fn json(value: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, content(Encoding::Json))).body(value.to_string())
}

fn page(code: &str) -> Result<HttpResponse, Problem> {
    let known = CODES.iter().find(|known| known.name == code);
    let known = known.ok_or_else(|| Problem::new("not-found", "there is no such error code"))?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/markdown; charset=utf-8")).body(known.page))
}

/// A body that is read whole must be one that a handler may be given.
pub(crate) const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
