//! Running an app in this process.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use statefn_core::{
    Encoding,
    egress::DEAD_LETTERS,
    limits::{ANSWERS_KEPT_MS, SHARDS_MAX},
    program::{NameId, Program},
};
pub use statefn_runtime::engine::{End, Latency, Status, Stop, Totals};
use statefn_runtime::{
    egress::{Place, SinkSpec, WebhookSpec},
    engine::{self, Input, InputPlace, Plan, Storage},
};

use crate::{
    App, Error, Settings,
    app::{Linked, Parts},
    fleet,
    http::Service,
    settings::{EgressKind, EgressSettings, IngressSettings, Names, Origins, written},
    trace::Exporter,
};

/// How many partitions of an ingress are known to those who read none of them.
pub(crate) const PARTITIONS_MAX: usize = 1_024;
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
    admin_address: Option<SocketAddr>,
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

    /// Where its admin interface listens, if it has one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
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
        check_panics(cfg!(panic = "abort"))?;
        let Parts { linked, names, settings, origins, at_end } = self.take_parts();
        let mut plan = plan(linked?, &names, &settings, &origins)?;
        let exporter = Exporter::start(&plan, &settings)?;
        plan.spans = exporter.as_ref().map(Exporter::sink);
        let (status, stop) = (Arc::new(Status::new()), Stop::default());
        let (seen, stopped) = (Arc::clone(&status), stop.clone());
        let service = match Service::start(&plan, &settings, &status) {
            Ok(service) => service,
            Err(error) => {
                exporter.into_iter().for_each(Exporter::stop);
                return Err(error);
            }
        };
        let http_address = service.as_ref().and_then(Service::address);
        let admin_address = service.as_ref().and_then(Service::admin_address);
        let run = move || {
            let started_at = Instant::now();
            let end = engine::run(&plan, service.as_ref().map(Service::intake), &seen, &stopped);
            service.into_iter().for_each(Service::stop);
            exporter.into_iter().for_each(Exporter::stop);
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
        Ok(Running { thread, http_address, admin_address, status, stop })
    }
}

/// Refuses a program whose panics end the process: one broken handler would stop all keys.
pub(crate) fn check_panics(do_abort: bool) -> Result<(), Error> {
    if !do_abort {
        return Ok(());
    }
    let text = "this program was built with `panic = \"abort\"`, so one handler that panics would end the process, \
                and not only stop its key: remove that from the profile in `Cargo.toml`";
    Err(Error::Settings(text.into()))
}

/// Checks the settings against the program and says what is to run.
pub(crate) fn plan(parts: Linked, names: &Names, settings: &Settings, origins: &Origins) -> Result<Plan, Error> {
    check(names, settings, origins)?;
    let filled = settings.filled(names);
    if let Some(log) = &settings.log {
        let fleet = fleet::open(&parts.program, &filled, origins, log)?;
        // A fleet has its own inputs and outputs.
        let plan = plan_with(parts, Vec::new(), filled, Vec::new())?;
        return Ok(Plan { storage: Storage::Fleet(fleet), ..plan });
    }
    let mut inputs = Vec::new();
    for ingress in &parts.ingresses {
        let given = filled.ingress.get(ingress.name()).cloned().unwrap_or_default();
        inputs.push(input(ingress.name(), ingress.is_generator(), &given, origins)?);
    }
    let outputs = outputs(&parts.program, &filled, origins)?;
    plan_with(parts, inputs, filled, outputs)
}

/// The same for those who look at what is stored and read no input: of each ingress they take all
/// partitions that there may be.
pub(crate) fn plan_of_data(
    parts: Linked,
    names: &Names,
    settings: &Settings,
    origins: &Origins,
) -> Result<Plan, Error> {
    check(names, settings, origins)?;
    let input = Input { places: vec![InputPlace::Generator; PARTITIONS_MAX], records_per_second: None };
    let inputs = vec![input; parts.ingresses.len()];
    let settings = settings.filled(names);
    if let Some(log) = &settings.log {
        let fix = "this command reads the data directory of an app that is alone; ask a worker of the fleet, by its admin interface";
        return Err(origins.wrong(&["log"], log, fix));
    }
    let outputs = outputs(&parts.program, &settings, origins)?;
    plan_with(parts, inputs, settings, outputs)
}

/// Where each egress of an app that is alone goes.
fn outputs(program: &Program, settings: &Settings, origins: &Origins) -> Result<Vec<SinkSpec>, Error> {
    let output = |(name, encoding): (&NameId, &Encoding)| {
        let name = program.name(*name).to_owned();
        let place = place(&name, settings, origins)?;
        Ok(SinkSpec { name, encoding: *encoding, place })
    };
    program.egresses.iter().map(output).collect()
}

fn plan_with(parts: Linked, inputs: Vec<Input>, settings: Settings, outputs: Vec<SinkSpec>) -> Result<Plan, Error> {
    let Linked { program, ingresses } = parts;
    Ok(Plan {
        storage: settings.data.clone().map_or(Storage::Memory, Storage::Directory),
        shards: settings.shards(),
        threads: settings.threads(),
        commit_interval: settings.commit_interval(),
        snapshot_tail_bytes: settings.snapshot_tail_bytes(),
        segment_bytes: settings.segment_bytes(),
        handler_time_limit: settings.handler_time_limit(),
        parked: settings.parked.limits(),
        egress_backlog_bytes_max: usize::try_from(settings.egress_backlog_bytes_max()).unwrap_or(usize::MAX),
        answers_kept: settings.http.answers_kept.unwrap_or(ANSWERS_KEPT),
        spans: None,
        program,
        ingresses,
        inputs,
        outputs,
    })
}

fn check(names: &Names, settings: &Settings, origins: &Origins) -> Result<(), Error> {
    let shards = settings.shards();
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(origins.wrong(&["shards"], shards, &format!("it must be 1 to {SHARDS_MAX}")));
    }
    if let Some(sample) = settings.trace.sample.filter(|sample| !(0.0..=1.0).contains(sample)) {
        return Err(origins.wrong(&["trace", "sample"], sample, "it must be a share, 0 to 1"));
    }
    if let (None, Some(url)) = (&settings.log, &settings.http.advertised_url) {
        let fix = "only a worker of a fleet has others to tell where it is reached: remove it, or set `log`";
        return Err(origins.wrong(&["http", "advertised_url"], url.as_str(), fix));
    }
    let unknown = |given: &str, known: &[String]| !known.iter().any(|known| known == given);
    if let Some(name) = settings.ingress.keys().find(|name| unknown(name, &names.ingresses)) {
        return Err(origins.unknown("ingress", name, &names.ingresses));
    }
    if let Some(name) = settings.egress.keys().find(|name| unknown(name, &names.egresses)) {
        return Err(origins.unknown("egress", name, &names.egresses));
    }
    Ok(())
}

fn input(name: &str, is_generator: bool, given: &IngressSettings, origins: &Origins) -> Result<Input, Error> {
    let records_per_second = given.records_per_second;
    if let Some(rate) = records_per_second.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
        let name = ["ingress", name, "records_per_second"];
        return Err(origins.wrong(&name, rate, "it must be more than 0, and finite"));
    }
    let mut places = Vec::new();
    for path in given.files() {
        let format = given.format_of(path).ok_or_else(|| {
            let setting = if given.path.as_ref() == Some(path) { "path" } else { "paths" };
            let fix = format!(
                "that name does not say how the records are written down: set `{}` to `csv`, `json-lines` or `protobuf`",
                written(&["ingress", name, "format"])
            );
            origins.wrong(&["ingress", name, setting], path.display(), &fix)
        })?;
        places.push(InputPlace::File(path.clone(), format));
    }
    if let Some(topic) = &given.topic {
        let fix = "only the ingresses of a fleet read topics: remove it, or set `log`";
        return Err(origins.wrong(&["ingress", name, "topic"], topic, fix));
    }
    if places.is_empty() && is_generator {
        places.push(InputPlace::Generator);
    }
    if places.is_empty() {
        let setting = written(&["ingress", name, "path"]);
        return Err(Error::Settings(format!(
            "`{setting}` is not set: say which file the ingress reads, such as by `--set {setting}=input.csv`, or by `path = \"input.csv\"` below `[{}]` in `statefn.toml`",
            written(&["ingress", name])
        )));
    }
    Ok(Input { places, records_per_second })
}

/// Where the dead letters go, if the settings are right so far.
pub(crate) fn place_of_letters(names: &Names, settings: &Settings, origins: &Origins) -> Option<Place> {
    place(DEAD_LETTERS, &settings.filled(names), origins).ok()
}

fn place(name: &str, settings: &Settings, origins: &Origins) -> Result<Place, Error> {
    let given = settings.egress.get(name).cloned().unwrap_or_default();
    let to = given.to.unwrap_or(EgressKind::File);
    check_place(name, to, &given, origins)?;
    match (to, given.path.clone()) {
        (EgressKind::Console, _) => Ok(Place::Console),
        (EgressKind::Count, _) => Ok(Place::Counter),
        (EgressKind::Webhook, _) => webhook(name, given, origins).map(Place::Webhook),
        (EgressKind::Kafka, _) => {
            let fix = "only a fleet writes to Kafka: set `log`, or another kind";
            Err(origins.wrong(&["egress", name, "to"], "kafka", fix))
        }
        (EgressKind::File, Some(path)) if settings.data.is_some() => Ok(Place::File(path)),
        (EgressKind::File, path) => {
            let fix = "a file needs the directory that says what stands in it: set `data`, such as by `--data data`";
            let setting = if path.is_some() { "path" } else { "to" };
            let value = path.map_or_else(|| "file".to_owned(), |path| path.display().to_string());
            Err(origins.wrong(&["egress", name, setting], value, fix))
        }
    }
}

/// Refuses what only another kind of place has.
fn check_place(name: &str, to: EgressKind, given: &EgressSettings, origins: &Origins) -> Result<(), Error> {
    let wrong = |setting, value: String, what: &str, kind: &str| {
        let to = written(&["egress", name, "to"]);
        let fix = format!("this egress {what}: remove it, or set `{to}` to `{kind}`");
        Err(origins.wrong(&["egress", name, setting], value, &fix))
    };
    if let Some(topic) = given.topic.as_ref().filter(|_| to != EgressKind::Kafka) {
        return wrong("topic", topic.clone(), "writes to no topic", "kafka");
    }
    match (to, &given.path, &given.url) {
        (EgressKind::File, _, None) | (_, None, None) | (EgressKind::Webhook, None, _) => Ok(()),
        (EgressKind::File, _, Some(url)) | (_, None, Some(url)) => {
            wrong("url", url.as_str().to_owned(), "calls no webhook", "webhook")
        }
        (_, Some(path), _) => wrong("path", path.display().to_string(), "writes no file", "file"),
    }
}

fn webhook(name: &str, given: EgressSettings, origins: &Origins) -> Result<WebhookSpec, Error> {
    let wrong = |fix: &str| Err(origins.wrong(&["egress", name, "to"], "webhook", fix));
    if name == DEAD_LETTERS {
        return wrong("dead letters need a place that takes all of them: set it to `file` or `console`");
    }
    let Some(url) = given.url else {
        let setting = written(&["egress", name, "url"]);
        return wrong(&format!("a webhook needs a URL: set `{setting}`, such as to `https://example.org/hook`"));
    };
    let holds = WebhookSpec::new(url.as_str());
    Ok(WebhookSpec {
        authorization: given.authorization.map(|secret| secret.reveal().to_owned()),
        parallel: given.parallel.unwrap_or(holds.parallel),
        time_max: given.time_max.unwrap_or(holds.time_max),
        retry_first: given.retry_first.unwrap_or(holds.retry_first),
        retry_longest: given.retry_longest.unwrap_or(holds.retry_longest),
        ..holds
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_other_workers_is_refused_where_there_are_none() {
        let names = Names { ingresses: Vec::new(), egresses: Vec::new() };
        let url = "[http]\nadvertised_url = \"http://10.0.0.7:8080\"";
        let check = |toml: &str| check(&names, &Settings::from_toml(toml).expect("settings"), &Origins::default());
        let error = check(url).expect_err("it is alone").to_string();
        assert!(error.contains("`http.advertised_url`") && error.contains("set `log`"), "{error}");
        assert!(check(&format!("log = \"kafka://a:9092\"\n{url}")).is_ok());
    }

    #[test]
    fn a_program_whose_panics_end_the_process_is_refused() {
        assert!(check_panics(false).is_ok());
        let error = check_panics(true).expect_err("refused").to_string();
        assert!(error.contains("`panic = \"abort\"`") && error.contains("`Cargo.toml`"), "{error}");
    }
}
