//! The HTTP server of an app: how it is tied to the engine.
//!
//! Invariant: the server stands before the shards are taken over and ends after the engine, so
//! clients are told what the app is doing from the first moment to the last.
//!
//! Deliberately absent: the server itself (`statefn-http`), without which, that is without the
//! feature `http`, settings that ask for one are refused.

use std::{net::SocketAddr, sync::Arc};

use statefn_runtime::engine::{Intake, Plan, Status};

use crate::{Error, Settings};

/// A running server and the intake of its app.
#[cfg(feature = "http")]
pub(crate) struct Service {
    intake: Intake,
    server: statefn_http::Server,
}

#[cfg(feature = "http")]
impl Service {
    /// Starts the server that settings ask for, if they do.
    pub(crate) fn start(plan: &Plan, settings: &Settings, status: &Arc<Status>) -> Result<Option<Self>, Error> {
        let http = settings.http.filled();
        let Some(listen) = http.listen else { return Ok(None) };
        let body_bytes_max = http.body_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        let default = statefn_http::Options::default();
        let options = statefn_http::Options {
            body_bytes_max: body_bytes_max.unwrap_or(default.body_bytes_max),
            connections_max: http.connections_max.unwrap_or(default.connections_max),
            head_time_max: http.head_time_max.unwrap_or(default.head_time_max),
            body_time_max: http.body_time_max.unwrap_or(default.body_time_max),
            idle_time_max: http.idle_time_max.unwrap_or(default.idle_time_max),
            answer_time_max: http.answer_time_max.unwrap_or(default.answer_time_max),
            threads: http.threads.unwrap_or(default.threads),
            event_time_field: http.event_time_field,
        };
        let intake = Intake::new(plan, status);
        let server = statefn_http::Server::start(listen, options, Arc::clone(&plan.program), Arc::new(intake.clone()));
        let server =
            server.map_err(|error| Error::Settings(format!("`[http]`: cannot listen at {listen}: {error}")))?;
        tracing::info!("listening at http://{}", server.address());
        Ok(Some(Self { intake, server }))
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Ends the server, once the engine has.
    pub(crate) fn stop(self) {
        self.server.stop();
    }
}

/// What is never started, as this program has no server.
#[cfg(not(feature = "http"))]
pub(crate) enum Service {}

#[cfg(not(feature = "http"))]
impl Service {
    pub(crate) fn start(_: &Plan, settings: &Settings, _: &Arc<Status>) -> Result<Option<Self>, Error> {
        match settings.http.listen {
            None => Ok(None),
            Some(listen) => Err(Error::Settings(format!(
                "the settings ask for HTTP at {listen}, and this program was built without it: build `statefn` with the feature `http`"
            ))),
        }
    }

    pub(crate) fn intake(&self) -> &Intake {
        match *self {}
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match *self {}
    }

    pub(crate) fn stop(self) {
        match self {}
    }
}
