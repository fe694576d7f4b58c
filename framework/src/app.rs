//! The app: functions, ingresses and egresses, put together by a builder.

use std::{fmt, sync::Arc};

use statefn_core::{
    Egress, LinkError, Message,
    activity::{Activity, ErasedActivity},
    egress::DEAD_LETTERS,
    function::Function,
    ingress::{self, ErasedIngress, Ingress, Router},
    program::{FunctionSpec, Program, ProgramSpec},
};

use statefn_runtime::egress::Place;

use crate::{
    Settings,
    run::Summary,
    settings::{Names, Origins},
};

/// Links an ingress and its router to a program.
pub(crate) type Binding = Box<dyn FnOnce(&Program) -> Arc<dyn ErasedIngress> + Send>;
type AtEnd = Box<dyn FnOnce(&Summary) + Send>;

/// An app: what runs when it is started, tested, or asked about.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::prelude::*;
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// struct Counter { count: u64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "word")]
/// struct Word { text: String }
///
/// static COUNTS: Egress<Word> = Egress::new("counts");
///
/// #[function(name = "words/counter", emits(COUNTS))]
/// impl Counter {
///     #[on]
///     fn word(&mut self, msg: &Word, ctx: &mut Context<Self>) {
///         self.count += 1;
///         ctx.emit(&COUNTS, &Word { text: format!("{} {}", msg.text, self.count) });
///     }
/// }
///
/// let app = App::new("words")
///     .function::<Counter>()
///     .ingress(Ingress::<Word>::new("words").to::<Counter>(), |word, out| out.send(Counter::at(&word.text), word))
///     .egress(&COUNTS);
/// # let _ = app;
/// ```
pub struct App {
    spec: ProgramSpec,
    bindings: Vec<Binding>,
    settings: Settings,
    origins: Origins,
    at_end: Option<AtEnd>,
}

impl App {
    /// An empty app; its name is kept with its data, so that no other app opens them.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let spec = ProgramSpec { app: name.to_owned(), ..ProgramSpec::default() };
        Self { spec, bindings: Vec::new(), settings: Settings::default(), origins: Origins::default(), at_end: None }
    }

    /// Registers a function.
    #[must_use]
    pub fn function<F: Function>(mut self) -> Self {
        self.spec.functions.push(FunctionSpec::of::<F>());
        self
    }

    /// Registers an activity, which functions call; see [`activity`](crate::activity).
    #[must_use]
    pub fn activity<A: Activity>(mut self) -> Self {
        self.spec.activities.push(ErasedActivity::of::<A>());
        self
    }

    /// Registers everything that a crate offers as a module.
    ///
    /// ```
    /// use statefn::{App, Module};
    /// fn shop() -> Module { Module::new() }
    /// let app = App::new("store").module(shop());
    /// # let _ = app;
    /// ```
    #[must_use]
    pub fn module(mut self, module: Module) -> Self {
        let Self { spec, bindings, .. } = module.parts;
        self.spec.functions.extend(spec.functions);
        self.spec.ingresses.extend(spec.ingresses);
        self.spec.egresses.extend(spec.egresses);
        self.spec.activities.extend(spec.activities);
        self.bindings.extend(bindings);
        self
    }

    /// Offers a value to every handler, which reads it by `ctx.resource::<R>()`.
    #[must_use]
    pub fn resource<R: Send + Sync + 'static>(mut self, resource: R) -> Self {
        self.spec.resources.insert(resource);
        self
    }

    /// Registers an ingress; `router` sends each record to any number of addresses.
    ///
    /// The router is asked again for the same record after a crash and must then give the same
    /// messages: it may read nothing but the record. A router that panics makes a dead letter.
    #[must_use]
    pub fn ingress<M: Message, L: 'static>(
        mut self,
        ingress: Ingress<M, L>,
        router: impl Fn(M, &mut Router<'_, L>) + Send + Sync + 'static,
    ) -> Self {
        self.spec.ingresses.push(ingress.spec());
        self.bindings.push(Box::new(ingress::bind(ingress, router)));
        self
    }

    /// Registers an egress; settings say where its records go.
    #[must_use]
    pub fn egress<T: Message>(mut self, egress: &'static Egress<T>) -> Self {
        self.spec.egresses.push(egress.declaration());
        self
    }

    /// Gives the settings that hold where neither file nor environment nor command line say otherwise.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, origins: Origins::default(), ..self }
    }

    /// Calls `at_end` when a run has ended because its input has.
    #[must_use]
    pub fn at_end(self, at_end: impl FnOnce(&Summary) + Send + 'static) -> Self {
        Self { at_end: Some(Box::new(at_end)), ..self }
    }

    /// The name of the app.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.app
    }

    /// The settings of the app itself, which are taken out of it.
    pub(crate) fn take_settings(&mut self) -> Settings {
        std::mem::take(&mut self.settings)
    }

    /// The settings as they are so far.
    pub(crate) fn peek_settings(&self) -> &Settings {
        &self.settings
    }

    /// Gives settings that did not all come from the app itself.
    pub(crate) fn settings_from(self, settings: Settings, origins: Origins) -> Self {
        Self { settings, origins, ..self }
    }

    /// The names that settings may speak of.
    pub(crate) fn names(&self) -> Names {
        let ingresses = self.spec.ingresses.iter().map(|ingress| ingress.name.to_owned()).collect();
        let egresses = self.spec.egresses.iter().map(|egress| egress.name).chain([DEAD_LETTERS]);
        let mut egresses: Vec<String> = egresses.map(str::to_owned).collect();
        egresses.sort();
        Names { ingresses, egresses }
    }

    /// Where its dead letters go.
    pub(crate) fn place_of_letters(&self) -> Option<Place> {
        crate::run::place_of_letters(&self.names(), &self.settings, &self.origins)
    }

    /// What a simulated world links itself.
    pub(crate) fn into_program(self) -> (ProgramSpec, Vec<Binding>) {
        (self.spec, self.bindings)
    }

    pub(crate) fn take_parts(self) -> Parts {
        let names = self.names();
        let linked = Program::link(self.spec).map(|program| Linked {
            ingresses: self.bindings.into_iter().map(|bind| bind(&program)).collect(),
            program,
        });
        Parts { linked, names, settings: self.settings, origins: self.origins, at_end: self.at_end }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App({})", self.spec.app)
    }
}

/// A set of functions, ingresses and egresses that an app takes as one.
#[derive(Debug)]
pub struct Module {
    parts: App,
}

impl Module {
    /// An empty module.
    #[must_use]
    pub fn new() -> Self {
        Self { parts: App::new("") }
    }

    /// Registers a function; see [`App::function`].
    #[must_use]
    pub fn function<F: Function>(self) -> Self {
        Self { parts: self.parts.function::<F>() }
    }

    /// Registers an activity; see [`App::activity`].
    #[must_use]
    pub fn activity<A: Activity>(self) -> Self {
        Self { parts: self.parts.activity::<A>() }
    }

    /// Registers an ingress; see [`App::ingress`].
    #[must_use]
    pub fn ingress<M: Message, L: 'static>(
        self,
        ingress: Ingress<M, L>,
        router: impl Fn(M, &mut Router<'_, L>) + Send + Sync + 'static,
    ) -> Self {
        Self { parts: self.parts.ingress(ingress, router) }
    }

    /// Registers an egress; see [`App::egress`].
    #[must_use]
    pub fn egress<T: Message>(self, egress: &'static Egress<T>) -> Self {
        Self { parts: self.parts.egress(egress) }
    }
}

impl Default for Module {
    fn default() -> Self {
        Self::new()
    }
}

/// What an app is made of.
pub(crate) struct Parts {
    pub(crate) linked: Result<Linked, LinkError>,
    pub(crate) names: Names,
    pub(crate) settings: Settings,
    pub(crate) origins: Origins,
    pub(crate) at_end: Option<AtEnd>,
}

/// A program and its ingresses, in the program's order.
pub(crate) struct Linked {
    pub(crate) program: Arc<Program>,
    pub(crate) ingresses: Vec<Arc<dyn ErasedIngress>>,
}
