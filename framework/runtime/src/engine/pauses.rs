//! Pauses: which ingresses are not read, and which functions get no new work, because a person said so.
//!
//! A paused ingress is not read; it holds event time back as one that is silent does. A paused function
//! holds every ingress that leads to it, by any way, and lets requests that lead to it be refused. What
//! is in the app already (messages on their way, timers, parked calls) goes on.
//!
//! Invariants: what is held follows from what is paused, at every moment; a pause is stored before it
//! holds, and its end before it ends, so what a person was told survives a restart.
//!
//! Deliberately absent: pausing what is inside: a message that waited would hold back others that it
//! must not overtake.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    ports::inspect::{Pausable, Pause, PauseError},
    program::{FunctionId, Program},
};

use super::{Plan, Storage};
use crate::embedded::disk::{RealDisk, read_whole, write_whole};

/// The file in the data directory.
const FILE_NAME: &str = "paused.json";

/// What is paused and held; see the module.
pub(crate) struct Pauses {
    program: Arc<Program>,
    path: Option<PathBuf>,
    paused: Mutex<Paused>,
    held_ingresses: Vec<AtomicBool>,
    held_functions: Vec<AtomicBool>,
    /// By function: those that its messages can lead to, itself included.
    reached: Vec<BTreeSet<FunctionId>>,
}

/// The names of what is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paused {
    ingresses: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Pauses {
    pub(crate) fn of(plan: &Plan) -> Self {
        let program = Arc::clone(&plan.program);
        let path = match &plan.storage {
            Storage::Memory | Storage::Fleet(_) => None,
            Storage::Directory(directory) => Some(directory.join(FILE_NAME)),
        };
        let held = |count: usize| (0..count).map(|_| AtomicBool::new(false)).collect();
        let pauses = Self {
            paused: Mutex::new(path.as_deref().map(load).unwrap_or_default()),
            path,
            held_ingresses: held(program.ingresses.len()),
            held_functions: held(program.functions.len()),
            reached: (0..program.functions.len()).map(|function| reached(&program, function as FunctionId)).collect(),
            program,
        };
        pauses.hold(&pauses.lock());
        pauses
    }

    pub(crate) fn holds_ingress(&self, ingress: usize) -> bool {
        self.held_ingresses[ingress].load(Ordering::Acquire)
    }

    pub(crate) fn holds_function(&self, function: FunctionId) -> bool {
        self.held_functions[usize::from(function)].load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, what: Pausable) -> Pause {
        let paused = self.lock();
        match what {
            Pausable::Ingress(ingress) => Pause {
                is_paused: paused.ingresses.contains(self.program.ingresses[ingress].name),
                is_held: self.holds_ingress(ingress),
            },
            Pausable::Function(function) => Pause {
                is_paused: paused.functions.contains(self.program.functions[usize::from(function)].spec.name),
                is_held: self.holds_function(function),
            },
        }
    }

    pub(crate) fn set(&self, what: Pausable, is_paused: bool) -> Result<(), PauseError> {
        let mut paused = self.lock();
        let mut next = paused.clone();
        let (names, name) = match what {
            Pausable::Ingress(ingress) => (&mut next.ingresses, self.program.ingresses[ingress].name),
            Pausable::Function(function) => {
                (&mut next.functions, self.program.functions[usize::from(function)].spec.name)
            }
        };
        if is_paused {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
        if next == *paused {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let wrong = |error: String| PauseError(format!("`{}`: {error}", path.display()));
            let bytes = serde_json::to_vec_pretty(&next).map_err(|error| wrong(error.to_string()))?;
            write_whole(&RealDisk, path, &bytes).map_err(|error| wrong(error.to_string()))?;
        }
        *paused = next;
        self.hold(&paused);
        Ok(())
    }

    /// Brings what is held up to date.
    fn hold(&self, paused: &Paused) {
        let is_paused =
            |function: &FunctionId| paused.functions.contains(self.program.functions[usize::from(*function)].spec.name);
        for (held, reached) in self.held_functions.iter().zip(&self.reached) {
            held.store(reached.iter().any(is_paused), Ordering::Release);
        }
        for (held, ingress) in self.held_ingresses.iter().zip(&self.program.ingresses) {
            let mut targets = ingress.targets.iter().filter_map(|target| self.program.function(target.name));
            let is_held = paused.ingresses.contains(ingress.name) || targets.any(|target| self.holds_function(target));
            held.store(is_held, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Paused> {
        // Nothing that holds the lock can leave what it guards half-changed.
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The functions that messages of one can lead to.
fn reached(program: &Program, function: FunctionId) -> BTreeSet<FunctionId> {
    let (mut reached, mut next) = (BTreeSet::from([function]), vec![function]);
    while let Some(function) = next.pop() {
        let sends = program.functions[usize::from(function)].spec.sends.iter();
        let targets = sends.filter_map(|target| program.function(target.name));
        next.extend(targets.filter(|target| reached.insert(*target)));
    }
    reached
}

/// What a file says; one that cannot be read pauses nothing, and says so.
fn load(path: &Path) -> Paused {
    let read = read_whole(&RealDisk, path).map_err(|error| error.to_string());
    let read = read.and_then(|bytes| match bytes {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        None => Ok(Paused::default()),
    });
    read.unwrap_or_else(|error| {
        tracing::error!("nothing is paused, because `{}` cannot be read: {error}", path.display());
        Paused::default()
    })
}
