//! A fleet: how Kafka and an object store are tied to the engine.
//!
//! Invariants: everything that settings say of the fleet is checked before a worker joins; a topic of
//! the app that is not as it must be refuses the start.
//!
//! Deliberately absent: the fleet's protocol (core and runtime) and its clients (`statefn-kafka`,
//! `statefn-snapshots`), without which, that is without the feature `fleet`, settings that ask for one
//! are refused.

use statefn_core::{egress::DEAD_LETTERS, program::Program};
use statefn_runtime::engine::fleet::Fleet;

use crate::{
    Error, Settings,
    settings::{EgressKind, Origins, written},
};

#[cfg(feature = "fleet")]
mod kafka;

/// Checks what settings say of a fleet, and makes what a worker of it needs.
#[cfg(feature = "fleet")]
pub(crate) fn open(program: &Program, settings: &Settings, origins: &Origins, log: &str) -> Result<Fleet, Error> {
    check(program, settings, origins)?;
    kafka::open(program, settings, origins, log)
}

#[cfg(not(feature = "fleet"))]
pub(crate) fn open(program: &Program, settings: &Settings, origins: &Origins, log: &str) -> Result<Fleet, Error> {
    check(program, settings, origins)?;
    let fix = "this program was built without what a fleet needs: build `statefn` with the feature `fleet`";
    Err(origins.wrong(&["log"], log, fix))
}

/// Refuses what only an app that is alone can have.
fn check(program: &Program, settings: &Settings, origins: &Origins) -> Result<(), Error> {
    if let Some(data) = &settings.data {
        let fix = "an app has a directory of its own, or a `log` that it shares: remove one of the two";
        return Err(origins.wrong(&["data"], data.display(), fix));
    }
    if settings.snapshots.is_none() {
        return Err(Error::Settings(
            "`snapshots` is not set, and a fleet needs a place for them that all its processes see: set it, such as by `--set snapshots=s3://bucket/app`".into(),
        ));
    }
    for ingress in &program.ingresses {
        let setting = written(&["ingress", ingress.name, "topic"]);
        let given = settings.ingress.get(ingress.name).cloned().unwrap_or_default();
        if let Some(path) = given.files().next() {
            let fix = format!("the ingresses of a fleet read topics: remove it, and set `{setting}`");
            return Err(origins.wrong(&["ingress", ingress.name, "path"], path.display(), &fix));
        }
        if given.topic.is_none() {
            return Err(Error::Settings(format!(
                "`{setting}` is not set: say which topic the ingress reads, such as by `--set {setting}=events`"
            )));
        }
    }
    for name in program.egresses.keys().map(|egress| program.name(*egress)) {
        let to = settings.egress.get(name).and_then(|egress| egress.to);
        if let Some(to @ (EgressKind::File | EgressKind::Webhook)) = to {
            let to = if to == EgressKind::File { "file" } else { "webhook" };
            let fix = "the egresses of a fleet go to `kafka`, `console` or `count`: set it to one of these";
            return Err(origins.wrong(&["egress", name, "to"], to, fix));
        }
    }
    Ok(())
}

/// The topic of an egress.
#[cfg_attr(not(feature = "fleet"), allow(dead_code, reason = "only a fleet has topics"))]
fn topic_of(name: &str, settings: &Settings, program: &Program) -> String {
    let given = settings.egress.get(name).and_then(|egress| egress.topic.clone());
    let default = if name == DEAD_LETTERS { format!("{}.dead-letters", program.app) } else { name.to_owned() };
    given.unwrap_or(default)
}
