//! The HTTP edge of statefn: requests to functions, and what a person or a probe asks of an app.
//!
//! ```text
//! socket ──► edge (route, key, body, limits) ──► Requests port ──► shard host
//!   ▲                                                                │
//!   └──────── answer, or a problem with a stable code ◄──────────────┘
//! ```
//! | request | answer |
//! |---|---|
//! | `POST /functions/{namespace}/{name}/{key}/{message}` | what the handler returns, after the commit |
//! | the same with `?mode=send` | 202 once the message is committed |
//! | `POST /batch/{namespace}/{name}` | many messages, a line of JSON each, sent: what became of each line |
//! | `GET /functions/{namespace}/{name}/{key}/state` | the state of the key as JSON |
//! | `GET /functions` | the functions, their keys and messages, with JSON Schemas |
//! | `GET /health`, `GET /ready` | 200 while the process lives; while it takes requests |
//! | `GET /errors/{code}` | the page of an error code |
//!
//! With a header `Idempotency-Key` a message is not handled again when the same request comes to the
//! same address once more, also after a crash: it gets the answer that it had. Reads are always done.
//!
//! A header `Event-Time` (RFC 3339, or milliseconds since 1970) says when a message happens, or a field of its
//! body if [`Options::event_time_field`] names one; without either it happens now. A request that is repeated
//! with its idempotency key gets its first answer, whatever time it states.
//!
//! Each part of a path is percent-encoded by itself: text keys are UTF-8, integers decimal, UUIDs
//! their text. A body is JSON (`application/json`) or protobuf (`application/x-protobuf`), as the
//! message is. What goes wrong is `application/problem+json` with a stable `code`, whose page is at
//! its `type`; a handler's rejection has its own status and code, and its value.
//!
//! Invariants: everything that comes from a socket has a limit in size and in time ([`Options`]);
//! what an edge refuses has done nothing; each code has a page, and each page a code (a test).
//!
//! Deliberately absent: TLS, HTTP/2, compressed bodies and authentication, which are a proxy's; and
//! any knowledge of shards and threads.

#![forbid(unsafe_code)]

pub mod admin;
mod batch;
mod body;
mod edge;
mod event_time;
mod meter;
mod others;
mod path;
#[cfg(feature = "peers")]
pub mod peers;
mod problem;
mod query;
mod server;
mod trace;

pub use self::{
    meter::Meter,
    others::Others,
    problem::CODES,
    server::{Options, Server},
};
