//! What a worker does for the others: demands and questions to shards that it has.
//!
//! Invariant: what comes in is for the shards of this process alone, and goes no further, so there is one
//! hop; who does not show the token of the worker is refused before anything is read.
//!
//! Deliberately absent: any change to what the requests port promises. What is told is told as it is.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use statefn_core::{
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX},
    ports::{
        inspect::{Finding, Inspect},
        requests::{Requests, Unanswered},
    },
    program::Program,
    shard::Reply,
};
use tokio::{sync::oneshot, time::timeout};

use super::wire::{self, Asked, Forwarded};
use crate::{admin::guard, body, problem::Problem, server::Options};

/// More than all fields of a forwarded demand but key and message have.
const FIELDS_BYTES_MAX: usize = 64 * 1024;
/// How long a shard may take to answer a question.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);

/// The shards of this process, for other workers.
pub struct Internal {
    /// What they have to show.
    pub token: String,
    /// The program of this process.
    pub program: Arc<Program>,
    /// Where their demands go.
    pub requests: Arc<dyn Requests>,
    /// Where their questions go.
    pub inspect: Arc<dyn Inspect>,
}

impl Internal {
    /// Whether a path is one of those that workers use among themselves.
    pub(crate) fn is_meant(path: &str) -> bool {
        path == wire::DEMAND || path == wire::QUESTION
    }

    pub(crate) async fn answer(&self, request: &HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
        guard::admit(request, Some(&self.token))?;
        let bytes_max = MESSAGE_BYTES_MAX + KEY_BYTES_MAX + FIELDS_BYTES_MAX;
        let limits = Options { body_bytes_max: bytes_max, ..Options::default() };
        let body = body::read(request, payload, &limits).await?;
        let unreadable = || Problem::new("bad-body", "this is nothing that a worker of this version forwards");
        let told = match request.uri().path() {
            wire::QUESTION => wire::written(&self.ask(wire::read(&body).ok_or_else(unreadable)?).await),
            _ => wire::written(&self.demand(wire::read(&body).ok_or_else(unreadable)?).await),
        };
        Ok(HttpResponse::Ok().content_type("application/msgpack").body(told))
    }

    async fn demand(&self, forwarded: Forwarded) -> Result<Reply, Unanswered> {
        // A worker with another program may have the shard next.
        let demand = forwarded.demand(&self.program).ok_or(Unanswered::Elsewhere)?;
        let longest = demand.patience + demand.deferral_max;
        let (teller, told) = oneshot::channel();
        // The other worker may be gone by then.
        self.requests.demand(demand, Box::new(|outcome| _ = teller.send(outcome)));
        match timeout(longest, told).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) | Err(_) => Err(Unanswered::Unknown),
        }
    }

    async fn ask(&self, asked: Asked) -> Result<Finding, Unanswered> {
        if asked.program != self.program.fingerprint() || asked.shard >= self.inspect.shards() {
            return Err(Unanswered::Elsewhere);
        }
        let (teller, told) = oneshot::channel();
        self.inspect.ask(asked.shard, asked.question, Box::new(|found| _ = teller.send(found)));
        match timeout(QUESTION_TIME_MAX, told).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(Unanswered::NotRunning),
            Err(_) => Err(Unanswered::Expired),
        }
    }
}

impl std::fmt::Debug for Internal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Internal({})", self.program.app)
    }
}
