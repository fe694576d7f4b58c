//! The HTTP server of an app: its settings, and how it is tied to the engine.
//!
//! Invariant: the server stands before the shards are taken over and ends after the engine, so
//! clients are told what the app is doing from the first moment to the last.
//!
//! Deliberately absent: the server itself (`statefn-http`), without which, that is without the
//! feature `http`, settings that ask for one are refused.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use statefn_runtime::engine::{Intake, Plan, Status};

use crate::{Error, Settings, settings::optional_duration};

/// Where an app listens for HTTP, and what it takes; the table `[http]`.
///
/// ```
/// use statefn::Settings;
/// let settings = Settings::from_toml("[http]\nlisten = \"127.0.0.1:8080\"\nbody_time_max = \"2s\"").unwrap();
/// assert_eq!(settings.http.unwrap().body_time_max, Some(std::time::Duration::from_secs(2)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// The address, such as `127.0.0.1:8080`; port 0 is one that is free. Without it no server is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The largest body, in bytes, up to 4 MiB; 1 MiB if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<usize>,
    /// How many connections may be open at a time; 10,000 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<usize>,
    /// How long the head of a request may take to come; 5 s if not given.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub head_time_max: Option<Duration>,
    /// How long a body may take to come; 10 s if not given.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub body_time_max: Option<Duration>,
    /// How long an idle connection is kept; 30 s if not given.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub idle_time_max: Option<Duration>,
    /// How long a client waits for an answer before it is told that the outcome is unknown; 30 s if not given.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub answer_time_max: Option<Duration>,
    /// How long answers are remembered for idempotency keys, up to a twelfth longer; 1 h if not given.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub answers_kept: Option<Duration>,
    /// How many threads serve connections; 1 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

/// The address that settings ask for.
fn address(settings: &Settings) -> Result<Option<(SocketAddr, &HttpSettings)>, Error> {
    let Some(http) = &settings.http else { return Ok(None) };
    let Some(listen) = &http.listen else { return Ok(None) };
    let address = listen.parse().map_err(|_| {
        Error::Settings(format!(
            "`listen` of `[http]` is `{listen}`: write an address and a port, such as `127.0.0.1:8080`"
        ))
    })?;
    Ok(Some((address, http)))
}

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
        let Some((listen, http)) = address(settings)? else { return Ok(None) };
        let default = statefn_http::Options::default();
        let options = statefn_http::Options {
            body_bytes_max: http.body_bytes_max.unwrap_or(default.body_bytes_max),
            connections_max: http.connections_max.unwrap_or(default.connections_max),
            head_time_max: http.head_time_max.unwrap_or(default.head_time_max),
            body_time_max: http.body_time_max.unwrap_or(default.body_time_max),
            idle_time_max: http.idle_time_max.unwrap_or(default.idle_time_max),
            answer_time_max: http.answer_time_max.unwrap_or(default.answer_time_max),
            threads: http.threads.unwrap_or(default.threads),
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
        match address(settings)? {
            None => Ok(None),
            Some((listen, _)) => Err(Error::Settings(format!(
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
