//! The HTTP servers of an app: how they are tied to the engine.
//!
//! Invariant: the servers stand before the shards are taken over and end after the engine, so
//! clients are told what the app is doing from the first moment to the last.
//!
//! Deliberately absent: the servers themselves (`statefn-http`), without which, that is without the
//! feature `http`, settings that ask for one are refused.

use std::{net::SocketAddr, sync::Arc};

use statefn_runtime::engine::{Intake, Plan, Status};
#[cfg(feature = "http")]
use {
    statefn_http::{
        Meter, Others, Server,
        admin::{AdminOptions, Subject},
    },
    statefn_runtime::{egress::Place, engine::Storage},
};

#[cfg(all(feature = "http", feature = "fleet"))]
use statefn_http::peers::{Forwarder, Internal};

use crate::{Error, Settings};

/// The running servers and the intake of their app.
#[cfg(feature = "http")]
pub(crate) struct Service {
    intake: Intake,
    edge: Option<Server>,
    admin: Option<Server>,
}

#[cfg(feature = "http")]
impl Service {
    /// Starts the servers that settings ask for, if they do.
    pub(crate) fn start(plan: &Plan, settings: &Settings, status: &Arc<Status>) -> Result<Option<Self>, Error> {
        if settings.http.listen.is_none() && settings.admin.listen.is_none() {
            return Ok(None);
        }
        let intake = Intake::new(plan, status);
        // Without requests from outside an app ends with its input, also if somebody may look into it.
        let intake = if settings.http.listen.is_some() { intake } else { intake.beside() };
        let subject = subject(plan, &intake)?;
        let edge = start_edge(plan, settings, &subject)?;
        let admin = match start_admin(plan, settings, subject) {
            Ok(admin) => admin,
            Err(error) => {
                edge.into_iter().for_each(Server::stop);
                return Err(error);
            }
        };
        let service = Self { intake, edge, admin };
        match service.advertise(plan, settings) {
            Ok(()) => Ok(Some(service)),
            Err(error) => {
                service.stop();
                Err(error)
            }
        }
    }

    /// Tells the other workers of a fleet where this one is reached.
    fn advertise(&self, plan: &Plan, settings: &Settings) -> Result<(), Error> {
        let Storage::Fleet(fleet) = &plan.storage else { return Ok(()) };
        let address = self.address().or(self.admin_address());
        let url = match (&settings.http.advertised_url, address) {
            (Some(url), _) => url.as_str().trim_end_matches('/').to_owned(),
            (None, Some(address)) if address.ip().is_unspecified() => {
                return Err(Error::Settings(format!(
                    "this worker listens at {address}, which says nothing to the other workers of the fleet: set `http.advertised_url` to where they reach it, such as by `--set http.advertised_url=http://10.0.0.7:{}`",
                    address.port()
                )));
            }
            (None, Some(address)) => format!("http://{address}"),
            (None, None) => return Ok(()),
        };
        fleet.directory.listens_at(&url);
        Ok(())
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.edge.as_ref().map(Server::address)
    }

    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Server::address)
    }

    /// Ends the servers, once the engine has.
    pub(crate) fn stop(self) {
        self.edge.into_iter().chain(self.admin).for_each(Server::stop);
    }
}

/// Whom the servers are for: the shards of this process, or those of a whole fleet.
#[cfg(feature = "http")]
fn subject(plan: &Plan, intake: &Intake) -> Result<Subject, Error> {
    let meter = Arc::new(Meter::new());
    let program = Arc::clone(&plan.program);
    match &plan.storage {
        #[cfg(feature = "fleet")]
        Storage::Fleet(fleet) => {
            let directory = Arc::clone(&fleet.directory);
            let internal = Internal {
                token: directory.token(),
                program: Arc::clone(&program),
                requests: Arc::new(intake.clone()),
                inspect: Arc::new(intake.clone()),
            };
            let others = Others { peers: Some(Arc::clone(&directory) as _), internal: Some(Arc::new(internal)) };
            let forwarder = Forwarder::new(&program, intake.clone(), directory);
            let forwarder = forwarder.map_err(|error| Error::Broken(format!("cannot start a thread: {error}")))?;
            let forwarder = Arc::new(forwarder);
            Ok(Subject { program, requests: Arc::clone(&forwarder) as _, inspect: forwarder, meter, others })
        }
        _ => {
            let (requests, inspect) = (Arc::new(intake.clone()), Arc::new(intake.clone()));
            Ok(Subject { program, requests, inspect, meter, others: Others::default() })
        }
    }
}

#[cfg(feature = "http")]
fn start_edge(plan: &Plan, settings: &Settings, subject: &Subject) -> Result<Option<Server>, Error> {
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
        // Nobody would see a trace that goes nowhere.
        trace_share: plan.spans.as_ref().and(settings.trace.sample).unwrap_or_default(),
        event_time_field: http.event_time_field,
    };
    let server = Server::start(listen, options, subject.clone());
    let server = server.map_err(|error| Error::Settings(format!("`[http]`: cannot listen at {listen}: {error}")))?;
    tracing::info!("listening at http://{}", server.address());
    Ok(Some(server))
}

#[cfg(feature = "http")]
fn start_admin(plan: &Plan, settings: &Settings, subject: Subject) -> Result<Option<Server>, Error> {
    let Some(listen) = settings.admin.listen else { return Ok(None) };
    let directory = match &plan.storage {
        Storage::Memory | Storage::Fleet(_) => None,
        Storage::Directory(directory) => Some(directory.clone()),
    };
    let dead_letters = plan.outputs.iter().find(|output| output.name == statefn_core::egress::DEAD_LETTERS);
    let options = AdminOptions {
        token: settings.admin.token.as_ref().map(|token| token.reveal().to_owned()),
        answer_time_max: settings.http.filled().answer_time_max.unwrap_or_default(),
        directory,
        dead_letters: dead_letters.and_then(|output| match &output.place {
            Place::File(path) => Some(path.clone()),
            Place::Console | Place::Counter | Place::Webhook(_) => None,
        }),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let server = Server::start_admin(listen, options, subject);
    let server = server.map_err(|error| Error::Settings(format!("`[admin]`: cannot listen at {listen}: {error}")))?;
    tracing::info!("admin interface at http://{}", server.address());
    Ok(Some(server))
}

/// What is never started, as this program has no server.
#[cfg(not(feature = "http"))]
pub(crate) enum Service {}

#[cfg(not(feature = "http"))]
impl Service {
    pub(crate) fn start(_: &Plan, settings: &Settings, _: &Arc<Status>) -> Result<Option<Self>, Error> {
        match settings.http.listen.or(settings.admin.listen) {
            None => Ok(None),
            Some(listen) => Err(Error::Settings(format!(
                "the settings ask for HTTP at {listen}, and this program was built without it: build `statefn` with the feature `http`"
            ))),
        }
    }

    pub(crate) fn intake(&self) -> &Intake {
        match *self {}
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match *self {}
    }

    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        match *self {}
    }

    pub(crate) fn stop(self) {
        match self {}
    }
}
