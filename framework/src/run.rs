//! Running an app in this process.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use statefn_core::{
    limits::{ANSWERS_KEPT_MS, SHARDS_MAX},
    program::Program,
};
pub use statefn_runtime::engine::{End, Latency, Status, Stop, Totals};
use statefn_runtime::{
    egress::{Place, SinkSpec},
    engine::{self, Input, InputPlace, Plan, Storage},
    ingress::Format,
};

use crate::{
    App, Error, Settings,
    app::Linked,
    http::Service,
    settings::{EgressKind, EgressSettings, IngressSettings},
};

/// How long answers are remembered if settings do not say.
const ANSWERS_KEPT: Duration = Duration::from_millis(ANSWERS_KEPT_MS as u64);

/// What a run did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// How long it took.
    pub elapsed: Duration,
    /// What was read, called, sent and committed since this start.
    pub totals: Totals,
    /// How long commits took.
    pub commit_latency: Latency,
    /// The settings it ran with.
    pub settings: Settings,
}

/// An app that is running on a thread of its own.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<Result<Summary, Error>>,
    http_address: Option<SocketAddr>,
    status: Arc<Status>,
    stop: Stop,
}

impl Running {
    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Where it listens for HTTP, if it does.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// What stops it.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// See [`App::run`].
    pub fn wait(self) -> Result<Summary, Error> {
        self.thread.join().unwrap_or_else(|_| Err(Error::Broken("the thread of the app panicked".into())))
    }
}

impl App {
    /// Runs the app with its own settings until its input ends; one that listens for HTTP runs until
    /// it is stopped.
    ///
    /// # Errors
    /// See [`Error`]. What was committed stays; the next run goes on from there.
    pub fn run(self) -> Result<Summary, Error> {
        self.start()?.wait()
    }

    /// Starts the app on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Link`] and [`Error::Settings`]; the others come from [`Running::wait`].
    pub fn start(self) -> Result<Running, Error> {
        let (linked, settings, at_end) = self.take_parts();
        let plan = plan(linked?, &settings)?;
        let (status, stop) = (Arc::new(Status::new()), Stop::default());
        let (seen, stopped) = (Arc::clone(&status), stop.clone());
        let service = Service::start(&plan, &settings, &status)?;
        let http_address = service.as_ref().map(Service::address);
        let run = move || {
            let started_at = Instant::now();
            let end = engine::run(&plan, service.as_ref().map(Service::intake), &seen, &stopped);
            service.into_iter().for_each(Service::stop);
            let end = end?;
            let summary = Summary {
                end,
                elapsed: started_at.elapsed(),
                totals: seen.totals(),
                commit_latency: seen.commit_latency(),
                settings,
            };
            if let (End::Finished, Some(at_end)) = (end, at_end) {
                at_end(&summary);
            }
            Ok(summary)
        };
        let builder = std::thread::Builder::new().name("statefn".into());
        let thread = builder.spawn(run).map_err(|error| Error::Broken(format!("cannot start a thread: {error}")))?;
        Ok(Running { thread, http_address, status, stop })
    }
}

/// Checks the settings against the program and says what is to run.
pub(crate) fn plan(linked: Linked, settings: &Settings) -> Result<Plan, Error> {
    let Linked { program, ingresses } = linked;
    check(&program, settings)?;
    let mut inputs = Vec::new();
    for ingress in &ingresses {
        let given = settings.ingress.get(ingress.name());
        inputs.push(input(ingress.name(), ingress.is_generator(), given)?);
    }
    let outputs = program.egresses.iter().map(|(name, encoding)| {
        let name = program.name(*name).to_owned();
        let place = place(&name, settings)?;
        Ok(SinkSpec { name, encoding: *encoding, place })
    });
    let outputs = outputs.collect::<Result<_, Error>>()?;
    Ok(Plan {
        storage: settings.data.clone().map_or(Storage::Memory, Storage::Directory),
        shards: settings.shards(),
        threads: settings.threads().max(1),
        commit_interval: settings.commit_interval.unwrap_or_default(),
        snapshot_tail_bytes: settings.snapshot_tail_bytes.unwrap_or(statefn_core::limits::SNAPSHOT_TAIL_BYTES_MIN),
        segment_bytes: settings.segment_bytes.unwrap_or(64 << 20),
        answers_kept: settings.http.as_ref().and_then(|http| http.answers_kept).unwrap_or(ANSWERS_KEPT),
        program,
        ingresses,
        inputs,
        outputs,
    })
}

fn check(program: &Program, settings: &Settings) -> Result<(), Error> {
    let shards = settings.shards();
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(Error::Settings(format!("`shards` is {shards}: it must be 1 to {SHARDS_MAX}")));
    }
    let ingresses: BTreeSet<&str> = program.ingresses.iter().map(|ingress| ingress.name).collect();
    let egresses: BTreeSet<&str> = program.egresses.keys().map(|name| program.name(*name)).collect();
    for (kind, given, known) in [
        ("ingress", settings.ingress.keys().collect::<Vec<_>>(), ingresses),
        ("egress", settings.egress.keys().collect(), egresses),
    ] {
        for name in given {
            if !known.contains(name.as_str()) {
                let known = Vec::from_iter(known).join("`, `");
                return Err(Error::Settings(format!(
                    "the settings name the {kind} `{name}`, which the app does not have; it has `{known}`"
                )));
            }
        }
    }
    Ok(())
}

fn input(name: &str, is_generator: bool, given: Option<&IngressSettings>) -> Result<Input, Error> {
    let records_per_second = given.and_then(|given| given.records_per_second);
    if records_per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(Error::Settings(format!("`records_per_second` of the ingress `{name}` must be more than 0")));
    }
    let paths: Vec<PathBuf> =
        given.map(|given| given.path.iter().chain(&given.paths).cloned().collect()).unwrap_or_default();
    if is_generator && paths.is_empty() {
        return Ok(Input { places: vec![InputPlace::Generator], records_per_second });
    }
    if paths.is_empty() {
        return Err(Error::Settings(format!(
            "the settings do not say where the ingress `{name}` reads: add `[ingress.{name}]` with `path = \"..\"`"
        )));
    }
    let mut places = Vec::new();
    for path in paths {
        let format = given.and_then(|given| given.format).or_else(|| Format::of_path(&path));
        let format = format.ok_or_else(|| {
            Error::Settings(format!(
                "the name `{}` does not say its format: add `format = \"csv\"`, `\"json-lines\"` or `\"protobuf\"` to `[ingress.{name}]`",
                path.display()
            ))
        })?;
        places.push(InputPlace::File(path, format));
    }
    Ok(Input { places, records_per_second })
}

fn place(name: &str, settings: &Settings) -> Result<Place, Error> {
    let given = settings.egress.get(name).cloned();
    let is_given = given.is_some();
    let EgressSettings { to, path } = given.unwrap_or_default();
    match (to.unwrap_or(EgressKind::File), path, &settings.data) {
        (EgressKind::Console, None, _) => Ok(Place::Console),
        (EgressKind::Count, None, _) => Ok(Place::Counter),
        (EgressKind::Console | EgressKind::Count, Some(path), _) => Err(Error::Settings(format!(
            "the egress `{name}` has the path `{}` but writes no file: remove `path` or set `to = \"file\"`",
            path.display()
        ))),
        (EgressKind::File, Some(path), Some(_)) => Ok(Place::File(path)),
        (EgressKind::File, None, Some(data)) => Ok(Place::File(data.join(format!("{name}.jsonl")))),
        // Without data the dead letters are shown, so that they are not lost unseen.
        (EgressKind::File, None, None) if !is_given => Ok(Place::Console),
        (EgressKind::File, ..) => Err(Error::Settings(format!(
            "the egress `{name}` writes a file, which needs `data`, the directory that says what stands in it: set `data`"
        ))),
    }
}
